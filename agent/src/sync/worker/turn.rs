//! Turns: so few deliveries at once that a node is not overrun. One that moves next to nothing costs
//! the node next to nothing, and gives its turn to others while it goes on: a dead slow target keeps
//! nobody waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::data::lane::Way;

/// How often it is looked how much a delivery has moved.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes within `LOOK_INTERVAL` that are worth a turn.
const WORTH_BYTES: u64 = 256 << 10;

/// A turn among the sync's transfers, whose number a person chose, and among the node's.
pub(super) struct Turn<'a> {
    _own: OwnedSemaphorePermit,
    node: SemaphorePermit<'a>,
    /// None for a target without an agent, of which nobody knows how fast it is.
    way: Option<Arc<Way>>,
}

impl Worker {
    /// None when stopped.
    pub(super) async fn turn<'a>(
        &self,
        of: &'a Semaphore,
        stop: &CancellationToken,
    ) -> Option<Turn<'a>> {
        let own = self.context.options().transfers.clone();
        let turn = async {
            let (_own, node) = (own.acquire_owned().await.ok()?, of.acquire().await.ok()?);
            let way = self.context.engine.lanes.find(&self.context.sync, &self.to.node);
            Some(Turn { _own, node, way })
        };
        tokio::select! {
            () = stop.cancelled() => None,
            turn = turn => turn,
        }
    }
}

impl Turn<'_> {
    /// Until `work` is done.
    pub async fn spend<T>(self, work: impl Future<Output = T>) -> T {
        let Self { _own, node, way } = self;
        let give_up = async {
            let sent = || way.as_ref().map_or(0, |way| way.meter.sent_bytes());
            let mut before = sent();
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let now = sent();
                if now.saturating_sub(before) < WORTH_BYTES {
                    break;
                }
                before = now;
            }
            drop(node);
            std::future::pending().await
        };
        tokio::select! {
            done = work => done,
            never = give_up => never,
        }
    }
}
