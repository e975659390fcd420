//! The laws of mirrors, held against random histories: requests, outcomes of agents, nodes that come
//! and go, restarts of the controller, time. `Lab` checks each world and plan on the way.

use lockstep_model::mirror::{Allow, HopKind, Pulled};
use lockstep_model::node::NodeAdmin;
use lockstep_model::observation::{Observation, Told};
use lockstep_model::record::{Change, Record, Write};
use lockstep_model::request::{MirrorChange, NewMirror, NodeAction, Request, SelectedChange};
use lockstep_model::setting::Value;
use lockstep_model::task::{Outcome, OutcomeKind, Slot, TaskSpec};
use lockstep_model::{Incarnation, MirrorName, NodeName, Revision};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::dsl::{Lab, agent, create_sync, schedule};
use super::mirrors::{new_mirror, sync};
use crate::{World, plan};

const NODES: [&str; 4] = ["m", "r1", "r2", "r3"];
const MIRRORS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a test's steps are few
enum Step {
    Ask(Request),
    Connect(&'static str),
    /// Its ledger is lost.
    Forget(&'static str),
    Disconnect(&'static str),
    /// The agent ends one of its live tasks.
    End(&'static str, usize, OutcomeKind, bool, bool),
    Report(&'static str, &'static str, bool),
    Cancel(usize),
    Pass(u64),
    /// The store is an old copy, and that is accepted.
    Adopt(&'static str),
    Restart,
    Settle,
}

fn node() -> impl Strategy<Value = &'static str> {
    select(&NODES[..])
}

fn mirror() -> impl Strategy<Value = &'static str> {
    select(&MIRRORS[..])
}

fn new() -> impl Strategy<Value = NewMirror> {
    let replicas = prop::collection::btree_set(select(vec!["r1", "r2", "r3"]), 0..4);
    let settings = select(vec![
        vec![],
        vec![("two-stage", "yes")],
        vec![("two-stage", "yes"), ("quorum", "1")],
        vec![("attempts", "1"), ("hook", "report on=distributed")],
        vec![("replicas-at-once", "1")],
    ]);
    let rule = select(vec!["", "minute=*", "second=*/10"]);
    (mirror(), replicas, settings, rule, any::<[bool; 2]>()).prop_map(
        |(name, replicas, settings, rule, [enabled, all])| {
            let replicas: Vec<&str> = replicas.into_iter().collect();
            let selected = all.then(|| selected("/data"));
            let new = new_mirror(name, &replicas, &settings);
            let schedule = (!rule.is_empty()).then(|| schedule(rule));
            NewMirror { schedule, enabled, selected, ..new }
        },
    )
}

fn selected(path: &str) -> lockstep_model::sync::Selected {
    lockstep_model::sync::Selected {
        selector: "role=mirror".parse().unwrap(),
        path: path.parse().unwrap(),
    }
}

fn change() -> impl Strategy<Value = MirrorChange> {
    let none = MirrorChange::default;
    let value =
        |name: &str, text: &str| vec![Value { name: name.to_owned(), text: text.to_owned() }];
    prop_oneof![
        select(vec!["/data", "/more"])
            .prop_map(move |dest| MirrorChange { dest: Some(dest.parse().unwrap()), ..none() }),
        node().prop_map(move |n| MirrorChange { master: Some(n.parse().unwrap()), ..none() }),
        vec(select(vec!["r1:/data", "r2:/data", "r2:/more", "r3:/data"]), 0..3).prop_map(
            move |places| {
                let places = places.iter().map(|place| place.parse().unwrap()).collect();
                MirrorChange { replicas: Some(places), ..none() }
            }
        ),
        any::<bool>().prop_map(move |some| {
            let to =
                if some { SelectedChange::To(selected("/data")) } else { SelectedChange::Nobody };
            MirrorChange { selected: Some(to), ..none() }
        }),
        select(vec![("two-stage", "yes"), ("two-stage", "no"), ("nice", "5"), ("nice", "0")])
            .prop_map(move |(name, text)| MirrorChange { values: value(name, text), ..none() }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let name = || mirror().prop_map(|name| name.parse::<MirrorName>().unwrap());
    let action = select(&NodeAction::ALL[..]);
    prop_oneof![
        6 => new().prop_map(Request::CreateMirror),
        4 => (name(), change())
            .prop_map(|(mirror, change)| Request::UpdateMirror { mirror, change }),
        2 => (name(), name(), any::<bool>())
            .prop_map(|(mirror, to, move_files)| Request::RenameMirror { mirror, to, move_files }),
        2 => (name(), select(vec!["", "minute=*", "hour=*"])).prop_map(|(mirror, rule)| {
            let schedule = (!rule.is_empty()).then(|| schedule(rule));
            Request::RescheduleMirror { mirror, schedule }
        }),
        2 => (name(), any::<bool>())
            .prop_map(|(mirror, enabled)| Request::SetMirrorEnabled { mirror: Some(mirror), enabled }),
        2 => (name(), any::<bool>())
            .prop_map(|(mirror, delete_files)| Request::DeleteMirror { mirror, delete_files }),
        8 => (mirror(), vec(node(), 0..2)).prop_map(|(mirror, only)| sync(mirror, &only)),
        2 => (name(), node()).prop_map(|(mirror, from)| Request::SyncMirror {
            mirror,
            only: Vec::new(),
            from: Some(from.parse().unwrap()),
            allow: Allow { empty: true, ..Allow::default() },
            trigger: lockstep_model::mirror::Trigger::Asked("user/anna".to_owned()),
        }),
        3 => (node(), action).prop_map(|(node, action)| {
            Request::ChangeNode { node: node.parse().unwrap(), action }
        }),
        1 => node().prop_map(|node| Request::RemoveNode { node: node.parse().unwrap() }),
        1 => (node(), any::<bool>()).prop_map(|(node, on)| {
            let key: lockstep_model::label::LabelKey = "role".parse().unwrap();
            let (set, remove) = match on {
                true => (vec![(key, "mirror".to_owned())], vec![]),
                false => (vec![], vec![key]),
            };
            Request::LabelNode { node: node.parse().unwrap(), set, remove }
        }),
        1 => Just(create_sync("s", "m:/srv", &["r1:/data/a", "r2:/data"])),
        1 => Just(Request::DeleteSync { sync: "s".parse().unwrap() }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use OutcomeKind::{Cancelled, Failed, Interrupted, Ok, Unknown, Unsupported};
    let kind = select(vec![Ok, Ok, Ok, Ok, Failed, Cancelled, Interrupted, Unknown, Unsupported]);
    prop_oneof![
        20 => request().prop_map(Step::Ask),
        5 => node().prop_map(Step::Connect),
        1 => node().prop_map(Step::Forget),
        4 => node().prop_map(Step::Disconnect),
        40 => (node(), 0..4usize, kind, any::<bool>(), any::<bool>())
            .prop_map(|(node, at, kind, changed, permanent)| {
                Step::End(node, at, kind, changed, permanent)
            }),
        2 => (node(), mirror(), any::<bool>())
            .prop_map(|(node, mirror, some)| Step::Report(node, mirror, some)),
        2 => (0..6usize).prop_map(Step::Cancel),
        10 => select(&[0, 1, 2, 10, 60, 400, 5_000][..]).prop_map(Step::Pass),
        1 => node().prop_map(Step::Adopt),
        2 => Just(Step::Restart),
        25 => Just(Step::Settle),
    ]
}

fn take(lab: &mut Lab, step: Step) {
    match step {
        Step::Ask(request) => drop(lab.try_ask(request)),
        Step::Connect(name) => {
            let incarnation = lab.world.fleet().unwrap().value.incarnation;
            let told = Told { incarnation, revision: lab.world.revision(), ..Told::default() };
            lab.observe(name, Observation::Connected(told));
        }
        Step::Forget(name) => {
            lab.observe(name, Observation::Connected(Told::default()));
        }
        Step::Disconnect(name) => {
            lab.observe(name, Observation::Disconnected { why: "link lost".to_owned() });
        }
        Step::End(name, at, kind, changed, permanent) => {
            let node: NodeName = name.parse().unwrap();
            let Some(task) = lab.world.live_tasks_of(&node).nth(at).map(|task| task.value.clone())
            else {
                return;
            };
            let pulled = Pulled { changed, permanent, ..Pulled::default() };
            let is_pull = matches!(task.spec, TaskSpec::MirrorPull(_));
            let outcome =
                Outcome { pulled: is_pull.then_some(pulled), ..Outcome::new(kind, "why") };
            drop(lab.ask_as(&agent(name), Request::EndTask { node, id: task.id, outcome }));
        }
        Step::Report(name, mirror, some) => {
            let report = some.then(|| lockstep_model::mirror::MirrorReport {
                filled: true,
                problem: String::new(),
                warnings: Vec::new(),
                pull: None,
            });
            lab.observe(name, Observation::Mirror { mirror: mirror.parse().unwrap(), report });
        }
        Step::Cancel(at) => {
            let Some(id) = lab.world.tasks().nth(at).map(|task| task.value.id) else { return };
            drop(lab.try_ask(Request::CancelTask { id }));
        }
        Step::Pass(secs) => lab.now = lab.now + lockstep_model::Millis::from_secs(secs),
        Step::Adopt(name) => {
            let incarnation = lab.world.fleet().unwrap().value.incarnation;
            let revision = Revision(lab.world.revision().0 + 50);
            lab.observe(
                name,
                Observation::Connected(Told { incarnation, revision, ..Told::default() }),
            );
            drop(lab.try_ask(Request::AdoptStore { incarnation: Incarnation(8) }));
        }
        Step::Restart => lab.restart(),
        Step::Settle => drop(lab.settle()),
    }
}

/// What no transaction may do, held against the world that it was made of.
fn check_change(before: &World, change: &Change) {
    for write in &change.writes {
        match write {
            Write::Put(Record::MirrorState(state)) => {
                let Some(old) = before.mirror_states().get(&state.mirror) else { continue };
                let (old, name) = (&old.value, &state.mirror);
                assert!(state.number >= old.number, "numbers are given once: {state:?}");
                if state.generation == old.generation {
                    continue;
                }
                assert_eq!(state.generation, old.generation + 1, "{name}");
                let mirror = &before.mirrors()[name].value;
                let task = before.newest(&mirror.master, &Slot::Pull(name.clone())).unwrap();
                let TaskSpec::MirrorPull(pull) = &task.spec else { panic!("{task:?}") };
                assert!(task.succeeded() && pull.hop == HopKind::Upstream, "{task:?}");
                assert_eq!(Some(pull.number), old.current, "{name}");
            }
            Write::Put(Record::Task(task)) if before.task(task.id).is_none() => {
                let TaskSpec::MirrorPull(pull) = &task.spec else { continue };
                let name = &pull.mirror;
                let live = before.newest(&task.node, &task.slot()).filter(|task| task.is_live());
                let ends = |id| {
                    change.writes.iter().any(|write| {
                    matches!(write, Write::Put(Record::Task(t)) if t.id == id && !t.is_live())
                })
                };
                assert!(live.is_none_or(|live| ends(live.id)), "two pulls at once: {task:?}");
                let had = before.replica(name, &task.node).map_or(0, |row| row.value.generation);
                if pull.hop == HopKind::Replica {
                    assert!(pull.generation >= had, "older than what it has: {task:?}");
                }
            }
            _ => {}
        }
    }
}

/// Everything heals, and agents do what they are told for long enough.
fn heal(lab: &mut Lab) {
    drop(lab.try_ask(Request::AdoptStore { incarnation: Incarnation(9) }));
    let mirrors: Vec<MirrorName> = lab.world.mirrors().keys().cloned().collect();
    for mirror in mirrors {
        drop(lab.try_ask(Request::RescheduleMirror { mirror: mirror.clone(), schedule: None }));
        drop(lab.try_ask(Request::SetMirrorEnabled { mirror: Some(mirror), enabled: true }));
    }
    let names: Vec<String> = lab.world.nodes().keys().map(ToString::to_string).collect();
    for name in &names {
        let node = || name.parse().unwrap();
        drop(lab.try_ask(Request::ChangeNode { node: node(), action: NodeAction::Resume }));
        drop(lab.try_ask(Request::ChangeNode { node: node(), action: NodeAction::Enable }));
        let incarnation = lab.world.fleet().unwrap().value.incarnation;
        let told = Told { incarnation, revision: lab.world.revision(), ..Told::default() };
        lab.observe(name, Observation::Connected(told));
        let version = format!("0.9.{}", lab.world.revision());
        let report = lockstep_model::node::NodeReport { version, ..Default::default() };
        lab.now = lab.now + lockstep_model::Millis(1);
        lab.observe(name, Observation::Node(report));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..6 {
        lab.pass(4000);
        for _ in 0..20 {
            lab.work(&names);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn laws_of_mirrors_hold_in_any_history(history in vec(step(), 0..150)) {
        let mut lab = Lab::with_nodes(&NODES);
        for step in history {
            take(&mut lab, step);
        }
        let behind = lab.world.store_behind().is_some();
        lab.settle();

        lab.restart();
        let plan = plan(&lab.world, lab.now);
        prop_assert!(behind || plan.writes.is_empty(), "after a restart: {:#?}", plan.writes);

        let mut world = World::default();
        for change in &lab.log {
            check_change(&world, change);
            world.apply(change);
        }

        heal(&mut lab);
        for task in lab.world.tasks().map(|task| &task.value) {
            prop_assert!(!task.is_live(), "healed, and still live: {:?}", task);
        }
        for (name, mirror) in lab.world.mirrors() {
            let mirror = &mirror.value;
            let works = |node: &NodeName| lab.world.nodes()[node].value.admin == NodeAdmin::Enabled;
            prop_assert!(!mirror.deleting, "{name} is gone");
            let state = &lab.world.mirror_states()[name].value;
            prop_assert_eq!(state.current, None, "{}", name);
            if !works(&mirror.master) {
                continue;
            }
            prop_assert!(state.wanted.is_none(), "{:?}", state);
            if state.generation_on.as_ref() != Some(&mirror.master) {
                continue;
            }
            for copy in crate::members::copies(&lab.world, mirror).0 {
                let row = lab.world.replica(name, &copy.node.name);
                let has = row.map_or(0, |row| row.value.generation);
                prop_assert_eq!(has, state.generation, "{} {:?}", name, row);
                prop_assert!(row.is_none_or(|row| row.value.current.is_none()));
            }
        }
        for row in MIRRORS.iter().flat_map(|name| {
            let name = name.parse().unwrap();
            lab.world.runs_of(&name).flat_map(|(_, rows)| rows.values()).map(|r| r.value.clone()).collect::<Vec<_>>()
        }) {
            prop_assert!(row.end.is_some(), "healed, and a run goes on: {:?}", row);
        }
    }
}
