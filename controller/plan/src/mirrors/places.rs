//! Where a mirror's tree is on each node, who may read it there, and whether it serves.

use std::collections::BTreeSet;

use lockstep_model::mirror::{HopKind, Mirror, MirrorState, ReplicaState};
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::path::DirPath;
use lockstep_model::record::{Record, Write};
use lockstep_model::task::{MirrorPlace, MirrorPull, Peer, PullFrom, Slot, Task, TaskSpec};
use lockstep_model::{MirrorName, NodeName};

use super::{Parts, part, works};
use crate::World;
use crate::draft::{Draft, NewTask};
use crate::tasks;

/// Nodes whose part is in force as it should be.
pub(super) struct Placed<'a> {
    nodes: BTreeSet<&'a NodeName>,
    /// Some node has lost what it knew, which is written first.
    pub forgot: bool,
}

impl Placed<'_> {
    pub fn has(&self, node: &NodeName) -> bool {
        self.nodes.contains(node)
    }
}

pub(super) fn bring<'a>(draft: &mut Draft<'a>, parts: &Parts<'a>) -> Placed<'a> {
    let mut placed = Placed { nodes: BTreeSet::new(), forgot: false };
    let source = rebuilt_from(draft.world, parts.mirror);
    if let Some(master) = parts.master {
        let mut readers = Vec::new();
        if parts.mirror.options.replicas_from.is_none() && works(master) {
            readers.extend(parts.copies.iter().map(|c| c.node).filter(|n| works(n)).map(caller));
        }
        let hop = HopKind::Upstream;
        bring_one(draft, &mut placed, parts, master, parts.mirror.tree(), hop, readers);
    }
    for copy in &parts.copies {
        let reads = |master: &&Node| works(master) && source.as_ref() == Some(&copy.node.name);
        let readers = parts.master.filter(reads).map(caller).into_iter().collect();
        let hop = HopKind::Replica;
        bring_one(draft, &mut placed, parts, copy.node, copy.tree.clone(), hop, readers);
    }
    placed
}

/// A peer that only calls.
fn caller(node: &Node) -> Peer {
    Peer { node: node.name.clone(), key_hash: node.key_hash, addresses: Vec::new() }
}

/// The replica that the master's tree is taken from, now or next.
fn rebuilt_from(world: &World, mirror: &Mirror) -> Option<NodeName> {
    let state = &world.mirror_states().get(&mirror.name)?.value;
    let number = match (state.current, &state.wanted) {
        (None, wanted) => return wanted.as_ref()?.from.clone(),
        (Some(number), _) => number,
    };
    match &world.newest(&mirror.master, &Slot::Pull(mirror.name.clone()))?.spec {
        TaskSpec::MirrorPull(MirrorPull { number: of, from: PullFrom::Agent(peer), .. })
            if *of == number =>
        {
            Some(peer.node.clone())
        }
        _ => None,
    }
}

fn bring_one<'a>(
    draft: &mut Draft<'a>,
    placed: &mut Placed<'a>,
    parts: &Parts<'_>,
    node: &'a Node,
    tree: DirPath,
    hop: HopKind,
    readers: Vec<Peer>,
) {
    let (world, mirror) = (draft.world, parts.mirror);
    let slot = Slot::Mirror(mirror.name.clone());
    let newest = world.newest(&node.name, &slot);
    let moved_from = moved_from(world, mirror, node, newest, &tree);
    let mut spec = MirrorPlace {
        mirror: mirror.name.clone(),
        tree,
        moved_from,
        hop,
        readers,
        serve: node.admin == NodeAdmin::Enabled,
        options: mirror.options.clone(),
    };
    let arrived = newest.filter(|task| task.succeeded()).and_then(place);
    if let Some(there) = arrived
        && there.tree == spec.tree
    {
        // Where it came from is of no meaning any more, and no reason to tell the node again.
        spec.moved_from.clone_from(&there.moved_from);
        if *there != spec {
            spec.moved_from = None;
        }
    }
    let spec = TaskSpec::MirrorPlace(spec);
    if let Some(task) = newest.filter(|task| task.is_live() && task.spec != spec)
        && !tasks::is_of_lost_past(world, task)
        && let Some(MirrorPlace { tree, moved_from: Some(_), .. }) = place(task)
    {
        let why = tasks::waiting_for(world, task);
        let text =
            format!("{} is to have the tree at {tree} before anything else: {why}", node.name);
        return draft.wait(part(&mirror.name, &node.name), "moving", text, None);
    }
    let in_force = newest.is_some_and(|task| {
        task.succeeded() && task.spec == spec && !tasks::is_of_lost_past(world, task)
    });
    let moves = matches!(&spec, TaskSpec::MirrorPlace(MirrorPlace { moved_from: Some(_), .. }));
    if moves && !in_force && is_pulling(world, mirror, &node.name) {
        let text = format!("{} ends its run before the tree is moved", node.name);
        return draft.wait(part(&mirror.name, &node.name), "moving", text, None);
    }
    let forgot = newest.is_some_and(|task| task.succeeded() && tasks::is_forgotten(world, task));
    if forgot {
        placed.forgot = true;
        return forget_tree(draft, mirror, node, spec);
    }
    if in_force {
        placed.nodes.insert(&node.name);
    } else {
        tasks::bring(draft, "mirror_place", &node.name, &slot, &spec);
    }
    forget_older(draft, &node.name, &slot);
}

fn is_pulling(world: &World, mirror: &Mirror, node: &NodeName) -> bool {
    world.newest(node, &Slot::Pull(mirror.name.clone())).is_some_and(Task::is_live)
}

/// A node that lost its memory may have lost the tree as well: until it pulled, it has none.
fn forget_tree(draft: &mut Draft<'_>, mirror: &Mirror, node: &Node, spec: TaskSpec) {
    let world = draft.world;
    let task = draft.born(NewTask {
        node: node.name.clone(),
        run_limit: tasks::run_limit(&spec),
        spec,
        attempt: 1,
        traceparent: None,
    });
    let mut group = vec![task];
    if node.name == mirror.master {
        let state = world.mirror_states().get(&mirror.name).map(|state| &state.value);
        let state = state.map(|state| MirrorState { generation_on: None, ..state.clone() });
        group.extend(state.map(|state| Write::Put(Record::MirrorState(state))));
    } else {
        let state = world.replica(&mirror.name, &node.name).map(|state| &state.value);
        let state = state.map(|state| ReplicaState { generation: 0, staged: 0, ..state.clone() });
        group.extend(state.map(|state| Write::Put(Record::Replica(state))));
    }
    draft.write("memory_lost", group);
}

fn place(task: &Task) -> Option<&MirrorPlace> {
    match &task.spec {
        TaskSpec::MirrorPlace(place) => Some(place),
        _ => None,
    }
}

/// Where the tree is before it comes to its place; the same directory when only the mirror's name is
/// new.
fn moved_from(
    world: &World,
    mirror: &Mirror,
    node: &Node,
    newest: Option<&Task>,
    tree: &DirPath,
) -> Option<DirPath> {
    let Some(newest) = newest else { return before_rename(world, mirror, node) };
    let there = place(newest)?;
    if there.tree == *tree {
        return there.moved_from.clone();
    }
    let from = match newest.succeeded() || there.moved_from.is_none() {
        true => Some(there.tree.clone()),
        false => there.moved_from.clone(),
    };
    from.filter(|from| from != tree)
}

fn before_rename(world: &World, mirror: &Mirror, node: &Node) -> Option<DirPath> {
    let was = Slot::Mirror(mirror.was.clone()?);
    Some(place(world.newest(&node.name, &was)?)?.tree.clone())
}

/// Whether the tree that a node has as `was` is to be taken over by name, and is not yet.
pub(super) fn is_awaited(world: &World, was: &MirrorName, node: &NodeName) -> bool {
    let heirs = world.mirrors().values().map(|mirror| &mirror.value);
    heirs.filter(|heir| heir.was.as_ref() == Some(was) && !heir.deleting).any(|heir| {
        let (copies, _) = crate::members::copies(world, heir);
        let takes = heir.master == *node || copies.iter().any(|copy| copy.node.name == *node);
        let newest = world.newest(node, &Slot::Mirror(heir.name.clone()));
        takes && !newest.is_some_and(|task| task.succeeded() && place(task).is_some())
    })
}

/// Of a mirror's tasks only the newest of each slot says anything.
pub(super) fn forget_older(draft: &mut Draft<'_>, node: &NodeName, slot: &Slot) {
    let world = draft.world;
    let ids: Vec<_> = world.ids(node, slot).collect();
    let Some((_, older)) = ids.split_last() else { return };
    for id in older {
        if world.task_at(node, **id).is_some_and(|task| !task.is_live()) {
            draft.delete_task("forget_task", node, **id);
        }
    }
}
