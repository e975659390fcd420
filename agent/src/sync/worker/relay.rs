//! A tree, in which targets feed others. A target hears before a delivery how far its feeder is, and
//! refuses one that is behind it; it is told what was brought to it before its cursor moves, so that
//! after a crash in between it is brought and told again; and what may be removed on it may behind it.

use lockstep_model::sync::DeliveryState;
use lockstep_model::task::Peer;
use lockstep_model::{Millis, Timestamp};
use tokio::time::Instant;

use super::{Done, HELD_RETRY, Worker};
use crate::cursor::Cursor;
use crate::data::header::{Answer, Header, Offer, Op};
use crate::data::{changes, mark};
use crate::deliver::Pending;
use crate::journal::{Change, Changed, RelPath};
use crate::rsync::TOP;
use crate::rsync::exit::Exit;

/// What a target says to a delivery that is about to come.
pub(super) enum Offered {
    Taken,
    /// It is not as it was thought to be.
    Changed,
    /// Not by this feeder, not now.
    Refused(String),
}

/// Removals that a person let go on the target, until it has heard so.
#[derive(Clone, Copy)]
pub struct Allowed {
    pub entries: u64,
    pub at: Timestamp,
}

impl Worker {
    /// A target that may feed others, now or later.
    fn in_tree(&self) -> Option<Peer> {
        self.to.agent().filter(|_| self.context.options().is_tree).cloned()
    }

    /// Asks the target before a delivery, outside of a tree before the first: others may have fed it
    /// until now. None when stopped.
    pub(super) async fn offer(&mut self) -> Option<Offered> {
        let is_asked = self.context.options().is_tree || !self.cursor.filled;
        let Some(peer) = self.to.agent().filter(|_| is_asked).cloned() else {
            return Some(Offered::Taken);
        };
        let feeder = self.context.place();
        let (has, upto) = match feeder {
            Some(place) => place.offer(),
            None => (Offer::ALL, self.shared.pending().upto()),
        };
        let target_has = self.shared.place(feeder);
        let offer = Offer { has, upto, target_has };
        let header = Header { sync: self.context.sync.clone(), op: Op::Offer(offer) };
        let stop = self.stop.clone();
        let answer = tokio::select! {
            () = stop.cancelled() => return None,
            answer = mark(&*self.context.engine.dial, &peer, &header) => answer,
        };
        if let Ok(Answer::Go | Answer::Unfilled) = answer {
            self.shared.set_told_place(target_has);
        }
        Some(match answer {
            // Another fed it until now: it is compared, and what is there too much may go.
            Ok(Answer::Go) if !self.cursor.filled => {
                self.save(Cursor { full: true, filled: true, ..self.cursor }).await;
                Offered::Changed
            }
            Ok(Answer::Unfilled) if self.cursor.filled => {
                self.refill().await;
                Offered::Changed
            }
            Ok(Answer::Go | Answer::Unfilled) => Offered::Taken,
            Ok(Answer::Refused(why)) | Err(why) => Offered::Refused(why),
        })
    }

    /// Whether the target is further than it knows, and no delivery is about to tell it.
    pub(super) fn owes_place(&self) -> bool {
        if self.in_tree().is_none() || self.shared.pending().oldest_at().is_some() {
            return false;
        }
        let place = self.shared.place(self.context.place());
        place > 0 && place != self.shared.told_place()
    }

    /// The target waits for another feeder, or until this one has caught up.
    pub(super) fn wait_refused(&self, why: String) -> Option<Instant> {
        tracing::debug!(sync = %self.context.sync, target = %self.to.node, why, "a delivery has to wait");
        let mut status = self.shared.status();
        status.state = DeliveryState::Failing;
        status.last_error = why;
        Some(Instant::now() + HELD_RETRY.into())
    }

    /// After a batch. `Through` where nobody feeds others.
    pub(super) async fn tell_batch(&mut self, brought: &Pending) -> Done {
        let changed = |(path, subtree): (&RelPath, bool)| Changed {
            path: if path.is_empty() { TOP.into() } else { path.clone() },
            subtree,
        };
        let change = Change::Batch(brought.paths().map(changed).collect());
        self.tell_change(brought.oldest_at(), change).await
    }

    /// After a pass.
    pub(super) async fn tell_pass(&mut self) -> Done {
        self.tell_change(None, Change::Full).await
    }

    async fn tell_change(&mut self, at: Option<Timestamp>, change: Change) -> Done {
        let Some(peer) = self.in_tree() else { return Done::Through };
        let at = at.unwrap_or((self.context.engine.now)());
        let told = match self.tell_allowed(&peer).await {
            Ok(()) => {
                let dial = &*self.context.engine.dial;
                changes::tell(dial, &peer, &self.context.sync, at, change).await
            }
            Err(why) => Err(why),
        };
        match told {
            Ok(()) => Done::Through,
            Err(why) => Done::Failed(Exit::Transient, why),
        }
    }

    /// Before it hears of the removals themselves.
    async fn tell_allowed(&mut self, peer: &Peer) -> Result<(), String> {
        let now = (self.context.engine.now)();
        let window = self.context.options().limit.map_or(Millis(0), |limit| limit.window);
        let Some(allowed) = self.allowed.filter(|allowed| now.since(allowed.at) < window) else {
            return Ok(());
        };
        let op = Op::Allow { entries: allowed.entries };
        let header = Header { sync: self.context.sync.clone(), op };
        match mark(&*self.context.engine.dial, peer, &header).await? {
            Answer::Refused(why) => Err(why),
            Answer::Go | Answer::Unfilled => {
                self.allowed = None;
                Ok(())
            }
        }
    }

    /// What a person let go on this node may go on its targets.
    pub(super) async fn take_allowed(&mut self) {
        let engine = &self.context.engine;
        let total = engine.targets.standing(&self.context.sync).map_or(0, |(_, allowed)| allowed);
        let entries = total.saturating_sub(std::mem::replace(&mut self.heard_allowed, total));
        if entries > 0 {
            let at = (engine.now)();
            self.removals.allow(entries, at);
            self.save_removals().await;
            self.allowed = Some(Allowed { entries, at });
        }
    }
}
