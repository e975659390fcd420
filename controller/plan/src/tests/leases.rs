//! Who is granted a lease, and that no grant follows the record of an election.

use lockstep_model::cluster::{
    Cause, Cluster, ClusterOptions, ClusterState, Election, Lsn, Quorum, Stage, Term,
};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::record::{Actor, Record, Txn, Write};
use lockstep_model::{ClusterName, Millis, NodeName, Revision};

use super::dsl::{INCARNATION, Lab, START};
use crate::leases::{NoLease, Uptime};

const LENGTH: Millis = Millis::from_secs(5);
/// With what two clocks may run apart.
const LENGTH_AT_MOST: u64 = 5005;

fn main() -> ClusterName {
    "main".parse().unwrap()
}

fn cluster(paused: bool) -> Record {
    Record::Cluster(Box::new(Cluster {
        name: main(),
        adopt: false,
        members: Vec::new(),
        options: ClusterOptions::default(),
        paused,
        created_at: START,
        leaving: None,
    }))
}

/// `db1` holds term 3, by leases of `LENGTH`.
fn steady() -> ClusterState {
    let mut state = ClusterState::new(main(), "db1".parse().unwrap(), INCARNATION);
    state.term = Term(3);
    state.stage = Stage::Steady;
    state.longest_lease = Some(LENGTH);
    state.quorums = vec![Quorum::OFF];
    state
}

/// Nobody holds term 4 yet.
fn electing() -> ClusterState {
    let mut state = steady();
    state.stage = Stage::Electing(Election {
        cause: Cause::NodeLost,
        from: Some(("db1".parse().unwrap(), Term(3))),
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
    });
    (state.term, state.holder) = (Term(4), None);
    state
}

fn txn(lab: &Lab, records: impl IntoIterator<Item = Record>) -> Txn {
    Txn {
        base: lab.world.revision(),
        raise_to: Revision::ZERO,
        at: lab.now,
        actor: Actor::Planner,
        cause: "test".to_owned(),
        writes: records.into_iter().map(Write::Put).collect(),
    }
}

fn record(state: ClusterState) -> Record {
    Record::ClusterState(Box::new(state))
}

fn put(lab: &mut Lab, records: impl IntoIterator<Item = Record>) {
    let txn = txn(lab, records);
    lab.commit(txn);
}

fn lab() -> Lab {
    let mut lab = Lab::with_nodes(&["db1", "db2"]);
    lab.world.leases_mut().start(Uptime(1_000));
    put(&mut lab, [cluster(false), record(steady())]);
    lab
}

fn renew(lab: &mut Lab, node: &str, term: u64, now: u64) -> Result<Option<Millis>, NoLease> {
    lab.world.renew_lease(&node.parse().unwrap(), &main(), Term(term), Uptime(now))
}

fn ends(lab: &Lab) -> Option<Uptime> {
    lab.world.leases().ends(&main(), &"db1".parse().unwrap(), Some(LENGTH))
}

#[test]
fn only_the_recorded_holder_is_granted_its_term() {
    let mut lab = lab();
    assert_eq!(renew(&mut lab, "db1", 2, 2_000), Err(NoLease::OtherTerm(Term(3))));
    assert_eq!(renew(&mut lab, "db1", 4, 2_000), Err(NoLease::OtherTerm(Term(3))));
    let holder = Some("db1".parse().unwrap());
    assert_eq!(renew(&mut lab, "db2", 3, 2_000), Err(NoLease::OtherHolder(holder)));
    let other: ClusterName = "other".parse().unwrap();
    let refused = lab.world.renew_lease(&"db1".parse().unwrap(), &other, Term(3), Uptime(2_000));
    assert_eq!(refused, Err(NoLease::Unknown(other)));
    assert_eq!(lab.world.leases().get(&main()), None, "a refusal is no grant");

    assert_eq!(renew(&mut lab, "db1", 3, 2_000), Ok(Some(LENGTH)));
    let granted = lab.world.leases().get(&main()).unwrap();
    assert_eq!((granted.term, granted.heard), (Term(3), Uptime(2_000)));
    assert_eq!(granted.until, Some(Uptime(2_000 + LENGTH_AT_MOST)));
    assert_eq!(lab.world.leases().now(), Uptime(2_000), "time goes on with it");
}

#[test]
fn nothing_longer_than_what_is_recorded_is_granted() {
    let mut lab = lab();
    put(&mut lab, [record(ClusterState { longest_lease: Some(Millis(0)), ..steady() })]);
    assert_eq!(renew(&mut lab, "db1", 3, 2_000), Err(NoLease::NotYet));
    put(&mut lab, [record(ClusterState { longest_lease: Some(Millis(3_000)), ..steady() })]);
    assert_eq!(renew(&mut lab, "db1", 3, 2_000), Ok(Some(Millis(3_000))));
    put(&mut lab, [record(ClusterState { longest_lease: Some(Millis(9_000)), ..steady() })]);
    assert_eq!(renew(&mut lab, "db1", 3, 2_000), Ok(Some(LENGTH)), "what is configured");
    // Paused, and not recorded yet: as before.
    put(&mut lab, [cluster(true)]);
    assert_eq!(renew(&mut lab, "db1", 3, 2_000), Ok(Some(LENGTH)));
    put(&mut lab, [record(ClusterState { longest_lease: None, ..steady() })]);
    assert_eq!(renew(&mut lab, "db1", 3, 3_000), Ok(None));
    assert_eq!(lab.world.leases().get(&main()).unwrap().until, None);
    put(&mut lab, [cluster(false)]);
    assert_eq!(renew(&mut lab, "db1", 3, 4_000), Ok(Some(LENGTH)));
}

#[test]
fn a_grant_before_an_election_is_recorded_is_waited_for_and_none_comes_after() {
    let mut lab = lab();
    renew(&mut lab, "db1", 3, 2_000).unwrap();
    // What the loop planned, and what the disk takes its time for.
    let planned = txn(&lab, [record(electing())]);
    renew(&mut lab, "db1", 3, 20_000).unwrap();
    lab.commit(planned);
    assert_eq!(ends(&lab), Some(Uptime(20_000 + LENGTH_AT_MOST)), "it came in between, and counts");
    for term in [3, 4] {
        let refused = renew(&mut lab, "db1", term, 20_001).unwrap_err();
        let why = [NoLease::OtherTerm(Term(4)), NoLease::OtherHolder(None)];
        assert!(why.contains(&refused), "{refused:?}");
    }
    assert_eq!(ends(&lab), Some(Uptime(20_000 + LENGTH_AT_MOST)));
    // Chosen: the new holder alone.
    let mut chosen = steady();
    (chosen.term, chosen.holder) = (Term(4), Some("db2".parse().unwrap()));
    put(&mut lab, [record(chosen)]);
    assert!(renew(&mut lab, "db1", 3, 30_000).is_err());
    assert!(renew(&mut lab, "db1", 4, 30_000).is_err());
    assert_eq!(renew(&mut lab, "db2", 4, 30_000), Ok(Some(LENGTH)));
}

#[test]
fn a_controller_that_starts_anew_waits_for_what_the_one_before_may_have_granted() {
    let mut lab = lab();
    renew(&mut lab, "db1", 3, 2_000).unwrap();
    lab.restart();
    lab.world.leases_mut().start(Uptime(90_000));
    assert_eq!(ends(&lab), Some(Uptime(90_000 + LENGTH_AT_MOST)));
    let endless = lab.world.leases().ends(&main(), &"db1".parse().unwrap(), None);
    assert_eq!(endless, None, "one without end");
}

#[test]
fn an_old_copy_of_a_store_grants_nothing() {
    let mut lab = lab();
    let revision = Revision(lab.world.revision().0 + 1);
    lab.observe(
        "db2",
        Observation::Connected(Told { incarnation: INCARNATION, revision, ..Told::default() }),
    );
    assert_eq!(renew(&mut lab, "db1", 3, 2_000), Err(NoLease::StoreBehind));
}

#[test]
fn an_agent_that_leaves_gets_a_longer_lease_once_it_is_recorded_and_shorter_ones_afterwards() {
    let mut lab = lab();
    let (db1, db2): (NodeName, NodeName) = ("db1".parse().unwrap(), "db2".parse().unwrap());
    assert!(!lab.world.note_away(&db2, &main(), Some(Millis(20_000))), "it holds nothing");
    assert!(!lab.world.note_away(&db1, &main(), None));
    assert!(lab.world.note_away(&db1, &main(), Some(Millis(20_000))));
    assert!(!lab.world.note_away(&db1, &main(), Some(Millis(20_000))), "no news");
    assert_eq!(renew(&mut lab, "db1", 3, 2_000), Ok(Some(LENGTH)), "not recorded yet");
    let longest = |lab: &Lab| lab.world.cluster_state(&main()).unwrap().longest_lease;
    lab.settle();
    assert_eq!(longest(&lab), Some(Millis(20_000)));
    assert_eq!(renew(&mut lab, "db1", 3, 3_000), Ok(Some(Millis(20_000))));
    assert_eq!(ends(&lab), Some(Uptime(23_020)));
    // Back: the ordinary length is granted at once, and recorded when the long one is over.
    assert!(lab.world.note_away(&db1, &main(), None));
    assert_eq!(renew(&mut lab, "db1", 3, 10_000), Ok(Some(LENGTH)));
    lab.settle();
    assert_eq!(longest(&lab), Some(Millis(20_000)));
    assert_eq!(renew(&mut lab, "db1", 3, 23_000), Ok(Some(LENGTH)));
    lab.world.touch_cluster(&main());
    lab.settle();
    assert_eq!(longest(&lab), Some(LENGTH));
    // No agent is away for as long as it likes.
    lab.world.note_away(&db1, &main(), Some(Millis(u64::MAX)));
    lab.settle();
    assert_eq!(longest(&lab), Some(lockstep_model::cluster::lease::AWAY_MAX));
}
