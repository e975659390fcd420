//! What planning many mirrors costs, as figures for people. It is apart from the planner, which knows
//! no clock.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use lockstep_model::identity::Subject;
use lockstep_model::mirror::Pulled;
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::record::{Actor, Change, Fleet, Record, Txn, Versioned};
use lockstep_model::request::{NewMirror, Request};
use lockstep_model::schedule::ScheduleText;
use lockstep_model::task::{Outcome, TaskSpec};
use lockstep_model::{Incarnation, KeyHash, Millis, NodeName, Revision, Timestamp};
use lockstep_plan::admit::admit;
use lockstep_plan::schedule::understand;
use lockstep_plan::{Limits, World, plan};

const MIRRORS: usize = 5000;
const NODES: usize = 10;
/// 2026-03-01T00:00:00Z.
const START: Timestamp = Timestamp(1_772_323_200_000);

struct Bench {
    world: World,
    now: Timestamp,
    /// Spent on planning, and how often.
    planning: (Duration, u32),
    longest: Duration,
    applying: Duration,
}

impl Bench {
    fn new() -> Self {
        let name = |n: usize| -> NodeName { format!("n{n}").parse().unwrap() };
        let node = |n| {
            Record::Node(Node {
                name: name(n),
                labels: Default::default(),
                admin: NodeAdmin::Enabled,
                key_hash: KeyHash([n as u8; 32]),
                addresses: vec![format!("n{n}:7402").parse().unwrap()],
                created_at: START,
            })
        };
        let fleet = Record::Fleet(Fleet {
            name: "bench".parse().unwrap(),
            incarnation: Incarnation(1),
            created_at: START,
        });
        let records = (0..NODES).map(node).chain([fleet]);
        let records = records.map(|value| Versioned { revision: Revision(1), value });
        let mut world = World::from_records(Revision(1), records);
        world.set_limits(Limits { pulls_max: 100, per_upstream_max: 100 });
        let told = Told { incarnation: Incarnation(1), revision: Revision(1), ..Told::default() };
        for n in 0..NODES {
            world.observe(&name(n), Observation::Connected(told), START);
        }
        let (planning, longest, applying) = Default::default();
        Self { world, now: START, planning, longest, applying }
    }

    fn apply(&mut self, txn: Txn) {
        let begun = Instant::now();
        self.world.apply(&Change::of(txn));
        self.applying += begun.elapsed();
    }

    fn settle(&mut self) {
        loop {
            let begun = Instant::now();
            let plan = plan(&self.world, self.now);
            let txn = plan.txn(&self.world, self.now);
            self.world.rest(plan.rests);
            let took = begun.elapsed();
            self.planning = (self.planning.0 + took, self.planning.1 + 1);
            self.longest = self.longest.max(took);
            let Some(txn) = txn else { return };
            self.apply(txn);
        }
    }

    fn ask(&mut self, who: &Actor, request: &Request) {
        let admitted = admit(&self.world, who, request, self.now).unwrap();
        if let Some(txn) = admitted.txn(&self.world, self.now, who, "bench") {
            self.apply(txn);
        }
    }

    /// Agents end what they have, and each end is planned for, until nothing is left.
    fn work(&mut self) {
        loop {
            let live: Vec<_> = (0..NODES)
                .flat_map(|n| {
                    let node = format!("n{n}").parse().unwrap();
                    let tasks: Vec<_> =
                        self.world.live_tasks_of(&node).map(|task| task.value.clone()).collect();
                    tasks
                })
                .collect();
            if live.is_empty() {
                return;
            }
            for task in live {
                let who = Actor::Subject(Subject::Node(task.node.clone()));
                let is_pull = matches!(task.spec, TaskSpec::MirrorPull(_));
                let pulled = is_pull.then(Pulled::default);
                let outcome = Outcome { pulled, ..Outcome::ok() };
                self.ask(&who, &Request::EndTask { node: task.node, id: task.id, outcome });
                self.settle();
            }
        }
    }

    fn tell(&mut self, what: &str) {
        let (spent, times) = std::mem::take(&mut self.planning);
        let each = spent / times.max(1);
        let (longest, applying) =
            (std::mem::take(&mut self.longest), std::mem::take(&mut self.applying));
        println!(
            "{what}: {times} plans, {each:?} each, {longest:?} at most; applying {applying:?}"
        );
    }
}

/// `cargo nextest run -p lockstep-plan cost_of_mirrors --run-ignored all --no-capture`
#[test]
#[ignore = "prints figures"]
fn cost_of_mirrors() {
    let mut bench = Bench::new();
    let begun = Instant::now();
    for i in 0..MIRRORS {
        let text = ScheduleText { rule: "minute=*".to_owned(), ..Default::default() };
        let replica = |n: usize| format!("n{}:/data", (i + n) % NODES).parse().unwrap();
        bench.ask(
            &Actor::Offline,
            &Request::CreateMirror(NewMirror {
                name: format!("project{i}").parse().unwrap(),
                upstream: Some(format!("rsync://up{}.example.org/all", i % 100).parse().unwrap()),
                password: None,
                master: format!("n{}", i % NODES).parse().unwrap(),
                dest: "/data".parse().unwrap(),
                replicas: vec![replica(1), replica(2)],
                selected: None,
                options: Default::default(),
                schedule: Some(understand(&text, START).unwrap()),
                enabled: true,
                owner: None,
            }),
        );
    }
    println!("created {MIRRORS} in {:?}", begun.elapsed());
    bench.settle();
    bench.tell("first look, places given");
    bench.work();
    bench.tell("places confirmed one by one");
    for _ in 0..100 {
        bench.settle();
    }
    bench.tell("quiet");
    for minute in 1..=2 {
        bench.now = START + Millis(minute * 60_000);
        bench.settle();
        bench.tell("all due, as many begun as may be");
        bench.work();
        bench.tell("all ran, one by one");
    }
    for _ in 0..100 {
        bench.settle();
    }
    bench.tell("quiet");
    let begun = Instant::now();
    let records = bench.world.records();
    let mut world = World::from_records(bench.world.revision(), records);
    println!("loaded in {:?}", begun.elapsed());
    let begun = Instant::now();
    let plan = plan(&world, bench.now);
    println!("first plan after a restart, {} writes: {:?}", plan.writes.len(), begun.elapsed());
    world.rest(plan.rests);
}
