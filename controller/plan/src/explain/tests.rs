//! What each subject is told, of the nodes, tasks and syncs of a small fleet.

use expect_test::{Expect, expect};
use lockstep_model::observation::Observation;
use lockstep_model::request::{NodeAction, Request};
use lockstep_model::sync::{SourceReport, SyncOptions, TargetReport};
use lockstep_model::task::OutcomeKind;
use lockstep_model::{Millis, Revision};

use super::*;
use crate::tests::dsl::{Lab, create_sync};

fn check(lab: &mut Lab, subject: &str, expected: Expect) {
    let plan = lab.settle();
    let shown: Vec<String> = match explain(&lab.world, &plan.reasons, subject, lab.now) {
        Ok(found) => {
            found.iter().map(|r| format!("{} {}: {}\n", r.subject, r.rule, r.text)).collect()
        }
        Err(refusal) => vec![format!("{:?}: {refusal}\n", refusal.code)],
    };
    expected.assert_eq(&shown.concat());
}

fn delivery(target: &str, state: DeliveryState, last_error: &str) -> Delivery {
    Delivery {
        target: target.parse().unwrap(),
        state,
        acked: 3,
        lag: Millis(4000),
        last_success_at: None,
        last_error: last_error.to_owned(),
        sent_bytes: 0,
        waiting_paths: Some(0),
        eta: None,
        done_percent: None,
        verified_at: None,
        drift: 0,
    }
}

fn troubled() -> Lab {
    let mut lab = Lab::with_nodes(&["m", "w1", "w2"]);
    lab.ask(create_sync("a", "m:/a", &["w1:/a", "w2:/a"]));
    lab.ask(create_sync("b", "m:/b", &["w2:/b"]));
    lab.work(&["m"]);
    lab.end_one("w1", OutcomeKind::Failed, "/a is a file");
    lab.disconnect("w2");
    let source = SyncReport::Source(SourceReport {
        engine: EngineState::Held,
        problem: "/a is empty".to_owned(),
        warnings: Vec::new(),
        head: 9,
        deliveries: vec![
            delivery("w1", DeliveryState::Idle, ""),
            delivery("w2", DeliveryState::Failing, "connection refused"),
        ],
    });
    let target = SyncReport::Target(TargetReport::default());
    for (node, report) in [("m", source), ("w1", target)] {
        let sync = "a".parse().unwrap();
        lab.observe(node, Observation::Sync { sync, report: Some(report) });
    }
    lab
}

#[test]
fn each_subject_has_its_reasons() {
    let mut lab = troubled();
    check(
        &mut lab,
        "sync/a",
        expect![[r#"
            sync/a/w1 retry: w1: try 1 of sync-target ended failed at 2026-11-21T00:00:00Z: /a is a file; it is tried again
            sync/a/w2 assign: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 12.2 is carried out when it returns
            sync/a/m reported: m: the watcher is held: /a is empty
            sync/a/w2 reported: delivery from m to w2 is failing, 4s behind: connection refused
            sync/a/w1 reported: w1 has not got its first complete copy yet
            node/w2 health: w2 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
        "#]],
    );
    check(
        &mut lab,
        "sync/b",
        expect![[r#"
            sync/b/w2 assign: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 14.1 is carried out when it returns
            node/w2 health: w2 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
        "#]],
    );
    check(
        &mut lab,
        "sync/a/w2",
        expect![[r#"
            sync/a/w2 assign: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 12.2 is carried out when it returns
            sync/a/w2 reported: delivery from m to w2 is failing, 4s behind: connection refused
            node/w2 health: w2 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
        "#]],
    );
    check(
        &mut lab,
        "node/w2",
        expect![[r#"
        node/w2 health: w2 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
        sync/a/w2 assign: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 12.2 is carried out when it returns
        sync/b/w2 assign: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 14.1 is carried out when it returns
        sync/a/w2 reported: delivery from m to w2 is failing, 4s behind: connection refused
    "#]],
    );
    check(
        &mut lab,
        "node/m",
        expect![[r#"
        sync/a/m reported: m: the watcher is held: /a is empty
    "#]],
    );
    let task = |lab: &Lab, node: &str| {
        let node = node.parse().unwrap();
        format!("task/{}", lab.world.tasks_of(&node).next().unwrap().value.id)
    };
    let (failed, live) = (task(&lab, "w1"), task(&lab, "w2"));
    check(
        &mut lab,
        &failed,
        expect![[r#"
        task/12.1 task: w1 ended failed at 2026-11-21T00:00:00Z: /a is a file
        sync/a/w1 retry: w1: try 1 of sync-target ended failed at 2026-11-21T00:00:00Z: /a is a file; it is tried again
    "#]],
    );
    check(
        &mut lab,
        &live,
        expect![[r#"
        task/12.2 task: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 12.2 is carried out when it returns
    "#]],
    );
    lab.act("w1", NodeAction::Drain);
    check(
        &mut lab,
        "sync/a/w1",
        expect![[r#"
        sync/a/w1 node_draining: w1 is draining: its copy stays in step and load balancers are told NOT_SERVING; lockstepctl node resume w1
        sync/a/w1 assign: w1 has not confirmed sync-target 19.0, given at 2026-11-21T00:00:00Z
        sync/a/w1 reported: w1 has not got its first complete copy yet
    "#]],
    );
    check(
        &mut lab,
        "node/w1",
        expect![[r#"
        node/w1 admin: w1 is draining: lockstepctl node resume w1 ends it
        sync/a/w1 node_draining: w1 is draining: its copy stays in step and load balancers are told NOT_SERVING; lockstepctl node resume w1
        sync/a/w1 assign: w1 has not confirmed sync-target 19.0, given at 2026-11-21T00:00:00Z
        sync/a/w1 reported: w1 has not got its first complete copy yet
    "#]],
    );
    check(
        &mut lab,
        "",
        expect![[r#"
        sync/a/w1 node_draining: w1 is draining: its copy stays in step and load balancers are told NOT_SERVING; lockstepctl node resume w1
        sync/a/w1 assign: w1 has not confirmed sync-target 19.0, given at 2026-11-21T00:00:00Z
        sync/a/w2 assign: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 12.2 is carried out when it returns
        sync/b/w2 assign: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-target 14.1 is carried out when it returns
        node/w2 health: w2 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
        sync/a/m reported: m: the watcher is held: /a is empty
        sync/a/w2 reported: delivery from m to w2 is failing, 4s behind: connection refused
        sync/a/w1 reported: w1 has not got its first complete copy yet
    "#]],
    );
}

#[test]
fn those_behind_a_relay_in_trouble_wait_for_it() {
    let nodes = ["m", "w1", "w2", "w3", "w4", "w5"];
    let mut lab = Lab::with_nodes(&nodes);
    let create = create_sync("a", "m:/a", &["w1:/a", "w2:/a", "w3:/a", "w4:/a", "w5:/a"]);
    let Request::CreateSync { name, source, targets, selected, paused, .. } = create else {
        unreachable!()
    };
    let options = SyncOptions { fanout: Some(2), ..SyncOptions::default() };
    lab.ask(Request::CreateSync { name, source, targets, selected, options, paused });
    lab.work(&nodes);
    let held = delivery("w1", DeliveryState::Held, "much would go");
    let relay = TargetReport {
        filled: true,
        relay: Some(SourceReport {
            engine: EngineState::Still,
            deliveries: vec![
                delivery("w3", DeliveryState::Idle, ""),
                // Of a time before.
                delivery("w5", DeliveryState::Failing, "refused"),
            ],
            problem: String::new(),
            warnings: Vec::new(),
            head: 2,
        }),
        ..TargetReport::default()
    };
    let source = SourceReport {
        engine: EngineState::Watching,
        deliveries: vec![held, delivery("w2", DeliveryState::Syncing, "")],
        problem: String::new(),
        warnings: Vec::new(),
        head: 9,
    };
    for (node, report) in [
        ("m", SyncReport::Source(source)),
        ("w1", SyncReport::Target(relay)),
        ("w2", SyncReport::Target(TargetReport::default())),
    ] {
        let sync = "a".parse().unwrap();
        lab.observe(node, Observation::Sync { sync, report: Some(report) });
    }
    check(
        &mut lab,
        "sync/a",
        expect![[r#"
            sync/a/w1 reported: delivery from m to w1 is held, 4s behind: much would go
            sync/a/w2 reported: w2 has not got its first complete copy yet
            sync/a/w3 reported: w3 waits for w1, which feeds it: delivery from m to w1 is held, 4s behind: much would go
            sync/a/w4 reported: w4 waits for w1, which feeds it: delivery from m to w1 is held, 4s behind: much would go
            sync/a/w5 reported: w5 waits for w2, which feeds it: w2 has not got its first complete copy yet
        "#]],
    );
}

#[test]
fn a_deleted_sync_is_explained_until_it_is_released() {
    let mut lab = troubled();
    lab.ask(Request::DeleteSync { sync: "b".parse().unwrap() });
    lab.work(&["m"]);
    check(
        &mut lab,
        "sync/b",
        expect![[r#"
        sync/b/w2 release: w2 is not connected since 2026-11-21T00:00:00Z (link lost); sync-release 19.1 is carried out when it returns
    "#]],
    );
    lab.work(&["w2"]);
    check(
        &mut lab,
        "sync/b",
        expect![[r#"
        NotFound: sync b does not exist: see lockstepctl sync list
    "#]],
    );
}

#[test]
fn unknown_subjects_are_refused() {
    let mut lab = Lab::with_nodes(&["m"]);
    check(
        &mut lab,
        "sync/x",
        expect![[r#"
        NotFound: sync x does not exist: see lockstepctl sync list
    "#]],
    );
    check(
        &mut lab,
        "sync/x/m",
        expect![[r#"
        NotFound: sync x does not exist: see lockstepctl sync list
    "#]],
    );
    check(
        &mut lab,
        "node/x",
        expect![[r#"
        NotFound: node x does not exist: see lockstepctl node list
    "#]],
    );
    check(
        &mut lab,
        "task/1.0",
        expect![[r#"
        NotFound: task 1.0 does not exist or is forgotten: see lockstepctl task list
    "#]],
    );
    check(
        &mut lab,
        "task/x",
        expect![[r#"
        InvalidArgument: task id: must look like 42.0, not "x"
    "#]],
    );
    check(
        &mut lab,
        "node/../x",
        expect![[r#"
            InvalidArgument: subject must be sync/NAME, sync/NAME/NODE, mirror/NAME, mirror/NAME/NODE, cluster/NAME, cluster/NAME/NODE, node/NAME, task/ID or store, not "node/../x"
        "#]],
    );
    check(&mut lab, "store", expect![]);
}

#[test]
fn an_old_store_explains_everything() {
    let mut lab = troubled();
    let told = lockstep_model::observation::Told {
        incarnation: crate::tests::dsl::INCARNATION,
        revision: Revision(900),
        ..Default::default()
    };
    lab.observe("m", Observation::Connected(told));
    check(
        &mut lab,
        "store",
        expect![[r#"
            store store_behind: node m was told revision 900, of which this store has only 17: the store is an old copy, and nothing is planned from it. Restore a newer copy, or accept what it lacks as lost: lockstepctl store adopt
        "#]],
    );
    check(
        &mut lab,
        "sync/b",
        expect![[r#"
            node/w2 health: w2 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
            store store_behind: node m was told revision 900, of which this store has only 17: the store is an old copy, and nothing is planned from it. Restore a newer copy, or accept what it lacks as lost: lockstepctl store adopt
        "#]],
    );
}
