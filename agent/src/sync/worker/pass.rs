//! Complete passes, and what the target is told after one: a target counts as filled only when it
//! has recorded so itself.

use lockstep_model::sync::DeliveryState;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::run::permit;
use super::{Done, Worker};
use crate::cursor::Cursor;
use crate::data::header::{Answer, Header, Mark, Op};
use crate::data::mark;
use crate::deliver::Source;
use crate::rsync::Form;
use crate::rsync::exit::Exit;

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
        let mut taken = self.begin(state);
        self.move_ahead(delete, &mut taken, stop).await?;
        let done = match permit(&self.context.engine.passes, stop).await {
            Some(_permit) => {
                self.transfer(Form::Pass { delete }, None, progress, stop).await.map(|e| {
                    match e.exit {
                        // What went away meanwhile was told to the journal as well.
                        Exit::Ok | Exit::Vanished => Done::Through,
                        _ => Done::Failed(e.exit, e.error),
                    }
                })
            }
            None => None,
        };
        let done = match done {
            Some(Done::Through) => tokio::select! {
                () = stop.cancelled() => None,
                declared = self.declare_filled(taken.upto()) => Some(declared),
            },
            other => other,
        };
        if let Some(Done::Through) = done {
            self.save(Cursor { acked: taken.upto(), full: false, filled: true }).await;
            self.moved_upto = Some(taken.upto());
            self.context.remember(source).await;
        } else {
            self.shared.pending().put_back(taken);
        }
        done
    }

    /// The target must know before the source counts it as filled.
    pub(super) async fn declare_filled(&self, acked: u64) -> Done {
        let at = (self.context.engine.now)();
        let changed = self.shared.status().unmarked;
        match self.mark(Mark { filled: true, changed, acked, at }).await {
            Ok(Answer::Go) => Done::Through,
            Ok(Answer::Unfilled) => {
                Done::Failed(Exit::Transient, "the target did not record its fill".to_owned())
            }
            Ok(Answer::Refused(why)) => Done::Failed(Exit::Config, why),
            Err(why) => Done::Failed(Exit::Transient, why),
        }
    }

    pub(super) async fn mark(&self, what: Mark) -> Result<Answer, String> {
        let header = Header { sync: self.context.sync.clone(), op: Op::Mark(what) };
        let answer = mark(&*self.context.engine.dial, &self.peer, &header).await;
        if let Ok(Answer::Go | Answer::Unfilled) = answer {
            self.shared.status().unmarked = false;
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
        let what = Mark { filled: false, changed, acked: self.cursor.acked, at };
        let stop = self.stop.clone();
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = self.mark(what) => answer,
        };
        if let Ok(Answer::Unfilled) = answer {
            self.save(Cursor { full: true, filled: false, ..self.cursor }).await;
        }
    }
}
