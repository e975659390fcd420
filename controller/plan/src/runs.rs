//! Tasks that people or schedules asked for and that end by themselves: retried a few times, never
//! given anew, cancelled when they have lost their sense.

use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Record, Write};
use lockstep_model::sync::{Sync, TargetAt};
use lockstep_model::task::{OutcomeKind, Slot, Task, TaskSpec};
use lockstep_model::{Millis, NodeName};

use crate::World;
use crate::draft::{Draft, NewTask};
use crate::members;
use crate::syncs::Desired;
use crate::tasks::{is_due, is_of_lost_past, part, superseded, wait_for_node};

/// A complete pass over a large directory takes hours.
pub const RUN_LIMIT: Millis = Millis::from_secs(24 * 3600);
/// Tries of one run, the first included.
pub const RUN_ATTEMPTS_MAX: u32 = 5;

pub(crate) fn keep(draft: &mut Draft<'_>, desired: &Desired, node: &NodeName, slot: &Slot) {
    let Some(newest) = draft.world.newest(node, slot) else { return };
    let moot = is_moot(draft.world, desired, newest);
    let again = |attempt| NewTask {
        node: node.clone(),
        spec: newest.spec.clone(),
        attempt,
        run_limit: newest.run_limit,
        traceparent: newest.traceparent.clone(),
    };
    let Some(ended) = &newest.ended else {
        if moot && !newest.cancel_requested {
            let task = Task { cancel_requested: true, ..newest.clone() };
            draft.write("run_moot", [Write::Put(Record::Task(task))]);
        } else if is_of_lost_past(draft.world, newest) && !newest.cancel_requested {
            draft.give("run", again(1), superseded(newest, draft.now));
        } else {
            wait_for_node(draft, "run", newest);
        }
        return;
    };
    if !may_be_tried_again(newest) || moot {
        return;
    }
    if newest.attempt >= RUN_ATTEMPTS_MAX {
        let text = format!(
            "{} {} gave up after {} tries: {}; ask for it again when the cause is gone",
            newest.spec.kind(),
            newest.id,
            newest.attempt,
            ended.outcome.message
        );
        draft.wait(part(slot, node), "gave_up", text, None);
    } else if is_due(draft, newest, ended) {
        draft.give("retry", again(newest.attempt.saturating_add(1)), None);
    }
}

/// Whether it is under way, or one of its tries is.
pub(crate) fn goes_on(task: &Task) -> bool {
    task.is_live() || may_be_tried_again(task) && task.attempt < RUN_ATTEMPTS_MAX
}

fn may_be_tried_again(task: &Task) -> bool {
    let failed = task.ended.as_ref().is_some_and(|ended| {
        matches!(
            ended.outcome.kind,
            OutcomeKind::Failed | OutcomeKind::Interrupted | OutcomeKind::Unknown
        )
    });
    // A release of what a guard held counts for what was held then, and a barrier for its "now".
    let again_is_the_same = matches!(task.slot(), Slot::Resync(..) | Slot::Verify(..));
    failed && !task.cancel_requested && again_is_the_same
}

/// Whether nobody can want it any more.
fn is_moot(world: &World, desired: &Desired, task: &Task) -> bool {
    let slot = task.slot();
    let Some(sync) = slot.sync().and_then(|sync| world.syncs().get(sync)) else { return true };
    let sync = &sync.value;
    match &slot {
        Slot::Sync(_)
        | Slot::Mirror(_)
        | Slot::Pull(_)
        | Slot::Hooks(_)
        | Slot::Cluster(_)
        | Slot::Act(_) => false,
        Slot::Barrier(_) => task.node != sync.source.node || !works(world, &task.node),
        Slot::Resync(_, target) | Slot::Verify(_, target) | Slot::Unhold(_, target) => {
            !is_wanted(world, desired, sync, target, &task.node)
        }
    }
}

/// Whether `feeder` can bring something to this target of the sync now.
pub(crate) fn is_wanted(
    world: &World,
    desired: &Desired,
    sync: &Sync,
    target: &NodeName,
    feeder: &NodeName,
) -> bool {
    let can_be_fed = match sync.target(target).map(|target| &target.at) {
        Some(TargetAt::Remote(_)) => *feeder == sync.source.node,
        _ => {
            let part = (target.clone(), Slot::Sync(sync.name.clone()));
            matches!(desired.get(&part), Some(TaskSpec::SyncTarget(_)))
                && works(world, target)
                && *feeder == *members::feeder(world, sync, target)
        }
    };
    can_be_fed && works(world, feeder)
}

fn works(world: &World, name: &NodeName) -> bool {
    let node = world.nodes().get(name);
    node.is_some_and(|n| matches!(n.value.admin, NodeAdmin::Enabled | NodeAdmin::Draining))
}
