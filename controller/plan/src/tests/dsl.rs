//! A small fleet for tests: requests go through `admit`, every change through a log, and the laws
//! are held against each plan.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lockstep_model::identity::{Role, Subject, TokenFor, User};
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::record::{Actor, Change, Fleet, Record, Txn, Write};
use lockstep_model::request::{NodeAction, Request, SyncRun};
use lockstep_model::task::{Outcome, OutcomeKind, Receiver, Route, Task, TaskSpec};
use lockstep_model::{Incarnation, KeyHash, LifeId, Millis, NodeName, Reject, Revision, Timestamp};

use crate::admit::{Admitted, admit};
use crate::check::{check_plan, check_world};
use crate::{PLAN_ROUNDS_MAX, Plan, World, plan};

/// 2026-11-21T00:00:00Z
pub const START: Timestamp = Timestamp(1_795_219_200_000);
pub const INCARNATION: Incarnation = Incarnation(7);

pub struct Lab {
    pub world: World,
    pub now: Timestamp,
    pub log: Vec<Change>,
}

impl Lab {
    /// A store after `init`: a fleet and its first admin, with a key.
    pub fn new() -> Self {
        let mut lab = Self { world: World::default(), now: START, log: Vec::new() };
        let fleet =
            Fleet { name: "prod".parse().unwrap(), incarnation: INCARNATION, created_at: START };
        let admin = User {
            name: "anna".parse().unwrap(),
            role: Role::Admin,
            disabled: false,
            key_hash: Some(key("anna")),
            created_at: START,
        };
        let writes = [Record::Fleet(fleet), Record::User(admin)].map(Write::Put).to_vec();
        lab.commit(Txn {
            base: Revision::ZERO,
            raise_to: Revision::ZERO,
            at: START,
            actor: Actor::Offline,
            cause: "init".to_owned(),
            writes,
        });
        lab
    }

    /// With nodes that joined, announced an address, and are connected.
    pub fn with_nodes(names: &[&str]) -> Self {
        let mut lab = Self::new();
        for name in names {
            lab.join(name);
            lab.connect(name);
        }
        lab
    }

    pub fn commit(&mut self, txn: Txn) {
        assert_eq!(txn.base, self.world.revision());
        let change = Change::of(txn);
        self.world.apply(&change);
        self.log.push(change);
        let broken = check_world(&self.world);
        assert!(broken.is_empty(), "{broken:#?}");
    }

    /// As admin anna; does not plan.
    pub fn try_ask(&mut self, request: Request) -> Result<Admitted, Reject> {
        self.ask_as(&user("anna"), request)
    }

    pub fn ask_as(&mut self, who: &Actor, request: Request) -> Result<Admitted, Reject> {
        let admitted = admit(&self.world, who, &request, self.now)?;
        if let Some(txn) = admitted.txn(&self.world, self.now, who, "test") {
            self.commit(txn);
        }
        Ok(admitted)
    }

    /// Asks, and plans until it is quiet.
    pub fn ask(&mut self, request: Request) -> Admitted {
        let admitted = self.try_ask(request.clone()).unwrap_or_else(|e| panic!("{request:?}: {e}"));
        self.settle();
        admitted
    }

    pub fn refusal(&mut self, request: Request) -> String {
        match self.try_ask(request.clone()) {
            Ok(_) => panic!("{request:?} was admitted"),
            Err(Reject { code, reason, subject, message }) => {
                format!("{code:?} {reason} {subject}: {message}")
            }
        }
    }

    pub fn settle(&mut self) -> Plan {
        let mut rounds = 0;
        loop {
            let plan = plan(&self.world, self.now);
            let broken = check_plan(&self.world, &plan);
            assert!(broken.is_empty(), "{broken:#?}\n{plan:#?}");
            self.check_rests(&plan);
            self.world.rest(plan.rests.clone());
            let Some(txn) = plan.txn(&self.world, self.now) else {
                return Plan { rests: Default::default(), ..plan };
            };
            rounds += usize::from(!plan.cut);
            assert!(rounds <= PLAN_ROUNDS_MAX, "no rest: {plan:#?}");
            self.commit(txn);
        }
    }

    /// That only what changed is looked at makes no difference: a world whose mirrors are all looked
    /// at gives the same plan.
    fn check_rests(&self, plan: &Plan) {
        // Who waits longer is known to the index alone.
        if self.world.agenda.queued().next().is_some() {
            return;
        }
        let mut fresh = self.world.clone();
        fresh.touch_all();
        let all = crate::plan(&fresh, self.now);
        // Which number a task gets depends on the order, and means nothing.
        let shown = |(rule, write): &(&'static str, Write)| match write {
            Write::Put(Record::Task(task)) => format!("{rule} {} {}", task.node, task.slot()),
            write => format!("{rule} {}", write.key()),
        };
        let rules = |plan: &Plan| plan.writes.iter().map(shown).collect::<BTreeSet<_>>();
        assert!(
            all.cut || plan.cut || rules(&all) == rules(plan),
            "{:#?}\n{:#?}",
            rules(&all),
            rules(plan)
        );
        assert_eq!(all.wake_at, plan.wake_at);
    }

    pub fn join(&mut self, name: &str) {
        let token = format!("t-{name}");
        let grants = TokenFor::Node { name: name.parse().unwrap(), labels: Default::default() };
        self.ask(Request::CreateToken {
            id: token.parse().unwrap(),
            secret_sha256: [1; 32],
            grants,
            ttl: Millis::from_secs(900),
        });
        self.ask(Request::Enroll {
            token: token.parse().unwrap(),
            secret_sha256: [1; 32],
            key_hash: key(name),
        });
        let addresses = vec![format!("{name}:7402").parse().unwrap()];
        let announce = Request::Announce { node: name.parse().unwrap(), addresses };
        self.ask_as(&agent(name), announce).unwrap();
        self.settle();
    }

    pub fn observe(&mut self, name: &str, observation: Observation) -> bool {
        self.world.observe(&name.parse().unwrap(), observation, self.now)
    }

    pub fn connect(&mut self, name: &str) {
        let life = self.world.past().current();
        let told = Told { incarnation: INCARNATION, life, revision: self.world.revision() };
        self.observe(name, Observation::Connected(told));
        self.settle();
    }

    /// A controller starts on the store.
    pub fn begin(&mut self, life: LifeId) {
        self.restart();
        let mut past = self.world.past().clone();
        past.begin(life, self.world.revision().next());
        self.commit(Txn {
            base: self.world.revision(),
            raise_to: Revision::ZERO,
            at: self.now,
            actor: Actor::Offline,
            cause: "start".to_owned(),
            writes: vec![Write::Put(Record::Past(past))],
        });
    }

    /// The controller loses what is not in the store.
    pub fn restart(&mut self) {
        self.world = World::from_records(self.world.revision(), self.world.records());
    }

    pub fn disconnect(&mut self, name: &str) {
        self.observe(name, Observation::Disconnected { why: "link lost".to_owned() });
        self.settle();
    }

    /// The node's agent ends its oldest live task; None when it has none.
    pub fn end_one(&mut self, name: &str, kind: OutcomeKind, message: &str) -> Option<Task> {
        let node: NodeName = name.parse().unwrap();
        let task = self.world.live_tasks_of(&node).next()?.value.clone();
        let outcome = Outcome::new(kind, message);
        self.ask_as(&agent(name), Request::EndTask { node, id: task.id, outcome }).unwrap();
        self.settle();
        Some(task)
    }

    /// Agents do all they are told.
    pub fn work(&mut self, names: &[&str]) {
        const TASKS_MAX: usize = 100;
        for name in names {
            let more = (0..TASKS_MAX).all(|_| self.end_one(name, OutcomeKind::Ok, "").is_some());
            assert!(!more, "{name} is given tasks for ever: {}", self.show());
        }
    }

    pub fn pass(&mut self, secs: u64) {
        self.now = self.now + Millis::from_secs(secs);
        self.settle();
    }

    pub fn act(&mut self, name: &str, action: NodeAction) {
        self.ask(Request::ChangeNode { node: name.parse().unwrap(), action });
    }

    /// All tasks and reasons.
    pub fn show(&mut self) -> String {
        let plan = self.settle();
        let mut out = String::new();
        for task in self.world.tasks() {
            writeln!(out, "{}", show_task(&task.value)).unwrap();
        }
        let mirrors = self.world.mirrors().keys();
        let of_mirrors =
            mirrors.flat_map(|name| crate::mirrors::reasons(&self.world, name, self.now));
        for reason in plan.reasons.iter().cloned().chain(of_mirrors) {
            let until = reason.until.map_or(String::new(), |at| {
                format!(" ({:.1}s)", at.since(self.now).0 as f64 / 1000.0)
            });
            writeln!(out, "? {} {}{until}: {}", reason.subject, reason.rule, reason.text).unwrap();
        }
        out
    }
}

fn show_task(task: &Task) -> String {
    let state = match &task.ended {
        None if task.cancel_requested => "live, to be cancelled".to_owned(),
        None => "live".to_owned(),
        Some(ended) => ended.outcome.kind.to_string(),
    };
    let what = match &task.spec {
        TaskSpec::SyncSource(source) => {
            format!("sync-source {} -> [{}]", source.sync, receivers(&source.receivers))
        }
        TaskSpec::SyncTarget(target) => {
            let from = target.source.as_ref().map_or("nobody", |peer| peer.node.as_str());
            let serve = if target.serve { "" } else { " not-serving" };
            let relay = match &target.receivers[..] {
                [] => String::new(),
                to => format!(" -> [{}]", receivers(to)),
            };
            format!("sync-target {} <- {from}{serve}{relay}", target.sync)
        }
        other => format!("{} {}", other.kind(), other.slot()),
    };
    format!("{} {} #{}: {what}: {state}", task.node, task.id, task.attempt)
}

fn receivers(receivers: &[Receiver]) -> String {
    let shown = receivers.iter().map(|to| match &to.route {
        Route::Agent(peer) => format!("{}@{}", to.node, peer.addresses.first().unwrap()),
        Route::Remote(remote) => format!("{}={remote}", to.node),
    });
    shown.collect::<Vec<_>>().join(" ")
}

pub fn key(name: &str) -> KeyHash {
    let mut hash = [0; 32];
    hash[..name.len()].copy_from_slice(name.as_bytes());
    KeyHash(hash)
}

pub fn agent(name: &str) -> Actor {
    Actor::Subject(Subject::Node(name.parse().unwrap()))
}

pub fn user(name: &str) -> Actor {
    Actor::Subject(Subject::User(name.parse().unwrap()))
}

/// `addresses` are separated by spaces.
pub fn node(name: &str, addresses: &str) -> Node {
    Node {
        name: name.parse().unwrap(),
        labels: Default::default(),
        admin: NodeAdmin::Enabled,
        key_hash: key(name),
        addresses: addresses.split_whitespace().map(|a| a.parse().unwrap()).collect(),
        created_at: START,
    }
}

/// `source` and each of `targets` look like `web1:/srv/www`.
pub fn create_sync(name: &str, source: &str, targets: &[&str]) -> Request {
    Request::CreateSync {
        name: name.parse().unwrap(),
        source: source.parse().unwrap(),
        targets: targets.iter().map(|place| place.parse().unwrap()).collect(),
        selected: None,
        options: Default::default(),
        paused: false,
    }
}

pub fn add_targets(sync: &str, targets: &[&str]) -> Request {
    let targets = targets.iter().map(|place| place.parse().unwrap()).collect();
    Request::AddTargets { sync: sync.parse().unwrap(), targets }
}

pub fn remove_targets(sync: &str, nodes: &[&str]) -> Request {
    let nodes = nodes.iter().map(|node| node.parse().unwrap()).collect();
    Request::RemoveTargets { sync: sync.parse().unwrap(), nodes }
}

pub fn resync(sync: &str, nodes: &[&str]) -> Request {
    let targets = nodes.iter().map(|node| node.parse().unwrap()).collect();
    let (sync, run) = (sync.parse().unwrap(), SyncRun::Resync);
    Request::RunSync { sync, targets, run, traceparent: None }
}

/// In UTC, understood at `START`.
pub fn schedule(rule: &str) -> lockstep_model::schedule::Schedule {
    let text =
        lockstep_model::schedule::ScheduleText { rule: rule.to_owned(), ..Default::default() };
    crate::schedule::understand(&text, START).unwrap()
}
