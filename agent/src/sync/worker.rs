//! One target of a source: takes what the journal says, brings it over, records how far it is. One
//! delivery at a time; trouble with one target is nobody else's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::sync::DeliveryState;
use lockstep_model::task::{Outcome, OutcomeKind, Peer};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::look::{examine, list};
use super::shared::Shared;
use super::transfer::{Run, Transfer};
use crate::cursor::Cursor;
use crate::data::header::{Answer, Header, Mark, Op};
use crate::data::mark;
use crate::deliver::{Delivery, Lists, Pending, Source, next_delivery};
use crate::rsync::exit::{Exit, backoff};
use crate::rsync::{self, Form, Route};

/// How often a held delivery looks whether its cause is gone.
const HELD_RETRY: Millis = Millis(2000);
/// How long a cursor that could not be written waits.
const SAVE_RETRY: Millis = Millis(2000);
/// How often an idle target is told how far it is, and asked whether it still is filled.
const MARK_INTERVAL: Duration = Duration::from_secs(30);

/// An ordered pass.
pub struct Order {
    pub progress: mpsc::Sender<String>,
    pub cancel: CancellationToken,
    pub done: oneshot::Sender<Outcome>,
}

/// When something that failed is tried again.
#[derive(Default)]
struct Retry {
    failures: u32,
    at: Option<Instant>,
    /// From when on new changes may bring the next try forward.
    hasten_at: Option<Instant>,
}

impl Retry {
    fn fail(&mut self, exit: Exit) {
        self.failures = self.failures.saturating_add(1);
        let now = Instant::now();
        self.at = Some(now + backoff(exit, self.failures).into());
        // One name that cannot be written must not hold the others up.
        self.hasten_at = (exit == Exit::Partial).then(|| now + backoff(exit, 1).into());
    }

    fn hasten(&mut self) {
        self.at = [self.at, self.hasten_at].into_iter().flatten().min();
    }

    fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at <= Instant::now())
    }
}

pub struct Worker {
    pub context: Arc<Context>,
    pub peer: Peer,
    pub shared: Arc<Shared>,
    pub cursor: Cursor,
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
            let next = if may_start { self.step(&mut batches, &mut passes).await } else { None };
            self.context.changed.notify_one();
            let now = Instant::now();
            let retries = [batches.at, passes.at].into_iter().flatten().filter(|at| *at > now);
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

    /// None when stopped.
    async fn batch(&mut self, delete: bool, source: &Source) -> Option<Done> {
        let taken = self.begin(DeliveryState::Syncing);
        let lists = list(&self.context, taken.clone()).await;
        let stop = self.stop.clone();
        let done = self.send_lists(delete, &lists, &stop).await;
        if let Some(Done::Through) = done {
            self.save(Cursor { acked: taken.upto(), ..self.cursor }).await;
            self.context.remember(source).await;
        } else {
            self.shared.pending().put_back(taken);
        }
        done
    }

    async fn send_lists(
        &mut self,
        delete: bool,
        lists: &Lists,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let _permit = permit(&self.context.engine.batches, stop).await?;
        let forms =
            [(Form::Batch { delete }, &lists.names), (Form::Subtrees { delete }, &lists.subtrees)];
        for (form, names) in forms.into_iter().filter(|(_, names)| !names.is_empty()) {
            let input = rsync::list(names.iter().map(|name| &**name));
            let ended = self.transfer(form, Some(input), None, stop).await?;
            if ended.exit != Exit::Ok {
                return Some(Done::Failed(ended.exit, ended.error));
            }
        }
        Some(Done::Through)
    }

    /// None when stopped.
    async fn pass(
        &mut self,
        delete: bool,
        source: &Source,
        progress: Option<&mpsc::Sender<String>>,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let state =
            if self.cursor.filled { DeliveryState::Syncing } else { DeliveryState::Filling };
        // Changes told from now on are delivered after it.
        let taken = self.begin(state);
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
            self.context.remember(source).await;
        } else {
            self.shared.pending().put_back(taken);
        }
        done
    }

    /// The target must know before the source counts it as filled.
    async fn declare_filled(&self, acked: u64) -> Done {
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

    async fn mark(&self, what: Mark) -> Result<Answer, String> {
        let header = Header { sync: self.context.sync.clone(), op: Op::Mark(what) };
        let answer = mark(&*self.context.engine.dial, &self.peer, &header).await;
        if let Ok(Answer::Go | Answer::Unfilled) = answer {
            self.shared.status().unmarked = false;
        }
        answer
    }

    /// A target that lost what it had gets everything again.
    async fn remind(&mut self) {
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

    /// An ordered pass runs at once, whatever the backoff says; it also accepts the file system
    /// that the source is on now.
    async fn carry_out(&mut self, order: Order, passes: &mut Retry) {
        let Order { progress, cancel, done } = order;
        let sync = self.context.sync.clone();
        self.take_full().await;
        let mut facts = examine(&self.context, true).await;
        facts.known_device = None;
        let wanted = Cursor { full: true, ..self.cursor };
        let policy = self.context.options().delete;
        let delivery = next_delivery(&wanted, &self.shared.pending(), policy, &facts);
        let outcome = match delivery {
            _ if cancel.is_cancelled() => Outcome::new(OutcomeKind::Cancelled, "cancelled"),
            Delivery::Pass { delete } => {
                self.context.forget_device();
                let either = self.stop.child_token();
                let watch_cancel = {
                    let (cancel, either) = (cancel.clone(), either.clone());
                    async move {
                        cancel.cancelled().await;
                        either.cancel();
                        std::future::pending::<Option<Done>>().await
                    }
                };
                let ended = tokio::select! {
                    biased;
                    ended = self.pass(delete, &facts.source, Some(&progress), &either) => ended,
                    ended = watch_cancel => ended,
                };
                match ended {
                    Some(ended) => {
                        let outcome = match &ended {
                            Done::Through => Outcome::ok(),
                            Done::Failed(_, error) => {
                                Outcome::new(OutcomeKind::Failed, error.clone())
                            }
                        };
                        self.settle(passes, ended).await;
                        outcome
                    }
                    None if cancel.is_cancelled() => {
                        self.shared.status().state = DeliveryState::Dirty;
                        Outcome::new(OutcomeKind::Cancelled, "cancelled")
                    }
                    None => Outcome::new(OutcomeKind::Interrupted, format!("{sync} was stopped")),
                }
            }
            Delivery::Held { why } => Outcome::new(OutcomeKind::Failed, why),
            Delivery::Batch { .. } | Delivery::Ack | Delivery::Nothing => {
                Outcome::new(OutcomeKind::Failed, "nothing was to be done")
            }
        };
        let _ = done.send(outcome);
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

    async fn transfer(
        &self,
        form: Form,
        input: Option<Vec<u8>>,
        progress: Option<&mpsc::Sender<String>>,
        stop: &CancellationToken,
    ) -> Option<Transfer> {
        let engine = &self.context.engine;
        let route = Route {
            source: &self.context.source,
            sync: &self.context.sync,
            peer: &self.peer,
            agent: &engine.settings.agent,
            data_dir: &engine.settings.data_dir,
            excludes: &self.context.excludes_file,
        };
        let run = Run {
            host: &engine.host,
            rsync: &engine.settings.rsync,
            args: rsync::argv(&route, form),
            input,
            progress,
        };
        let ended = run.complete(stop).await?;
        let mut status = self.shared.status();
        status.sent_bytes += ended.sent_bytes;
        // Also one that failed may have brought something.
        status.unmarked = true;
        drop(status);
        Some(ended)
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
                self.shared.status().acked = cursor.acked;
                true
            }
            Err(error) => {
                let file = self.cursor_file.display();
                tracing::error!(%file, %error, "cannot write the cursor");
                self.shared.status().last_error = format!("cannot write {file}: {error}");
                self.cursor = Cursor { acked: self.cursor.acked, ..cursor };
                false
            }
        }
    }
}

async fn permit<'a>(
    of: &'a Semaphore,
    stop: &CancellationToken,
) -> Option<tokio::sync::SemaphorePermit<'a>> {
    tokio::select! {
        () = stop.cancelled() => None,
        permit = of.acquire() => permit.ok(),
    }
}
