//! The life of a sync as the planner tells it: what each node is given, and what is waited for.

use expect_test::{Expect, expect};
use lockstep_model::observation::Observation;
use lockstep_model::request::{NodeAction, Request};
use lockstep_model::task::TaskPhase;

use super::dsl::{Lab, add_targets, create_sync, remove_targets};

pub(super) const ALL: [&str; 3] = ["master1", "web1", "web2"];

pub(super) fn check(lab: &mut Lab, expected: Expect) {
    expected.assert_eq(&lab.show());
}

/// webroot from master1 to web1 and web2, in force everywhere.
pub(super) fn in_force() -> Lab {
    let mut lab = Lab::with_nodes(&ALL);
    lab.ask(create_sync("webroot", "master1:/srv", &["web1:/srv", "web2:/srv"]));
    lab.work(&ALL);
    lab
}

#[test]
fn a_new_sync_gives_every_node_its_part() {
    let mut lab = Lab::with_nodes(&ALL);
    lab.ask(create_sync("webroot", "master1:/srv", &["web2:/srv", "web1:/srv"]));
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: live
        web1 12.1 #1: sync-target webroot <- master1: live
        web2 12.2 #1: sync-target webroot <- master1: live
        ? sync/webroot/master1 assign: master1 has not confirmed sync-source 12.0, given at 2026-11-21T00:00:00Z
        ? sync/webroot/web1 assign: web1 has not confirmed sync-target 12.1, given at 2026-11-21T00:00:00Z
        ? sync/webroot/web2 assign: web2 has not confirmed sync-target 12.2, given at 2026-11-21T00:00:00Z
    "#]],
    );
    let running = lab.world.tasks().next().unwrap().value.id;
    lab.observe("master1", Observation::Task { id: running, phase: TaskPhase::Running });
    lab.work(&["web1", "web2"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: live
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/master1 assign: master1 is at sync-source 12.0, given at 2026-11-21T00:00:00Z
    "#]],
    );
    lab.work(&["master1"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
    "#]],
    );
}

#[test]
fn a_target_is_added_while_the_source_is_away() {
    let mut lab = in_force();
    lab.disconnect("master1");
    lab.join("web3");
    lab.ask(add_targets("webroot", &["web3:/srv"]));
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 20.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402 web3@web3:7402]: live
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        web3 20.1 #1: sync-target webroot <- master1: live
        ? sync/webroot/master1 assign: master1 is not connected since 2026-11-21T00:00:00Z (link lost); sync-source 20.0 is carried out when it returns
        ? sync/webroot/web3 assign: web3 was not heard of since the controller started; sync-target 20.1 is carried out when it connects
    "#]],
    );
    lab.connect("master1");
    lab.work(&["master1"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 20.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402 web3@web3:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        web3 20.1 #1: sync-target webroot <- master1: live
        ? sync/webroot/web3 assign: web3 was not heard of since the controller started; sync-target 20.1 is carried out when it connects
    "#]],
    );
}

#[test]
fn a_target_without_an_address_is_left_out_until_it_has_one() {
    let mut lab = in_force();
    let addresses = Vec::new();
    let silent = Request::Announce { node: "web2".parse().unwrap(), addresses };
    lab.ask_as(&super::dsl::agent("web2"), silent).unwrap();
    lab.work(&["master1"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-source webroot -> [web1@web1:7402]: live
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web2 no_address: web2 has not announced an address for data; master1 delivers to it once web2 connects
        ? sync/webroot/master1 assign: master1 has not confirmed sync-source 17.0, given at 2026-11-21T00:00:00Z
    "#]],
    );
}

#[test]
fn an_expelled_target_is_left_out_and_told_nothing() {
    let mut lab = in_force();
    lab.act("web1", NodeAction::Expel);
    lab.work(&["master1"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-source webroot -> [web2@web2:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web1 node_expelled: web1 was expelled and is left out: lockstepctl sync remove-target webroot web1
    "#]],
    );
    lab.ask(remove_targets("webroot", &["web1"]));
    lab.ask(Request::RemoveNode { node: "web1".parse().unwrap() });
    lab.work(&["master1"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-source webroot -> [web2@web2:7402]: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
    "#]],
    );
}

#[test]
fn a_drained_target_stays_in_step_and_does_not_serve() {
    let mut lab = in_force();
    lab.act("web1", NodeAction::Drain);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 17.0 #1: sync-target webroot <- master1 not-serving: live
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web1 node_draining: web1 is draining: its copy stays in step and load balancers are told NOT_SERVING; lockstepctl node resume web1
        ? sync/webroot/web1 assign: web1 has not confirmed sync-target 17.0, given at 2026-11-21T00:00:00Z
    "#]],
    );
    lab.work(&ALL);
    lab.act("web1", NodeAction::Resume);
    lab.work(&ALL);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 17.0 #1: sync-target webroot <- master1 not-serving: ok
        web1 20.0 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
    "#]],
    );
}

#[test]
fn disabled_nodes_are_told_to_do_nothing() {
    let mut lab = in_force();
    lab.disconnect("web1");
    lab.act("web1", NodeAction::Disable);
    lab.work(&["master1", "web2"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-source webroot -> [web2@web2:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 17.1 #1: sync-target webroot <- nobody not-serving: live
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web1 node_disabled: web1 is disabled: nothing is delivered to it, load balancers are told NOT_SERVING; lockstepctl node enable web1
        ? sync/webroot/web1 assign: web1 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 17.1 is carried out when it returns
    "#]],
    );
    lab.act("master1", NodeAction::Disable);
    lab.work(&["master1", "web2"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-source webroot -> [web2@web2:7402]: ok
        master1 20.0 #1: sync-source webroot -> []: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 17.1 #1: sync-target webroot <- nobody not-serving: live
        web2 12.2 #1: sync-target webroot <- master1: ok
        web2 20.1 #1: sync-target webroot <- nobody: ok
        ? sync/webroot/master1 node_disabled: master1 is disabled: targets keep and serve what they have, changes wait; lockstepctl node enable master1
        ? sync/webroot/web1 node_disabled: web1 is disabled: nothing is delivered to it, load balancers are told NOT_SERVING; lockstepctl node enable web1
        ? sync/webroot/web1 assign: web1 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 17.1 is carried out when it returns
    "#]],
    );
}

#[test]
fn a_deleted_sync_is_released_and_then_forgotten() {
    let mut lab = in_force();
    lab.disconnect("web2");
    lab.ask(Request::DeleteSync { sync: "webroot".parse().unwrap() });
    lab.work(&["master1", "web1"]);
    check(
        &mut lab,
        expect![[r#"
        web2 12.2 #1: sync-target webroot <- master1: ok
        web2 17.2 #1: sync-release sync/webroot: live
        ? sync/webroot/web2 release: web2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-release 17.2 is carried out when it returns
    "#]],
    );
    lab.connect("web2");
    lab.work(&["web2"]);
    check(&mut lab, expect![]);
}

#[test]
fn a_sync_made_anew_takes_the_place_of_its_release() {
    let mut lab = in_force();
    lab.ask(Request::DeleteSync { sync: "webroot".parse().unwrap() });
    lab.ask(create_sync("webroot", "master1:/srv", &["web1:/srv"]));
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-release sync/webroot: superseded
        master1 19.0 #1: sync-source webroot -> [web1@web1:7402]: live
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 17.1 #1: sync-release sync/webroot: superseded
        web1 19.1 #1: sync-target webroot <- master1: live
        web2 12.2 #1: sync-target webroot <- master1: ok
        web2 17.2 #1: sync-release sync/webroot: live
        ? sync/webroot/master1 assign: master1 has not confirmed sync-source 19.0, given at 2026-11-21T00:00:00Z
        ? sync/webroot/web1 assign: web1 has not confirmed sync-target 19.1, given at 2026-11-21T00:00:00Z
        ? sync/webroot/web2 release: web2 has not confirmed sync-release 17.2, given at 2026-11-21T00:00:00Z
    "#]],
    );
    lab.work(&ALL);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-release sync/webroot: superseded
        master1 19.0 #1: sync-source webroot -> [web1@web1:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 17.1 #1: sync-release sync/webroot: superseded
        web1 19.1 #1: sync-target webroot <- master1: ok
    "#]],
    );
}

#[test]
fn many_targets_come_in_several_transactions() {
    let mut lab = Lab::with_nodes(&["master1"]);
    let names: Vec<String> = (0..250).map(|n| format!("w{n:03}:/srv")).collect();
    for name in &names {
        lab.join(name.split_once(':').unwrap().0);
    }
    let places: Vec<&str> = names.iter().map(String::as_str).collect();
    lab.try_ask(create_sync("webroot", "master1:/srv", &places)).unwrap();
    let before = lab.world.revision().0;
    lab.settle();
    assert_eq!(lab.world.revision().0 - before, 3);
    assert_eq!(lab.world.tasks().count(), 251);
}
