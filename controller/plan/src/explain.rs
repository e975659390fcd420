//! Answers "why does nothing happen" for one subject: the reasons of the last plan, and what agents
//! report. Reads only; decides nothing.

mod clusters;

use lockstep_model::id::quote;
use lockstep_model::node::{NodeAdmin, NodeHealth};
use lockstep_model::reason::Reason;
use lockstep_model::sync::{Delivery, DeliveryState, EngineState, Sync, SyncReport};
use lockstep_model::task::Slot;
use lockstep_model::{Code, MirrorName, NodeName, Reject, SyncName, TaskId, Timestamp};

use crate::World;
use crate::members::{Uses, copies, feeder, involves, nodes};
use crate::mirrors;
use crate::tasks::{part, waiting_for};

/// `reasons` are those of the last plan. Subjects are `sync/webroot`, `sync/webroot/web1`,
/// `mirror/fedora`, `mirror/fedora/web1`, `cluster/main`, `cluster/main/db1`, `node/web1`, `task/42.0`,
/// `store`; the empty one is everything.
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
            let uses = world.uses();
            let syncs = world.syncs().values();
            syncs.for_each(|sync| found.extend(reported(world, uses, &sync.value)));
            let mirrors = world.mirrors().values();
            mirrors.for_each(|mirror| found.extend(of_mirror(world, &mirror.value.name, now)));
            let clusters = world.clusters().values().map(|cluster| &cluster.value);
            clusters.for_each(|cluster| found.extend(clusters::of_itself(world, cluster, now)));
            return Ok(found);
        }
        ["store"] => planned(&|_| false),
        ["sync", name] => match find_sync(world, name) {
            Ok(sync) => of_sync(world, world.uses(), reasons, sync, now),
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
            let reported = reported(world, world.uses(), sync).into_iter();
            found.extend(reported.filter(|r| r.subject == subject));
            found.extend(health(world, &node, now));
            found
        }
        ["mirror", name] => {
            let name = name.parse()?;
            let mut found = of_mirror(world, &name, now);
            if let Some(mirror) = world.mirrors().get(&name) {
                let (copies, _) = copies(world, &mirror.value);
                let nodes = copies.iter().map(|copy| &copy.node.name).chain([&mirror.value.master]);
                found.extend(nodes.filter_map(|node| health(world, node, now)));
            } else if found.is_empty() {
                return Err(unknown_mirror(&name));
            }
            found
        }
        ["mirror", name, node] => {
            let name = name.parse()?;
            if !world.mirrors().contains_key(&name) {
                return Err(unknown_mirror(&name));
            }
            let node = find_node(world, node)?;
            let mut found = of_mirror(world, &name, now);
            found.retain(|reason| reason.subject == subject);
            found.extend(health(world, &node, now));
            found
        }
        ["cluster", name] => clusters::of_cluster(world, &name.parse()?, now)?,
        ["cluster", name, node] => {
            let node = find_node(world, node)?;
            clusters::of_member(world, &name.parse()?, &node, now)?
        }
        ["node", name] => {
            let node = find_node(world, name)?;
            let part = format!("/{node}");
            let is_part = |r: &Reason| {
                let of = ["sync/", "cluster/"].iter().any(|of| r.subject.starts_with(of));
                of && r.subject.ends_with(&part)
            };
            let mut found: Vec<Reason> = health(world, &node, now).into_iter().collect();
            found.extend(admin(world, &node));
            found.extend(planned(&|reason| reason.subject == subject || is_part(reason)));
            let uses = world.uses();
            let syncs = world.syncs().values().map(|sync| &sync.value);
            let reported =
                syncs.filter(|s| involves(world, s, &node)).flat_map(|s| reported(world, uses, s));
            found.extend(reported.filter(is_part));
            let mirrors = world.mirrors().values().map(|mirror| &mirror.value);
            let involved = mirrors.filter(|mirror| {
                let slot = Slot::Mirror(mirror.name.clone());
                mirror.master == node || world.newest(&node, &slot).is_some()
            });
            let of_mirrors = involved.flat_map(|mirror| of_mirror(world, &mirror.name, now));
            found.extend(of_mirrors.filter(|r| r.subject.ends_with(&part)));
            let clusters = world.clusters().values().map(|cluster| &cluster.value);
            let involved = clusters.filter(|cluster| cluster.member(&node).is_some());
            let of = involved.flat_map(|cluster| clusters::of_itself(world, cluster, now));
            found.extend(of.filter(is_part));
            found
        }
        ["task", id] => of_task(world, reasons, id.parse()?)?,
        _ => {
            let message = format!(
                "subject must be sync/NAME, sync/NAME/NODE, mirror/NAME, mirror/NAME/NODE, \
                 cluster/NAME, cluster/NAME/NODE, node/NAME, task/ID or store, not {}",
                quote(subject)
            );
            return Err(Reject::new(Code::InvalidArgument, "invalid", "subject", message));
        }
    };
    // An old copy of a store explains everything.
    found.extend(reasons.iter().filter(|reason| reason.subject == "store").cloned());
    Ok(found)
}

/// What holds up a mirror or one of its nodes, and what its agents say is not as it should be.
pub fn of_mirror(world: &World, name: &MirrorName, now: Timestamp) -> Vec<Reason> {
    let mut found = mirrors::reasons(world, name, now);
    let Some(mirror) = world.mirrors().get(name).map(|mirror| &mirror.value) else { return found };
    let (copies, _) = copies(world, mirror);
    for node in copies.iter().map(|copy| &copy.node.name).chain([&mirror.master]) {
        let Some(report) = world.seen(node).and_then(|seen| seen.mirror(name)) else { continue };
        let mut say = |text: String| {
            found.push(reason(
                format!("mirror/{name}/{node}"),
                "reported",
                format!("{node}: {text}"),
            ));
        };
        if !report.problem.is_empty() {
            say(report.problem.clone());
        }
        if !report.filled {
            say("it has not got its first complete copy yet".to_owned());
        }
        report.warnings.iter().for_each(|warning| say(warning.clone()));
    }
    found
}

fn unknown_mirror(name: &MirrorName) -> Reject {
    let message = format!("mirror {name} does not exist: see lockstepctl mirror list");
    Reject::not_found(format!("mirror/{name}"), message)
}

/// What holds up a sync or one of its nodes. `uses` is made once for many syncs.
pub fn of_sync(
    world: &World,
    uses: &Uses,
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
fn reported(world: &World, uses: &Uses, sync: &Sync) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut say = |node: &NodeName, text| {
        found.push(reason(format!("sync/{}/{node}", sync.name), "reported", text));
    };
    for node in nodes(world, uses, sync) {
        if let Some(text) = waits_for(world, sync, node) {
            say(node, text);
        }
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
            // One that was a relay may not know yet that it is none any more.
            let fed = |of: &&Delivery| feeder(world, sync, &of.target) == node;
            for delivery in report.deliveries.iter().filter(fed) {
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

/// Whom of those between the source and a target it waits for.
fn waits_for(world: &World, sync: &Sync, node: &NodeName) -> Option<String> {
    let reported = |node: &NodeName| Some(&world.seen(node)?.sync(&sync.name)?.report);
    let mut relay = feeder(world, sync, node);
    // So many steps that a tree has no more.
    for _ in world.nodes() {
        if *relay == sync.source.node || node == relay {
            return None;
        }
        let above = feeder(world, sync, relay);
        let says = |why: &str| Some(format!("{node} waits for {relay}, which feeds it: {why}"));
        if reported(relay).and_then(SyncReport::target).is_some_and(|report| !report.filled) {
            return says(&format!("{relay} has not got its first complete copy yet"));
        }
        let deliveries = reported(above).and_then(SyncReport::source).map(|r| &r.deliveries);
        let delivery = deliveries.into_iter().flatten().find(|d| d.target == *relay);
        if let Some(why) = delivery.and_then(|delivery| trouble(above, delivery)) {
            return says(&why);
        }
        relay = above;
    }
    None
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
mod tests;
