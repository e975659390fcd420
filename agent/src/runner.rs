//! Runs tasks: one at a time in each slot, a newer one after the older one has no process left.
//! Every step is in the ledger before anybody hears of it. Tasks outlive the link to the
//! controller; what a task does is `Work`'s.

mod output;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lockstep_model::task::{Outcome, OutcomeKind, Slot, TaskPhase, TaskSpec};
use lockstep_model::{Millis, TaskId};
use lockstep_transport::telemetry;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::ledger::{Admission, Ledger, Offer, State};

pub use output::{OUTPUT_LINE_BYTES_MAX, OUTPUT_LINES_MAX, Output, Tail, one_line};

/// Most tasks at once that bring the node into a state; each is short.
const ENSURES_MAX: usize = 32;
/// Most complete passes at once; each may take hours.
const PASSES_MAX: usize = 4;
/// Of how many ended tasks the output is kept.
const OUTPUTS_MAX: usize = 64;

/// Carries out what a task says.
pub trait Work: Send + Sync + 'static {
    /// Ends soon after `stop`, and then leaves no process behind. Repeating it is harmless.
    fn carry_out(
        &self,
        spec: TaskSpec,
        stop: CancellationToken,
        output: Output,
    ) -> BoxFuture<'static, Outcome>;
}

/// What the controller is to hear of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    Live(TaskPhase),
    Ended(Outcome),
}

/// All tasks that are live, or whose outcome the controller has not acknowledged.
pub type Unsettled = BTreeMap<TaskId, News>;

/// Clones are the same runner.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

struct Shared {
    work: Arc<dyn Work>,
    books: Arc<Mutex<Books>>,
    /// The newest job of each slot, ended ones too.
    jobs: tokio::sync::Mutex<BTreeMap<Slot, Job>>,
    outputs: Mutex<Outputs>,
    ensures: Semaphore,
    passes: Semaphore,
    unsettled: watch::Sender<Arc<Unsettled>>,
    in_force: watch::Sender<Arc<[TaskSpec]>>,
}

/// The ledger, and what others see of it.
struct Books {
    ledger: Ledger,
    unsettled: watch::Sender<Arc<Unsettled>>,
    in_force: watch::Sender<Arc<[TaskSpec]>>,
    /// Of what was shown of it.
    shown: Option<u64>,
}

impl Books {
    fn publish(&mut self) {
        let unsettled = self.ledger.entries().filter_map(|entry| match &entry.state {
            State::Live(phase) => Some((entry.task.id, News::Live(*phase))),
            State::Ended { outcome, acked: false } => {
                Some((entry.task.id, News::Ended(outcome.clone())))
            }
            State::Ended { acked: true, .. } => None,
        });
        show(&self.unsettled, Arc::new(unsettled.collect()));
        // Thousands of mirrors are much to copy for each step of a task.
        if self.shown != Some(self.ledger.changes()) {
            self.shown = Some(self.ledger.changes());
            show(&self.in_force, self.ledger.in_force().cloned().collect());
        }
    }
}

fn show<T: PartialEq>(shown: &watch::Sender<T>, now: T) {
    shown.send_if_modified(|shown| {
        let changed = *shown != now;
        *shown = now;
        changed
    });
}

struct Job {
    id: TaskId,
    stop: Stop,
    done: JoinHandle<()>,
}

/// Why a job is to end before its time; the first reason counts.
#[derive(Clone, Default)]
struct Stop {
    token: CancellationToken,
    why: Arc<OnceLock<Why>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    Cancelled,
    Limit(Millis),
    /// A newer task takes the slot: nobody waits for this one's outcome.
    Superseded,
    /// The agent ends. The ledger keeps the task as it is, for the next start.
    Shutdown,
}

impl Stop {
    fn stop(&self, why: Why) {
        // An earlier reason stands.
        let _ = self.why.set(why);
        self.token.cancel();
    }
}

#[derive(Default)]
struct Outputs {
    of: BTreeMap<TaskId, Output>,
    ended: VecDeque<TaskId>,
}

impl Runner {
    /// Takes up what the ledger holds: accepted tasks are run, what was in the middle is repeated
    /// where that is harmless and interrupted otherwise.
    pub async fn start(ledger: Ledger, work: Arc<dyn Work>) -> Self {
        let open: Vec<(Offer, TaskPhase)> = ledger
            .entries()
            .filter_map(|entry| match &entry.state {
                State::Live(phase) => Some((entry.task.clone(), *phase)),
                State::Ended { .. } => None,
            })
            .collect();
        let (unsettled, in_force) = (watch::Sender::default(), watch::Sender::new(Arc::from([])));
        let (seen, held) = (unsettled.clone(), in_force.clone());
        let mut books = Books { ledger, unsettled: seen, in_force: held, shown: None };
        books.publish();
        let runner = Self {
            shared: Arc::new(Shared {
                work,
                books: Arc::new(Mutex::new(books)),
                jobs: tokio::sync::Mutex::default(),
                outputs: Mutex::default(),
                ensures: Semaphore::new(ENSURES_MAX),
                passes: Semaphore::new(PASSES_MAX),
                unsettled,
                in_force,
            }),
        };
        let mut jobs = runner.shared.jobs.lock().await;
        for (task, phase) in open {
            let repeatable = !task.spec.is_run();
            if repeatable || phase == TaskPhase::Accepted {
                runner.launch(&mut jobs, task);
            } else {
                let why =
                    "the agent ended in the middle; ask for another pass if it is still wanted";
                let outcome = Outcome::new(OutcomeKind::Interrupted, why);
                runner.shared.record_end(&task, outcome).await;
            }
        }
        drop(jobs);
        runner
    }

    /// What the controller is to hear, whenever it changes.
    pub fn unsettled(&self) -> watch::Receiver<Arc<Unsettled>> {
        self.shared.unsettled.subscribe()
    }

    /// What holds on this node, whenever it changes.
    pub fn in_force(&self) -> watch::Receiver<Arc<[TaskSpec]>> {
        self.shared.in_force.subscribe()
    }

    /// Takes a task in and answers what is to be said of it now.
    pub async fn offer(&self, offer: Offer) -> News {
        let mut jobs = self.shared.jobs.lock().await;
        let id = offer.id;
        let task = offer.clone();
        let phase = self.shared.first_phase(&task.spec, &jobs);
        let admitted = self.shared.on_disk(move |ledger| ledger.accept(offer, phase)).await;
        match admitted {
            Ok(Admission::New) => {
                tracing::info!(%id, slot = %task.spec.slot(), kind = task.spec.kind(), "task accepted");
                self.launch(&mut jobs, task);
                News::Live(phase)
            }
            Ok(Admission::Known(State::Live(phase))) => News::Live(phase),
            Ok(Admission::Known(State::Ended { outcome, .. })) => News::Ended(outcome),
            Ok(Admission::Stale { newest }) => {
                tracing::warn!(%id, %newest, "refused an older task than the slot has; is the controller's store an old copy?");
                let why = format!("task {newest} is newer and holds the slot on this node");
                News::Ended(Outcome::new(OutcomeKind::Superseded, why))
            }
            Err(e) => {
                tracing::error!(%id, error = %e, "cannot accept a task");
                News::Ended(Outcome::new(OutcomeKind::Failed, e.to_string()))
            }
        }
    }

    /// Ends a task. What is returned is to be said at once; None: its end will be told in time.
    pub async fn cancel(&self, id: TaskId) -> Option<News> {
        let jobs = self.shared.jobs.lock().await;
        let state = self.shared.on_disk(move |ledger| {
            ledger.entries().find(|entry| entry.task.id == id).map(|entry| entry.state.clone())
        });
        match state.await {
            Some(State::Ended { outcome, .. }) => Some(News::Ended(outcome)),
            Some(State::Live(_)) => {
                if let Some(job) = jobs.values().find(|job| job.id == id) {
                    job.stop.stop(Why::Cancelled);
                }
                None
            }
            None => {
                let why = "this node does not have the task";
                Some(News::Ended(Outcome::new(OutcomeKind::Cancelled, why)))
            }
        }
    }

    /// The controller has stored the outcome.
    pub async fn ack(&self, id: TaskId) {
        if let Err(e) = self.shared.on_disk(move |ledger| ledger.ack(id)).await {
            tracing::warn!(%id, error = %e, "cannot note that an outcome was acknowledged");
        }
    }

    /// None where nothing is kept of the task.
    pub fn tail(&self, id: TaskId, follow: bool) -> Option<Tail> {
        Some(self.shared.outputs().of.get(&id)?.tail(follow))
    }

    /// Stops all work and waits for it, at most so long. The ledger keeps the tasks.
    pub async fn shut_down(&self, patience: Duration) {
        let mut jobs = self.shared.jobs.lock().await;
        for job in jobs.values() {
            job.stop.stop(Why::Shutdown);
        }
        let all = async {
            for job in jobs.values_mut() {
                // A panic was told by the panic hook.
                let _ = (&mut job.done).await;
            }
        };
        if timeout(patience, all).await.is_err() {
            tracing::warn!("tasks did not stop in time; ending all the same");
        }
    }

    fn launch(&self, jobs: &mut BTreeMap<Slot, Job>, task: Offer) {
        let slot = task.spec.slot();
        let former = jobs.remove(&slot);
        if let Some(former) = &former {
            former.stop.stop(Why::Superseded);
        }
        let span = tracing::info_span!(
            "task", id = %task.id, %slot, kind = task.spec.kind(), attempt = task.attempt
        );
        telemetry::set_parent(&span, &task.traceparent);
        let (id, stop) = (task.id, Stop::default());
        let output = self.shared.open_output(id);
        let run = run(self.shared.clone(), former, task, stop.clone(), output);
        let done = tokio::spawn(run.instrument(span));
        jobs.insert(slot, Job { id, stop, done });
    }
}

/// One job from its place in the queue to its outcome.
async fn run(shared: Arc<Shared>, former: Option<Job>, task: Offer, stop: Stop, output: Output) {
    if let Some(former) = former {
        // Its end means that it has no process left; a panic was told by the panic hook.
        let _ = former.done.await;
    }
    let outcome = shared.carry_out(&task, &stop, &output).await;
    output.end();
    if let Some(outcome) = outcome {
        shared.record_end(&task, outcome).await;
    }
    shared.close_output(task.id);
}

impl Shared {
    /// A pull that begins at once is noted as begun with its acceptance: each write waits for the disk.
    fn first_phase(&self, spec: &TaskSpec, jobs: &BTreeMap<Slot, Job>) -> TaskPhase {
        let is_first = jobs.get(&spec.slot()).is_none_or(|job| job.done.is_finished());
        match spec {
            TaskSpec::MirrorPull(_) if is_first => TaskPhase::Running,
            _ => TaskPhase::Accepted,
        }
    }

    /// None: nobody is to be told.
    async fn carry_out(&self, task: &Offer, stop: &Stop, output: &Output) -> Option<Outcome> {
        let gate = match task.spec {
            TaskSpec::SyncResync { .. } | TaskSpec::SyncVerify(_) => Some(&self.passes),
            TaskSpec::SyncSource(_)
            | TaskSpec::SyncTarget(_)
            | TaskSpec::SyncRelease { .. }
            | TaskSpec::MirrorPlace(_)
            | TaskSpec::MirrorRelease(_) => Some(&self.ensures),
            // A seal or a fence waits for nothing.
            TaskSpec::ClusterPlace(_) | TaskSpec::ClusterRelease(_) | TaskSpec::ClusterAct(_) => {
                None
            }
            // They have a queue of their own, and tell of it.
            TaskSpec::MirrorPull(_) | TaskSpec::MirrorHooks(_) => None,
            // They only wait, or are over at once.
            TaskSpec::SyncUnhold { .. } | TaskSpec::SyncBarrier(_) => None,
        };
        let _permit = match gate {
            None => None,
            Some(gate) => tokio::select! {
                biased;
                () = stop.token.cancelled() => {
                    return judge(stop, Outcome::new(OutcomeKind::Cancelled, ""));
                }
                permit = gate.acquire() => permit.ok(),
            },
        };
        let (slot, id) = (task.spec.slot(), task.id);
        // A place is only noted, and repeated after a crash: writes may wait for it.
        if !matches!(task.spec, TaskSpec::ClusterPlace(_)) {
            match self.on_disk(move |ledger| ledger.begin(&slot, id)).await {
                Ok(true) => {}
                Ok(false) => return None,
                // A pass that is not known to have begun could be repeated after a crash.
                Err(e) => return Some(Outcome::new(OutcomeKind::Failed, e.to_string())),
            }
        }
        tracing::info!("task begins");
        let work = self.work.carry_out(task.spec.clone(), stop.token.clone(), output.clone());
        // On a task of its own, so that a panic in it is an outcome.
        let mut work = tokio::spawn(work.instrument(tracing::Span::current()));
        let limited = async {
            if task.run_limit == Millis(0) {
                return std::future::pending().await;
            }
            sleep(task.run_limit.into()).await;
            stop.stop(Why::Limit(task.run_limit));
        };
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = limited => work.await,
        };
        let outcome = ended.unwrap_or_else(|_| {
            Outcome::new(OutcomeKind::Unknown, "the agent failed inside; its log has the details")
        });
        judge(stop, outcome)
    }

    async fn record_end(&self, task: &Offer, outcome: Outcome) {
        match outcome.kind {
            OutcomeKind::Ok => tracing::info!(id = %task.id, "task ended well"),
            kind => tracing::warn!(id = %task.id, %kind, message = outcome.message, "task ended"),
        }
        let (slot, id) = (task.spec.slot(), task.id);
        if let Err(e) = self.on_disk(move |ledger| ledger.end(&slot, id, outcome)).await {
            tracing::error!(%id, error = %e, "cannot note how a task ended; after a restart it is repeated");
        }
    }

    /// The ledger waits for the disk, so it is never asked on a thread that others need.
    async fn on_disk<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> T {
        let books = self.books.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = ask(&mut books.ledger);
            books.publish();
            answer
        });
        match asked.await {
            Ok(answer) => answer,
            // Only at the end of the runtime, when nobody needs an answer any more.
            Err(_) => std::future::pending().await,
        }
    }

    fn outputs(&self) -> std::sync::MutexGuard<'_, Outputs> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_output(&self, id: TaskId) -> Output {
        self.outputs().of.entry(id).or_default().clone()
    }

    fn close_output(&self, id: TaskId) {
        let mut outputs = self.outputs();
        outputs.ended.push_back(id);
        if outputs.ended.len() > OUTPUTS_MAX
            && let Some(oldest) = outputs.ended.pop_front()
        {
            outputs.of.remove(&oldest);
        }
    }
}

/// What a job's end means, given that somebody may have stopped it. Work that succeeded all the
/// same has succeeded.
fn judge(stop: &Stop, outcome: Outcome) -> Option<Outcome> {
    let cancelled = |why: String| Some(Outcome::new(OutcomeKind::Cancelled, why));
    match stop.why.get() {
        None => Some(outcome),
        Some(Why::Superseded) => None,
        Some(_) if outcome.kind == OutcomeKind::Ok => Some(outcome),
        Some(Why::Cancelled) => cancelled("cancelled on request".to_owned()),
        Some(Why::Limit(limit)) => cancelled(format!("run limit of {limit} reached")),
        Some(Why::Shutdown) => None,
    }
}

#[cfg(test)]
mod tests;
