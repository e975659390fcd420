//! Laws of a world and of a plan, stated apart from the rules that keep them. For tests and for
//! people who look into a store; never decides anything.

use std::collections::BTreeSet;

use lockstep_model::mirror::Mirror;
use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Record, TXN_WRITES_MAX, Write};
use lockstep_model::sync::{Place, Sync};
use lockstep_model::task::{Slot, Task};
use lockstep_model::{NodeName, Timestamp};

use crate::draft::Draft;
use crate::members::Owner;
use crate::{Plan, World, syncs};

/// What is broken in a world, one line each. Looks at every pair of syncs: not for big worlds.
pub fn check_world(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    for (node, slot, ids) in world.slots() {
        let live = |id| world.task_at(node, id).is_some_and(|task| task.is_live());
        let older = ids.iter().rev().skip(1).filter(|id| live(**id)).count();
        if older > 0 {
            broken.push(format!("{node} {slot}: {older} live tasks that are not the newest"));
        }
    }
    for task in world.tasks() {
        if task.value.id.revision > world.revision() {
            broken.push(format!("task {} is of the future", task.value.id));
        }
    }
    let syncs: Vec<&Sync> = world.syncs().values().map(|sync| &sync.value).collect();
    for (at, sync) in syncs.iter().enumerate() {
        for (place, _) in places(sync) {
            if !world.nodes().contains_key(&place.node) {
                broken.push(format!("sync {}: node {} is not there", sync.name, place.node));
            }
        }
        if !sync.targets.is_sorted_by(|a, b| a.node < b.node) {
            broken.push(format!("sync {}: targets are not sorted", sync.name));
        }
        if sync.target(&sync.source.node).is_some() {
            broken.push(format!("sync {}: the source is a target", sync.name));
        }
        for other in &syncs[at + 1..] {
            broken.extend(overlap(sync, other));
        }
    }
    for mirror in world.mirrors().values().map(|mirror| &mirror.value) {
        broken.extend(check_mirror(world, mirror));
    }
    broken
}

fn check_mirror(world: &World, mirror: &Mirror) -> Vec<String> {
    let name = &mirror.name;
    let mut broken = Vec::new();
    let master = Place { node: mirror.master.clone(), path: mirror.dest.clone() };
    for place in mirror.replicas.iter().chain([&master]) {
        if !world.nodes().contains_key(&place.node) {
            broken.push(format!("mirror {name}: node {} is not there", place.node));
        }
        let here = Place { node: place.node.clone(), path: place.path.join(&mirror.dir) };
        if let Some((other, ..)) = world.uses().clash(&Owner::Mirror(name.clone()), &here, true) {
            broken.push(format!("mirror {name}: {here} is in the way of {other}"));
        }
    }
    if !mirror.replicas.is_sorted_by(|a, b| a.node < b.node) {
        broken.push(format!("mirror {name}: replicas are not sorted"));
    }
    if mirror.replica(&mirror.master).is_some() {
        broken.push(format!("mirror {name}: the master is a replica"));
    }
    let Some(state) = world.mirror_states().get(name).map(|state| &state.value) else {
        broken.push(format!("mirror {name} has no state"));
        return broken;
    };
    for row in world.replicas_of(name).map(|row| &row.value) {
        let newest = state.generation.max(row.generation);
        if row.generation > state.generation || row.staged > newest {
            broken.push(format!("mirror {name}: {} is ahead of the master", row.node));
        }
    }
    broken
}

fn overlap(one: &Sync, other: &Sync) -> Option<String> {
    let clash = |((here, writes), (there, writes_too)): &((Place, bool), (Place, bool))| {
        (*writes || *writes_too) && here.node == there.node && here.path.overlaps(&there.path)
    };
    let pair = |here| places(other).map(move |there| (Clone::clone(&here), there));
    places(one).flat_map(pair).find(clash).map(|((here, _), (there, _))| {
        format!("syncs {} and {}: {here} overlaps {there}", one.name, other.name)
    })
}

/// What is named. Selected targets give way instead.
fn places(sync: &Sync) -> impl Iterator<Item = (Place, bool)> {
    let source = (sync.source.clone(), false);
    std::iter::once(source).chain(sync.places().map(|place| (place, true)))
}

/// What is broken in a plan made of this world, one line each.
pub fn check_plan(world: &World, plan: &Plan) -> Vec<String> {
    let mut broken = Vec::new();
    if plan.writes.len() > TXN_WRITES_MAX {
        broken.push(format!("{} writes", plan.writes.len()));
    }
    if plan.cut && plan.writes.is_empty() {
        broken.push("cut before its first write".to_owned());
    }
    let mut keys = BTreeSet::new();
    for (rule, write) in &plan.writes {
        if !keys.insert(write.key()) {
            broken.push(format!("{rule} writes {} again", write.key()));
        }
        if let Write::Put(Record::Task(task)) = write
            && world.task(task.id).is_none()
            && task.id.revision != world.revision().next()
        {
            broken.push(format!("{rule} gives task {} out of turn", task.id));
        }
    }
    if plan.writes.is_empty() && world.store_behind().is_none() {
        broken.extend(unexplained(world, plan));
    }
    broken
}

/// In a quiet world, what is not in force must be waited for aloud.
fn unexplained(world: &World, plan: &Plan) -> Vec<String> {
    let subjects: BTreeSet<&str> = plan.reasons.iter().map(|r| r.subject.as_str()).collect();
    let mut broken = Vec::new();
    let mut hold = |node: &NodeName, slot: &Slot, subject: String| {
        if !subjects.contains(subject.as_str()) {
            broken.push(format!("{node} {slot} is not in force, and nothing says why"));
        }
    };
    let desired = syncs::desired(&mut Draft::new(world, Timestamp(0), 0));
    for ((node, slot), spec) in &desired {
        let newest = world.newest(node, slot);
        if !newest.is_some_and(|task| task.succeeded() && task.spec == *spec) {
            hold(node, slot, crate::tasks::part(slot, node));
        }
    }
    for sync in world.syncs().values().map(|sync| &sync.value) {
        let slot = Slot::Sync(sync.name.clone());
        for (place, _) in places(sync) {
            let node = world.nodes().get(&place.node).map(|node| node.value.admin);
            let plain = matches!(node, Some(NodeAdmin::Enabled | NodeAdmin::Draining));
            if !plain || !desired.contains_key(&(place.node.clone(), slot.clone())) {
                hold(&place.node, &slot, format!("sync/{}/{}", sync.name, place.node));
            }
        }
    }
    // What mirrors wait for is not part of a plan: `mirrors::reasons` tells.
    let of_syncs = |task: &&Task| task.slot().sync().is_some();
    let tasks = world.tasks().map(|task| &task.value).filter(|task| task.is_live());
    for task in tasks.filter(of_syncs) {
        hold(&task.node, &task.slot(), crate::tasks::part(&task.slot(), &task.node));
    }
    broken
}
