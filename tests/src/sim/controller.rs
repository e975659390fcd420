//! The controller: the real world and planner behind a loop like the driver's, and a store whose
//! commits take time and may fail before or after they are durable.

use std::collections::{BTreeMap, VecDeque};

use lockstep_model::identity::{Role, Subject, User};
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::observation::Observation;
use lockstep_model::record::{Actor, Change, Fleet, Key, Record, Txn, Versioned, Write};
use lockstep_model::request::{NewCluster, Request};
use lockstep_model::task::{Outcome, Task};
use lockstep_model::{
    ClusterName, Incarnation, KeyHash, LifeId, Millis, NodeName, Revision, TaskId, Timestamp,
};
use lockstep_plan::admit::admit;
use lockstep_plan::check::check_plan;
use lockstep_plan::leases::Uptime;
use lockstep_plan::{PLAN_ROUNDS_MAX, World, clusters, plan};

use super::Sim;
use super::event::Event;
use super::history::Fact;
use super::host::Host;
use super::mutation::Mutation;
use super::queue::At;
use super::scenario::Scenario;

/// 2026-11-21T00:00:00Z
const START: u64 = 1_795_219_200_000;

/// What the loop takes.
pub enum Input {
    Said { node: usize, session: u64, observation: Box<Observation> },
    Heard { node: usize },
    Ended { node: usize, id: TaskId, outcome: Outcome },
    Asked(Box<Request>),
}

pub struct Controller {
    pub up: bool,
    pub life: u64,
    pub world: World,
    /// The session of each node.
    pub sessions: BTreeMap<usize, u64>,
    /// Tasks that its session handed over.
    pub offered: BTreeMap<usize, Vec<TaskId>>,
    inbox: VecDeque<Input>,
    /// On its way to the disk, and what the store has without it.
    committing: Option<Change>,
    before: Option<(Revision, Vec<Versioned<Record>>)>,
    rounds: usize,
    dirty: bool,
    wake: Option<Timestamp>,
    /// How its clocks run beside the true time.
    pub wall_ms: i64,
    drift: i64,
    /// A copy that somebody made of the store.
    pub copy: Option<(Revision, Vec<Versioned<Record>>)>,
    /// A commit takes so long at least.
    pub slow_ms: u64,
}

pub fn cluster() -> ClusterName {
    name("main")
}

fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    #[allow(clippy::expect_used)] // names of this file
    text.parse().expect("a name")
}

pub fn key(node: &NodeName) -> KeyHash {
    let mut hash = [0; 32];
    let bytes = node.as_str().as_bytes();
    hash[..bytes.len().min(32)].copy_from_slice(&bytes[..bytes.len().min(32)]);
    KeyHash(hash)
}

fn admin() -> Actor {
    Actor::Subject(Subject::User(name("anna")))
}

impl Controller {
    pub fn new(scenario: &Scenario, names: &BTreeMap<usize, NodeName>) -> Self {
        let at = Timestamp(START);
        let (incarnation, fleet) = (Incarnation(7), name("prod"));
        let user = User {
            name: name("anna"),
            role: Role::Admin,
            disabled: false,
            key_hash: Some(KeyHash([9; 32])),
            created_at: at,
        };
        let node = |name: &NodeName| Node {
            name: name.clone(),
            labels: Default::default(),
            admin: NodeAdmin::Enabled,
            key_hash: key(name),
            addresses: format!("{name}:7402").parse().into_iter().collect(),
            created_at: at,
        };
        let mut records = vec![
            Record::Fleet(Fleet { name: fleet, incarnation, created_at: at }),
            Record::User(user),
        ];
        records.extend(names.values().map(|name| Record::Node(node(name))));
        let mut world = World::default();
        let txn = Txn {
            base: Revision::ZERO,
            raise_to: Revision::ZERO,
            at,
            actor: Actor::Offline,
            cause: "init".to_owned(),
            writes: records.into_iter().map(Write::Put).collect(),
        };
        world.apply(&Change::of(txn));
        let request = Request::CreateCluster(NewCluster {
            name: cluster(),
            primary: names[&0].clone(),
            members: names.values().skip(1).map(|name| (name.clone(), Vec::new())).collect(),
            options: scenario.options(),
            adopt: false,
            superuser: vec![1; 40],
            replication: vec![2; 40],
        });
        let admitted = admit(&world, &admin(), &request, at);
        if let Ok(admitted) = admitted
            && let Some(txn) = admitted.txn(&world, at, &admin(), "create")
        {
            world.apply(&Change::of(txn));
        }
        Self {
            up: false,
            life: 0,
            world,
            sessions: BTreeMap::new(),
            offered: BTreeMap::new(),
            inbox: VecDeque::new(),
            committing: None,
            before: None,
            rounds: 0,
            dirty: false,
            wake: None,
            wall_ms: 0,
            drift: 300,
            copy: None,
            slow_ms: 0,
        }
    }

    pub fn wall(&self, at: At) -> Timestamp {
        Timestamp((START + at).saturating_add_signed(self.wall_ms))
    }

    pub fn uptime(&self, at: At) -> Uptime {
        Uptime(1000 + at * (1_000_000 + self.drift).unsigned_abs() / 1_000_000)
    }

    pub fn snapshot(&self) -> (Revision, Vec<Versioned<Record>>) {
        (self.world.revision(), self.world.records())
    }
}

impl Sim {
    pub fn start_controller(&mut self) {
        if self.controller.up {
            return;
        }
        let now = self.now();
        let up = self.controller.uptime(now);
        let controller = &mut self.controller;
        controller.life += 1;
        controller.up = true;
        let (base, at) = (controller.world.revision(), controller.wall(now));
        let mut past = controller.world.past().clone();
        past.begin(LifeId(controller.life), base.next());
        let begins = Change::of(Txn {
            base,
            raise_to: Revision::ZERO,
            at,
            actor: Actor::Offline,
            cause: "start".to_owned(),
            writes: vec![Write::Put(Record::Past(past))],
        });
        controller.world.apply(&begins);
        controller.world =
            World::from_records(controller.world.revision(), controller.world.records());
        controller.world.leases_mut().start(up);
        controller.dirty = true;
        self.work();
    }

    /// The process dies; what was on its way to the disk is there or is not.
    pub fn stop_controller(&mut self) {
        let controller = &mut self.controller;
        controller.up = false;
        controller.sessions.clear();
        controller.offered.clear();
        controller.inbox.clear();
        controller.rounds = 0;
        let durable = self.chance.below(2) == 0;
        let (committing, before) = (controller.committing.take(), controller.before.take());
        match (committing, before) {
            // It was told already.
            (Some(_), Some((revision, records))) if !durable => {
                self.controller.world = World::from_records(revision, records);
                self.say("controller: a commit that was told is lost");
            }
            (Some(change), None) if durable => {
                self.controller.world.apply(&change);
                self.note_recorded(change);
                self.say("controller: dies; its last commit is on disk");
            }
            (Some(_), _) => self.say("controller: dies; its last commit is lost"),
            (None, _) => self.say("controller: dies"),
        }
    }

    /// What people do with a copy of the store.
    pub fn restore_store(&mut self) {
        let Some((revision, records)) = self.controller.copy.clone() else { return };
        self.controller.world = World::from_records(revision, records);
        self.note(Fact::Restored);
    }

    pub fn tell_controller(&mut self, input: Input) {
        if self.controller.up {
            self.controller.inbox.push_back(input);
            self.work();
        }
    }

    pub fn request(&mut self, request: Request) {
        self.tell_controller(Input::Asked(Box::new(request)));
    }

    pub fn wake(&mut self, life: u64) {
        if self.controller.up && self.controller.life == life {
            self.controller.dirty = true;
            self.work();
        }
    }

    pub fn committed(&mut self, life: u64) {
        if self.controller.life != life || !self.controller.up {
            return;
        }
        let Some(change) = self.controller.committing.take() else { return };
        if self.controller.before.take().is_none() {
            self.controller.world.apply(&change);
        }
        let adopted = change.writes.iter().any(|write| write.key() == Key::Fleet);
        self.note_recorded(change);
        self.controller.dirty = true;
        match adopted {
            // They are to be told the new incarnation, which is a first word.
            true => self.break_streams_of(None),
            false => self.offer_all(),
        }
        self.work();
    }

    fn note_recorded(&mut self, change: Change) {
        let is_state = |write: &Write| matches!(write, Write::Put(Record::ClusterState(_)));
        if change.writes.iter().any(is_state) {
            let disk = |host: &Host| {
                let data = host.disk.data.as_ref();
                let log = data.and_then(|data| data.log.get(..data.flushed));
                (host.name.clone(), log.unwrap_or_default().to_vec())
            };
            let disks = self.hosts.iter().map(disk).collect();
            self.note(Fact::Disks(disks));
        }
        self.note(Fact::Recorded(Box::new(change)));
    }

    fn tick(&mut self) {
        let mut up = self.controller.uptime(self.now());
        if self.is(Mutation::LeaseEndsAtOnce) && self.is_electing() {
            up = Uptime(up.0 + 10_000);
        }
        self.controller.world.leases_mut().tick(up);
    }

    fn is_electing(&self) -> bool {
        let state = self.controller.world.cluster_state(&cluster());
        state.is_some_and(|state| state.stage.as_str() == "electing")
    }

    /// Takes what waits, unless the disk is waited for.
    fn work(&mut self) {
        while self.controller.committing.is_none() {
            self.tick();
            if let Some(input) = self.controller.inbox.pop_front() {
                self.take_input(input);
            } else if self.controller.dirty {
                self.plan();
            } else {
                return;
            }
        }
    }

    fn take_input(&mut self, input: Input) {
        let wall = self.controller.wall(self.now());
        match input {
            Input::Said { node, session, observation } => {
                if self.controller.sessions.get(&node) == Some(&session)
                    || matches!(*observation, Observation::Disconnected { .. })
                {
                    let name = &self.names[&node];
                    let connects = matches!(*observation, Observation::Connected(_));
                    let affects = self.controller.world.observe(name, *observation, wall);
                    self.controller.dirty |= affects;
                    if connects {
                        self.welcome(node, session);
                    }
                }
            }
            Input::Heard { node } => self.controller.world.heard(&self.names[&node], wall),
            Input::Ended { node, id, outcome } => {
                let node = self.names[&node].clone();
                let actor = Actor::Subject(Subject::Node(node.clone()));
                // The end of a task that went meanwhile is of no interest.
                let _ = self.admit(&actor, &Request::EndTask { node, id, outcome }, wall);
            }
            Input::Asked(request) => {
                let shown = super::story::request(&request);
                let allows_loss = matches!(*request, Request::Failover { allow_loss: true, .. });
                match self.admit(&admin(), &request, wall) {
                    Ok(()) if allows_loss => {
                        self.note(Fact::LossAllowed);
                        self.say(format!("request: {shown}"));
                    }
                    Ok(()) => self.say(format!("request: {shown}")),
                    Err(why) => self.say(format!("request: {shown}: refused: {why}")),
                }
            }
        }
    }

    fn admit(&mut self, who: &Actor, request: &Request, wall: Timestamp) -> Result<(), String> {
        let admitted = admit(&self.controller.world, who, request, wall);
        let admitted = admitted.map_err(|reject| reject.message)?;
        if let Some(txn) = admitted.txn(&self.controller.world, wall, who, "request") {
            self.commit(txn);
        }
        Ok(())
    }

    fn plan(&mut self) {
        let now = self.now();
        let wall = self.controller.wall(now);
        let plan = plan(&self.controller.world, wall);
        debug_assert!(check_plan(&self.controller.world, &plan).is_empty());
        let txn = plan.txn(&self.controller.world, wall);
        self.controller.world.rest(plan.rests);
        self.controller.dirty = false;
        if let Some(txn) = txn {
            self.controller.rounds += 1;
            if self.controller.rounds > PLAN_ROUNDS_MAX {
                self.note(Fact::Restless);
                self.controller.rounds = 0;
            }
            return self.commit(txn);
        }
        self.controller.rounds = 0;
        self.controller.wake = plan.wake_at;
        if let Some(at) = plan.wake_at {
            let (life, wait) = (self.controller.life, at.since(wall).max(Millis(1)));
            self.queue.after(wait.0 + 1, Event::Wake { life });
        }
        self.look_at_quiet();
    }

    /// A cluster that is not as it should be says why.
    fn look_at_quiet(&mut self) {
        let Some(state) = self.controller.world.cluster_state(&cluster()) else { return };
        let steady = state.stage.as_str() == "steady" && state.is_settled();
        // Finding out is dear, and changes nothing.
        if (steady && self.live_tasks() == 0) || self.chance.below(8) != 0 {
            return;
        }
        let reasons = self.reasons().len();
        self.note(Fact::Quiet { steady, reasons });
    }

    pub fn reasons(&self) -> Vec<String> {
        let wall = self.controller.wall(self.now());
        // Of an old copy nothing but that is said.
        let world = &self.controller.world;
        let reasons = match world.store_behind() {
            Some(_) => plan(world, wall).reasons,
            None => clusters::reasons(world, &cluster(), wall),
        };
        reasons.iter().map(|r| format!("{} {}: {}", r.subject, r.rule, r.text)).collect()
    }

    pub fn live_tasks(&self) -> usize {
        self.controller.world.tasks().filter(|task| task.value.is_live()).count()
    }

    fn commit(&mut self, txn: Txn) {
        let change = Change::of(txn);
        if self.is(Mutation::ToldBeforeDurable) {
            self.controller.before = Some(self.controller.snapshot());
            self.controller.world.apply(&change);
            self.offer_all();
        }
        self.controller.committing = Some(change);
        let (life, slow) = (self.controller.life, self.controller.slow_ms);
        let ms = self.some_ms(1, 5) + slow;
        self.queue.after(ms, Event::Committed { life });
    }

    /// Sessions hand over what their nodes have not been told.
    pub fn offer_all(&mut self) {
        for node in 0..self.hosts.len() {
            self.offer(node);
        }
    }

    pub fn offer(&mut self, node: usize) {
        let Some(session) = self.controller.sessions.get(&node).copied() else { return };
        if self.controller.world.store_behind().is_some() {
            return;
        }
        let name = &self.names[&node];
        let offered = self.controller.offered.entry(node).or_default();
        let fresh: Vec<Task> = self
            .controller
            .world
            .live_tasks_of(name)
            .map(|task| &task.value)
            .filter(|task| !offered.contains(&task.id))
            .cloned()
            .collect();
        offered.extend(fresh.iter().map(|task| task.id));
        let revision = self.controller.world.revision();
        for task in fresh {
            self.send_down(node, session, super::stream::Down::Offer(Box::new(task), revision));
        }
    }
}
