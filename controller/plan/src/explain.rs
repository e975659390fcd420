//! Answers "why does nothing happen" for one subject: the reasons of the last plan, and what agents
//! report. Reads only; decides nothing.

use lockstep_model::id::quote;
use lockstep_model::node::{NodeAdmin, NodeHealth};
use lockstep_model::reason::Reason;
use lockstep_model::sync::{Delivery, DeliveryState, EngineState, Sync};
use lockstep_model::{Code, NodeName, Reject, SyncName, TaskId, Timestamp};

use crate::World;
use crate::members::{Uses, involves, nodes};
use crate::tasks::{part, waiting_for};

/// `reasons` are those of the last plan. Subjects are `sync/webroot`, `sync/webroot/web1`,
/// `node/web1`, `task/42.0`, `store`; the empty one is everything.
pub fn explain(
    world: &World,
    reasons: &[Reason],
    subject: &str,
    now: Timestamp,
) -> Result<Vec<Reason>, Reject> {
    let planned = |wanted: &dyn Fn(&Reason) -> bool| -> Vec<Reason> {
        reasons.iter().filter(|reason| wanted(reason)).cloned().collect()
    };
    let mut found = match subject.split('/').collect::<Vec<_>>().as_slice() {
        [""] => {
            let mut found = planned(&|_| true);
            world.nodes().keys().for_each(|node| found.extend(health(world, node, now)));
            let uses = Uses::of(world);
            let syncs = world.syncs().values();
            syncs.for_each(|sync| found.extend(reported(world, &uses, &sync.value)));
            return Ok(found);
        }
        ["store"] => planned(&|_| false),
        ["sync", name] => match find_sync(world, name) {
            Ok(sync) => of_sync(world, &Uses::of(world), reasons, sync, now),
            Err(refusal) => {
                let parts = format!("{subject}/");
                let found = planned(&|r| r.subject == subject || r.subject.starts_with(&parts));
                // Deleted, and some nodes have yet to release it.
                if found.is_empty() {
                    return Err(refusal);
                }
                found
            }
        },
        ["sync", name, node] => {
            let sync = find_sync(world, name)?;
            let node = find_node(world, node)?;
            let mut found = planned(&|reason| reason.subject == subject);
            let reported = reported(world, &Uses::of(world), sync).into_iter();
            found.extend(reported.filter(|r| r.subject == subject));
            found.extend(health(world, &node, now));
            found
        }
        ["node", name] => {
            let node = find_node(world, name)?;
            let part = format!("/{node}");
            let is_part = |r: &Reason| r.subject.starts_with("sync/") && r.subject.ends_with(&part);
            let mut found: Vec<Reason> = health(world, &node, now).into_iter().collect();
            found.extend(admin(world, &node));
            found.extend(planned(&|reason| reason.subject == subject || is_part(reason)));
            let uses = Uses::of(world);
            let syncs = world.syncs().values().map(|sync| &sync.value);
            let reported =
                syncs.filter(|s| involves(world, s, &node)).flat_map(|s| reported(world, &uses, s));
            found.extend(reported.filter(is_part));
            found
        }
        ["task", id] => of_task(world, reasons, id.parse()?)?,
        _ => {
            let message = format!(
                "subject must be sync/NAME, sync/NAME/NODE, node/NAME, task/ID or store, not {}",
                quote(subject)
            );
            return Err(Reject::new(Code::InvalidArgument, "invalid", "subject", message));
        }
    };
    // An old copy of a store explains everything.
    found.extend(reasons.iter().filter(|reason| reason.subject == "store").cloned());
    Ok(found)
}

/// What holds up a sync or one of its nodes. `uses` is made once for many syncs.
pub fn of_sync(
    world: &World,
    uses: &Uses<'_>,
    reasons: &[Reason],
    sync: &Sync,
    now: Timestamp,
) -> Vec<Reason> {
    let subject = format!("sync/{}", sync.name);
    let parts = format!("{subject}/");
    let is_meant = |r: &&Reason| r.subject == subject || r.subject.starts_with(&parts);
    let mut found: Vec<Reason> = reasons.iter().filter(is_meant).cloned().collect();
    found.extend(reported(world, uses, sync));
    found.extend(nodes(world, uses, sync).into_iter().filter_map(|node| health(world, node, now)));
    found
}

fn find_sync<'a>(world: &'a World, name: &str) -> Result<&'a Sync, Reject> {
    let name: SyncName = name.parse()?;
    world.syncs().get(&name).map(|sync| &sync.value).ok_or_else(|| {
        let message = format!("sync {name} does not exist: see lockstepctl sync list");
        Reject::not_found(format!("sync/{name}"), message)
    })
}

fn find_node(world: &World, name: &str) -> Result<NodeName, Reject> {
    let name: NodeName = name.parse()?;
    if world.nodes().contains_key(&name) {
        return Ok(name);
    }
    let message = format!("node {name} does not exist: see lockstepctl node list");
    Err(Reject::not_found(format!("node/{name}"), message))
}

/// What a task waits for or how it ended, and what else is said of its slot.
fn of_task(world: &World, reasons: &[Reason], id: TaskId) -> Result<Vec<Reason>, Reject> {
    let Some(task) = world.task(id).map(|task| &task.value) else {
        let message =
            format!("task {id} does not exist or is forgotten: see lockstepctl task list");
        return Err(Reject::not_found(format!("task/{id}"), message));
    };
    let text = match &task.ended {
        None => waiting_for(world, task),
        Some(ended) => {
            let colon = if ended.outcome.message.is_empty() { "" } else { ": " };
            let outcome = &ended.outcome;
            format!(
                "{} ended {} at {}{colon}{}",
                task.node, outcome.kind, ended.at, outcome.message
            )
        }
    };
    let mut found = vec![reason(format!("task/{id}"), "task", text)];
    let subject = part(&task.slot(), &task.node);
    let newest = world.newest(&task.node, &task.slot()).is_some_and(|newest| newest.id == id);
    // The slot's reasons are about its newest task, and repeat what was said of a live one.
    if newest && !task.is_live() {
        found.extend(reasons.iter().filter(|reason| reason.subject == subject).cloned());
    }
    Ok(found)
}

/// What people made of the node, which has its effect in every part of it.
fn admin(world: &World, node: &NodeName) -> Option<Reason> {
    let next = match world.nodes().get(node)?.value.admin {
        NodeAdmin::Enabled => return None,
        NodeAdmin::Draining => format!("draining: lockstepctl node resume {node} ends it"),
        NodeAdmin::Disabled => format!("disabled: lockstepctl node enable {node} ends it"),
        NodeAdmin::Expelled => format!("expelled for ever: lockstepctl node remove {node}"),
    };
    Some(reason(format!("node/{node}"), "admin", format!("{node} is {next}")))
}

fn health(world: &World, node: &NodeName, now: Timestamp) -> Option<Reason> {
    let status = world.node_health(node, now);
    if status.health == NodeHealth::Healthy {
        return None;
    }
    let since = status.since.map_or(String::new(), |since| format!(" since {since}"));
    let text = format!("{node} is {}{since}: {}", status.health, status.why);
    Some(reason(format!("node/{node}"), "health", text))
}

/// What the agents of a sync say is not as it should be.
fn reported(world: &World, uses: &Uses<'_>, sync: &Sync) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut say = |node: &NodeName, text| {
        found.push(reason(format!("sync/{}/{node}", sync.name), "reported", text));
    };
    for node in nodes(world, uses, sync) {
        let Some(report) = world.seen(node).and_then(|seen| seen.sync(&sync.name)) else {
            continue;
        };
        if let Some(report) = report.report.source() {
            let well = matches!(report.engine, EngineState::Watching | EngineState::Still);
            if !well {
                let (engine, problem) = (report.engine, &report.problem);
                let colon = if problem.is_empty() { "" } else { ": " };
                say(node, format!("{node}: the watcher is {engine}{colon}{problem}"));
            } else if !report.problem.is_empty() {
                say(node, format!("{node}: {}", report.problem));
            }
            report.warnings.iter().for_each(|text| say(node, format!("{node}: {text}")));
            for delivery in &report.deliveries {
                if let Some(text) = trouble(node, delivery) {
                    say(&delivery.target, text);
                }
            }
        }
        if let Some(report) = report.report.target() {
            if !report.problem.is_empty() {
                say(node, format!("{node}: {}", report.problem));
            }
            if !report.filled {
                say(node, format!("{node} has not got its first complete copy yet"));
            }
            if let Some(most) = sync.options.max_lag.filter(|_| report.behind) {
                let told = "load balancers are told NOT_SERVING";
                say(node, format!("{node} lags more than max-lag {}: {told}", most.exact()));
            }
        }
    }
    found
}

fn trouble(source: &NodeName, delivery: &Delivery) -> Option<String> {
    let Delivery { target, state, lag, last_error, .. } = delivery;
    let fine = matches!(state, DeliveryState::Idle | DeliveryState::Syncing | DeliveryState::Dirty);
    if fine && last_error.is_empty() {
        return None;
    }
    let colon = if last_error.is_empty() { "" } else { ": " };
    let state = state.as_str();
    Some(format!("delivery from {source} to {target} is {state}, {lag} behind{colon}{last_error}"))
}

fn reason(subject: String, rule: &'static str, text: String) -> Reason {
    Reason { subject, rule, text, until: None }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use lockstep_model::observation::Observation;
    use lockstep_model::request::{NodeAction, Request};
    use lockstep_model::sync::{SourceReport, SyncReport, TargetReport};
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
            InvalidArgument: subject must be sync/NAME, sync/NAME/NODE, node/NAME, task/ID or store, not "node/../x"
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
        };
        lab.observe("m", Observation::Connected(told));
        check(
            &mut lab,
            "store",
            expect![[r#"
            store store_behind: node m was told revision 900, this store is at 17: it is an old copy, and nothing is planned from it. Restore a newer copy, or accept what it lacks as lost: lockstepctl store adopt
        "#]],
        );
        check(
            &mut lab,
            "sync/b",
            expect![[r#"
                node/w2 health: w2 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
                store store_behind: node m was told revision 900, this store is at 17: it is an old copy, and nothing is planned from it. Restore a newer copy, or accept what it lacks as lost: lockstepctl store adopt
            "#]],
        );
    }
}
