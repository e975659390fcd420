//! One target of a source: takes what the journal says, brings it over, records how far it is. One
//! delivery at a time; trouble with one target is nobody else's.

mod ahead;
mod batch;
mod below;
mod lag;
mod order;
mod pass;
mod relay;
mod removal;
mod retry;
mod run;
mod turn;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::sync::DeliveryState;
use lockstep_model::sync::options::Initial;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::look::examine;
use super::reach::Reach;
use super::shared::Shared;
use crate::cursor::Cursor;
use crate::deliver::{Delivery, Pending, Source, next_delivery};
use crate::guard::Removals;
use crate::rsync::exit::Exit;
pub use order::{Order, Task};
use relay::{Allowed, Offered};
use removal::removals_file;
use retry::Retry;

/// How often a held delivery looks whether its cause is gone.
const HELD_RETRY: Millis = Millis(2000);
/// How often removals that are held are counted again, in case the source was repaired.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(600);
/// How long a cursor that could not be written waits.
const SAVE_RETRY: Millis = Millis(2000);
/// How often an idle target is told how far it is, and asked whether it still is filled.
const MARK_INTERVAL: Duration = Duration::from_secs(30);

/// Removes what a worker keeps on disk of its target.
pub fn forget(cursor_file: &Path) {
    let _ = fs::remove_file(cursor_file);
    let _ = fs::remove_file(removals_file(cursor_file));
}

/// Everything that brings one target up to date.
pub struct Worker {
    context: Arc<Context>,
    to: Reach,
    shared: Arc<Shared>,
    cursor: Cursor,
    cursor_file: PathBuf,
    /// The target is as complete as this sequence says, or was told what moved up to it; None when
    /// it lacks something.
    moved_upto: Option<u64>,
    /// Passes read all files on both sides, whatever they look like.
    by_content: bool,
    /// No cursor was there: the target was just added.
    added: bool,
    removals: Removals,
    /// Paths that failed or are held, apart from the rest: nothing is acknowledged while there are
    /// any.
    late: Pending,
    lates: Retry,
    batches: Retry,
    passes: Retry,
    /// Removals let go here, of which the target has not heard.
    allowed: Option<Allowed>,
    /// Removals let go on this node, as it had heard.
    heard_allowed: u64,
    orders: mpsc::Receiver<Order>,
    stop: CancellationToken,
}

#[derive(Clone, Copy)]
enum Kind {
    Batch,
    Pass,
}

/// How a delivery ended that was not stopped.
enum Done {
    Through,
    /// All but some names, which wait apart.
    Left(Exit, String),
    /// Removals wait for a person.
    Held,
    Failed(Exit, String),
}

impl Worker {
    pub fn new(
        context: Arc<Context>,
        to: Reach,
        shared: Arc<Shared>,
        cursor: Cursor,
        cursor_file: PathBuf,
        orders: mpsc::Receiver<Order>,
        stop: CancellationToken,
    ) -> Self {
        let seed =
            to.node.as_str().bytes().fold(0, |seed: u64, b| seed.rotate_left(7) ^ u64::from(b));
        let added = !cursor_file.exists();
        let removals = match added {
            true => Removals::default(),
            false => Removals::load(&removals_file(&cursor_file)),
        };
        let standing = context.engine.targets.standing(&context.sync);
        Self {
            context,
            to,
            shared,
            moved_upto: (cursor.filled && !cursor.full).then_some(cursor.acked),
            by_content: false,
            cursor,
            cursor_file,
            added,
            removals,
            late: Pending::default(),
            lates: Retry::new(seed),
            batches: Retry::new(!seed),
            passes: Retry::new(seed.wrapping_mul(3)),
            allowed: None,
            heard_allowed: standing.map_or(0, |(_, allowed)| allowed),
            orders,
            stop,
        }
    }

    /// Runs until it is stopped; then no process of its is left.
    pub async fn run(mut self) {
        if let Some(peer) = self.to.agent().cloned() {
            let (context, shared) = (self.context.clone(), self.shared.clone());
            tokio::spawn(below::hear(
                context.clone(),
                peer.clone(),
                shared.clone(),
                self.stop.clone(),
            ));
            tokio::spawn(lag::tell(context, peer, shared, self.stop.clone()));
        }
        let mut next_mark = Instant::now() + MARK_INTERVAL;
        let mut gate = self.shared.gate.subscribe();
        let mut options = self.context.options.subscribe();
        loop {
            let paused = options.borrow_and_update().paused;
            let may_start = *gate.borrow_and_update();
            let before = Instant::now();
            let next = match (paused, may_start) {
                (true, _) => {
                    self.shared.status().state = DeliveryState::Paused;
                    None
                }
                (false, true) => self.step().await,
                (false, false) => None,
            };
            let tells_at_once = self.context.options().tells_at_once;
            if tells_at_once && self.shared.owes_mark() || self.owes_place() {
                self.remind().await;
            }
            self.note_waiting();
            // What became due during the step was not seen by it.
            let retries = [self.batches.at, self.passes.at, self.lates.at];
            let retries = retries.into_iter().flatten().filter(|at| *at > before && !paused);
            let until = retries.chain(next).chain([next_mark]).min().unwrap_or(next_mark);
            tokio::select! {
                () = self.stop.cancelled() => return,
                Some(order) = self.orders.recv() => self.carry_out(order).await,
                () = self.shared.wake.notified() => self.batches.hasten(),
                () = self.shared.placed.notified() => {}
                changed = options.changed() => if changed.is_err() { return },
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
    async fn step(&mut self) -> Option<Instant> {
        if self.added && self.context.options().initial == Initial::Skip && !self.cursor.filled {
            return self.adopt().await;
        }
        self.take_full().await;
        self.take_allowed().await;
        self.reconsider();
        let facts = examine(&self.context, self.passes.is_due()).await;
        let policy = self.context.options().delete;
        let delivery = next_delivery(&self.cursor, &self.shared.pending(), policy, &facts);
        match delivery {
            Delivery::Nothing => {
                self.rest().await;
                None
            }
            Delivery::Held { why } => {
                let mut status = self.shared.status();
                status.state = DeliveryState::Held;
                status.last_error = why;
                Some(Instant::now() + HELD_RETRY.into())
            }
            Delivery::Batch { .. } if !self.batches.is_due() => None,
            Delivery::Ack if self.late.has_paths() => None,
            Delivery::Ack => {
                let upto = self.shared.pending().take().upto();
                let saved = self.save(Cursor { acked: upto, ..self.cursor }).await;
                let pause = if saved { Millis(0) } else { SAVE_RETRY };
                Some(Instant::now() + pause.into())
            }
            Delivery::Batch { .. } | Delivery::Pass { .. } => match self.offer().await? {
                Offered::Taken => self.deliver(delivery, &facts.source).await,
                Offered::Changed => Some(Instant::now()),
                Offered::Refused(why) => self.wait_refused(why),
            },
        }
    }

    async fn deliver(&mut self, delivery: Delivery, source: &Source) -> Option<Instant> {
        let (kind, done) = match delivery {
            Delivery::Batch { delete } => (Kind::Batch, self.batch(delete, source).await?),
            Delivery::Pass { delete } => {
                let stop = self.stop.clone();
                (Kind::Pass, self.pass(delete, source, None, &stop).await?)
            }
            Delivery::Nothing | Delivery::Held { .. } | Delivery::Ack => return None,
        };
        self.settle(kind, done).await
    }

    /// Nothing is to be done right now.
    async fn rest(&mut self) {
        if self.late.has_paths() || !self.cursor.is_complete() {
            return;
        }
        if self.removals.hold().is_some() {
            self.removals.drop_hold();
            self.save_removals().await;
        }
        let mut status = self.shared.status();
        status.state = DeliveryState::Idle;
        status.held_since = None;
        status.last_error.clear();
    }

    /// What waits apart goes with the rest again when its time has come, or when a changed limit
    /// holds it no more.
    fn reconsider(&mut self) {
        let options = self.context.options();
        if self.removals.is_outgrown(options.limit.as_ref(), (self.context.engine.now)()) {
            self.removals.drop_hold();
            self.lates.reset();
            self.passes.reset();
        }
        if self.late.has_paths() && self.lates.is_due() {
            let late = std::mem::take(&mut self.late);
            self.shared.pending().put_back(late);
        }
    }

    async fn settle(&mut self, kind: Kind, done: Done) -> Option<Instant> {
        let options = self.context.options();
        let retry = match kind {
            Kind::Batch => &mut self.batches,
            Kind::Pass => &mut self.passes,
        };
        match done {
            Done::Through => {
                retry.reset();
                if !self.late.has_paths() {
                    self.lates.reset();
                }
                let mut status = self.shared.status();
                status.last_success_at = Some((self.context.engine.now)());
                if self.cursor.full || self.late.has_paths() {
                    return Some(Instant::now());
                }
                status.state = DeliveryState::Idle;
                status.last_error.clear();
                status.held_since = None;
                Some(Instant::now())
            }
            Done::Left(exit, error) => {
                retry.reset();
                self.lates.fail(exit);
                self.complain(error);
                Some(Instant::now())
            }
            Done::Held => {
                match kind {
                    // The rest of a batch has arrived.
                    Kind::Batch => retry.reset(),
                    Kind::Pass => retry.postpone(RECOUNT_INTERVAL),
                }
                self.lates.postpone(RECOUNT_INTERVAL);
                let limit = options.limit.unwrap_or_default();
                let (sync, node) = (self.context.sync.as_str(), self.to.node.as_str());
                let why = self.removals.explain(&limit, sync, node).unwrap_or_default();
                tracing::warn!(sync, target = node, why, "removals are held");
                let mut status = self.shared.status();
                status.state = DeliveryState::Held;
                status.last_error = why;
                Some(Instant::now())
            }
            Done::Failed(exit, error) => {
                retry.fail(exit);
                if exit == Exit::Unfilled {
                    self.refill().await;
                }
                self.complain(error);
                None
            }
        }
    }

    /// The target has lost what it had, and what was known of it counts no more.
    async fn refill(&mut self) {
        self.removals.forget_target();
        self.save_removals().await;
        self.save(Cursor { full: true, filled: false, ..self.cursor }).await;
    }

    fn complain(&self, error: String) {
        tracing::warn!(sync = %self.context.sync, target = %self.to.node, error, "a delivery failed");
        let mut status = self.shared.status();
        status.state = DeliveryState::Failing;
        status.last_error = error;
    }

    fn note_waiting(&self) {
        self.shared.note_tried(self.late.count());
        self.context.changed.notify_one();
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

    fn begin(&self, state: DeliveryState, taken: &Pending) {
        let mut status = self.shared.status();
        status.state = state;
        status.held_since = [status.held_since, taken.oldest_at()].into_iter().flatten().min();
        drop(status);
        self.context.changed.notify_one();
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
