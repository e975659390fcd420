//! Complete passes, and what the target is told after one: a target counts as filled only when it
//! has recorded so itself.

use lockstep_model::sync::DeliveryState;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::relay::Offered;
use super::removal::Removed;
use super::{Done, Worker};
use crate::cursor::Cursor;
use crate::data::header::{Answer, Header, Mark, Op};
use crate::data::mark;
use crate::deliver::{Pending, Source};
use crate::rsync::exit::Exit;
use crate::rsync::{Form, Power, Scope};

impl Worker {
    /// None when stopped.
    pub(super) async fn pass(
        &mut self,
        delete: bool,
        source: &Source,
        progress: Option<&mpsc::Sender<String>>,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let state =
            if self.cursor.filled { DeliveryState::Syncing } else { DeliveryState::Filling };
        // Changes told from now on are delivered after it.
        let mut taken = self.shared.pending().take();
        self.begin(state, &taken);
        self.move_ahead(delete, &mut taken, stop).await?;
        let engine = self.context.engine.clone();
        let done = match self.turn(&engine.passes, stop).await {
            Some(turn) => turn.spend(self.bring_all(delete, progress, stop)).await,
            None => None,
        };
        let done = match done {
            Some(Done::Through) => tokio::select! {
                () = stop.cancelled() => None,
                declared = self.declare_and_tell() => Some(declared),
            },
            // What it brought was brought, whatever stays too much.
            Some(Done::Held) if self.cursor.filled => tokio::select! {
                () = stop.cancelled() => None,
                told = self.tell_pass() => Some(match told {
                    Done::Through => Done::Held,
                    failed => failed,
                }),
            },
            other => other,
        };
        match done {
            Some(Done::Through) => {
                let is_fill = !self.cursor.filled;
                self.late = Pending::default();
                self.added = false;
                self.shared.status().doubtful &= !delete;
                self.save(Cursor { acked: taken.upto(), full: false, filled: true }).await;
                self.moved_upto = Some(taken.upto());
                self.context.remember(source).await;
                if is_fill {
                    // Without a turn of its own: behind other fills, changes would wait for it.
                    self.count_others(stop).await;
                }
            }
            // It holds the rest, and the next pass will find what is to be removed.
            Some(Done::Held) if self.cursor.filled => {
                self.save(Cursor { acked: taken.upto(), full: true, ..self.cursor }).await;
            }
            _ => self.shared.pending().put_back(taken),
        }
        done
    }

    async fn declare_and_tell(&mut self) -> Done {
        match self.declare_filled().await {
            Done::Through => self.tell_pass().await,
            failed => failed,
        }
    }

    /// A run with the power to remove only where there is something to be removed.
    async fn bring_all(
        &mut self,
        delete: bool,
        progress: Option<&mpsc::Sender<String>>,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let bare = Form { scope: Scope::Pass, delete, power: Power::Nothing };
        let ended = if delete {
            self.remove(Scope::Pass, delete, &[], progress, stop).await?
        } else {
            let ended = self.transfer(bare, &[], progress, stop).await?;
            match ended.blocked.is_empty() {
                true => Removed::Ran(ended),
                false => self.remove(Scope::Pass, delete, &[], progress, stop).await?,
            }
        };
        Some(match ended {
            Removed::Ran(ended) => match ended.exit {
                Exit::Ok if !ended.blocked.is_empty() => {
                    let why = "a directory on the target is in the way of a file";
                    Done::Failed(Exit::Partial, why.to_owned())
                }
                // What went away meanwhile was told to the journal as well.
                Exit::Ok | Exit::Vanished => Done::Through,
                _ => Done::Failed(ended.exit, ended.error),
            },
            Removed::Held => {
                if delete {
                    let ended = self.transfer(bare, &[], progress, stop).await?;
                    if !matches!(ended.exit, Exit::Ok | Exit::Vanished | Exit::Partial) {
                        return Some(Done::Failed(ended.exit, ended.error));
                    }
                }
                Done::Held
            }
            Removed::Lost(why) => Done::Failed(Exit::Transient, why),
        })
    }

    /// A new target that was filled by other means.
    pub(super) async fn adopt(&mut self) -> Option<Instant> {
        let taken = self.shared.pending().take();
        match self.offer().await? {
            Offered::Taken => {}
            Offered::Changed => {
                self.shared.pending().put_back(taken);
                return Some(Instant::now());
            }
            Offered::Refused(why) => {
                self.shared.pending().put_back(taken);
                return self.wait_refused(why);
            }
        }
        match self.declare_filled().await {
            Done::Through => {
                self.added = false;
                self.save(Cursor { acked: taken.upto(), full: false, filled: true }).await;
                Some(Instant::now())
            }
            Done::Failed(exit, error) => {
                self.shared.pending().put_back(taken);
                self.complain(error);
                self.passes.fail(exit);
                None
            }
            Done::Left(..) | Done::Held => None,
        }
    }

    /// The target must know before the source counts it as filled, if it can know anything.
    pub(super) async fn declare_filled(&mut self) -> Done {
        let at = (self.context.engine.now)();
        let changed = self.shared.status().unmarked;
        let acked = self.shared.place(self.context.place());
        match self.mark(Mark { filled: true, changed, acked, at, lag: None }).await {
            Ok(Answer::Go) => Done::Through,
            Ok(Answer::Unfilled) => {
                Done::Failed(Exit::Transient, "the target did not record its fill".to_owned())
            }
            Ok(Answer::Refused(why)) => Done::Failed(Exit::Config, why),
            Err(why) => Done::Failed(Exit::Transient, why),
        }
    }

    pub(super) async fn mark(&mut self, what: Mark) -> Result<Answer, String> {
        let answer = match self.to.agent() {
            None => Ok(Answer::Go),
            Some(peer) => {
                let header = Header { sync: self.context.sync.clone(), op: Op::Mark(what) };
                mark(&*self.context.engine.dial, peer, &header).await
            }
        };
        if let Ok(Answer::Go | Answer::Unfilled) = answer {
            self.shared.status().unmarked = false;
            self.shared.set_told_place(what.acked);
        }
        answer
    }

    /// A target that lost what it had gets everything again.
    pub(super) async fn remind(&mut self) {
        if !self.cursor.filled {
            return;
        }
        let at = (self.context.engine.now)();
        let changed = self.shared.status().unmarked;
        let acked = self.shared.place(self.context.place());
        let what = Mark { filled: false, changed, acked, at, lag: None };
        let stop = self.stop.clone();
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = self.mark(what) => answer,
        };
        if let Ok(Answer::Unfilled) = answer {
            self.refill().await;
        }
    }
}
