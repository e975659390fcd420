//! Stories of stores that were old copies.

use lockstep_model::observation::{Observation, Told};

use super::host::Run;
use super::stories::{healthy, settled, switchover};
use crate::tests::cluster_requests::fixture::node;
use crate::tests::dsl::INCARNATION;

#[test]
fn after_an_old_store_was_accepted_a_term_above_all_is_drawn() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    let old = sim.lab.world.records();
    let revision = sim.lab.world.revision();
    sim.lab.ask(switchover("db2"));
    sim.run_until("the switchover", |sim| settled(sim, "db2"));
    sim.run(3000);
    sim.lab.world = crate::World::from_records(revision, old);
    sim.restore();
    sim.run_until("the new primary is known", |sim| settled(sim, "db2"));
    assert_eq!(sim.host("db2").run, Run::Primary);
    assert!(sim.state().term.0 > 2, "{:?}", sim.state());
}

/// The term that is recorded is the newest; who acknowledges is not.
#[test]
fn from_an_accepted_store_nothing_is_decided_before_all_who_could_lead_are_heard() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    let (old, revision) = (sim.lab.world.records(), sim.lab.world.revision());
    let term = sim.state().term;
    sim.host("db3").power_off();
    sim.disconnect(&node("db3"));
    sim.run_until("a set without db3", |sim| sim.quorum() == "any 1 of db2");
    let lost = sim.lab.world.revision();
    sim.lab.world = crate::World::from_records(revision, old);
    let told = Told { incarnation: INCARNATION, revision: lost, ..Told::default() };
    sim.lab.observe("db1", Observation::Connected(told));
    sim.restore();
    sim.run(60_000);
    assert_eq!((sim.state().term, sim.host("db1").run), (term, Run::Primary), "on promises");
    assert!(
        sim.reasons().iter().any(|why| why.contains("db3 has not said yet")),
        "{:?}",
        sim.reasons()
    );
    assert_eq!(sim.lab.try_ask(switchover("db2")).unwrap_err().reason, "in_doubt");
    sim.host("db3").power = true;
    sim.run_until("all is drawn anew", |sim| settled(sim, "db1") && sim.state().quorums.len() == 1);
    assert!(sim.state().term > term, "{:?}", sim.state());
    sim.lab.ask(switchover("db2"));
    sim.run_until("the switchover", |sim| settled(sim, "db2"));
}
