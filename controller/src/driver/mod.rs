//! THE loop: takes an event, checks it against the world, commits, applies, plans until the world is
//! quiet. Nothing else writes. The world holds only what is committed, and nothing acts on a change
//! before that. What to write is decided in lockstep-plan, never here.

mod begin;
mod ends;
mod handle;
mod places;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use lockstep_model::identity::{Principal, Subject};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::record::{Change, Key, Record, Txn, Write};
use lockstep_model::{Code, Millis, NodeName, Reject, Revision, Timestamp};
use lockstep_plan::admit::admit_once;
use lockstep_plan::authorize::authenticate;
use lockstep_plan::leases::Uptime;
use lockstep_plan::{Limits, PLAN_ROUNDS_MAX, World, plan};
use lockstep_transport::connections::Connections;
use lockstep_transport::{boottime, clock};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;

pub use begin::BeginError;
use ends::Ends;
pub use handle::{Ask, Attach, Attached, Done, DriverHandle};
use handle::{Event, Shared, State};
use places::Places;

use crate::session::Goodbye;
use crate::store::retention::compact_upto;
use crate::store::{CommitError, Store, StoreError};

/// Most events that wait for the loop; a request more is refused, an agent's word waits.
pub const EVENTS_MAX: usize = 4096;
/// Most events taken between two plans.
const BATCH_MAX: usize = 256;
/// Changes that a slow watcher may be behind; then it has to list anew.
pub const WATCH_BEHIND_MAX: usize = 1024;
/// After a plan that would not come to rest, or a commit that the store refused.
const PLAN_PAUSE: Millis = Millis::from_secs(10);
/// Clocks are set now and then, so no wait is longer.
const WAIT_MAX: Millis = Millis::from_secs(60);
/// What a Goodbye has to arrive before the connection is cut.
const GOODBYE_GRACE: Duration = Duration::from_millis(250);

/// Why the loop cannot go on. The process ends and starts again from the disk.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("the outcome of a commit is not known: {0}; start again, the store on disk is right")]
    Unknown(String),
    #[error(
        "somebody else writes this store: it is at revision {0}, which this process did not make"
    )]
    Overtaken(Revision),
}

type Answer = Result<Done, Reject>;

/// An instant on both clocks, whichever comes there first: one may be set back, and leases end on
/// the other.
#[derive(Clone, Copy)]
struct Wake {
    at: Timestamp,
    up: Uptime,
}

impl Wake {
    fn new(at: Timestamp) -> Self {
        let wait = at.since(clock::now());
        Self { at, up: Uptime(uptime().0.saturating_add(wait.0)) }
    }

    fn wait(self) -> Millis {
        self.at.since(clock::now()).min(self.up.since(uptime()))
    }
}

fn uptime() -> Uptime {
    boottime::now().into()
}

pub struct Driver {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
    connections: Connections,
    /// When time alone changes the plan.
    wake: Option<Wake>,
    places: Places,
    /// Of the last request that was carried out: new tasks are its children.
    traceparent: Option<String>,
    /// To be given when the world is quiet; at most `BATCH_MAX`.
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

impl Driver {
    /// Loads the world from the store. The second half is for everyone else.
    pub async fn load(
        store: Arc<dyn Store>,
        connections: Connections,
    ) -> Result<(Self, DriverHandle), StoreError> {
        let snapshot = store.snapshot().await?;
        let mut world = World::from_records(snapshot.revision, snapshot.records.into_values());
        // Nobody else has the store open any more, and so nobody grants.
        world.leases_mut().start(uptime());
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared::new(
            State { world, reasons: Vec::new() },
            broadcast::Sender::new(WATCH_BEHIND_MAX),
        ));
        let handle = DriverHandle::new(sender, shared.clone(), store.clone());
        let driver = Self {
            store,
            shared,
            events,
            connections,
            wake: None,
            places: Places::default(),
            traceparent: None,
            answers: Vec::new(),
        };
        Ok((driver, handle))
    }

    /// How many pulls at once.
    pub fn limit(&mut self, pulls: Limits) {
        self.shared.write().world.set_limits(pulls);
    }

    /// Runs until `DriverHandle::stop`, until every handle is gone, or until it cannot go on.
    pub async fn run(mut self) -> Result<(), Fatal> {
        self.settle().await?;
        while let Some(first) = self.next().await {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && let Ok(event) = self.events.try_recv()
            {
                batch.push(event);
            }
            let stop = batch.iter().any(|event| matches!(event, Event::Stop));
            let mut dirty = self.wake.is_some_and(|wake| wake.wait() == Millis(0));
            let mut ends = Ends::default();
            let held = if stop { self.places.take_all() } else { self.places.take_due() };
            let fresh: Vec<Event> =
                batch.into_iter().filter_map(|event| self.hold(event, stop)).collect();
            for event in held.into_iter().chain(fresh) {
                let Some(event) = ends.take(event) else { continue };
                if !Ends::may_wait_for(&event) {
                    dirty |= self.store_ends(&mut ends).await?;
                }
                dirty |= self.take(event).await?;
            }
            dirty |= self.store_ends(&mut ends).await?;
            if dirty {
                self.settle().await?;
                self.settle_places();
            }
            // After planning, so that who asked then sees the tasks that came of it.
            let revision = self.shared.read().world.revision();
            for (reply, answer) in self.answers.drain(..) {
                let _ = reply.send(answer.map(|done| Done { revision, ..done }));
            }
            if stop {
                break;
            }
        }
        Ok(())
    }

    /// The next event; `Wake` when it is time to plan again. None: nobody is left to send one.
    async fn next(&mut self) -> Option<Event> {
        let waits = [self.wake, self.places.due()].into_iter().flatten().map(Wake::wait);
        let Some(wait) = waits.min() else { return self.events.recv().await };
        match timeout(wait.min(WAIT_MAX).into(), self.events.recv()).await {
            Ok(event) => event,
            Err(_) => Some(Event::Wake),
        }
    }

    /// The time of leases goes on.
    fn tick(&self) {
        self.shared.write().world.leases_mut().tick(uptime());
    }

    /// True when the plan may have changed.
    async fn take(&mut self, event: Event) -> Result<bool, Fatal> {
        self.tick();
        match event {
            Event::Stop | Event::Wake => Ok(false),
            Event::Turn(reply) => {
                let _ = reply.send(()); // who asked may have gone
                Ok(false)
            }
            Event::Request { ask, reply } => {
                let answer = self.carry_out(ask).await?;
                let changed = answer.as_ref().is_ok_and(|done| done.changed);
                self.answers.push((reply, answer));
                Ok(changed)
            }
            Event::Attach { attach, reply } => {
                let answer = self.attach(attach);
                let dirty = answer.is_ok();
                let _ = reply.send(answer);
                Ok(dirty)
            }
            Event::Detach { node, session, why } => {
                if !self.shared.sessions.remove(&node, session) {
                    return Ok(false);
                }
                tracing::info!(%node, why, "agent disconnected");
                let observation = Observation::Disconnected { why };
                Ok(self.shared.write().world.observe(&node, observation, clock::now()))
            }
            Event::Observed { node, session, observation } => {
                if !self.shared.sessions.is_current(&node, session) {
                    return Ok(false);
                }
                Ok(self.shared.write().world.observe(&node, observation, clock::now()))
            }
            Event::Heard { node } => {
                self.shared.write().world.heard(&node, clock::now());
                Ok(false)
            }
        }
    }

    async fn carry_out(&mut self, ask: Ask) -> Result<Result<Done, Reject>, Fatal> {
        let Ask { actor, cause, conditions, request, dry_run, traceparent } = ask;
        let now = clock::now();
        let admitted = {
            let state = self.shared.read();
            admit_once(&state.world, &actor, cause, &conditions, &request, now)
                .map(|admitted| (admitted.txn(&state.world, now, &actor, cause), admitted))
        };
        let (txn, admitted) = match admitted {
            Ok(admitted) => admitted,
            Err(reject) => {
                tracing::info!(target: "audit", who = %actor, method = cause, reason = reject.reason, why = %reject, "refused a request");
                return Ok(Err(reject));
            }
        };
        let changed = txn.is_some();
        if let Some(txn) = txn.filter(|_| !dry_run) {
            if let Err(reject) = self.commit(txn).await? {
                return Ok(Err(reject));
            }
            tracing::info!(
                target: "audit", who = %actor, method = cause, detail = admitted.detail, "carried out a request"
            );
            self.traceparent = traceparent;
        }
        Ok(Ok(Done::of(changed, self.shared.read().world.revision(), admitted)))
    }

    fn attach(&mut self, attach: Attach) -> Result<Attached, Reject> {
        let Attach { principal, node, hello, handle, replaces } = attach;
        let now = clock::now();
        let mut state = self.shared.write();
        // Asked again here, where it cannot change meanwhile.
        authenticate(&state.world, &principal)?;
        if let Some(old) = self.shared.sessions.get(&node) {
            if Some(old.id) != replaces {
                return Err(already_connected(&node));
            }
            old.say_goodbye(Goodbye::new("replaced", "another stream of this node took over"));
        }
        tracing::info!(%node, version = hello.report.version, "agent connected");
        self.shared.sessions.insert(node.clone(), handle);
        let said = [Observation::Connected(hello.told), Observation::Node(hello.report)];
        let tasks = hello.tasks.into_iter().map(|(id, phase)| Observation::Task { id, phase });
        let was_behind = state.world.store_behind().is_some();
        for observation in said.into_iter().chain(tasks) {
            state.world.observe(&node, observation, now);
        }
        if let (false, Some(behind)) = (was_behind, state.world.store_behind()) {
            tracing::error!(
                %behind,
                "the store is an old copy: nothing is decided from it; put a newer one in its place, or \
                 accept what it lacks as lost: lockstepctl store adopt"
            );
        }
        let incarnation = state.world.fleet().map(|fleet| fleet.value.incarnation);
        Ok(Attached {
            told: Told {
                incarnation: incarnation.unwrap_or_default(),
                life: state.world.past().current(),
                revision: state.world.revision(),
            },
            in_doubt: state.world.store_behind().is_some(),
        })
    }

    /// Plans and commits until there is nothing to write.
    async fn settle(&mut self) -> Result<(), Fatal> {
        let mut rounds = 0;
        while rounds < PLAN_ROUNDS_MAX {
            self.tick();
            let now = clock::now();
            let (plan, txn) = {
                let state = self.shared.read();
                let plan = plan(&state.world, now);
                let txn = plan.txn(&state.world, now);
                (plan, txn)
            };
            self.wake = plan.wake_at.map(Wake::new);
            if !plan.rests.is_empty() {
                self.shared.write().world.rest(plan.rests);
            }
            let Some(txn) = txn else {
                self.shared.write().reasons = plan.reasons;
                self.traceparent = None;
                return Ok(());
            };
            tracing::info!(rules = txn.cause, writes = txn.writes.len(), "planned");
            if let Err(reject) = self.commit(self.traced(txn)).await? {
                tracing::error!(why = %reject, "the store refused what was planned; planning again later");
                self.wake = Some(Wake::new(now + PLAN_PAUSE));
                return Ok(());
            }
            rounds += usize::from(!plan.cut);
        }
        tracing::error!(
            rounds,
            "the plan does not come to rest; this is a bug: keep the log, and see lockstepctl explain"
        );
        self.wake = Some(Wake::new(clock::now() + PLAN_PAUSE));
        Ok(())
    }

    /// New tasks become children of the span that asked for them.
    fn traced(&self, mut txn: Txn) -> Txn {
        let Some(traceparent) = &self.traceparent else { return txn };
        let born = txn.base.next();
        for write in &mut txn.writes {
            if let Write::Put(Record::Task(task)) = write
                && task.id.revision == born
            {
                task.traceparent.get_or_insert_with(|| traceparent.clone());
            }
        }
        txn
    }

    /// Stores, and only then lets the change be seen.
    async fn commit(&mut self, txn: Txn) -> Result<Result<(), Reject>, Fatal> {
        let change = match self.store.commit(txn).await {
            Ok(change) => Arc::new(change),
            Err(error) => return refused(error).map(Err),
        };
        self.apply(&change);
        // Nobody watches: fine.
        let _ = self.shared.changes.send(change.clone());
        self.compact(change.revision).await;
        Ok(Ok(()))
    }

    fn apply(&self, change: &Change) {
        let mut state = self.shared.write();
        let holders: Vec<Principal> =
            change.writes.iter().filter_map(|write| holder(&state.world, &write.key())).collect();
        state.world.apply(change);
        for principal in holders {
            if let Err(why) = authenticate(&state.world, &principal) {
                self.revoke(principal, &why);
            }
        }
        for write in &change.writes {
            match write.key() {
                Key::Task(node, _) => self.shared.sessions.wake(&node),
                // A pull may have waited for it.
                Key::Secret(name) => {
                    if let Some(mirror) = state.world.mirrors().get(&name) {
                        self.shared.sessions.wake(&mirror.value.master);
                    }
                }
                // As above, of every member.
                Key::ClusterSecret(name) => {
                    let cluster = state.world.clusters().get(&name);
                    for member in cluster.iter().flat_map(|cluster| &cluster.value.members) {
                        self.shared.sessions.wake(&member.node);
                    }
                }
                // Agents have to be told its new incarnation, which is a first word.
                Key::Fleet => {
                    let adopted = Goodbye::new("adopted", "the store was adopted: connect anew");
                    self.shared.sessions.say_goodbye(&adopted);
                }
                Key::Past
                | Key::Node(_)
                | Key::User(_)
                | Key::Token(_)
                | Key::Sync(_)
                | Key::SyncState(..)
                | Key::Mirror(_)
                | Key::MirrorState(_)
                | Key::Replica(..)
                | Key::Run(..)
                | Key::Cluster(_)
                | Key::ClusterState(_)
                | Key::Failover(..)
                | Key::Request(_) => {}
            }
        }
    }

    /// Ends everything that a key has open. An agent is told first why.
    fn revoke(&self, principal: Principal, why: &Reject) {
        let Principal { subject, key_hash } = principal;
        tracing::info!(target: "audit", who = %subject, key = %key_hash, reason = why.reason, %why, "revoked a key");
        let session = match &subject {
            Subject::Node(node) => self.shared.sessions.get(node),
            Subject::User(_) | Subject::Controller(_) => None,
        };
        let Some(session) = session.filter(|session| session.key == key_hash) else {
            self.connections.close_key(key_hash);
            return;
        };
        session.say_goodbye(Goodbye::new("expelled", why.to_string()));
        let connections = self.connections.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GOODBYE_GRACE).await;
            connections.close_key(key_hash);
        });
    }

    async fn compact(&self, revision: Revision) {
        let Some(upto) = compact_upto(revision) else { return };
        if let Err(error) = self.store.compact(upto).await {
            tracing::warn!(%error, "cannot compact the log; trying again later");
        }
    }
}

/// A refusal of the store, if the loop can go on after it.
fn refused(error: CommitError) -> Result<Reject, Fatal> {
    match error {
        CommitError::Unknown { problem } => Err(Fatal::Unknown(problem)),
        CommitError::Conflict { at } => Err(Fatal::Overtaken(at)),
        CommitError::TooLarge { .. } => {
            let message = format!("{error}: do it in smaller steps");
            Ok(Reject::new(Code::ResourceExhausted, "too_large", "store", message))
        }
    }
}

pub(crate) fn already_connected(node: &NodeName) -> Reject {
    let message = format!(
        "an agent of node {node} is connected and answers: stop the other one, or give this machine \
         a name of its own; was the state directory copied?"
    );
    Reject::new(Code::AlreadyExists, "node_already_connected", format!("node/{node}"), message)
}

/// Who speaks with the key of a record, as the world has it now.
fn holder(world: &World, key: &Key) -> Option<Principal> {
    match key {
        Key::Node(name) => world.nodes().get(name).map(|node| Principal {
            subject: Subject::Node(name.clone()),
            key_hash: node.value.key_hash,
        }),
        Key::User(name) => {
            let key_hash = world.users().get(name)?.value.key_hash?;
            Some(Principal { subject: Subject::User(name.clone()), key_hash })
        }
        Key::Fleet
        | Key::Past
        | Key::Token(_)
        | Key::Sync(_)
        | Key::SyncState(..)
        | Key::Mirror(_)
        | Key::MirrorState(_)
        | Key::Replica(..)
        | Key::Run(..)
        | Key::Secret(_)
        | Key::Cluster(_)
        | Key::ClusterState(_)
        | Key::Failover(..)
        | Key::ClusterSecret(_)
        | Key::Task(..)
        | Key::Request(_) => None,
    }
}
