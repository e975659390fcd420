//! A target that feeds others is told what was brought to it before its cursor moves: after a crash
//! in between it is brought and told again.

use lockstep_model::Timestamp;

use super::{Done, Worker};
use crate::data::changes;
use crate::deliver::Pending;
use crate::journal::{Change, Changed, RelPath};
use crate::rsync::TOP;
use crate::rsync::exit::Exit;

impl Worker {
    /// After a batch. `Through` for a target that feeds nobody.
    pub(super) async fn tell_batch(&self, brought: &Pending) -> Done {
        let changed = |(path, subtree): (&RelPath, bool)| Changed {
            path: if path.is_empty() { TOP.into() } else { path.clone() },
            subtree,
        };
        let change = Change::Batch(brought.paths().map(changed).collect());
        self.tell_change(brought.oldest_at(), change).await
    }

    /// After a pass.
    pub(super) async fn tell_pass(&self) -> Done {
        self.tell_change(None, Change::Full).await
    }

    async fn tell_change(&self, at: Option<Timestamp>, change: Change) -> Done {
        let relay = self.to.agent().filter(|peer| self.context.is_relay(&peer.node));
        let Some(relay) = relay else { return Done::Through };
        let at = at.unwrap_or((self.context.engine.now)());
        let dial = &*self.context.engine.dial;
        match changes::tell(dial, relay, &self.context.sync, at, change).await {
            Ok(()) => Done::Through,
            Err(why) => Done::Failed(Exit::Transient, why),
        }
    }
}
