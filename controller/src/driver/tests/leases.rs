//! Leases while the disk takes its time: answered at once, counted, and none after the record of an
//! election.

use lockstep_model::ClusterName;
use lockstep_model::cluster::report::{Stream, Trouble};
use lockstep_model::cluster::wal::Fork;
use lockstep_model::cluster::{
    ClusterOptions, Lineage, Lsn, MemberReport, MemberState, Renewal, Stage, SystemId, Term,
};
use lockstep_model::request::NewCluster;
use lockstep_plan::leases::NoLease;

use super::*;
use crate::session::{SessionHandle, SessionId};

const LENGTH: Millis = Millis::from_secs(5);

pub(super) fn main() -> ClusterName {
    "main".parse().unwrap()
}

fn report(state: MemberState) -> MemberReport {
    let follows = state == MemberState::Standby;
    MemberReport {
        state,
        term: Term(1),
        holds: (!follows).then_some(Term(1)),
        released: None,
        system_id: Some(SystemId(7)),
        version: "15.18".to_owned(),
        lineage: Lineage(vec![Fork { timeline: 1, begins: Lsn(0) }]),
        lsn: Some(Lsn(1000)),
        replayed: Some(Lsn(1000)),
        upstream: follows.then(|| Stream { from: node("db1"), age: Millis(10), end: Lsn(1000) }),
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

/// A stream of a node, which says nothing by itself.
fn open(driver: &DriverHandle, name: &str) -> SessionId {
    let handle = SessionHandle::unread();
    let id = handle.id;
    driver.sessions().insert(node(name), handle);
    id
}

async fn say(driver: &DriverHandle, name: &str, session: SessionId, state: MemberState) {
    let report = Some(Box::new(report(state)));
    let said = Observation::Cluster { cluster: main(), report };
    driver.observe(&node(name), session, said).await.unwrap();
}

/// A primary db1 and a standby db2, and their streams.
pub(super) async fn cluster(driver: &DriverHandle) -> (SessionId, SessionId) {
    join(driver, &["db1", "db2"]).await;
    let (of_db1, of_db2) = (open(driver, "db1"), open(driver, "db2"));
    let create = Request::CreateCluster(NewCluster {
        name: main(),
        primary: node("db1"),
        members: vec![(node("db2"), Vec::new())],
        options: ClusterOptions::default(),
        adopt: false,
        superuser: vec![1; 40],
        replication: vec![2; 40],
    });
    driver.ask(Ask::new(Actor::Offline, "test", create)).await.unwrap();
    say(driver, "db1", of_db1, MemberState::Primary).await;
    say(driver, "db2", of_db2, MemberState::Standby).await;
    driver.turn().await.unwrap();
    // What a plan writes is there when the next request is answered.
    driver.ask(add("anna")).await.unwrap();
    let state = driver.read(|world| world.cluster_state(&main()).unwrap().clone());
    assert_eq!(state.stage, Stage::Steady);
    (of_db1, of_db2)
}

pub(super) fn fail_over() -> Ask {
    let failover = Request::Failover { cluster: main(), to: None, allow_loss: true };
    Ask::new(Actor::Offline, "test", failover)
}

#[tokio::test]
async fn a_lease_is_answered_while_the_disk_takes_its_time_and_none_after_an_election() {
    let Bench { store, driver, .. } = bench(99).await;
    let (of_db1, of_db2) = cluster(&driver).await;
    let renew = |session, term| {
        let renewal = Renewal { cluster: main(), term: Term(term), sent_ms: 1, away: None };
        let renewed = driver.renew_lease(&node("db1"), session, &renewal);
        renewed.map(|(granted, _)| granted)
    };

    // Another stream of the node is not the node's.
    assert_eq!(renew(of_db2, 1), None);
    let before = driver.read(|world| world.leases().now());
    assert_eq!(renew(of_db1, 1), Some(Ok(Some(LENGTH))));

    store.leave.forget_permits(usize::MAX);
    let election = tokio::spawn({
        let driver = driver.clone();
        async move { driver.ask(fail_over()).await }
    });
    while store.waiting.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    // Decided, and not recorded yet: the old holder goes on, and this counts.
    assert_eq!(renew(of_db1, 1), Some(Ok(Some(LENGTH))));
    let heard = driver.read(|world| world.leases().get(&main()).unwrap().heard);
    assert!(heard >= before);
    store.leave.add_permits(99);
    election.await.unwrap().unwrap();
    assert_eq!(renew(of_db1, 1), Some(Err(NoLease::OtherTerm(Term(2)))));
    driver.read(|world| {
        let ends = world.leases().ends(&main(), &node("db1"), Some(LENGTH)).unwrap();
        assert!(ends >= heard && ends.since(heard) >= LENGTH, "{ends:?} of {heard:?}");
    });
}
