//! What moved on the source moves on the target ahead of a delivery, so that the delivery finds it
//! in its place and sends no content. It gives up quietly: the delivery is right without it.

use lockstep_model::task::Peer;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::data::ask;
use crate::data::header::{Answer, Header, Op};
use crate::deliver::Pending;
use crate::index::Kind;
use crate::index::absorb::Move;
use crate::moves::{MovesError, Told, tell};
use crate::rsync::exclude::Excludes;

impl Worker {
    /// Adds to `taken` what has to be compared afterwards. None when stopped.
    pub(super) async fn move_ahead(
        &mut self,
        delete: bool,
        taken: &mut Pending,
        stop: &CancellationToken,
    ) -> Option<()> {
        let after = self.moved_upto.filter(|_| self.cursor.filled);
        let (Some(after), Some(peer)) = (after, self.to.agent()) else { return Some(()) };
        let mut moves = self.context.trail.between(after, taken.upto());
        moves.retain(|a| may_move(a, &self.context.options().excludes));
        // Where nothing may go, an old name stays beside the new one.
        if !delete || !self.context.options().delete.in_batches() || moves.is_empty() {
            self.moved_upto = Some(taken.upto());
            return Some(());
        }
        let told = tokio::select! {
            () = stop.cancelled() => {
                self.shared.pending().put_back(std::mem::take(taken));
                return None;
            }
            told = self.tell(peer, &moves) => told,
        };
        let (sync, target) = (&self.context.sync, &self.to.node);
        match told {
            // It was not reached; what moved may be told with the next try.
            Err(why) => {
                tracing::debug!(%sync, %target, why, "cannot tell what moved");
                return Some(());
            }
            Ok(Ok(told)) => {
                tracing::debug!(%sync, %target, ?told, "told what moved");
                let mut status = self.shared.status();
                status.sent_bytes += told.sent_bytes;
                status.unmarked |= told.applied > 0;
                if told.applied > 0 {
                    compare(&moves, taken);
                }
            }
            // Some of it may have come through.
            Ok(Err(error)) => {
                tracing::warn!(%sync, %target, %error, "cannot tell what moved");
                self.shared.status().unmarked = true;
                compare(&moves, taken);
            }
        }
        // Never told twice: two directories that changed places would change back.
        self.moved_upto = Some(taken.upto());
        Some(())
    }

    /// The outer error when nothing was told.
    async fn tell(&self, peer: &Peer, moves: &[Move]) -> Result<Result<Told, MovesError>, String> {
        let mut stream = self.context.engine.dial.dial(peer).await?;
        let header = Header { sync: self.context.sync.clone(), op: Op::Move };
        match ask(&mut stream, &header).await? {
            Answer::Go => Ok(tell(&mut stream, moves).await),
            Answer::Unfilled => Err("it is not filled".to_owned()),
            Answer::Refused(why) => Err(why),
        }
    }
}

/// What filters leave out is touched nowhere, neither by name nor with a directory it is in.
fn may_move(a: &Move, excludes: &Excludes) -> bool {
    let is_dir = a.kind == Kind::Directory;
    let left_out = |path: &[u8]| excludes.cover(path, is_dir);
    !(left_out(&a.from) || left_out(&a.to) || a.has_directory() && excludes.has_filters())
}

fn compare(moves: &[Move], taken: &mut Pending) {
    for a in moves {
        for path in [&a.from, &a.to] {
            taken.include(path.clone(), a.has_directory());
            // Directories above were made, or got another time.
            for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
                taken.include(path[..at].into(), false);
            }
        }
    }
}
