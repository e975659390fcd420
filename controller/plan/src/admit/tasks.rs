//! Passes that people ask for, and how tasks end.

use std::collections::BTreeSet;

use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Actor, Record, TXN_WRITES_MAX, Write};
use lockstep_model::task::{Ended, Outcome, Task, TaskSpec};
use lockstep_model::{Code, Invalid, NodeName, Reject, SyncName, TaskId, Timestamp};

use super::syncs::{find, list};
use super::{Admitted, check_speaks_for, precondition};
use crate::World;
use crate::draft::NewTask;
use crate::runs::RESYNC_RUN_LIMIT;

/// Most targets of one resync: its tasks and the request's own record are one transaction.
pub const RESYNC_TARGETS_MAX: usize = TXN_WRITES_MAX - 1;

/// W3C: a traceparent of version 00 has 55 characters.
const TRACEPARENT_MAX: usize = 55;

pub(super) fn resync(
    world: &World,
    name: &SyncName,
    nodes: &[NodeName],
    traceparent: Option<&String>,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let sync = find(world, name)?;
    if traceparent.is_some_and(|text| text.len() > TRACEPARENT_MAX) {
        let problem = format!("must have at most {TRACEPARENT_MAX} characters");
        return Err(Invalid::new("traceparent", problem).into());
    }
    if let Some(node) = nodes.iter().find(|node| sync.target(node).is_none()) {
        let message =
            format!("node {node} is no target of sync {name}: see lockstepctl sync show {name}");
        return Err(Reject::not_found(format!("sync/{name}/{node}"), message));
    }
    check_enabled(world, &sync.source.node)?;
    let all = sync.targets.iter().map(|target| &target.node);
    let wanted: BTreeSet<&NodeName> =
        if nodes.is_empty() { all.collect() } else { nodes.iter().collect() };
    if wanted.is_empty() {
        let message = format!("sync {name} has no targets: add one first");
        return Err(precondition("no_targets", format!("sync/{name}"), message));
    }
    if wanted.len() > RESYNC_TARGETS_MAX {
        let problem = format!(
            "{} are too many at once: name at most {RESYNC_TARGETS_MAX} with --target",
            wanted.len()
        );
        return Err(Invalid::new("targets", problem).into());
    }
    let mut admitted = Admitted::default();
    let (mut new, mut under_way) = (Vec::new(), Vec::new());
    for target in wanted {
        check_enabled(world, target)?;
        let spec = TaskSpec::SyncResync { sync: name.clone(), target: target.clone() };
        let there = world.newest(&sync.source.node, &spec.slot()).filter(|task| task.is_live());
        if let Some(task) = there {
            admitted.tasks.push(task.id);
            under_way.push(target);
            continue;
        }
        let n = u32::try_from(admitted.writes.len()).unwrap_or(u32::MAX);
        let id = TaskId { revision: world.revision().next(), n };
        let task = NewTask {
            node: sync.source.node.clone(),
            spec,
            attempt: 1,
            run_limit: RESYNC_RUN_LIMIT,
            traceparent: traceparent.cloned(),
        };
        new.push(target);
        admitted.tasks.push(id);
        admitted.writes.push(Write::Put(Record::Task(task.born(id, now))));
    }
    admitted.detail = match (new.is_empty(), under_way.is_empty()) {
        (_, true) => format!("pass to {} asked for", list(new.into_iter())),
        (true, _) => format!("pass to {} is under way already", list(under_way.into_iter())),
        (false, false) => {
            let (new, under_way) = (list(new.into_iter()), list(under_way.into_iter()));
            format!("pass to {new} asked for; to {under_way} it is under way already")
        }
    };
    Ok(admitted)
}

fn check_enabled(world: &World, name: &NodeName) -> Result<(), Reject> {
    let admin = world.nodes().get(name).map(|node| node.value.admin);
    let (state, next) = match admin {
        Some(NodeAdmin::Enabled | NodeAdmin::Draining) => return Ok(()),
        Some(NodeAdmin::Disabled) => ("disabled", "enable it first"),
        Some(NodeAdmin::Expelled) => ("expelled", "remove it from the sync"),
        None => ("not there", "join it first"),
    };
    let message = format!("node {name} is {state}: {next}");
    Err(precondition("wrong_state", format!("node/{name}"), message))
}

pub(super) fn cancel(world: &World, id: TaskId) -> Result<Admitted, Reject> {
    let Some(task) = world.task(id).map(|task| &task.value) else {
        let message = format!("task {id} does not exist: see lockstepctl task list");
        return Err(Reject::not_found(format!("task/{id}"), message));
    };
    if let Some(ended) = &task.ended {
        return Ok(Admitted::already(format!("task {id} ended already: {}", ended.outcome.kind)));
    }
    if task.cancel_requested {
        return Ok(Admitted::already(format!("task {id} is being cancelled already")));
    }
    if !matches!(task.spec, TaskSpec::SyncResync { .. }) {
        let message = format!(
            "task {id} brings {} in force on node {}: change that instead; the planner would only \
             give it again",
            task.slot(),
            task.node
        );
        return Err(precondition("not_cancellable", format!("task/{id}"), message));
    }
    let task = Task { cancel_requested: true, ..task.clone() };
    Ok(Admitted::put(Record::Task(task), format!("task {id} is asked to end")))
}

/// Repeated by agents until acknowledged, so what is settled or forgotten is acknowledged as well.
pub(super) fn end(
    world: &World,
    who: &Actor,
    node: &NodeName,
    id: TaskId,
    outcome: &Outcome,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    check_speaks_for(who, node)?;
    let Some(task) = world.task(id).map(|task| &task.value) else {
        return Ok(Admitted::already(format!("task {id} is forgotten")));
    };
    if task.node != *node {
        let message = format!("task {id} is not one of node {node}");
        let code = Code::PermissionDenied;
        return Err(Reject::new(code, "not_yours", format!("task/{id}"), message));
    }
    if let Some(ended) = &task.ended {
        return Ok(Admitted::already(format!("task {id} ended already: {}", ended.outcome.kind)));
    }
    // Anew through its constructor, which holds the limit of the message.
    let outcome = Outcome::new(outcome.kind, outcome.message.clone());
    let detail = format!("task {id} ended: {}", outcome.kind);
    let task = Task { ended: Some(Ended { at: now, outcome }), ..task.clone() };
    Ok(Admitted::put(Record::Task(task), detail))
}
