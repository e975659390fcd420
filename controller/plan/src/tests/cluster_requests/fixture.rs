//! A cluster `main` of db1, the primary, db2 and db3, which waits for two standbys and has a db4 beside
//! it; and requests about it. Nothing is planned here: what rules make of it is not looked at.

use lockstep_model::cluster::{
    Act, Cause, ClusterOptions, ClusterRelease, ClusterState, Election, Lineage, Lsn, Member,
    MemberReport, MemberState, Quorum, Stage, SystemId, Term,
    report::{Stream, Trouble},
    state::MemberRecord,
    wal::Fork,
};
use lockstep_model::observation::Observation;
use lockstep_model::record::{Actor, Record, Txn, Write};
use lockstep_model::request::{NewCluster, Request};
use lockstep_model::setting::{Settings, Value};
use lockstep_model::task::{Task, TaskSpec};
use lockstep_model::{ClusterName, Millis, NodeName, Revision, TaskId};

use crate::tests::dsl::{Lab, START};

pub fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

pub fn node(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// `name=value` each.
pub fn values(texts: &[&str]) -> Vec<Value> {
    let value = |text: &&str| {
        let (name, text) = text.split_once('=').unwrap();
        Value { name: name.to_owned(), text: text.to_owned() }
    };
    texts.iter().map(value).collect()
}

/// The first of `nodes` is the primary.
pub fn new(name: &str, nodes: &[&str], settings: &[&str]) -> NewCluster {
    let mut options = ClusterOptions::default();
    let settings = values(settings);
    options.set(settings.iter().map(|v| (v.name.as_str(), v.text.as_str()))).unwrap();
    NewCluster {
        name: self::name(name),
        primary: node(nodes[0]),
        members: nodes[1..].iter().map(|name| (node(name), Vec::new())).collect(),
        options,
        adopt: false,
        superuser: vec![1; 40],
        replication: vec![2; 40],
    }
}

pub fn create(new: NewCluster) -> Request {
    Request::CreateCluster(new)
}

pub fn edit(cluster: &str, settings: &[&str], members: &[(&str, &[&str])]) -> Request {
    let members = members.iter().map(|(of, settings)| (node(of), values(settings))).collect();
    Request::EditCluster { cluster: name(cluster), values: values(settings), members }
}

pub fn add(cluster: &str, of: &str, settings: &[&str]) -> Request {
    Request::AddStandby { cluster: name(cluster), node: node(of), values: values(settings) }
}

pub fn remove(cluster: &str, of: &str, delete: bool) -> Request {
    Request::RemoveMember { cluster: name(cluster), node: node(of), delete }
}

pub fn act(cluster: &str, nodes: &[&str], act: Act) -> Request {
    let nodes = nodes.iter().map(|name| node(name)).collect();
    Request::ActOnCluster { cluster: name(cluster), nodes, act, traceparent: None }
}

pub fn member(lab: &Lab, of: &str) -> Member {
    lab.world.clusters()[&name("main")].value.member(&node(of)).unwrap().clone()
}

pub fn state(lab: &Lab) -> ClusterState {
    lab.world.cluster_state(&name("main")).unwrap().clone()
}

/// What the rules would have made of it by now.
pub fn put_state(lab: &mut Lab, change: impl FnOnce(&mut ClusterState)) {
    let mut state = state(lab);
    change(&mut state);
    put(lab, Record::ClusterState(Box::new(state)));
}

fn put(lab: &mut Lab, record: Record) {
    lab.commit(Txn {
        base: lab.world.revision(),
        raise_to: Revision::ZERO,
        at: lab.now,
        actor: Actor::Planner,
        cause: "test".to_owned(),
        writes: vec![Write::Put(record)],
    });
}

pub fn election() -> Election {
    Election {
        cause: Cause::NodeLost,
        from: Some((node("db1"), Term(3))),
        to: None,
        allow_loss: false,
        began_at: START,
        excluded: None,
        excluded_at: None,
        chosen_at: None,
        at_least: Lsn(0),
        goal: None,
        salvage: None,
        number: 1,
    }
}

pub fn promoting() -> Stage {
    Stage::Promoting(election())
}

fn lineage() -> Lineage {
    Lineage(vec![Fork { timeline: 1, begins: Lsn(0) }])
}

pub fn report(state: MemberState, lsn: u64) -> MemberReport {
    let follows = state == MemberState::Standby;
    MemberReport {
        state,
        term: Term(3),
        holds: (state == MemberState::Primary).then_some(Term(3)),
        released: None,
        system_id: Some(SystemId(7)),
        version: "15.18".to_owned(),
        lineage: lineage(),
        lsn: Some(Lsn(lsn)),
        replayed: Some(Lsn(lsn)),
        upstream: follows.then(|| Stream { from: node("db1"), age: Millis(100), end: Lsn(0) }),
        quorum: None,
        promotable: Vec::new(),
        standbys: Vec::new(),
        rewindable: true,
        prepared: false,
        copy: 1,
        progress: None,
        salvaged_bytes: 0,
        certificate: String::new(),
        pending_restart: Vec::new(),
        trouble: Trouble::None,
        problem: String::new(),
        warnings: Vec::new(),
        findings: Vec::new(),
    }
}

pub fn lose(lab: &mut Lab, of: &str) {
    lab.observe(of, Observation::Disconnected { why: "link lost".to_owned() });
}

pub fn say(lab: &mut Lab, of: &str, report: MemberReport) {
    let report = Some(Box::new(report));
    lab.observe(of, Observation::Cluster { cluster: name("main"), report });
}

/// Made, with all copies complete, and streaming.
pub fn lab() -> Lab {
    let mut lab = Lab::with_nodes(&["db1", "db2", "db3", "db4"]);
    lab.try_ask(create(new("main", &["db1", "db2", "db3"], &["sync=2"]))).unwrap();
    put_state(&mut lab, |state| {
        state.system_id = Some(SystemId(7));
        state.major = Some(15);
        state.term = Term(3);
        state.stage = Stage::Steady;
        state.lineage = lineage();
        state.quorums = vec![Quorum { k: 2, of: [node("db2"), node("db3")].into() }];
        for of in ["db1", "db2", "db3"] {
            state.members.insert(node(of), MemberRecord { copied: 1, failed_term: None });
        }
    });
    for (n, of) in ["db1", "db2", "db3"].into_iter().enumerate() {
        give_part(&mut lab, of, n as u32);
    }
    say(&mut lab, "db1", report(MemberState::Primary, 1000));
    say(&mut lab, "db2", report(MemberState::Standby, 1000));
    say(&mut lab, "db3", report(MemberState::Standby, 1000));
    lab
}

/// Only who was told something of a cluster is listened to.
fn give_part(lab: &mut Lab, of: &str, n: u32) {
    let id = TaskId { revision: lab.world.revision().next(), n };
    let release = ClusterRelease { cluster: name("main"), delete: false };
    let task = Task {
        id,
        node: node(of),
        spec: TaskSpec::ClusterRelease(release),
        attempt: 1,
        created_at: lab.now,
        run_limit: Millis::from_secs(60),
        cancel_requested: false,
        ended: None,
        traceparent: None,
    };
    put(lab, Record::Task(task));
}
