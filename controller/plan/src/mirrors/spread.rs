//! What follows when all replicas have a generation: the hooks that wait for that.

use lockstep_model::mirror::hook::MirrorHookEvent;
use lockstep_model::record::{Key, Record, Write};
use lockstep_model::task::{MirrorHooks, OutcomeKind, Slot, Task, TaskSpec};

use super::master::Master;
use super::replicas::Replica;
use super::{Parts, part, works};
use crate::draft::{Draft, NewTask};
use crate::runs::{RUN_ATTEMPTS_MAX, RUN_LIMIT};
use crate::seen::Away;
use crate::tasks;

pub(super) fn follow(
    draft: &mut Draft<'_>,
    parts: &Parts<'_>,
    master: &mut Master,
    replicas: &[Replica<'_>],
) {
    let world = draft.world;
    let mirror = parts.mirror;
    if parts.master.is_none() {
        return;
    }
    let slot = Slot::Hooks(mirror.name.clone());
    let newest = world.newest(&mirror.master, &slot);
    if let Some(task) = newest {
        keep(draft, parts, master, task);
    }
    let state = &mut master.state;
    let is_there = state.generation_on.as_ref() == Some(&mirror.master);
    if state.distributed >= state.generation || !is_there {
        return;
    }
    if newest.is_some_and(Task::is_live) {
        return;
    }
    for replica in replicas.iter().filter(|r| works(r.copy.node)) {
        if replica.state.generation >= state.generation {
            continue;
        }
        match world.away(&replica.copy.node.name, draft.now) {
            Away::Yes => {}
            Away::Soon(at) => return draft.wake(at),
            Away::No => return,
        }
    }
    state.distributed = state.generation;
    let distributed =
        |hook: &lockstep_model::mirror::MirrorHook| hook.on == MirrorHookEvent::Distributed;
    if !mirror.options.hooks.iter().any(distributed) {
        return;
    }
    let hooks = MirrorHooks {
        mirror: mirror.name.clone(),
        number: state.generation_run,
        generation: state.generation,
        tree: mirror.tree(),
        options: mirror.options.clone(),
    };
    give(draft, parts, master, hooks, 1);
}

/// Hooks that nobody knows to have run are run again if they may be, which the agent knows.
fn keep(draft: &mut Draft<'_>, parts: &Parts<'_>, master: &mut Master, task: &Task) {
    let TaskSpec::MirrorHooks(hooks) = &task.spec else { return };
    let Some(ended) = &task.ended else {
        if tasks::is_of_lost_past(draft.world, task) {
            return give(draft, parts, master, hooks.clone(), 1);
        }
        return tasks::wait_for_node(draft, "hooks", task);
    };
    let unsure = matches!(ended.outcome.kind, OutcomeKind::Interrupted | OutcomeKind::Unknown);
    if ended.outcome.kind == OutcomeKind::Failed {
        let text = format!("hooks of run {} failed: {}", hooks.number, ended.outcome.message);
        draft.wait(part(&parts.mirror.name, &task.node), "hooks", text, None);
    }
    // A newer generation has its own.
    let stale = master.state.generation > hooks.generation;
    if unsure && !stale && task.attempt < RUN_ATTEMPTS_MAX && tasks::is_due(draft, task, ended) {
        give(draft, parts, master, hooks.clone(), task.attempt.saturating_add(1));
    }
}

fn give(
    draft: &mut Draft<'_>,
    parts: &Parts<'_>,
    master: &mut Master,
    hooks: MirrorHooks,
    attempt: u32,
) {
    let world = draft.world;
    let node = &parts.mirror.master;
    for id in world.ids(node, &Slot::Hooks(hooks.mirror.clone())) {
        let Some(task) = world.task_at(node, *id) else { continue };
        master.group.push(match tasks::superseded(task, draft.now) {
            Some(old) => Write::Put(Record::Task(old)),
            None => Write::Delete(Key::Task(node.clone(), *id)),
        });
    }
    master.group.push(draft.born(NewTask {
        node: node.clone(),
        spec: TaskSpec::MirrorHooks(hooks),
        attempt,
        run_limit: RUN_LIMIT,
        traceparent: None,
    }));
}
