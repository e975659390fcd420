//! Keeps one member's lease: asks the controller and peers for it, and has the guard's deadline follow
//! it. What counts is decided by `tenure`; it ends no instance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lockstep_model::cluster::{Grant, Renewal, Term};
use lockstep_model::task::Peer;
use lockstep_model::{ClusterName, Millis, NodeName};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::less_drift;
use super::tenure::{Duty, Held, Round, Tenure};
use crate::pg::boottime::{self, Boottime};
use crate::pg::guard::{GuardClient, GuardError, Post, WatchdogSettings};

/// Grants that wait to be noted; a lost one comes again.
const GRANTS_MAX: usize = 16;
/// A clock that stood still is looked at again so soon.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Asks another member's agent for a promise.
pub trait AskPromise: Send + Sync + 'static {
    /// How long it promised, counted from when it was asked; the error is one line.
    fn ask<'a>(
        &'a self,
        peer: &'a Peer,
        cluster: &'a ClusterName,
        term: Term,
        length: Millis,
    ) -> BoxFuture<'a, Result<Millis, String>>;
}

/// What stays the same for a member.
#[derive(Clone)]
pub struct Setup {
    pub cluster: ClusterName,
    /// This node.
    pub me: NodeName,
    /// The cluster's directory.
    pub dir: PathBuf,
    /// The agent's own binary.
    pub agent: PathBuf,
    /// The kernel's, for the guard to feed.
    pub watchdog: Option<WatchdogSettings>,
    pub renewals: mpsc::Sender<Renewal>,
    pub peers: Arc<dyn AskPromise>,
}

/// Of an instance that may need a guard soon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ahead {
    pub cgroup: PathBuf,
    /// As `LeaseOptions::fence`.
    pub fence: Millis,
}

/// The actor's end.
pub struct Keeper {
    duty: watch::Sender<Option<Duty>>,
    ahead: watch::Sender<Option<Ahead>>,
    replies: watch::Sender<BTreeMap<NodeName, Boottime>>,
    grants: mpsc::Sender<Grant>,
    clear: mpsc::Sender<oneshot::Sender<Result<(), String>>>,
    away: watch::Sender<Option<Millis>>,
    held: watch::Receiver<Held>,
    _task: JoinSet<()>,
}

impl Keeper {
    /// Knows what an earlier run's guard has, when it returns.
    pub async fn start(setup: Setup) -> Self {
        let (duty, duties) = watch::channel(None);
        let (ahead, expected) = watch::channel(None);
        let (replies, replied) = watch::channel(BTreeMap::new());
        let (grants, granted) = mpsc::channel(GRANTS_MAX);
        let (clear, cleared) = mpsc::channel(1);
        let (away, leaves) = watch::channel(None);
        let (shown, held) = watch::channel(Held {
            lease: None,
            is_guarded: false,
            fence_at: Boottime::NEVER,
            problem: String::new(),
        });
        let (guard, found) = match GuardClient::attach(&setup.dir).await {
            Some((guard, deadline)) => (Some(guard), Some(deadline)),
            None => (None, None),
        };
        let tenure = Tenure::new(setup.me.clone(), found);
        let asked = JoinSet::new();
        let work = Work { setup, tenure, guard, asked, ahead: expected, away: leaves, shown };
        let mut task = JoinSet::new();
        task.spawn(work.run(duties, replied, granted, cleared));
        Self { duty, ahead, replies, grants, clear, away, held, _task: task }
    }

    /// Keep this one; None: renew nothing, and let what there is run out.
    pub fn keep(&self, duty: Option<Duty>) {
        self.duty.send_if_modified(|now| {
            let changed = *now != duty;
            *now = duty;
            changed
        });
    }

    /// It may be promoted any moment: then nobody waits for a guard to start. It ends nothing meanwhile.
    pub fn expect(&self, ahead: Ahead) {
        self.ahead.send_if_modified(|now| {
            let changed = now.as_ref() != Some(&ahead);
            *now = Some(ahead);
            changed
        });
    }

    /// When walsenders heard of standbys last.
    pub fn replied(&self, replies: BTreeMap<NodeName, Boottime>) {
        self.replies.send_replace(replies);
    }

    pub fn granted(&self) -> mpsc::Sender<Grant> {
        self.grants.clone()
    }

    pub fn held(&self) -> watch::Receiver<Held> {
        self.held.clone()
    }

    pub fn departure(&self) -> Departure {
        Departure { duty: self.duty.subscribe(), away: self.away.clone(), held: self.held.clone() }
    }

    /// No process of the instance is left: the guard ends nothing any more, when it returns.
    pub async fn clear(&self) -> Result<(), String> {
        self.keep(None);
        let (answer, answered) = oneshot::channel();
        let ended = || "the lease's loop has ended".to_owned();
        self.clear.send(answer).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// What is needed to leave a primary alone.
pub struct Departure {
    duty: watch::Receiver<Option<Duty>>,
    away: watch::Sender<Option<Millis>>,
    held: watch::Receiver<Held>,
}

impl Departure {
    /// From now on asks for a lease of so long, as the agent is about to be stopped; waits until it has
    /// one and the guard knows. Err: it got none within `limit`, and keeps what it has.
    pub async fn leave(&self, length: Millis, limit: Duration) -> Result<(), String> {
        let is_wanted = self.duty.borrow().is_some();
        let is_granted = self.held.borrow().lease.is_some_and(|lease| lease.is_granted);
        if !is_wanted || !is_granted {
            return Ok(());
        }
        // Peers and controller count from the question.
        let until = boottime::now().after(less_drift(length));
        self.away.send_replace(Some(length));
        let mut held = self.held.clone();
        let is_long =
            |held: &Held| held.is_guarded && held.lease.is_some_and(|lease| lease.until >= until);
        match timeout(limit, held.wait_for(is_long)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err("no longer lease was granted in time".to_owned()),
        }
    }
}

struct Work {
    setup: Setup,
    tenure: Tenure,
    guard: Option<GuardClient>,
    asked: JoinSet<(NodeName, Term, Boottime, Result<Millis, String>)>,
    ahead: watch::Receiver<Option<Ahead>>,
    /// For how long the agent is about to be away.
    away: watch::Receiver<Option<Millis>>,
    shown: watch::Sender<Held>,
}

impl Work {
    async fn run(
        mut self,
        mut duties: watch::Receiver<Option<Duty>>,
        mut replied: watch::Receiver<BTreeMap<NodeName, Boottime>>,
        mut granted: mpsc::Receiver<Grant>,
        mut cleared: mpsc::Receiver<oneshot::Sender<Result<(), String>>>,
    ) {
        let mut renew_at = boottime::now();
        loop {
            let duty = duties.borrow_and_update().clone();
            if duty.as_ref() != self.tenure.duty() {
                let term = |duty: Option<&Duty>| duty.map(|duty| duty.term);
                if term(duty.as_ref()) != term(self.tenure.duty()) {
                    renew_at = boottime::now();
                }
                self.tenure.take(duty);
                self.arm().await;
            }
            let now = boottime::now();
            if now >= renew_at {
                renew_at = now.after(self.ask(&replied.borrow().clone(), now));
                self.have_guard().await;
                self.arm().await;
            }
            let wait = Duration::from(renew_at.since(boottime::now())).min(LOOK_MAX);
            tokio::select! {
                changed = duties.changed() => if changed.is_err() { return },
                Some(answer) = cleared.recv() => {
                    let done = self.clear().await;
                    // Whoever asked may have been told to do something else meanwhile.
                    let _ = answer.send(done);
                }
                Some(grant) = granted.recv() => {
                    self.tenure.note(&grant, boottime::now());
                    self.arm().await;
                }
                Ok(()) = replied.changed(), if self.tenure.is_silent(boottime::now()) => {
                    let replies = replied.borrow_and_update().clone();
                    self.tenure.carry_on(&replies, boottime::now());
                    self.arm().await;
                }
                Some(answered) = self.asked.join_next() => {
                    if let Ok((node, term, sent, answer)) = answered {
                        self.tenure.promised(node, term, sent, answer);
                        let replies = replied.borrow().clone();
                        self.tenure.carry_on(&replies, boottime::now());
                        self.arm().await;
                    }
                }
                Ok(()) = self.ahead.changed() => {
                    let ahead = self.ahead.borrow_and_update().clone();
                    if let Some(ahead) = ahead.filter(|_| self.tenure.duty().is_none()) {
                        self.start_guard(&ahead).await;
                    }
                }
                Ok(()) = self.away.changed() => renew_at = boottime::now(),
                () = sleep(wait) => {}
            }
        }
    }

    /// Asks whoever is to be asked; gives the time until the next round.
    fn ask(&mut self, replies: &BTreeMap<NodeName, Boottime>, now: Boottime) -> Millis {
        let Some(round) = self.tenure.round(replies, now) else { return Millis::of(LOOK_MAX) };
        let Round { term, peers, length, interval } = round;
        let cluster = self.setup.cluster.clone();
        let away = *self.away.borrow();
        let renewal = Renewal { cluster: cluster.clone(), term, sent_ms: now.0, away };
        // A full queue means that the link takes nothing: the next round asks again.
        let _ = self.setup.renewals.try_send(renewal);
        for peer in peers {
            let (peers, cluster) = (self.setup.peers.clone(), cluster.clone());
            self.asked.spawn(async move {
                let asked = peers.ask(&peer, &cluster, term, length);
                let answer = timeout(length.into(), asked).await;
                let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                (peer.node, term, now, answer)
            });
        }
        interval
    }

    async fn clear(&mut self) -> Result<(), String> {
        self.tenure.clear();
        let held = match &mut self.guard {
            None => match GuardClient::attach(&self.setup.dir).await {
                None => Ok(()),
                Some((mut guard, _)) => {
                    let held = guard.hold().await;
                    self.guard = Some(guard);
                    held
                }
            },
            Some(guard) => guard.hold().await,
        };
        if held.is_err() {
            self.guard = None;
        }
        self.show(true);
        held.map_err(|e| e.to_string())
    }

    /// Has the guard know, and then shows what is held.
    async fn arm(&mut self) {
        let (is_granted, fence_at) = (self.tenure.is_granted(), self.tenure.fence_at());
        let is_known = {
            let shown = self.shown.borrow();
            shown.is_guarded && shown.fence_at == fence_at && self.guard.is_some()
        };
        if !is_granted || is_known {
            return self.show(!is_granted || is_known);
        }
        match self.tell_guard(fence_at).await {
            Ok(()) => self.show(true),
            Err(error) => {
                tracing::error!(cluster = %self.setup.cluster, %error, "the lease has no guard");
                self.guard = None;
                self.tenure.set_problem(error.to_string());
                self.show(false);
            }
        }
    }

    /// Started while the first answer is on its way. A later run of the agent takes one without a
    /// deadline for a lease without end: only where nothing is held can there be none yet.
    async fn have_guard(&mut self) {
        let Some(duty) = self.tenure.duty().filter(|duty| duty.holds_nothing) else { return };
        let ahead = Ahead { cgroup: duty.cgroup.clone(), fence: duty.options.fence };
        self.start_guard(&ahead).await;
    }

    async fn start_guard(&mut self, ahead: &Ahead) {
        if self.guard.is_some() || self.tenure.is_granted() {
            return;
        }
        let post = post(&self.setup, &ahead.cgroup, ahead.fence);
        let started = GuardClient::attach_or_start(&post, Boottime::NEVER).await;
        // Why there is none is told once one is needed.
        self.guard = started.ok().map(|(guard, _)| guard);
    }

    async fn tell_guard(&mut self, fence_at: Boottime) -> Result<(), GuardError> {
        if let Some(guard) = &mut self.guard
            && let Ok(is_watched) = guard.until(fence_at).await
        {
            return self.check_watch(fence_at, is_watched);
        }
        // It died, or is too busy to answer: the deadline that it has stands.
        let Some(duty) = self.tenure.duty() else { return Err(GuardError::Needless) };
        let post = post(&self.setup, &duty.cgroup, duty.options.fence);
        let started = GuardClient::attach_or_start(&post, fence_at).await;
        let (mut guard, _) = started?;
        let is_watched = guard.until(fence_at).await?;
        self.guard = Some(guard);
        self.check_watch(fence_at, is_watched)
    }

    /// Where the kernel's watchdog is required, a deadline without it counts for nothing.
    fn check_watch(&self, fence_at: Boottime, is_watched: bool) -> Result<(), GuardError> {
        match self.setup.watchdog.as_ref().filter(|watchdog| watchdog.is_required) {
            Some(watchdog) if fence_at != Boottime::NEVER && !is_watched => {
                Err(GuardError::Unwatched { device: watchdog.device.clone() })
            }
            _ => Ok(()),
        }
    }

    fn show(&self, is_guarded: bool) {
        let held = self.tenure.held(is_guarded);
        self.shown.send_if_modified(|shown| {
            let changed = *shown != held;
            *shown = held;
            changed
        });
    }
}

fn post<'a>(setup: &'a Setup, cgroup: &'a Path, fence: Millis) -> Post<'a> {
    let Setup { agent, dir, watchdog, .. } = setup;
    let watchdog = watchdog.as_ref().map(|watchdog| (watchdog, fence));
    Post { agent, dir, cgroup, watchdog }
}
