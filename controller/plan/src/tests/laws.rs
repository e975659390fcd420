//! The laws of the planner, held against random histories: requests of people, outcomes and reports
//! of agents, restarts of the controller, time. `Lab` checks each world and plan on the way.

use lockstep_model::identity::{Role, TokenFor};
use lockstep_model::node::{NodeAdmin, NodeReport};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::record::Change;
use lockstep_model::request::{NodeAction, Request};
use lockstep_model::sync::{SyncReport, TargetReport};
use lockstep_model::task::{Outcome, OutcomeKind, TaskPhase};
use lockstep_model::{Incarnation, Millis, Revision};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::dsl::{Lab, add_targets, agent, create_sync, key, remove_targets, resync};
use crate::{Plan, World, plan};

const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const SYNCS: [&str; 3] = ["s0", "s1", "s2"];

/// One step of a history. Numbers choose among what there is, so that most steps hit something.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a test's steps are few
enum Step {
    Ask(Request),
    Join(&'static str),
    Connect(&'static str),
    Disconnect(&'static str),
    Upgrade(&'static str, u8),
    /// The agent ends one of its tasks, live or not.
    End(&'static str, usize, OutcomeKind),
    Phase(&'static str, usize, TaskPhase),
    /// The agent says that it has, or has no longer, a part in a sync.
    Report(&'static str, &'static str, bool),
    Cancel(usize),
    Pass(u64),
    /// An agent remembers revisions that the store does not have.
    ToldMore(&'static str),
    /// The controller loses what is not in the store.
    Restart,
    Settle,
}

fn node() -> impl Strategy<Value = &'static str> {
    select(&NODES[..])
}

fn place() -> impl Strategy<Value = String> {
    (node(), select(&["/a", "/a/b", "/c"][..])).prop_map(|(node, path)| format!("{node}:{path}"))
}

fn request() -> impl Strategy<Value = Request> {
    let sync = || select(&SYNCS[..]);
    let action = select(&NodeAction::ALL[..]);
    let user = || select(&["anna", "bob"][..]).prop_map(|name| name.parse().unwrap());
    let strs = |places: &[String], f: &dyn Fn(&[&str]) -> Request| {
        f(&places.iter().map(String::as_str).collect::<Vec<_>>())
    };
    prop_oneof![
        6 => (sync(), place(), vec(place(), 0..4)).prop_map(move |(sync, source, targets)| {
            strs(&targets, &|targets| create_sync(sync, &source, targets))
        }),
        4 => (sync(), vec(place(), 0..3))
            .prop_map(move |(sync, targets)| strs(&targets, &|targets| add_targets(sync, targets))),
        3 => (sync(), vec(node(), 0..2)).prop_map(|(sync, nodes)| remove_targets(sync, &nodes)),
        2 => sync().prop_map(|sync| Request::DeleteSync { sync: sync.parse().unwrap() }),
        4 => (sync(), vec(node(), 0..2)).prop_map(|(sync, nodes)| resync(sync, &nodes)),
        4 => (node(), action).prop_map(|(node, action)| {
            Request::ChangeNode { node: node.parse().unwrap(), action }
        }),
        2 => node().prop_map(|node| Request::RemoveNode { node: node.parse().unwrap() }),
        1 => user().prop_map(|name| Request::AddUser { name, role: Role::Admin }),
        1 => (user(), any::<bool>())
            .prop_map(|(name, disabled)| Request::SetUserDisabled { name, disabled }),
        1 => node().prop_map(|node| Request::CreateToken {
            id: "loose".parse().unwrap(),
            secret_sha256: [3; 32],
            grants: TokenFor::Node { name: node.parse().unwrap(), labels: Default::default() },
            ttl: Millis::from_secs(60),
        }),
        1 => Just(Request::AdoptStore { incarnation: Incarnation(8) }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use OutcomeKind::{Cancelled, Failed, Interrupted, Ok, Unknown, Unsupported};
    let kind = select(vec![Ok, Ok, Ok, Failed, Cancelled, Interrupted, Unknown, Unsupported]);
    let phase = select(vec![TaskPhase::Accepted, TaskPhase::Running]);
    prop_oneof![
        30 => request().prop_map(Step::Ask),
        8 => node().prop_map(Step::Join),
        6 => node().prop_map(Step::Connect),
        4 => node().prop_map(Step::Disconnect),
        2 => (node(), 0..3u8).prop_map(|(node, version)| Step::Upgrade(node, version)),
        20 => (node(), 0..6usize, kind).prop_map(|(node, at, kind)| Step::End(node, at, kind)),
        4 => (node(), 0..6usize, phase).prop_map(|(node, at, phase)| Step::Phase(node, at, phase)),
        3 => (node(), select(&SYNCS[..]), any::<bool>())
            .prop_map(|(node, sync, some)| Step::Report(node, sync, some)),
        3 => (0..6usize).prop_map(Step::Cancel),
        8 => select(&[0, 1, 2, 10, 400, 5_000, 90_000][..]).prop_map(Step::Pass),
        1 => node().prop_map(Step::ToldMore),
        2 => Just(Step::Restart),
        15 => Just(Step::Settle),
    ]
}

/// Agents report anything; people ask anything; refusals are fine, panics and broken laws are not.
fn take(lab: &mut Lab, step: Step) {
    let task_of = |lab: &Lab, name: &str, at: usize| {
        let node = name.parse().unwrap();
        lab.world.tasks_of(&node).nth(at).map(|task| task.value.id)
    };
    match step {
        Step::Ask(request) => drop(lab.try_ask(request)),
        Step::Join(name) => join(lab, name),
        Step::Connect(name) => connect(lab, name, Revision::ZERO),
        Step::ToldMore(name) => connect(lab, name, Revision(50)),
        Step::Disconnect(name) => {
            lab.observe(name, Observation::Disconnected { why: "link lost".to_owned() });
        }
        Step::Upgrade(name, version) => upgrade(lab, name, version),
        Step::End(name, at, kind) => {
            let Some(id) = task_of(lab, name, at) else { return };
            let outcome = Outcome::new(kind, "why");
            let end = Request::EndTask { node: name.parse().unwrap(), id, outcome };
            drop(lab.ask_as(&agent(name), end));
        }
        Step::Phase(name, at, phase) => {
            let Some(id) = task_of(lab, name, at) else { return };
            lab.observe(name, Observation::Task { id, phase });
        }
        Step::Report(name, sync, some) => {
            let target = TargetReport { filled: true, ..Default::default() };
            let report = some.then_some(SyncReport::Target(target));
            lab.observe(name, Observation::Sync { sync: sync.parse().unwrap(), report });
        }
        Step::Cancel(at) => {
            let Some(id) = lab.world.tasks().nth(at).map(|task| task.value.id) else { return };
            drop(lab.try_ask(Request::CancelTask { id }));
        }
        Step::Pass(secs) => lab.now = lab.now + Millis::from_secs(secs),
        Step::Restart => lab.restart(),
        Step::Settle => drop(lab.settle()),
    }
}

fn join(lab: &mut Lab, name: &str) {
    let (node, token) = (name.parse().unwrap(), format!("t-{name}-{}", lab.world.revision()));
    let token: lockstep_model::TokenId = token.parse().unwrap();
    let grants = TokenFor::Node { name: node, labels: Default::default() };
    let secret_sha256 = [1; 32];
    let ttl = Millis::from_secs(60);
    drop(lab.try_ask(Request::CreateToken { id: token.clone(), secret_sha256, grants, ttl }));
    drop(lab.try_ask(Request::Enroll { token, secret_sha256, key_hash: key(name) }));
    let addresses = vec![format!("{name}:7402").parse().unwrap()];
    drop(lab.ask_as(&agent(name), Request::Announce { node: name.parse().unwrap(), addresses }));
}

fn connect(lab: &mut Lab, name: &str, more: Revision) {
    let incarnation = lab.world.fleet().unwrap().value.incarnation;
    let revision = Revision(lab.world.revision().0 + more.0);
    lab.observe(name, Observation::Connected(Told { incarnation, revision, ..Told::default() }));
}

fn upgrade(lab: &mut Lab, name: &str, version: u8) {
    let report = NodeReport { version: format!("0.{version}.0"), ..NodeReport::default() };
    lab.observe(name, Observation::Node(report));
}

/// All that comes from records, read apart from `World::records`.
fn tables(world: &World) -> String {
    let tasks: Vec<_> = world.tasks().collect();
    let meta = (world.revision(), world.fleet(), world.nodes(), world.users());
    let slots: Vec<_> = world.slots().collect();
    format!("{:#?}", (meta, world.tokens(), world.syncs(), world.requests(), tasks, slots))
}

fn replay(log: &[Change]) -> World {
    let mut world = World::default();
    log.iter().for_each(|change| world.apply(change));
    world
}

/// Everything heals, and agents do what they are told for long enough.
fn heal(lab: &mut Lab) {
    drop(lab.try_ask(Request::AdoptStore { incarnation: Incarnation(9) }));
    let names: Vec<String> = lab.world.nodes().keys().map(ToString::to_string).collect();
    for name in &names {
        connect(lab, name, Revision::ZERO);
        lab.now = lab.now + Millis(1);
        upgrade(lab, name, 9);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..3 {
        lab.pass(400);
        lab.work(&names);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_in_any_history(history in vec(step(), 0..120)) {
        let mut lab = Lab::new();
        for name in ["n0", "n1", "n2"] {
            join(&mut lab, name);
        }
        for step in history {
            take(&mut lab, step);
        }
        let behind = lab.world.store_behind().is_some();
        let quiet = lab.settle();
        let again = Plan { rests: Default::default(), ..plan(&lab.world, lab.now) };
        prop_assert_eq!(&again, &quiet, "equal worlds, equal plans");

        prop_assert_eq!(tables(&replay(&lab.log)), tables(&lab.world), "the log is the state");

        // Agents are silent after a restart, and that alone is no reason to do anything.
        lab.restart();
        let plan = plan(&lab.world, lab.now);
        prop_assert!(behind || plan.writes.is_empty(), "after a restart: {:#?}", plan.writes);

        heal(&mut lab);
        for task in lab.world.tasks().map(|task| &task.value) {
            let admin = lab.world.nodes()[&task.node].value.admin;
            let newest = lab.world.newest(&task.node, &task.slot()).unwrap().id == task.id;
            let run = task.spec.kind() == "sync-resync";
            let there = lab.world.syncs().values().any(|sync| sync.value.names(&task.node));
            prop_assert!(!task.is_live(), "healed, and still live: {:?}", task);
            if newest && !run && admin != NodeAdmin::Expelled {
                prop_assert!(task.succeeded() && there, "healed, and not in force: {:?}", task);
            }
        }
    }
}
