//! Laws of clusters, held against random histories: steps of agents in any order, answers that are
//! lost, crashes, cut links, restarts of the controller, requests. `Sim` checks after each step that
//! no two hosts acknowledge, that no acknowledged commit is missing where somebody begins to write, that
//! terms grow and have one holder, and `Lab` that no slot has two live tasks.

use lockstep_model::NodeName;
use lockstep_model::cluster::MemberAdmin;
use lockstep_model::request::Request;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::sim::{C, Sim};
use crate::tests::cluster_requests::fixture::name;

const NODES: [&str; 4] = ["db1", "db2", "db3", "db4"];

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a test's steps are few
enum Step {
    Pass(u64),
    Plan,
    Take(NodeName),
    Renew(NodeName, bool),
    Promises(NodeName),
    Act(NodeName),
    Follow(NodeName, usize),
    Write(NodeName),
    Ack(NodeName),
    Report(NodeName),
    Connect(NodeName),
    Disconnect(NodeName),
    Crash(NodeName),
    Hang(NodeName),
    PowerOff(NodeName),
    PowerOn(NodeName),
    Cut(&'static str, &'static str),
    Mend(&'static str, &'static str),
    MendAll,
    Restart,
    /// All do what they ought to for so long.
    Run(u64),
    Ask(Request),
    /// A failover that may lose commits.
    AllowLoss(NodeName),
}

fn node() -> impl Strategy<Value = NodeName> {
    select(&NODES[..]).prop_map(|name| name.parse().unwrap())
}

fn request() -> impl Strategy<Value = Request> {
    let admin = select(vec![
        MemberAdmin::Managed,
        MemberAdmin::Managed,
        MemberAdmin::Managed,
        MemberAdmin::Fenced,
        MemberAdmin::Stopped,
    ]);
    let some_node = || prop_oneof![Just(None), node().prop_map(Some)];
    let cluster = || name("main");
    prop_oneof![
        6 => some_node()
            .prop_map(move |to| Request::Switchover { cluster: cluster(), to, at: None }),
        2 => some_node().prop_map(move |to| Request::Failover {
            cluster: cluster(),
            to,
            allow_loss: false
        }),
        3 => (node(), admin).prop_map(move |(node, admin)| Request::SetMemberAdmin {
            cluster: cluster(),
            node,
            admin
        }),
        1 => any::<bool>()
            .prop_map(move |paused| Request::SetClusterPaused { cluster: cluster(), paused }),
        2 => Just(Request::SetClusterPaused { cluster: cluster(), paused: false }),
        1 => node().prop_map(move |node| Request::Reclone { cluster: cluster(), node }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let end = || select(vec!["db1", "db2", "db3", "db4", C]);
    prop_oneof![
        20 => select(vec![20u64, 100, 300, 700, 1500, 3000, 6000]).prop_map(Step::Pass),
        20 => Just(Step::Plan),
        20 => node().prop_map(Step::Take),
        12 => (node(), any::<bool>()).prop_map(|(node, answered)| Step::Renew(node, answered)),
        6 => node().prop_map(Step::Promises),
        24 => node().prop_map(Step::Act),
        10 => (node(), 0..4usize).prop_map(|(node, most)| Step::Follow(node, most)),
        14 => node().prop_map(Step::Write),
        14 => node().prop_map(Step::Ack),
        20 => node().prop_map(Step::Report),
        6 => node().prop_map(Step::Connect),
        4 => node().prop_map(Step::Disconnect),
        4 => node().prop_map(Step::Crash),
        1 => node().prop_map(Step::Hang),
        4 => node().prop_map(Step::PowerOff),
        6 => node().prop_map(Step::PowerOn),
        5 => (end(), end()).prop_map(|(a, b)| Step::Cut(a, b)),
        5 => (end(), end()).prop_map(|(a, b)| Step::Mend(a, b)),
        2 => Just(Step::MendAll),
        2 => Just(Step::Restart),
        14 => select(vec![50u64, 200, 1000, 3000]).prop_map(Step::Run),
        4 => request().prop_map(Step::Ask),
    ]
}

fn take(sim: &mut Sim, step: Step) {
    match step {
        Step::Pass(ms) => sim.pass(ms),
        Step::Plan => sim.plan(),
        Step::Take(of) => sim.take(&of),
        Step::Renew(of, answered) => sim.renew(&of, answered),
        Step::Promises(of) => sim.ask_promises(&of),
        Step::Act(of) => sim.act(&of),
        Step::Follow(of, most) => sim.stream(&of, most),
        Step::Write(of) => sim.write(&of),
        Step::Ack(of) => sim.ack(&of),
        Step::Report(of) => sim.report(&of),
        Step::Connect(of) => sim.connect(&of),
        Step::Disconnect(of) => sim.disconnect(&of),
        Step::Crash(of) => sim.host(of.as_str()).crash(),
        Step::Hang(of) => sim.hang(&of),
        Step::PowerOff(of) => sim.host(of.as_str()).power_off(),
        Step::PowerOn(of) => sim.host(of.as_str()).power = true,
        Step::Cut(a, b) if a != b => sim.link(a, b, false),
        Step::Mend(a, b) if a != b => sim.link(a, b, true),
        Step::Cut(..) | Step::Mend(..) => {}
        Step::MendAll => sim.cut.clear(),
        Step::Restart => sim.restart_controller(),
        Step::Run(ms) => sim.run(ms),
        Step::Ask(request) => drop(sim.lab.try_ask(request)),
        Step::AllowLoss(to) => {
            let cluster = name("main");
            let ask = Request::Failover { cluster, to: Some(to), allow_loss: true };
            sim.loss_allowed |= sim.lab.try_ask(ask).is_ok();
        }
    }
    sim.check_writers();
}

/// Everything works again, and nobody wants anything.
fn heal(sim: &mut Sim) {
    sim.cut.clear();
    drop(sim.lab.try_ask(Request::SetClusterPaused { cluster: name("main"), paused: false }));
    for node in NODES.iter().filter_map(|name| name.parse::<NodeName>().ok()) {
        if !sim.hosts.contains_key(&node) {
            continue;
        }
        let host = sim.host(node.as_str());
        host.power = true;
        host.hung = false;
        let admin = MemberAdmin::Managed;
        let ask = Request::SetMemberAdmin { cluster: name("main"), node: node.clone(), admin };
        drop(sim.lab.try_ask(ask));
        sim.disconnect(&node);
    }
    const ROUNDS_MAX: usize = 100;
    for _ in 0..ROUNDS_MAX {
        sim.run(1000);
        let (holder, live) = (sim.holder(), sim.lab.world.tasks().any(|task| task.value.is_live()));
        if !live && sim.is_steady() && sim.settled_on(&holder) {
            return;
        }
    }
}

fn check_healed(sim: &mut Sim) {
    let shown = sim.show();
    assert!(sim.is_steady(), "healed, and not steady: {shown}");
    let holder = sim.holder();
    assert!(sim.settled_on(&holder), "healed, and not all follow: {shown}");
    for task in sim.lab.world.tasks().map(|task| &task.value) {
        assert!(!task.is_live(), "healed, and still live: {task:?}\n{shown}");
    }
    sim.restart_controller();
    let plan = crate::plan(&sim.lab.world, sim.lab.now);
    assert!(plan.writes.is_empty(), "a restart is no reason: {:#?}", plan.writes);
}

fn history(
    settings: &[&'static [&'static str]],
) -> impl Strategy<Value = (usize, &'static [&'static str], Vec<Step>)> {
    let mut choices = settings.to_vec();
    choices.dedup();
    (2..=4usize, select(choices), vec(step(), 0..200))
}

const SETTINGS: &[&[&str]] = &[
    &[],
    &["sync=1"],
    &["sync=1", "on-sync-shortage=degrade"],
    &["sync=off"],
    &["sync=off", "on-crash=failover"],
    &["failover=manual"],
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn laws_of_clusters_hold_in_any_history((nodes, settings, steps) in history(SETTINGS)) {
        let mut sim = Sim::new(&NODES[..nodes], settings);
        sim.run(2000);
        for step in steps {
            if let Some(step) = fitting(&sim, step) {
                take(&mut sim, step);
            }
        }
        heal(&mut sim);
        check_healed(&mut sim);
    }

    #[test]
    fn loss_that_is_allowed_makes_no_second_primary((steps, at, to) in (vec(step(), 0..150), 0..150usize, node())) {
        let mut sim = Sim::new(&NODES[..3], &["sync=1"]);
        sim.run(2000);
        for (n, step) in steps.into_iter().enumerate() {
            if n == at && sim.hosts.contains_key(&to) {
                take(&mut sim, Step::AllowLoss(to.clone()));
            }
            if let Some(step) = fitting(&sim, step) {
                take(&mut sim, step);
            }
        }
        heal(&mut sim);
        check_healed(&mut sim);
    }
}

/// Steps of nodes that the history has.
fn fitting(sim: &Sim, step: Step) -> Option<Step> {
    let of = match &step {
        Step::Take(of)
        | Step::Renew(of, _)
        | Step::Promises(of)
        | Step::Act(of)
        | Step::Follow(of, _)
        | Step::Write(of)
        | Step::Ack(of)
        | Step::Report(of)
        | Step::Connect(of)
        | Step::Disconnect(of)
        | Step::Crash(of)
        | Step::Hang(of)
        | Step::PowerOff(of)
        | Step::PowerOn(of)
        | Step::AllowLoss(of) => of.clone(),
        Step::Cut(a, b) | Step::Mend(a, b) => {
            let there = |name: &str| {
                name == C || sim.hosts.contains_key(&name.parse::<NodeName>().unwrap())
            };
            return (there(a) && there(b)).then_some(step);
        }
        _ => return Some(step),
    };
    sim.hosts.contains_key(&of).then_some(step)
}
