//! One member of a cluster on this node: looks at its instance, takes the one step that brings it
//! nearer to its goal, tells what it is like, and begins again. A newer goal ends the step under way.

mod closed;
mod dead;
pub mod decision;
mod facts;
pub mod ladder;
mod primary;
mod probe;
mod pulse;
mod recovery;
mod seen;
pub mod settlement;
mod steps;
mod survey;
mod tell;
mod warnings;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockstep_model::cluster::lease::AWAY_MAX;
use lockstep_model::cluster::{Act, ClusterPlace, Goal, Grant, MemberState, Renewal, Term};
use lockstep_model::node::NodeAddress;
use lockstep_model::{ClusterName, Millis, NodeName};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::books::{Admission, BooksFile, Kept};
use super::boottime::{self, Boottime};
use super::guard::WatchdogSettings;
use super::instance::{Instance, Secrets};
use super::lease::{AskPromise, Departure, Held, Keeper, Setup};
use super::reports::Board;
use super::salvage::Stock;
use crate::data::Dial;
use crate::host::Host;
use ladder::Step;
use pulse::Pulse;
use steps::Memory;

pub use ladder::Wait;

/// Orders that wait; more are refused.
const ORDERS_MAX: usize = 4;
/// After a step that did not work.
const RETRY: Duration = Duration::from_millis(250);
/// While something is on its way.
const SOON: Duration = Duration::from_millis(20);
/// Longest wait for a lease without a look at what it is for.
const LEASE_LOOK: Duration = Duration::from_millis(200);
/// Longest wait of a look at a standby: switchovers wait for its position.
const STANDBY_LOOK_MAX: Duration = Duration::from_millis(100);

/// What a member has around it.
#[derive(Clone)]
pub struct Site {
    pub cluster: ClusterName,
    /// This node.
    pub me: NodeName,
    /// The member's own directory, the agent's alone.
    pub dir: PathBuf,
    /// The agent's own binary.
    pub agent: PathBuf,
    pub watchdog: Option<WatchdogSettings>,
    pub host: Host,
    /// To other members' agents.
    pub dial: Arc<dyn Dial>,
    pub peers: Arc<dyn AskPromise>,
    pub board: Board,
    pub stock: Stock,
    pub renewals: mpsc::Sender<Renewal>,
    /// How others reach this node.
    pub addresses: watch::Receiver<Vec<NodeAddress>>,
}

/// Something to be done once, and who waits for it.
struct Order {
    act: Act,
    done: oneshot::Sender<Result<(), String>>,
}

/// A member at work. Dropped, it ends; the instance runs on.
pub struct Member {
    cluster: ClusterName,
    place: watch::Sender<Option<Arc<ClusterPlace>>>,
    secrets: watch::Sender<Arc<Secrets>>,
    books: Kept,
    held: watch::Receiver<Held>,
    departure: Departure,
    /// It runs as a primary and lets nobody in.
    closed: Arc<AtomicBool>,
    pulse: Pulse,
    grants: mpsc::Sender<Grant>,
    orders: mpsc::Sender<Order>,
    /// The newest term of a place that waits for a promise's end.
    wanted: Mutex<Option<Term>>,
    instance: watch::Receiver<Option<Instance>>,
    _task: JoinSet<()>,
}

impl Member {
    /// Err: its books cannot be read.
    pub async fn open(site: Site) -> Result<Self, String> {
        let file = BooksFile::new(&site.dir);
        let read = file.clone();
        let books = tokio::task::spawn_blocking(move || read.load()).await;
        let books = books.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let books = Kept::new(file, books);
        let (boot, now) = (boottime::boot_id(), boottime::now());
        let counted = books.change(move |books| books.recount(&boot, now)).await;
        counted.map_err(|e| e.to_string())?;
        let secrets = super::secrets::load(&site.dir);
        let secrets = secrets.map_err(|e| format!("{}: {e}", site.dir.display()))?;
        let (secrets, known) = watch::channel(Arc::new(secrets.unwrap_or(Secrets {
            superuser: Default::default(),
            replication: Default::default(),
        })));
        let keeper = Keeper::start(Setup {
            cluster: site.cluster.clone(),
            me: site.me.clone(),
            dir: site.dir.clone(),
            agent: site.agent.clone(),
            watchdog: site.watchdog.clone(),
            renewals: site.renewals.clone(),
            peers: site.peers.clone(),
        });
        let keeper = keeper.await;
        let (place, placed) = watch::channel(None);
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (shown, instance) = watch::channel(None);
        let (grants, held) = (keeper.granted(), keeper.held());
        let closed = Arc::<AtomicBool>::default();
        let (departure, cluster) = (keeper.departure(), site.cluster.clone());
        let pulse = Pulse::new();
        let ears = Ears { place: placed, held: keeper.held(), orders: ordered };
        let work = Work {
            site,
            books: books.clone(),
            keeper,
            secrets: known,
            instance: shown,
            closed: closed.clone(),
            pulse: pulse.clone(),
            memory: Memory::default(),
        };
        let mut task = JoinSet::new();
        task.spawn(run(ears, work));
        let wanted = Mutex::default();
        Ok(Self {
            cluster,
            place,
            secrets,
            books,
            held,
            departure,
            closed,
            pulse,
            grants,
            orders,
            wanted,
            instance,
            _task: task,
        })
    }

    /// Durably taken up when it returns. It may wait for the end of a promise, and gives no new one
    /// meanwhile; dropped, it has not been taken up.
    pub async fn place(&self, place: ClusterPlace) -> Result<(), String> {
        let place = Arc::new(place);
        loop {
            let wish = place.clone();
            let admitted = self.books.change(move |books| {
                let admission = books.admit(&wish, boottime::now());
                if admission == Admission::Now {
                    books.take_up(&wish);
                }
                admission
            });
            match admitted.await.map_err(|e| e.to_string())? {
                Admission::Now => break,
                Admission::Refused(why) => return Err(why),
                Admission::At(end) => {
                    self.set_wanted(Some(place.term));
                    sleep(end.since(boottime::now()).max(Millis(1)).into()).await;
                }
            }
        }
        self.set_wanted(None);
        self.place.send_replace(Some(place));
        Ok(())
    }

    /// What an earlier run had taken up already.
    pub fn resume(&self, place: ClusterPlace) {
        self.place.send_replace(Some(Arc::new(place)));
    }

    /// Of Lockstep's own roles; kept on disk by whoever calls.
    pub fn set_secrets(&self, secrets: Secrets) {
        self.secrets.send_if_modified(|now| {
            let changed = **now != secrets;
            *now = Arc::new(secrets);
            changed
        });
    }

    pub fn has_secrets(&self, secrets: &Secrets) -> bool {
        **self.secrets.borrow() == *secrets
    }

    pub fn granted(&self, grant: Grant) {
        // Lost in a crowd: the next one comes soon.
        let _ = self.grants.try_send(grant);
    }

    /// The agent is about to be stopped: a primary gets a lease under which it serves on meanwhile, if the
    /// controller gives one within `limit`.
    pub async fn leave(&self, limit: Duration) {
        if let Err(why) = self.departure.leave(AWAY_MAX, limit).await {
            tracing::warn!(cluster = %self.cluster, why, "a primary is left with its ordinary lease");
        }
    }

    /// To the primary of `term`, which asked for it.
    pub async fn promise(
        &self,
        to: &NodeName,
        term: Term,
        length: Millis,
    ) -> Result<Millis, String> {
        let is_member = self
            .place
            .borrow()
            .as_ref()
            .is_some_and(|place| place.peers.iter().any(|peer| peer.peer.node == *to));
        if !is_member {
            return Err(format!("{to} is no member that this node knows"));
        }
        let wanted = *self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let to = to.clone();
        let promised = self.books.change(move |books| {
            let (boot, now) = (boottime::boot_id(), boottime::now());
            books.promise(&to, term, length, &boot, now, wanted)
        });
        promised.await.map_err(|e| e.to_string())?.map(|()| length)
    }

    /// Done when it returns.
    pub async fn order(&self, act: Act) -> Result<(), String> {
        let (done, told) = oneshot::channel();
        let sent = self.orders.try_send(Order { act, done });
        sent.map_err(|_| "too much is asked of this member at once; ask again".to_owned())?;
        told.await.unwrap_or_else(|_| Err("something newer was asked for".to_owned()))
    }

    /// When it has to be ended at the latest; the beginning of time: it may not write.
    pub fn writes_until(&self) -> Boottime {
        let (held, holding) = (self.held.borrow(), self.books.read().holding);
        let is_good = holding.is_some_and(|term| held.is_good(term, boottime::now()))
            && !self.closed.load(Ordering::Relaxed);
        if is_good { held.fence_at } else { Boottime(0) }
    }

    /// When its actor had looked at it last.
    pub fn looked_at(&self) -> Boottime {
        self.pulse.last()
    }

    /// None: it never had a layout.
    pub fn instance(&self) -> Option<Instance> {
        self.instance.borrow().clone()
    }

    fn set_wanted(&self, term: Option<Term>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = term;
    }
}

/// What the actor listens to.
struct Ears {
    place: watch::Receiver<Option<Arc<ClusterPlace>>>,
    held: watch::Receiver<Held>,
    orders: mpsc::Receiver<Order>,
}

/// What it works with.
struct Work {
    site: Site,
    books: Kept,
    keeper: Keeper,
    secrets: watch::Receiver<Arc<Secrets>>,
    instance: watch::Sender<Option<Instance>>,
    /// Told to those who ask whether it may write.
    closed: Arc<AtomicBool>,
    pulse: Pulse,
    memory: Memory,
}

async fn run(mut ears: Ears, mut work: Work) {
    loop {
        let Some(place) = ears.place.borrow_and_update().clone() else {
            if ears.place.changed().await.is_err() {
                return;
            }
            continue;
        };
        work.pulse.beat();
        let pause = turn(&mut ears, &mut work, &place).await;
        work.pulse.beat();
        idle(&mut ears, &mut work, &place, pause).await;
    }
}

/// Looks, and takes a step; gives the time until the next look.
async fn turn(ears: &mut Ears, work: &mut Work, place: &Arc<ClusterPlace>) -> Duration {
    // What a step wrote that was ended meanwhile.
    work.books.settled().await;
    let pulse = work.pulse.clone();
    // What is left of a copy may take long to be removed.
    let opened = tokio::select! {
        biased;
        opened = work.open_instance(place) => opened,
        never = pulse.clone().keep() => match never {},
    };
    let instance = match opened {
        Ok(instance) => instance,
        Err(problem) => {
            work.tell_unusable(place, problem);
            return RETRY;
        }
    };
    work.memory.telling.abort_all();
    work.keep_lease(place, &instance, &mut ears.held).await;
    let seen = work.look(place, &instance).await;
    let mut held = ears.held.borrow().clone();
    let mut step = work.decide(place, &seen, &held);
    work.tell(place, &instance, &seen, &held, step);
    if step == Step::TakeLease && until_leased(ears, place).await {
        held = ears.held.borrow().clone();
        step = work.decide(place, &seen, &held);
        work.tell(place, &instance, &seen, &held, step);
    }
    match step {
        Step::TakeLease => return SOON,
        Step::Stay | Step::Wait(_) => {
            let over = until_over(&mut ears.held, work.books.clone());
            let died = until_dead(work.memory.runs.then(|| instance.clone()));
            let cut_off = until_ended(Some(instance.clone()), work.memory.receiver);
            let is_dead = tokio::select! {
                biased;
                () = goal_changes(&mut ears.place, place) => false,
                () = over => false,
                () = died => true,
                () = cut_off => false,
                never = pulse.keep() => match never {},
                () = work.keep_up(place, &instance, &seen) => return work.pace(place, &seen, step),
            };
            if is_dead {
                work.died(place).await;
            }
            return Duration::ZERO;
        }
        _ => {}
    }
    tracing::info!(cluster = %place.cluster, goal = place.goal.as_str(), term = %place.term, found = seen.state.as_str(), ?step, "step");
    let over = until_over(&mut ears.held, work.books.clone());
    let done = tokio::select! {
        biased;
        () = goal_changes(&mut ears.place, place) => return Duration::ZERO,
        // What ends an instance itself is not ended by the lease's end.
        () = over, if !matches!(step, Step::Fence | Step::Release) => return Duration::ZERO,
        never = pulse.keep() => match never {},
        done = work.take(place, &instance, &seen, step) => done,
    };
    match done {
        Ok(()) => {
            work.memory.problem.clear();
            Duration::ZERO
        }
        Err(problem) => {
            tracing::warn!(cluster = %place.cluster, ?step, problem, "a step did not work");
            work.memory.problem = problem;
            RETRY
        }
    }
}

/// Until something happens, at most so long.
async fn idle(ears: &mut Ears, work: &mut Work, place: &ClusterPlace, pause: Duration) {
    if pause.is_zero() {
        return;
    }
    let instance = work.instance.borrow().clone();
    let cut_off = until_ended(instance.clone(), work.memory.receiver);
    let died = until_dead(instance.filter(|_| work.memory.runs));
    let over = until_over(&mut ears.held, work.books.clone());
    tokio::select! {
        biased;
        _ = ears.place.changed() => {}
        () = over => {}
        () = died => work.died(place).await,
        () = cut_off => {}
        Some(order) = ears.orders.recv() => work.obey(order).await,
        () = sleep(pause) => {}
    }
}

/// None: nothing runs that could die.
async fn until_dead(instance: Option<Instance>) {
    match instance {
        Some(instance) => instance.gone().await,
        None => std::future::pending().await,
    }
}

/// A standby's receiver, whose end tells that the primary's has come. None: there is none.
async fn until_ended(instance: Option<Instance>, pid: Option<i32>) {
    match (instance, pid) {
        (Some(instance), Some(pid)) => instance.ended(pid).await,
        _ => std::future::pending().await,
    }
}

/// False: something else has to be looked at first.
async fn until_leased(ears: &mut Ears, place: &Arc<ClusterPlace>) -> bool {
    let good = ears.held.wait_for(|held| held.is_good(place.term, boottime::now()));
    tokio::select! {
        biased;
        () = goal_changes(&mut ears.place, place) => false,
        good = good => good.is_ok(),
        () = sleep(LEASE_LOOK) => false,
    }
}

/// Ignores what does not change what is being done: a long copy outlives a changed setting.
async fn goal_changes(
    places: &mut watch::Receiver<Option<Arc<ClusterPlace>>>,
    now: &Arc<ClusterPlace>,
) {
    let key = |place: &ClusterPlace| (place.term, place.goal.clone(), place.copy);
    let changed =
        places.wait_for(|place| place.as_ref().is_none_or(|place| key(place) != key(now)));
    // Nobody gives places any more: the actor is about to end.
    let _ = changed.await;
}

/// Until what is primary here has to be ended, because its lease ends.
async fn until_over(held: &mut watch::Receiver<Held>, books: Kept) {
    loop {
        let fence_at = held.borrow_and_update().fence_at;
        let left = fence_at.since(boottime::now());
        if left == Millis(0) && books.read().holding.is_some() {
            return;
        }
        // The clock of sleeps stops in suspend; this one's does not.
        let look = Duration::from(left).clamp(Duration::from_millis(1), Duration::from_secs(1));
        tokio::select! {
            changed = held.changed() => if changed.is_err() { return std::future::pending().await },
            () = sleep(look) => {}
        }
    }
}

impl Work {
    /// How soon the next look is worth it.
    fn pace(&self, place: &ClusterPlace, seen: &seen::Seen, step: Step) -> Duration {
        let poll = Duration::from(place.options.checks.poll);
        match (seen.state, step) {
            (_, Step::Wait(Wait::Progress)) => SOON,
            (MemberState::Primary, _) if self.is_settling() => SOON,
            (MemberState::Standby | MemberState::Sealed, _) => poll.min(STANDBY_LOOK_MAX),
            _ if matches!(place.goal, Goal::Primary(_) | Goal::HandOver) => {
                poll.min(STANDBY_LOOK_MAX * 3)
            }
            _ => poll,
        }
    }
}

/// For what is shown and nothing that is decided.
fn since(began: Boottime) -> Millis {
    boottime::now().since(began)
}
