//! Passes that people ask for, and how tasks end.

use std::collections::BTreeSet;

use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Actor, Record, TXN_WRITES_MAX, Write};
use lockstep_model::request::SyncRun;
use lockstep_model::sync::HookName;
use lockstep_model::sync::options::Engine;
use lockstep_model::task::{Ended, Outcome, SyncBarrier, SyncVerify, Task, TaskSpec};
use lockstep_model::{Code, Invalid, NodeName, Reject, SyncName, TaskId, Timestamp};

use super::syncs::{find, list};
use super::{Admitted, check_speaks_for, precondition};
use crate::World;
use crate::draft::NewTask;
use crate::members::{feeder, members_of};
use crate::runs::RUN_LIMIT;

/// Most targets of one run: its tasks and the request's own record are one transaction.
pub const RUN_TARGETS_MAX: usize = TXN_WRITES_MAX - 1;

/// W3C: a traceparent of version 00 has 55 characters.
const TRACEPARENT_MAX: usize = 55;

/// One task per target, on the node that feeds it. What is under way already is not begun again.
pub(super) fn run(
    world: &World,
    name: &SyncName,
    nodes: &[NodeName],
    run: &SyncRun,
    traceparent: Option<&String>,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let sync = find(world, name)?;
    check_traceparent(traceparent)?;
    let members = members_of(world, sync);
    let is_target = |node: &NodeName| members.iter().any(|member| member.node == node);
    if let Some(node) = nodes.iter().find(|node| !is_target(node)) {
        let message =
            format!("node {node} is no target of sync {name}: see lockstepctl sync show {name}");
        return Err(Reject::not_found(format!("sync/{name}/{node}"), message));
    }
    check_enabled(world, &sync.source.node)?;
    if sync.paused {
        let message = format!("sync {name} is paused: lockstepctl sync resume {name} first");
        return Err(precondition("paused", format!("sync/{name}"), message));
    }
    let mut wanted: BTreeSet<&NodeName> = match nodes {
        [] => members.iter().map(|member| member.node).collect(),
        _ => nodes.iter().collect(),
    };
    // Those without an agent.
    let remote: BTreeSet<&NodeName> =
        members.iter().filter(|m| m.path().is_none()).map(|m| m.node).collect();
    if matches!(run, SyncRun::Verify { .. }) {
        let first = wanted.iter().find(|node| remote.contains(*node)).copied();
        if nodes.is_empty() {
            wanted.retain(|node| !remote.contains(node));
        }
        if let Some(node) = first.filter(|_| !nodes.is_empty() || wanted.is_empty()) {
            let message = format!(
                "{node} has no agent: its copy cannot be compared; lockstepctl sync resync {name} \
                 --target {node} brings whatever differs"
            );
            return Err(precondition("no_agent", format!("sync/{name}/{node}"), message));
        }
    }
    if wanted.is_empty() {
        let message = format!("sync {name} has no targets: add one first");
        return Err(precondition("no_targets", format!("sync/{name}"), message));
    }
    if wanted.len() > RUN_TARGETS_MAX {
        let problem = format!(
            "{} are too many at once: name at most {RUN_TARGETS_MAX} with --target",
            wanted.len()
        );
        return Err(Invalid::new("targets", problem).into());
    }
    let mut admitted = Admitted::default();
    let (mut new, mut under_way) = (Vec::new(), Vec::new());
    for target in wanted {
        if !remote.contains(target) {
            check_enabled(world, target)?;
        }
        let (sync_name, to) = (name.clone(), target.clone());
        let spec = match run {
            SyncRun::Resync => TaskSpec::SyncResync { sync: sync_name, target: to },
            SyncRun::Unhold => TaskSpec::SyncUnhold { sync: sync_name, target: to },
            SyncRun::Verify { content, repair, paths } => TaskSpec::SyncVerify(SyncVerify {
                sync: sync_name,
                target: to,
                content: *content,
                repair: *repair,
                paths: paths.clone(),
            }),
        };
        let began =
            start(world, &mut admitted, feeder(world, sync, target), spec, traceparent, now)?;
        if began { new.push(target) } else { under_way.push(target) }
    }
    let what = match run {
        SyncRun::Resync => "pass to",
        SyncRun::Verify { .. } => "comparison with",
        SyncRun::Unhold => "release of",
    };
    admitted.detail = match (new.is_empty(), under_way.is_empty()) {
        (_, true) => format!("{what} {} asked for", list(new.into_iter())),
        (true, _) => format!("{what} {} is under way already", list(under_way.into_iter())),
        (false, false) => {
            let (new, under_way) = (list(new.into_iter()), list(under_way.into_iter()));
            format!("{what} {new} asked for; {what} {under_way} is under way already")
        }
    };
    Ok(admitted)
}

/// A task on the source that ends when targets have all that was written before.
pub(super) fn barrier(
    world: &World,
    name: &SyncName,
    at_least: Option<u32>,
    hook: Option<&HookName>,
    traceparent: Option<&String>,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let sync = find(world, name)?;
    check_traceparent(traceparent)?;
    check_enabled(world, &sync.source.node)?;
    if sync.options.engine == Engine::Classic {
        let message = format!(
            "sync {name} has engine=classic, whose lsyncds share no order of changes: look at \
             lockstepctl sync show {name}, or change it with lockstepctl sync update {name} \
             --engine journal"
        );
        return Err(precondition("no_journal", format!("sync/{name}"), message));
    }
    let targets = members_of(world, sync).len();
    if at_least.is_some_and(|k| usize::try_from(k).is_ok_and(|k| k == 0 || k > targets)) {
        let problem = format!("must be a number from 1 to the {targets} targets that there are");
        return Err(Invalid::new("at_least", problem).into());
    }
    let barrier = SyncBarrier { sync: name.clone(), at_least, hook: hook.cloned() };
    let (mut admitted, node) = (Admitted::default(), &sync.source.node);
    let spec = TaskSpec::SyncBarrier(barrier);
    // Another one's "now" is an earlier one.
    if let Some(task) = world.newest(node, &spec.slot()).filter(|task| task.is_live()) {
        let message = format!(
            "a barrier of sync {name} is under way, task {}: wait for it or cancel it",
            task.id
        );
        return Err(precondition("under_way", format!("task/{}", task.id), message));
    }
    start(world, &mut admitted, node, spec, traceparent, now)?;
    admitted.detail = format!("barrier of sync {name} asked for");
    Ok(admitted)
}

/// False: a task of the slot is under way, and stands for this one.
pub(super) fn start(
    world: &World,
    admitted: &mut Admitted,
    node: &NodeName,
    spec: TaskSpec,
    traceparent: Option<&String>,
    now: Timestamp,
) -> Result<bool, Reject> {
    if let Some(task) = world.newest(node, &spec.slot()).filter(|task| task.is_live()) {
        if task.spec != spec {
            let message = format!(
                "another {} is under way, task {}: wait for it or cancel it",
                spec.kind(),
                task.id
            );
            return Err(precondition("under_way", format!("task/{}", task.id), message));
        }
        admitted.tasks.push(task.id);
        return Ok(false);
    }
    let n = u32::try_from(admitted.writes.len()).unwrap_or(u32::MAX);
    let id = TaskId { revision: world.revision().next(), n };
    let task = NewTask {
        node: node.clone(),
        spec,
        attempt: 1,
        run_limit: RUN_LIMIT,
        traceparent: traceparent.cloned(),
    };
    admitted.tasks.push(id);
    admitted.writes.push(Write::Put(Record::Task(task.born(id, now))));
    Ok(true)
}

pub(super) fn check_traceparent(traceparent: Option<&String>) -> Result<(), Reject> {
    if traceparent.is_some_and(|text| text.len() > TRACEPARENT_MAX) {
        let problem = format!("must have at most {TRACEPARENT_MAX} characters");
        return Err(Invalid::new("traceparent", problem).into());
    }
    Ok(())
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
    if !task.spec.is_run() {
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
    let pulled = outcome.pulled;
    let outcome = Outcome { pulled, ..Outcome::new(outcome.kind, outcome.message.clone()) };
    let detail = format!("task {id} ended: {}", outcome.kind);
    let task = Task { ended: Some(Ended { at: now, outcome }), ..task.clone() };
    Ok(Admitted::put(Record::Task(task), detail))
}
