//! What is left of a mirror where it has no place any more: nodes that are told so, runs that nobody
//! wants, and rows of mirrors that are gone.

use lockstep_model::mirror::Mirror;
use lockstep_model::node::NodeAdmin;
use lockstep_model::path::DirPath;
use lockstep_model::record::{Key, Write};
use lockstep_model::task::{MirrorRelease, Slot, TaskSpec};
use lockstep_model::{MirrorName, NodeName};

use super::{Parts, part, places, pulls};
use crate::draft::Draft;
use crate::tasks;

/// A mirror without a record: its nodes let go of it, and its rows go.
pub(super) fn clear(draft: &mut Draft<'_>, name: &MirrorName) {
    let world = draft.world;
    release_all(draft, name, |_, _| false, false);
    let mut keys = Vec::new();
    if world.mirror_states().contains_key(name) {
        keys.push(Key::MirrorState(name.clone()));
    }
    if world.secrets().contains_key(name) {
        keys.push(Key::Secret(name.clone()));
    }
    keys.extend(world.replicas_of(name).map(|r| Key::Replica(name.clone(), r.value.node.clone())));
    for (id, rows) in world.runs_of(name) {
        keys.extend(rows.keys().map(|node| Key::Run(id.clone(), node.clone())));
    }
    for key in keys {
        if !draft.writes(&key) && !draft.write("mirror_gone", [Write::Delete(key)]) {
            return;
        }
    }
}

/// A mirror that goes with its files.
pub(super) fn delete(draft: &mut Draft<'_>, mirror: &Mirror) {
    let world = draft.world;
    release_all(draft, &mirror.name, |_, _| false, true);
    let is_left = world.mirror_slots(&mirror.name).any(|(node, _)| {
        let admin = world.nodes().get(node).map(|node| node.value.admin);
        admin.is_some_and(|admin| admin != NodeAdmin::Expelled)
    });
    if !is_left {
        draft.write("mirror_gone", [Write::Delete(Key::Mirror(mirror.name.clone()))]);
    }
}

/// Nodes that have no part in the mirror any more. The runs of its master are never left over.
pub(super) fn leave(draft: &mut Draft<'_>, parts: &Parts<'_>) {
    let world = draft.world;
    let mirror = parts.mirror;
    let is_run = |slot: &Slot| matches!(slot, Slot::Pull(_));
    let stays = |node: &NodeName, slot: &Slot| {
        parts.involves(node) || (*node == mirror.master && is_run(slot))
    };
    release_all(draft, &mirror.name, stays, false);
    for row in world.replicas_of(&mirror.name).map(|row| &row.value) {
        if parts.copies.iter().any(|copy| copy.node.name == row.node) {
            continue;
        }
        let mut group = vec![Write::Delete(Key::Replica(mirror.name.clone(), row.node.clone()))];
        let is_gone = !world.nodes().contains_key(&row.node);
        let has_task = pulls::newest(world, mirror, &row.node).is_some();
        if let Some(number) = row.current.filter(|_| is_gone || !has_task) {
            let end = pulls::end_lost(draft.now);
            group.extend(pulls::row_ended(world, &mirror.name, number, &row.node, end, None));
        }
        draft.write("replica_gone", group);
    }
}

fn release_all(
    draft: &mut Draft<'_>,
    name: &MirrorName,
    stays: impl Fn(&NodeName, &Slot) -> bool,
    with_files: bool,
) {
    let world = draft.world;
    let strays = world.seen.iter().filter_map(|(node, seen)| {
        let slot = Slot::Mirror(name.clone());
        (seen.is_stray(&slot) && world.newest(node, &slot).is_none()).then_some((node, slot))
    });
    let strays: Vec<_> = strays.collect();
    let known = world.mirror_slots(name).map(|(node, slot)| (node, slot.clone()));
    for (node, slot) in known.chain(strays) {
        if stays(node, &slot) {
            continue;
        }
        let admin = world.nodes().get(node).map(|node| node.value.admin);
        match (&slot, admin) {
            (_, None) => tasks::forget(draft, "node_removed", node, &slot),
            (Slot::Mirror(_), Some(NodeAdmin::Expelled)) => tasks::lose(draft, node, &slot),
            (Slot::Mirror(_), Some(_)) => release(draft, name, node, &slot, with_files),
            (_, Some(admin)) => end_runs(draft, node, &slot, admin),
        }
        if admin.is_some() {
            places::forget_older(draft, node, &slot);
        }
    }
}

fn release(
    draft: &mut Draft<'_>,
    name: &MirrorName,
    node: &NodeName,
    slot: &Slot,
    with_files: bool,
) {
    let world = draft.world;
    let pull = Slot::Pull(name.clone());
    if world.newest(node, &pull).is_some_and(|task| task.is_live()) {
        let text = format!("{node} has to end its run first");
        return draft.wait(part(name, node), "release", text, None);
    }
    if places::is_awaited(world, name, node) {
        let text = format!("{node} has to take the tree over by its new name first");
        return draft.wait(part(name, node), "release", text, None);
    }
    let delete = with_files.then(|| tree(draft, node, slot)).flatten();
    let spec = TaskSpec::MirrorRelease(MirrorRelease { mirror: name.clone(), delete });
    tasks::clear(draft, node, slot, &spec);
}

/// Where the node has the tree, as it was last told.
fn tree(draft: &Draft<'_>, node: &NodeName, slot: &Slot) -> Option<DirPath> {
    match &draft.world.newest(node, slot)?.spec {
        TaskSpec::MirrorPlace(place) => Some(place.tree.clone()),
        TaskSpec::MirrorRelease(release) => release.delete.clone(),
        _ => None,
    }
}

/// Runs of a node that has no part any more.
fn end_runs(draft: &mut Draft<'_>, node: &NodeName, slot: &Slot, admin: NodeAdmin) {
    let world = draft.world;
    let Some(task) = world.newest(node, slot) else { return };
    let Some(ended) = &task.ended else {
        if admin == NodeAdmin::Expelled {
            return tasks::lose(draft, node, slot);
        }
        pulls::cancel(draft, task);
        return tasks::wait_for_node(draft, "run_moot", task);
    };
    let mut group = vec![Write::Delete(Key::Task(node.clone(), task.id))];
    if let TaskSpec::MirrorPull(pull) = &task.spec
        && world.mirrors().contains_key(&pull.mirror)
    {
        let end = pulls::end(ended);
        group.extend(pulls::row_ended(world, &pull.mirror, pull.number, node, end, None));
    }
    draft.write("run_moot", group);
}
