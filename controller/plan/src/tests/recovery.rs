//! What goes wrong and how the planner brings it right: failures, old agents, lost nodes, passes that
//! people ask for, old copies of a store.

use expect_test::expect;
use lockstep_model::node::NodeReport;
use lockstep_model::observation::{Observation, Told};
use lockstep_model::request::{NodeAction, Request};
use lockstep_model::sync::{SyncReport, TargetReport};
use lockstep_model::task::OutcomeKind;
use lockstep_model::{Incarnation, LifeId, Revision};

use super::dsl::{INCARNATION, Lab, create_sync, remove_targets, resync};
use super::stories::{ALL, check, in_force};
use crate::{Plan, World, plan};

#[test]
fn failures_are_retried_with_backoff() {
    let mut lab = Lab::with_nodes(&ALL);
    lab.ask(create_sync("webroot", "master1:/srv", &["web1:/srv"]));
    lab.work(&["master1"]);
    lab.end_one("web1", OutcomeKind::Failed, "/srv is not a directory");
    check(
        &mut lab,
        expect![[r#"
            master1 12.0 #1: sync-source webroot -> [web1@web1:7402]: ok
            web1 12.1 #1: sync-target webroot <- master1: failed
            ? sync/webroot/web1 retry (0.8s): web1: try 1 of sync-target ended failed at 2026-11-21T00:00:00Z: /srv is not a directory; it is tried again
        "#]],
    );
    lab.pass(1);
    lab.end_one("web1", OutcomeKind::Interrupted, "agent was stopped");
    check(
        &mut lab,
        expect![[r#"
            master1 12.0 #1: sync-source webroot -> [web1@web1:7402]: ok
            web1 12.1 #1: sync-target webroot <- master1: failed
            web1 15.0 #2: sync-target webroot <- master1: interrupted
            ? sync/webroot/web1 retry (1.6s): web1: try 2 of sync-target ended interrupted at 2026-11-21T00:00:01Z: agent was stopped; it is tried again
        "#]],
    );
    lab.pass(2);
    lab.work(&["web1"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: failed
        web1 15.0 #2: sync-target webroot <- master1: interrupted
        web1 17.0 #3: sync-target webroot <- master1: ok
    "#]],
    );
}

#[test]
fn an_old_agent_is_asked_again_when_it_was_upgraded() {
    let mut lab = Lab::with_nodes(&ALL);
    let report = |version: &str| {
        Observation::Node(NodeReport { version: version.to_owned(), ..NodeReport::default() })
    };
    assert!(lab.observe("web1", report("0.1.0")));
    lab.ask(create_sync("webroot", "master1:/srv", &["web1:/srv"]));
    lab.work(&["master1"]);
    lab.pass(1);
    lab.end_one("web1", OutcomeKind::Unsupported, "unknown kind");
    lab.pass(3600);
    assert!(!lab.observe("web1", report("0.1.0")));
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: unsupported
        ? sync/webroot/web1 unsupported: the agent of web1 does not know sync-target tasks (unknown kind): upgrade it; tried again when it reports another version
    "#]],
    );
    assert!(lab.observe("web1", report("0.2.0")));
    lab.settle();
    lab.work(&["web1"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: unsupported
        web1 15.0 #2: sync-target webroot <- master1: ok
    "#]],
    );
}

#[test]
fn live_tasks_of_an_expelled_node_are_lost() {
    let mut lab = Lab::with_nodes(&ALL);
    lab.ask(create_sync("webroot", "master1:/srv", &["web1:/srv", "web2:/srv"]));
    lab.act("web1", NodeAction::Expel);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: superseded
        master1 14.0 #1: sync-source webroot -> [web2@web2:7402]: live
        web1 12.1 #1: sync-target webroot <- master1: lost
        web2 12.2 #1: sync-target webroot <- master1: live
        ? sync/webroot/web1 node_expelled: web1 was expelled and is left out: lockstepctl sync remove-target webroot web1
        ? sync/webroot/master1 assign: master1 has not confirmed sync-source 14.0, given at 2026-11-21T00:00:00Z
        ? sync/webroot/web2 assign: web2 has not confirmed sync-target 12.2, given at 2026-11-21T00:00:00Z
    "#]],
    );
    lab.act("master1", NodeAction::Expel);
    lab.work(&["web2"]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: superseded
        master1 14.0 #1: sync-source webroot -> [web2@web2:7402]: lost
        web1 12.1 #1: sync-target webroot <- master1: lost
        web2 12.2 #1: sync-target webroot <- master1: superseded
        web2 16.0 #1: sync-target webroot <- nobody: ok
        ? sync/webroot/master1 node_expelled: master1 was expelled: the sync has no source any more, targets keep and serve what they have; lockstepctl sync delete webroot
        ? sync/webroot/web1 node_expelled: web1 was expelled and is left out: lockstepctl sync remove-target webroot web1
    "#]],
    );
}

#[test]
fn a_resync_runs_once_and_is_tried_a_few_times() {
    let mut lab = in_force();
    let first = lab.ask(resync("webroot", &[]));
    let second = lab.ask(resync("webroot", &["web2"]));
    assert_eq!(second.writes, []);
    assert_eq!(second.tasks, first.tasks[1..]);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 16.0 #1: sync-resync sync/webroot/web1: live
        master1 16.1 #1: sync-resync sync/webroot/web2: live
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web1 run: master1 has not confirmed sync-resync 16.0, given at 2026-11-21T00:00:00Z
        ? sync/webroot/web2 run: master1 has not confirmed sync-resync 16.1, given at 2026-11-21T00:00:00Z
    "#]],
    );
    lab.ask(Request::CancelTask { id: first.tasks[1] });
    lab.end_one("master1", OutcomeKind::Failed, "link lost");
    lab.end_one("master1", OutcomeKind::Cancelled, "");
    check(
        &mut lab,
        expect![[r#"
            master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
            master1 16.0 #1: sync-resync sync/webroot/web1: failed
            master1 16.1 #1: sync-resync sync/webroot/web2: cancelled
            web1 12.1 #1: sync-target webroot <- master1: ok
            web2 12.2 #1: sync-target webroot <- master1: ok
            ? sync/webroot/web1 retry (0.9s): master1: try 1 of sync-resync ended failed at 2026-11-21T00:00:00Z: link lost; it is tried again
        "#]],
    );
    for _ in 0..5 {
        lab.pass(60);
        lab.end_one("master1", OutcomeKind::Failed, "no space left on web1");
    }
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 16.0 #1: sync-resync sync/webroot/web1: failed
        master1 16.1 #1: sync-resync sync/webroot/web2: cancelled
        master1 20.0 #2: sync-resync sync/webroot/web1: failed
        master1 22.0 #3: sync-resync sync/webroot/web1: failed
        master1 24.0 #4: sync-resync sync/webroot/web1: failed
        master1 26.0 #5: sync-resync sync/webroot/web1: failed
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web1 gave_up: sync-resync 26.0 gave up after 5 tries: no space left on web1; ask for it again when the cause is gone
    "#]],
    );
    lab.pass(24 * 3600 + 60);
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
fn a_resync_of_a_removed_target_is_cancelled() {
    let mut lab = in_force();
    lab.ask(resync("webroot", &["web2"]));
    lab.end_one("master1", OutcomeKind::Failed, "link lost");
    lab.ask(resync("webroot", &["web1"]));
    lab.ask(remove_targets("webroot", &["web1", "web2"]));
    lab.pass(60);
    check(
        &mut lab,
        expect![[r#"
            master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
            master1 16.0 #1: sync-resync sync/webroot/web2: failed
            master1 18.0 #1: sync-resync sync/webroot/web1: live, to be cancelled
            master1 20.0 #1: sync-source webroot -> []: live
            web1 12.1 #1: sync-target webroot <- master1: ok
            web1 20.1 #1: sync-release sync/webroot: live
            web2 12.2 #1: sync-target webroot <- master1: ok
            web2 20.2 #1: sync-release sync/webroot: live
            ? sync/webroot/master1 assign: master1 has not confirmed sync-source 20.0, given at 2026-11-21T00:00:00Z
            ? sync/webroot/web1 run: master1 has not confirmed sync-resync 18.0, given at 2026-11-21T00:00:00Z
            ? sync/webroot/web1 release: web1 has not confirmed sync-release 20.1, given at 2026-11-21T00:00:00Z
            ? sync/webroot/web2 release: web2 has not confirmed sync-release 20.2, given at 2026-11-21T00:00:00Z
        "#]],
    );
}

#[test]
fn an_old_copy_of_a_store_plans_nothing_until_it_is_adopted() {
    let mut lab = in_force();
    lab.ask(create_sync("docs", "master1:/docs", &["web1:/docs"]));
    let told = Told { incarnation: INCARNATION, revision: Revision(500), ..Told::default() };
    lab.observe("web2", Observation::Connected(told));
    let before = lab.world.revision();
    lab.pass(3600);
    assert_eq!(lab.world.revision(), before);
    let Plan { writes, reasons, .. } = plan(&lab.world, lab.now);
    assert_eq!(writes, []);
    expect![[r#"
        store_behind: node web2 was told revision 500, of which this store has only 17: the store is an old copy, and nothing is planned from it. Restore a newer copy, or accept what it lacks as lost: lockstepctl store adopt
    "#]].assert_eq(&format!("{}: {}\n", reasons[0].rule, reasons[0].text));
    expect!["FailedPrecondition store_behind store: the store is an old copy: see lockstepctl explain store; restore a newer one, or accept what is lost with lockstepctl store adopt"].assert_eq(&lab.refusal(create_sync("x", "web1:/x", &["web2:/x"])));

    let adopted = lab.ask(Request::AdoptStore { incarnation: Incarnation(8) });
    assert!(lab.world.revision() > Revision(500), "{adopted:?}");
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 17.0 #1: sync-source docs -> [web1@web1:7402]: superseded
        master1 502.0 #1: sync-source docs -> [web1@web1:7402]: live
        master1 502.1 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: live
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 17.1 #1: sync-target docs <- master1: superseded
        web1 502.2 #1: sync-target docs <- master1: live
        web1 502.3 #1: sync-target webroot <- master1: live
        web2 12.2 #1: sync-target webroot <- master1: ok
        web2 502.4 #1: sync-target webroot <- master1: live
        ? sync/docs/master1 assign: master1 has not confirmed sync-source 502.0, given at 2026-11-21T01:00:00Z
        ? sync/webroot/master1 assign: master1 has not confirmed sync-source 502.1, given at 2026-11-21T01:00:00Z
        ? sync/docs/web1 assign: web1 has not confirmed sync-target 502.2, given at 2026-11-21T01:00:00Z
        ? sync/webroot/web1 assign: web1 has not confirmed sync-target 502.3, given at 2026-11-21T01:00:00Z
        ? sync/webroot/web2 assign: web2 has not confirmed sync-target 502.4, given at 2026-11-21T01:00:00Z
    "#]],
    );
}

#[test]
fn an_old_copy_is_noticed_however_much_was_written_to_it() {
    let mut lab = in_force();
    let copy = (lab.world.revision(), lab.world.records());
    let told = |lab: &Lab| Told {
        incarnation: INCARNATION,
        life: lab.world.past().current(),
        revision: lab.world.revision(),
    };
    lab.begin(LifeId(1));
    let lost = told(&lab);
    lab.world = World::from_records(copy.0, copy.1);
    lab.begin(LifeId(2));
    lab.connect("web1");
    for n in 0..20 {
        lab.ask(create_sync(
            &format!("s{n}"),
            &format!("master1:/s{n}"),
            &[&format!("web1:/s{n}")],
        ));
    }
    assert!(lab.world.revision() > lost.revision);
    assert!(lab.world.store_behind().is_none());
    let own = told(&lab);
    lab.observe("web2", Observation::Connected(lost));
    expect!["node web2 was told revision 16 by a controller that this store knows nothing of"]
        .assert_eq(&lab.world.store_behind().map(|behind| behind.to_string()).unwrap_or_default());
    lab.ask(Request::AdoptStore { incarnation: Incarnation(8) });
    assert!(lab.world.store_behind().is_none());
    // Whose ledger knows later tasks is given even later ones.
    let later = Told { revision: Revision(5000), ..lost };
    lab.observe("web2", Observation::Connected(later));
    lab.settle();
    assert!(lab.world.store_behind().is_none() && lab.world.revision() > later.revision);
    let quiet = lab.world.revision();
    lab.settle();
    assert_eq!(lab.world.revision(), quiet, "once");
    // Of the incarnation before, and so no doubt any more.
    lab.observe("web2", Observation::Connected(lost));
    lab.observe("web1", Observation::Connected(own));
    assert!(lab.world.store_behind().is_none());
    // Who knows what the store knows is no sign of anything, in whichever life it was told.
    let mut lab = in_force();
    lab.begin(LifeId(1));
    let early = told(&lab);
    lab.begin(LifeId(2));
    for known in [early, told(&lab), Told::default()] {
        lab.observe("web2", Observation::Connected(known));
        assert_eq!(lab.world.store_behind(), None);
    }
}

#[test]
fn a_part_that_no_record_knows_is_released() {
    let mut lab = in_force();
    let report = SyncReport::Target(TargetReport { filled: true, ..Default::default() });
    let observed = Observation::Sync { sync: "lost".parse().unwrap(), report: Some(report) };
    assert!(lab.observe("web1", observed));
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        web1 12.1 #1: sync-target webroot <- master1: ok
        web1 16.0 #1: sync-release sync/lost: live
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/lost/web1 release: web1 has not confirmed sync-release 16.0, given at 2026-11-21T00:00:00Z
    "#]],
    );
    lab.work(&["web1"]);
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
fn an_agent_that_lost_its_memory_is_given_everything_anew_once() {
    let mut lab = in_force();
    let before = lab.world.revision();
    lab.observe("web1", Observation::Connected(Told::default()));
    lab.settle();
    let slot = "sync/webroot".parse().unwrap();
    let newest = |lab: &Lab, node: &str| {
        let task = lab.world.newest(&node.parse().unwrap(), &slot).cloned().unwrap();
        (task.id.revision > before, task.is_live())
    };
    assert_eq!(newest(&lab, "web1"), (true, true), "web1 must get its part again");
    assert_eq!(newest(&lab, "web2"), (false, false), "web2 has lost nothing");
    lab.work(&["web1"]);
    assert_eq!(newest(&lab, "web1"), (true, false));
    let quiet = lab.world.revision();
    lab.connect("web1");
    assert_eq!(lab.world.revision(), quiet);
}

#[test]
fn what_waited_for_a_new_agent_is_given_once() {
    let mut lab = Lab::with_nodes(&["master1", "web1"]);
    lab.disconnect("web1");
    lab.ask(create_sync("www", "master1:/www", &["web1:/www"]));
    lab.observe("web1", Observation::Connected(Told::default()));
    lab.work(&["master1", "web1"]);
    let (node, slot) = ("web1".parse().unwrap(), "sync/www".parse().unwrap());
    let given = lab.world.ids(&node, &slot);
    assert_eq!(given.into_iter().count(), 1);
}
