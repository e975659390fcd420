//! Holds what every slot of syncs should hold against the newest task of that slot: gives tasks,
//! retries them, ends and forgets them. Knows no kind of work; mirrors use the same steps.

use std::collections::BTreeSet;

use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Record, Write};
use lockstep_model::task::{
    Ended, MirrorPlace, MirrorRelease, Outcome, OutcomeKind, Slot, Task, TaskPhase, TaskSpec,
};
use lockstep_model::{Millis, NodeName, TaskId, Timestamp};

use crate::World;
use crate::draft::{Draft, NewTask};
use crate::runs;
use crate::seen::Stream;
use crate::syncs::Desired;

/// Wait after the first failure; doubled after each further one.
pub const BACKOFF_FIRST: Millis = Millis::from_secs(1);
/// Longest wait between two tries. What is desired is tried for ever.
pub const BACKOFF_MAX: Millis = Millis::from_secs(300);
/// An assignment only changes configuration,
pub const ASSIGN_RUN_LIMIT: Millis = Millis::from_secs(120);
/// but for one that moves or removes a tree.
pub const MOVE_RUN_LIMIT: Millis = Millis::from_secs(7 * 24 * 3600);

pub(crate) fn run_limit(spec: &TaskSpec) -> Millis {
    match spec {
        TaskSpec::MirrorPlace(MirrorPlace { moved_from: Some(_), .. })
        | TaskSpec::MirrorRelease(MirrorRelease { delete: Some(_), .. }) => MOVE_RUN_LIMIT,
        _ => ASSIGN_RUN_LIMIT,
    }
}

pub(crate) fn reconcile(draft: &mut Draft<'_>, desired: &Desired) {
    let world = draft.world;
    let taken = world.sync_slots().map(|(node, slot, _)| (node.clone(), slot.clone()));
    let known = desired.keys().cloned().chain(taken);
    let strays = world.strays().filter(|(_, slot)| slot.sync().is_some());
    let slots: BTreeSet<(NodeName, Slot)> = known.chain(strays).collect();
    for (node, slot) in &slots {
        let admin = world.nodes().get(node).map(|node| node.value.admin);
        match (admin, desired.get(&(node.clone(), slot.clone())), release(slot)) {
            (None, ..) => forget(draft, "node_removed", node, slot),
            (Some(NodeAdmin::Expelled), ..) => lose(draft, node, slot),
            (_, Some(spec), _) => bring(draft, "assign", node, slot, spec),
            (_, None, Some(spec)) => clear(draft, node, slot, &spec),
            (_, None, None) => runs::keep(draft, desired, node, slot),
        }
    }
}

/// What empties a slot; None for one of tasks that end by themselves.
fn release(slot: &Slot) -> Option<TaskSpec> {
    match slot {
        Slot::Sync(sync) => Some(TaskSpec::SyncRelease { sync: sync.clone() }),
        _ => None,
    }
}

/// Gets `spec` in force.
pub(crate) fn bring(
    draft: &mut Draft<'_>,
    rule: &'static str,
    node: &NodeName,
    slot: &Slot,
    spec: &TaskSpec,
) {
    let new = |attempt| NewTask {
        node: node.clone(),
        spec: spec.clone(),
        attempt,
        run_limit: run_limit(spec),
        traceparent: None,
    };
    let Some(newest) = draft.world.newest(node, slot) else {
        return draft.give(rule, new(1), None);
    };
    if newest.spec != *spec || is_of_lost_past(draft.world, newest) {
        return draft.give(rule, new(1), superseded(newest, draft.now));
    }
    let Some(ended) = &newest.ended else { return wait_for_node(draft, rule, newest) };
    match ended.outcome.kind {
        OutcomeKind::Ok if is_forgotten(draft.world, newest) => {
            draft.give("memory_lost", new(1), None);
        }
        OutcomeKind::Ok => {}
        OutcomeKind::Superseded | OutcomeKind::Lost => draft.give(rule, new(1), None),
        OutcomeKind::Failed
        | OutcomeKind::Cancelled
        | OutcomeKind::Interrupted
        | OutcomeKind::Unknown => {
            if is_due(draft, newest, ended) {
                draft.give("retry", new(newest.attempt.saturating_add(1)), None);
            }
        }
        OutcomeKind::Unsupported => {
            if draft.world.seen(node).is_some_and(|seen| seen.version_since > ended.at) {
                return draft.give("retry", new(newest.attempt.saturating_add(1)), None);
            }
            let text = format!(
                "the agent of {node} does not know {} tasks ({}): upgrade it; tried again when it \
                 reports another version",
                newest.spec.kind(),
                ended.outcome.message
            );
            draft.wait(part(slot, node), "unsupported", text, None);
        }
    }
}

/// Gets a slot released, and then forgets that there was one.
pub(crate) fn clear(draft: &mut Draft<'_>, node: &NodeName, slot: &Slot, spec: &TaskSpec) {
    let world = draft.world;
    let released = world.newest(node, slot).is_some_and(|newest| {
        newest.spec == *spec && newest.succeeded() && !is_of_lost_past(world, newest)
    });
    if released {
        forget(draft, "released", node, slot);
    } else {
        bring(draft, "release", node, slot, spec);
    }
}

/// Oldest first, so that a cut between two of them leaves the one that says how things are.
pub(crate) fn forget(draft: &mut Draft<'_>, rule: &'static str, node: &NodeName, slot: &Slot) {
    for id in draft.world.ids(node, slot) {
        draft.delete_task(rule, node, *id);
    }
}

/// An expelled node is told nothing any more.
pub(crate) fn lose(draft: &mut Draft<'_>, node: &NodeName, slot: &Slot) {
    let Some(newest) = draft.world.newest(node, slot).filter(|task| task.is_live()) else { return };
    let outcome = Outcome::new(OutcomeKind::Lost, format!("node {node} was expelled"));
    draft.write("node_expelled", [Write::Put(Record::Task(ended(newest, draft.now, outcome)))]);
}

/// Since the store was adopted, nobody knows what the node was told after this task.
pub(crate) fn is_of_lost_past(world: &World, task: &Task) -> bool {
    world.fleet().is_some_and(|fleet| task.id.revision <= fleet.revision)
}

/// The agent has lost its ledger, or part of it, since it reported this task's end.
pub(crate) fn is_forgotten(world: &World, task: &Task) -> bool {
    let (Some(record), Some(seen)) = (world.task(task.id), world.seen(&task.node)) else {
        return false;
    };
    record.revision <= seen.forgot_upto
}

/// The ended form of a task that is still live.
pub(crate) fn superseded(task: &Task, now: Timestamp) -> Option<Task> {
    let outcome = Outcome::new(OutcomeKind::Superseded, "a newer task took its place");
    task.is_live().then(|| ended(task, now, outcome))
}

pub(crate) fn ended(task: &Task, at: Timestamp, outcome: Outcome) -> Task {
    Task { ended: Some(Ended { at, outcome }), ..task.clone() }
}

/// Whether the next try may start; else says when.
pub(crate) fn is_due(draft: &mut Draft<'_>, task: &Task, ended: &Ended) -> bool {
    let due = ended.at + backoff(task.id, task.attempt);
    if draft.now >= due {
        return true;
    }
    let text = format!(
        "{}: try {} of {} ended {} at {}: {}; it is tried again",
        task.node,
        task.attempt,
        task.spec.kind(),
        ended.outcome.kind,
        ended.at,
        ended.outcome.message
    );
    draft.wait(part(&task.slot(), &task.node), "retry", text, Some(due));
    false
}

/// Exponential, less up to a quarter, which the task's id decides: tasks that failed together come
/// back apart.
fn backoff(id: TaskId, attempt: u32) -> Millis {
    const DOUBLINGS_MAX: u32 = 20;
    let doublings = attempt.saturating_sub(1).min(DOUBLINGS_MAX);
    let full = (BACKOFF_FIRST.0 << doublings).min(BACKOFF_MAX.0);
    // The finalizer of splitmix64.
    let mut hash = id.revision.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(id.n);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Millis(full - full * (hash >> 56) / 1024)
}

pub(crate) fn wait_for_node(draft: &mut Draft<'_>, rule: &'static str, task: &Task) {
    let text = waiting_for(draft.world, task);
    draft.wait(part(&task.slot(), &task.node), rule, text, None);
}

/// Why a live task has not ended yet.
pub(crate) fn waiting_for(world: &World, task: &Task) -> String {
    let Task { id, node, .. } = task;
    let what = if task.cancel_requested { "cancelled" } else { "carried out" };
    let kind = task.spec.kind();
    match world.seen(node) {
        None => format!(
            "{node} was not heard of since the controller started; {kind} {id} is {what} when it \
             connects"
        ),
        Some(seen) => match (&seen.stream, seen.phase(*id)) {
            (Stream::Closed { since, why }, _) => format!(
                "{node} is not connected since {since} ({why}); {kind} {id} is {what} when it returns"
            ),
            (Stream::Open { .. }, None) => {
                format!("{node} has not confirmed {kind} {id}, given at {}", task.created_at)
            }
            (Stream::Open { .. }, Some(TaskPhase::Accepted)) => {
                format!("{node} has {kind} {id} in its ledger and starts it soon")
            }
            (Stream::Open { .. }, Some(TaskPhase::Running)) => {
                format!("{node} is at {kind} {id}, given at {}", task.created_at)
            }
        },
    }
}

/// `sync/webroot/web1`: a node's part in something.
pub(crate) fn part(slot: &Slot, node: &NodeName) -> String {
    match slot {
        Slot::Sync(sync) => format!("sync/{sync}/{node}"),
        Slot::Resync(sync, target) | Slot::Verify(sync, target) | Slot::Unhold(sync, target) => {
            format!("sync/{sync}/{target}")
        }
        Slot::Barrier(sync) => format!("sync/{sync}"),
        Slot::Mirror(mirror) | Slot::Pull(mirror) | Slot::Hooks(mirror) => {
            format!("mirror/{mirror}/{node}")
        }
        Slot::Cluster(cluster) | Slot::Act(cluster) => format!("cluster/{cluster}/{node}"),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_model::Revision;

    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit_and_spreads() {
        let id = |n| TaskId { revision: Revision(7), n };
        for (attempt, full) in
            [(1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (u32::MAX, 300)]
        {
            for n in 0..50 {
                let Millis(wait) = backoff(id(n), attempt);
                assert!((full * 750..=full * 1000).contains(&wait), "try {attempt}: {wait} ms");
            }
        }
        let waits: BTreeSet<Millis> = (0..50).map(|n| backoff(id(n), 5)).collect();
        assert!(waits.len() > 30, "{} different waits of 50", waits.len());
    }
}
