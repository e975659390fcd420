//! One event each, from a healthy cluster to a healthy cluster.

use lockstep_model::cluster::state::FailoverEnd;
use lockstep_model::cluster::{Cause, CrashPlan, Exclusion, Failover, Goal, Term};
use lockstep_model::observation::Observation;
use lockstep_model::request::Request;

use super::host::{Promise, Run};
use super::sim::{C, Sim};
use crate::tests::cluster_requests::fixture::{edit, name, node};

pub(super) fn healthy(nodes: &[&str], settings: &[&str]) -> Sim {
    let mut sim = Sim::new(nodes, settings);
    let standbys = nodes.len() - 1;
    sim.run_until("a healthy cluster", |sim| {
        let following = sim.hosts.values().filter(|h| h.run == Run::Standby).count();
        sim.is_steady()
            && following == standbys
            && sim.state().promotable.len() == nodes.len()
            && sim.state().is_settled()
    });
    sim.run(3000);
    sim
}

pub(super) fn switchover(to: &str) -> Request {
    Request::Switchover { cluster: name("main"), to: Some(node(to)), at: None }
}

fn newest(sim: &Sim) -> Failover {
    sim.lab.world.failovers_of(&name("main")).next_back().unwrap().value.clone()
}

pub(super) fn settled(sim: &Sim, holder: &str) -> bool {
    sim.is_steady() && sim.holder() == holder && sim.settled_on(holder)
}

#[test]
fn a_cluster_is_made_switched_and_failed_over_and_the_old_primary_returns() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    assert_eq!(sim.quorum(), "any 1 of db2, db3");
    assert_eq!(sim.reasons(), Vec::<String>::new(), "a healthy cluster waits for nothing");

    sim.lab.ask(switchover("db2"));
    sim.run_until("the switchover", |sim| settled(sim, "db2"));
    let report = newest(&sim);
    assert_eq!((report.cause, report.end), (Cause::Switchover, FailoverEnd::Done));
    assert_eq!(report.exclusion, Some(Exclusion::Released));
    sim.run(3000);
    assert_eq!(sim.quorum(), "any 1 of db1, db3");

    sim.write(&node("db2"));
    sim.run(100);
    sim.host("db2").crash();
    sim.run_until("the failover", |sim| sim.is_steady() && sim.holder() != "db2");
    let report = newest(&sim);
    assert_eq!((report.cause, report.exclusion), (Cause::Crash, Some(Exclusion::Released)));
    assert_eq!((report.lossless, report.end), (Some(true), FailoverEnd::Done));
    let holder = sim.holder();
    sim.run_until("the return", |sim| settled(sim, &holder));
    sim.run(3000);
    assert_eq!(sim.reasons(), Vec::<String>::new());
}

#[test]
fn a_lost_node_is_failed_over_at_once_with_a_quorum_and_at_lease_end_without() {
    for (settings, exclusion, least_ms) in
        [(&[][..], Exclusion::Sealed, 1000), (&["sync=off"][..], Exclusion::LeaseEnded, 5000)]
    {
        let mut sim = healthy(&["db1", "db2", "db3"], settings);
        // A controller that just started waits for all.
        sim.run(6000);
        let began = sim.up;
        sim.host("db1").power_off();
        sim.disconnect(&node("db1"));
        sim.run_until("the failover", |sim| sim.is_steady() && sim.holder() != "db1");
        let report = newest(&sim);
        assert_eq!((report.cause, report.exclusion), (Cause::NodeLost, Some(exclusion)));
        let took = sim.up - began;
        assert!((least_ms..least_ms + 1000).contains(&took), "{exclusion}: {took} ms");
        let holder = sim.holder();
        sim.host("db1").power = true;
        sim.run_until("the return", |sim| settled(sim, &holder));
    }
}

/// Reports of which only positions and ages are new make nobody look, but for this.
#[test]
fn a_stream_that_falls_silent_is_news_once() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    let up = sim.up;
    sim.host("db2").heard_upstream = Some((node("db1"), up));
    let says = |sim: &mut Sim, age| {
        let report = Some(Box::new(sim.host("db2").report(up + age)));
        sim.lab.observe("db2", Observation::Cluster { cluster: name("main"), report })
    };
    let news = [0, 600, 999, 1000, 1300].map(|age| says(&mut sim, age));
    assert_eq!(news, [false, false, false, true, false]);
    assert!(says(&mut sim, 10), "it is heard again");
}

#[test]
fn an_asynchronous_crash_is_restarted_in_place() {
    let mut sim = healthy(&["db1", "db2"], &[]);
    assert_eq!(sim.quorum(), "off");
    sim.host("db1").crash();
    sim.run(1000);
    assert_eq!((sim.holder().as_str(), sim.host("db1").run), ("db1", Run::Primary));
    assert_eq!(sim.state().number, 0, "no failover");
}

/// To look for the end of a long log takes time, in which standbys receive nothing any more.
#[test]
fn streams_that_end_with_a_primary_do_not_change_what_its_agent_is_doing() {
    let mut sim = healthy(&["db1", "db2"], &["on-crash=failover"]);
    sim.host("db1").run = Run::Down;
    sim.host("db2").heard_upstream = None;
    sim.report(&node("db2"));
    sim.settle();
    sim.take(&node("db1"));
    assert_eq!(sim.host("db1").plan(), CrashPlan::Release);
    sim.report(&node("db1"));
    sim.settle();
    sim.take(&node("db1"));
    assert_eq!(sim.host("db1").plan(), CrashPlan::Release);

    // One that lives and says itself that it sends to nobody has nobody to leave it to.
    sim.host("db1").run = Run::Primary;
    sim.link("db1", "db2", false);
    sim.run(3000);
    assert_eq!(sim.host("db1").plan(), CrashPlan::Restart);
}

#[test]
fn an_asynchronous_crash_that_is_to_fail_over_salvages_what_is_missing() {
    let mut sim = healthy(&["db1", "db2"], &["on-crash=failover"]);
    sim.link("db1", "db2", false);
    sim.write(&node("db1"));
    sim.ack(&node("db1"));
    let end = sim.host("db1").len();
    sim.host("db1").crash();
    sim.link("db1", "db2", true);
    sim.run_until("the failover", |sim| sim.is_steady() && sim.holder() == "db2");
    assert!(sim.host("db2").len() > end);
    let report = newest(&sim);
    assert_eq!(report.lossless, Some(true));
    sim.run_until("the return", |sim| settled(sim, "db2"));
}

#[test]
fn the_controllers_absence_changes_nothing() {
    let mut sim = healthy(&["db1", "db2", "db3"], &["sync=off"]);
    let before = sim.state();
    for of in ["db1", "db2", "db3"] {
        sim.link(C, of, false);
    }
    sim.run(60_000);
    assert_eq!(sim.host("db1").run, Run::Primary, "it lives on promises");
    sim.restart_controller();
    for of in ["db1", "db2", "db3"] {
        sim.link(C, of, true);
    }
    sim.run(10_000);
    assert_eq!(sim.state(), before);
}

#[test]
fn a_primary_that_only_the_controller_does_not_hear_serves_on() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    sim.link(C, "db1", false);
    sim.run(30_000);
    assert_eq!((sim.holder().as_str(), sim.host("db1").run), ("db1", Run::Primary));
    let why = sim.reasons().join("\n");
    assert!(why.contains("node_lost") && why.contains("still receives"), "{why}");
    sim.link(C, "db1", true);
    sim.run(3000);
    assert_eq!(sim.reasons(), Vec::<String>::new());
}

#[test]
fn commits_wait_or_degrade_when_standbys_are_gone() {
    for (settings, quorum, rule) in [
        (&["on-sync-shortage=wait"][..], "any 1 of db2, db3", ""),
        (&["on-sync-shortage=degrade"][..], "off", "unprotected"),
    ] {
        let mut sim = healthy(&["db1", "db2", "db3"], settings);
        for of in ["db2", "db3"] {
            sim.host(of).power_off();
            sim.disconnect(&node(of));
        }
        sim.run(5000);
        assert_eq!(sim.quorum(), quorum);
        let why = sim.reasons().join("\n");
        assert!(rule.is_empty() || why.contains(rule), "{why}");
        for of in ["db2", "db3"] {
            sim.host(of).power = true;
        }
        sim.run(10_000);
        assert_eq!(sim.quorum(), "any 1 of db2, db3");
    }
}

/// Nobody could be chosen by itself, so that nothing is begun either.
#[test]
fn an_unprotected_primary_that_is_lost_is_waited_for() {
    let mut sim = healthy(&["db1", "db2", "db3"], &["on-sync-shortage=degrade"]);
    for of in ["db2", "db3"] {
        sim.host(of).power_off();
        sim.disconnect(&node(of));
    }
    sim.run(5000);
    assert_eq!(sim.quorum(), "off");
    sim.host("db1").power_off();
    sim.disconnect(&node("db1"));
    for of in ["db2", "db3"] {
        sim.host(of).power = true;
    }
    sim.run(20_000);
    let why = sim.reasons().join("\n");
    assert!(sim.is_steady() && why.contains("--allow-data-loss"), "{why}");
    sim.host("db1").power = true;
    sim.run_until("the return", |sim| sim.is_steady() && sim.quorum() == "any 1 of db2, db3");
    assert_eq!(sim.holder(), "db1");
}

#[test]
fn a_failed_promotion_goes_on_to_another_member_with_the_earlier_quorum_honoured() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    sim.host("db1").power_off();
    sim.disconnect(&node("db1"));
    sim.run_until("a choice", |sim| !sim.holder().is_empty() && sim.holder() != "db1");
    let chosen = sim.holder();
    sim.host(&chosen).power_off();
    sim.disconnect(&node(&chosen));
    sim.run(30_000);
    assert_ne!(sim.holder(), "db1");
    // Of two that acknowledged one is left: it may lack something, so nobody is promoted.
    let why = sim.reasons().join("\n");
    assert!(!sim.is_steady() && !why.is_empty(), "{why}");
    sim.host(&chosen).power = true;
    sim.run_until("a primary", Sim::is_steady);
}

#[test]
fn a_pause_decides_nothing_and_its_end_lets_leases_end_again() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    let paused = |paused| Request::SetClusterPaused { cluster: name("main"), paused };
    sim.lab.ask(paused(true));
    sim.run(2000);
    assert_eq!(sim.state().longest_lease, None);
    sim.host("db1").power_off();
    sim.disconnect(&node("db1"));
    sim.run(30_000);
    assert_eq!((sim.holder().as_str(), sim.state().number), ("db1", 0));
    sim.host("db1").power = true;
    sim.run(5000);
    sim.lab.ask(paused(false));
    sim.run(5000);
    assert!(sim.state().longest_lease.is_some(), "{}", sim.show());
}

#[test]
fn a_primary_that_is_fenced_or_stopped_hands_over_first() {
    use lockstep_model::cluster::MemberAdmin;
    for admin in [MemberAdmin::Fenced, MemberAdmin::Stopped] {
        let mut sim = healthy(&["db1", "db2", "db3"], &[]);
        sim.lab.ask(Request::SetMemberAdmin { cluster: name("main"), node: node("db1"), admin });
        sim.run_until("another primary", |sim| sim.is_steady() && sim.holder() != "db1");
        sim.run(2000);
        let goal = sim.host("db1").place.clone().unwrap().goal;
        assert!(matches!(goal, Goal::Fenced | Goal::Stopped), "{goal:?}");
        assert_eq!(sim.host("db1").run, Run::Down);
    }
}

#[test]
fn a_switchover_whose_target_is_lost_turns_back() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    sim.lab.ask(switchover("db2"));
    assert_eq!(sim.state().stage.as_str(), "preparing");
    sim.host("db2").power_off();
    sim.disconnect(&node("db2"));
    sim.run(2000);
    assert!(sim.is_steady() && sim.holder() == "db1", "{}", sim.show());
    assert_eq!(newest(&sim).end, FailoverEnd::TurnedBack);
}

#[test]
fn a_switchover_waits_for_its_time_and_is_given_up_when_it_cannot_begin() {
    let mut sim = healthy(&["db1", "db2"], &["switchover-limit=10s"]);
    let at = Some(sim.lab.now + lockstep_model::Millis(5000));
    sim.lab.ask(Request::Switchover { cluster: name("main"), to: Some(node("db2")), at });
    sim.run(2000);
    assert_eq!((sim.holder().as_str(), sim.state().number), ("db1", 0));
    sim.host("db2").power_off();
    sim.disconnect(&node("db2"));
    sim.run(8000);
    assert!(sim.reasons().join("\n").contains("a switchover waits"), "{:?}", sim.reasons());
    sim.run(10_000);
    assert_eq!(sim.state().wanted, None);
    assert!(newest(&sim).note.starts_with("it did not begin"), "{:?}", newest(&sim));
}

#[test]
fn a_statement_that_kills_every_primary_does_not_walk_through_all_members() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    for crashes in 1..=4 {
        let holder = sim.holder();
        sim.host(&holder).crash();
        sim.run(8000);
        assert!(sim.is_steady(), "{}", sim.show());
        assert_eq!(sim.state().number, crashes.min(2), "two failovers, then restarts");
    }
    assert!(sim.reasons().join("\n").contains("crash_budget"));
    sim.run(600_000);
    assert_eq!(sim.reasons(), Vec::<String>::new());
}

#[test]
fn a_hung_primary_is_ended_and_another_takes_over() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    sim.hang(&node("db1"));
    sim.run_until("the failover", |sim| sim.is_steady() && sim.holder() != "db1");
    assert_eq!(newest(&sim).cause, Cause::Hung);
    let holder = sim.holder();
    sim.run_until("the return", |sim| settled(sim, &holder));
}

#[test]
fn a_member_leaves_once_nothing_counts_it_and_a_cluster_goes_as_a_whole() {
    use lockstep_model::cluster::Leaving;
    let mut sim = healthy(&["db1", "db2", "db3", "db4"], &[]);
    let remove = Request::RemoveMember { cluster: name("main"), node: node("db3"), delete: false };
    sim.lab.ask(remove);
    assert!(sim.reasons().join("\n").contains("removing"), "{:?}", sim.reasons());
    sim.run_until("its end", |sim| {
        sim.lab.world.clusters()[&name("main")].value.member(&node("db3")).is_none()
    });
    assert_eq!(sim.quorum(), "any 1 of db2, db4");
    assert!(!sim.state().promotable.contains(&node("db3")));
    let (cluster, leaving) = (name("main"), Leaving::Release);
    sim.lab.ask(Request::RemoveCluster { cluster, leaving });
    for of in ["db1", "db2", "db4"] {
        sim.take(&node(of));
    }
    sim.lab.settle();
    assert!(sim.lab.world.clusters().is_empty());
    assert_eq!(sim.lab.world.tasks().count(), 0);
    assert_eq!(sim.lab.world.failovers_of(&name("main")).count(), 0);
}

#[test]
fn data_that_commits_wait_for_is_not_copied_anew() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    sim.lab.ask(Request::Reclone { cluster: name("main"), node: node("db2") });
    let told = |sim: &mut Sim| sim.host("db2").place.clone().unwrap().copy;
    assert_eq!(told(&mut sim), 1);
    sim.run_until("a new copy", |sim| sim.state().members[&node("db2")].copied == 2);
    assert_eq!(told(&mut sim), 2);
    sim.run(3000);
    assert_eq!(sim.quorum(), "any 1 of db2, db3", "it is back");
}

/// Whom the controller does not hear may live on promises of those it does not hear either.
#[test]
fn even_with_loss_allowed_nobody_is_promoted_beside_a_primary_that_may_live_on_promises() {
    // Away long enough, its promise is asked for no more.
    for (settings, away_ms) in [("sync=1", 0), ("sync=1", 40_000), ("sync=off", 40_000)] {
        let mut sim = healthy(&["db1", "db2", "db3"], &[settings]);
        if away_ms > 0 {
            sim.host("db3").power_off();
            sim.disconnect(&node("db3"));
            sim.run(away_ms);
        }
        for (a, b) in [(C, "db1"), (C, "db2"), ("db1", "db3"), ("db2", "db3")] {
            sim.link(a, b, false);
        }
        ["db1", "db2"].iter().for_each(|of| sim.disconnect(&node(of)));
        sim.host("db3").power = true;
        sim.run(5000);
        let (cluster, to) = (name("main"), Some(node("db3")));
        sim.loss_allowed = true;
        sim.lab.try_ask(Request::Failover { cluster, to, allow_loss: true }).unwrap();
        sim.run(60_000);
        assert_eq!(sim.holder(), "", "{settings:?}");
        assert_eq!(sim.host("db1").run, Run::Primary, "{settings:?}");
        assert!(!sim.reasons().is_empty());
        sim.cut.clear();
        sim.run_until("one primary", |sim| sim.is_steady());
    }
}

#[test]
fn the_member_that_has_most_is_chosen_whatever_its_priority() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    sim.link("db1", "db2", false);
    sim.write(&node("db1"));
    sim.act(&node("db3"));
    sim.ack(&node("db1"));
    assert_eq!(sim.acked.len(), 1);
    sim.host("db1").power_off();
    sim.disconnect(&node("db1"));
    sim.run_until("the failover", |sim| sim.is_steady() && sim.holder() != "db1");
    assert_eq!((sim.holder().as_str(), newest(&sim).lossless), ("db3", Some(true)));
}

#[test]
fn commits_and_elections_prefer_other_groups_than_the_primarys() {
    let mut sim = healthy(&["db1", "db2", "db3"], &[]);
    let room_a = &["group=a"][..];
    let rooms = [("db1", room_a), ("db2", room_a), ("db3", &["group=b"])];
    sim.lab.ask(edit("main", &[], &rooms));
    sim.run_until("only the other room acknowledges", |sim| sim.quorum() == "any 1 of db3");
    sim.disconnect(&node("db3"));
    sim.host("db3").power_off();
    sim.run_until("the same room will do", |sim| sim.quorum() == "any 1 of db2");
    sim.host("db3").power = true;
    sim.run_until("the other room is back", |sim| {
        sim.quorum() == "any 1 of db3" && sim.state().is_settled()
    });
    sim.run(3000);
    sim.host("db1").power_off();
    sim.disconnect(&node("db1"));
    sim.run_until("the failover", |sim| sim.is_steady() && sim.holder() != "db1");
    assert_eq!(sim.holder(), "db3", "as far as db2, whose name comes first");
    assert_eq!(newest(&sim).lossless, Some(true));
}

/// Writes wait for standbys that will be there first.
#[test]
fn a_new_primary_s_set_counts_the_living_before_the_dead() {
    let mut sim = healthy(&["db1", "db2", "db3", "db4"], &["sync=2"]);
    sim.write(&node("db1"));
    sim.run(500);
    // It keeps a promise, and is sealed only later.
    let until = sim.up + 60_000;
    sim.host("db4").promise = Some(Promise { term: Term(1), until });
    sim.host("db1").power_off();
    sim.disconnect(&node("db1"));
    sim.run_until("a choice", |sim| sim.state().holder.is_some_and(|to| to != node("db1")));
    let state = sim.state();
    let newest = state.quorums.last().unwrap();
    assert!(!newest.of.contains(&node("db1")), "{newest}");
}

/// Whom a primary chose to be lost with has acknowledged nothing without the third one, and what the old
/// primary acknowledged is with itself.
#[test]
fn one_that_is_lost_in_its_promotion_is_replaced_by_those_who_are_back() {
    for after in ["promoting", "steady"] {
        let mut sim = healthy(&["db1", "db2", "db3"], &[]);
        // Only db2 has it, but for db1 itself.
        sim.link("db1", "db3", false);
        sim.write(&node("db1"));
        sim.act(&node("db2"));
        sim.ack(&node("db1"));
        assert_eq!(sim.acked.len(), 1);
        sim.link("db2", "db3", false);
        sim.host("db1").power_off();
        sim.disconnect(&node("db1"));
        sim.run_until("the choice", |sim| {
            sim.holder() == "db2" && sim.state().stage.as_str() == after
        });
        sim.host("db2").power_off();
        sim.disconnect(&node("db2"));
        sim.run(20_000);
        assert_eq!(sim.holder(), "db2", "{after}: db3 alone may lack something");
        sim.link("db1", "db3", true);
        sim.host("db1").power = true;
        sim.run_until("the replacement", |sim| {
            sim.is_steady() && sim.holder() == "db1" && sim.hosts[&node("db3")].run == Run::Standby
        });
        assert_eq!(newest(&sim).lossless, Some(true), "{after}");
        sim.link("db2", "db3", true);
        sim.host("db2").power = true;
        sim.run_until("the return", |sim| settled(sim, "db1"));
        let numbers = ["db1", "db2", "db3"].map(|of| sim.host(of).lineage.last().unwrap().timeline);
        assert_eq!(numbers, [3, 3, 3], "{after}: db2 was given 2");
    }
}
