//! One target of a source: takes what the journal says, brings it over, records how far it is. One
//! delivery at a time; trouble with one target is nobody else's.

mod ahead;
mod batch;
mod order;
mod pass;
mod retry;
mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::sync::DeliveryState;
use lockstep_model::task::Peer;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::look::examine;
use super::shared::Shared;
use crate::cursor::Cursor;
use crate::deliver::{Delivery, Pending, next_delivery};
use crate::rsync::exit::Exit;
pub use order::Order;
use retry::Retry;

/// How often a held delivery looks whether its cause is gone.
const HELD_RETRY: Millis = Millis(2000);
/// How long a cursor that could not be written waits.
const SAVE_RETRY: Millis = Millis(2000);
/// How often an idle target is told how far it is, and asked whether it still is filled.
const MARK_INTERVAL: Duration = Duration::from_secs(30);

/// Everything that brings one target up to date.
pub struct Worker {
    pub context: Arc<Context>,
    pub peer: Peer,
    pub shared: Arc<Shared>,
    pub cursor: Cursor,
    /// The target is as complete as this sequence says, or was told what moved up to it; None when
    /// it lacks something.
    pub moved_upto: Option<u64>,
    pub cursor_file: PathBuf,
    pub orders: mpsc::Receiver<Order>,
    pub stop: CancellationToken,
}

/// How a delivery ended that was not stopped.
enum Done {
    Through,
    Failed(Exit, String),
}

impl Worker {
    /// Runs until it is stopped; then no process of its is left.
    pub async fn run(mut self) {
        let mut batches = Retry::default();
        let mut passes = Retry::default();
        let mut next_mark = Instant::now() + MARK_INTERVAL;
        let mut gate = self.context.gate.subscribe();
        loop {
            let may_start = *gate.borrow_and_update();
            let before = Instant::now();
            let next = if may_start { self.step(&mut batches, &mut passes).await } else { None };
            if self.context.options().tells_at_once && self.shared.owes_mark() {
                self.remind().await;
            }
            self.context.changed.notify_one();
            // What became due during the step was not seen by it.
            let retries = [batches.at, passes.at].into_iter().flatten().filter(|at| *at > before);
            let until = retries.chain(next).chain([next_mark]).min().unwrap_or(next_mark);
            tokio::select! {
                () = self.stop.cancelled() => return,
                Some(order) = self.orders.recv() => {
                    self.carry_out(order, &mut passes).await;
                }
                () = self.shared.wake.notified() => batches.hasten(),
                changed = gate.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(until) => {}
            }
            if next_mark <= Instant::now() {
                next_mark = Instant::now() + MARK_INTERVAL;
                self.remind().await;
            }
        }
    }

    /// One decision and what follows from it; when to look again, if time alone may change it.
    async fn step(&mut self, batches: &mut Retry, passes: &mut Retry) -> Option<Instant> {
        self.take_full().await;
        let facts = examine(&self.context, passes.is_due()).await;
        let policy = self.context.options().delete;
        let delivery = next_delivery(&self.cursor, &self.shared.pending(), policy, &facts);
        let (retry, done) = match delivery {
            Delivery::Nothing => {
                let mut status = self.shared.status();
                if self.cursor.filled && !self.cursor.full {
                    status.state = DeliveryState::Idle;
                    status.held_since = None;
                    status.last_error.clear();
                }
                return None;
            }
            Delivery::Held { why } => {
                let mut status = self.shared.status();
                status.state = DeliveryState::Held;
                status.last_error = why;
                return Some(Instant::now() + HELD_RETRY.into());
            }
            Delivery::Batch { .. } if !batches.is_due() => return None,
            Delivery::Ack => {
                let upto = self.shared.pending().take().upto();
                let saved = self.save(Cursor { acked: upto, ..self.cursor }).await;
                let pause = if saved { Millis(0) } else { SAVE_RETRY };
                return Some(Instant::now() + pause.into());
            }
            Delivery::Batch { delete } => (batches, self.batch(delete, &facts.source).await?),
            Delivery::Pass { delete } => {
                let stop = self.stop.clone();
                (passes, self.pass(delete, &facts.source, None, &stop).await?)
            }
        };
        self.settle(retry, done).await
    }

    async fn settle(&mut self, retry: &mut Retry, done: Done) -> Option<Instant> {
        match done {
            Done::Through => {
                *retry = Retry::default();
                let mut status = self.shared.status();
                status.last_success_at = Some((self.context.engine.now)());
                status.state = DeliveryState::Idle;
                if !self.cursor.full {
                    status.last_error.clear();
                    status.held_since = None;
                }
                Some(Instant::now())
            }
            Done::Failed(exit, error) => {
                let sync = &self.context.sync;
                tracing::warn!(%sync, target = %self.peer.node, error, "a delivery failed");
                if exit == Exit::Unfilled {
                    self.save(Cursor { full: true, filled: false, ..self.cursor }).await;
                }
                retry.fail(exit);
                let mut status = self.shared.status();
                status.state = DeliveryState::Failing;
                status.last_error = error;
                None
            }
        }
    }

    /// A "full" moves from the pending set to the cursor, so that paths told after it still go
    /// over as batches while the pass waits for its next try.
    async fn take_full(&mut self) {
        let taken = {
            let mut pending = self.shared.pending();
            pending.is_full().then(|| pending.take())
        };
        let Some(taken) = taken else { return };
        {
            let mut status = self.shared.status();
            status.held_since = [status.held_since, taken.oldest_at()].into_iter().flatten().min();
        }
        self.save(Cursor { acked: taken.upto(), full: true, ..self.cursor }).await;
    }

    fn begin(&self, state: DeliveryState) -> Pending {
        let taken = self.shared.pending().take();
        let mut status = self.shared.status();
        status.state = state;
        status.held_since = [status.held_since, taken.oldest_at()].into_iter().flatten().min();
        drop(status);
        self.context.changed.notify_one();
        taken
    }

    /// When it cannot be written, `acked` stays as it is on disk: an `Ack` tries again, and after
    /// a restart more is sent than needed.
    async fn save(&mut self, cursor: Cursor) -> bool {
        if cursor == self.cursor {
            return true;
        }
        let file = self.cursor_file.clone();
        let saved = tokio::task::spawn_blocking(move || cursor.save(&file)).await;
        match saved.map_err(std::io::Error::other).and_then(|saved| saved) {
            Ok(()) => {
                self.cursor = cursor;
                self.shared.note(&self.cursor);
                true
            }
            Err(error) => {
                let file = self.cursor_file.display();
                tracing::error!(%file, %error, "cannot write the cursor");
                self.shared.status().last_error = format!("cannot write {file}: {error}");
                self.cursor = Cursor { acked: self.cursor.acked, ..cursor };
                self.shared.note(&self.cursor);
                false
            }
        }
    }
}
