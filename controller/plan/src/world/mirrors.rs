//! The part of the world that is about mirrors: their tables, the tasks of each, and which of them have
//! to be looked at. Decides nothing.

use std::collections::BTreeMap;

use lockstep_model::mirror::{Mirror, MirrorState, ReplicaState, Run, RunId};
use lockstep_model::record::{Secret, Versioned};
use lockstep_model::task::{Slot, Subject, Task};
use lockstep_model::{MirrorName, NodeName};

use super::{Table, World};
use crate::Rests;
use crate::members::{Owner, Uses};
use crate::mirrors::Limits;

impl World {
    pub(super) fn put_mirror(&mut self, mirror: Versioned<Mirror>) {
        let name = mirror.value.name.clone();
        let uses = self.uses_without(&name);
        self.touch_selecting();
        self.touch(&name);
        match mirror.value.selected.is_some() {
            true => self.selecting.insert(name.clone()),
            false => self.selecting.remove(&name),
        };
        self.mirrors.insert(name.clone(), mirror);
        self.touch(&name);
        if let (Some(mut uses), Some(mirror)) = (uses, self.mirrors.get(&name)) {
            uses.note_mirror(self, &mirror.value);
            self.uses = uses.into();
        }
    }

    pub(super) fn delete_mirror(&mut self, name: &MirrorName) {
        let uses = self.uses_without(name);
        self.touch_selecting();
        self.touch(name);
        self.selecting.remove(name);
        self.mirrors.remove(name);
        if let Some(uses) = uses {
            self.uses = uses.into();
        }
    }

    /// What is known of directories in use, less this mirror's.
    fn uses_without(&mut self, name: &MirrorName) -> Option<Uses> {
        let mut uses = self.uses.take()?;
        if self.mirrors.contains_key(name) {
            uses.forget(&Owner::Mirror(name.clone()));
        }
        Some(uses)
    }

    pub(super) fn note_task(&mut self, task: &Task) {
        let (slot, key) = (task.slot(), (task.node.clone(), task.id));
        if task.is_live() {
            if matches!(slot, Slot::Pull(_)) {
                self.pulls.insert(key.clone());
            }
            self.live.insert(key);
        } else {
            self.live.remove(&key);
            self.pulls.remove(&key);
        }
        let slots = match slot.subject() {
            Subject::Sync(_) => &mut self.slots,
            Subject::Mirror(mirror) => {
                self.touch(mirror);
                if let Some(seen) = self.seen.get_mut(&task.node) {
                    seen.forget_stray(&slot);
                }
                self.mirror_slots.entry(mirror.clone()).or_default()
            }
            Subject::Cluster(cluster) => {
                self.touch_cluster(cluster);
                if let Some(seen) = self.seen.get_mut(&task.node) {
                    seen.forget_stray(&slot);
                }
                self.of_clusters.slots.entry(cluster.clone()).or_default()
            }
        };
        slots.entry((task.node.clone(), slot)).or_default().insert(task.id);
    }

    pub(super) fn forget_task(&mut self, task: &Task) {
        let (slot, key) = (task.slot(), (task.node.clone(), task.id));
        self.live.remove(&key);
        self.pulls.remove(&key);
        let place = (task.node.clone(), slot.clone());
        let slots = match slot.subject() {
            Subject::Sync(_) => Some(&mut self.slots),
            Subject::Mirror(mirror) => {
                self.touch(mirror);
                self.mirror_slots.get_mut(mirror)
            }
            Subject::Cluster(cluster) => {
                self.touch_cluster(cluster);
                self.of_clusters.slots.get_mut(cluster)
            }
        };
        let Some(slots) = slots else { return };
        let Some(ids) = slots.get_mut(&place) else { return };
        ids.remove(&task.id);
        if !ids.is_empty() {
            return;
        }
        slots.remove(&place);
        if let Slot::Mirror(mirror) = &slot
            && let Some(seen) = self.seen.get_mut(&task.node)
        {
            seen.forget_mirror(mirror);
        }
        if let Subject::Mirror(mirror) = slot.subject()
            && self.mirror_slots.get(mirror).is_some_and(BTreeMap::is_empty)
        {
            self.mirror_slots.remove(mirror);
        }
        if let Slot::Cluster(cluster) = &slot
            && let Some(seen) = self.seen.get_mut(&task.node)
        {
            seen.forget_cluster(cluster);
        }
        if let Subject::Cluster(cluster) = slot.subject()
            && self.of_clusters.slots.get(cluster).is_some_and(BTreeMap::is_empty)
        {
            self.of_clusters.slots.remove(cluster);
        }
    }

    /// What becomes of a mirror decides what may become of the one that it was before its rename.
    pub(crate) fn touch(&mut self, name: &MirrorName) {
        if let Some(was) = self.mirrors.get(name).and_then(|mirror| mirror.value.was.as_ref()) {
            self.agenda.touch(was);
        }
        self.agenda.touch(name);
    }

    pub(crate) fn touch_all(&mut self) {
        let known = self.mirrors.keys().chain(self.mirror_slots.keys());
        for name in known.chain(self.mirror_states.keys()).chain(self.replicas.keys()) {
            self.agenda.touch(name);
        }
        self.touch_clusters();
    }

    pub(super) fn touch_selecting(&mut self) {
        self.selecting.iter().for_each(|name| self.agenda.touch(name));
    }

    /// Mirrors that a node was given something for.
    pub(crate) fn touch_node(&mut self, node: &NodeName) {
        for (name, slots) in &self.mirror_slots {
            if slots.contains_key(&(node.clone(), Slot::Mirror(name.clone()))) {
                self.agenda.touch(name);
            }
        }
        self.touch_clusters_of(node);
    }

    /// What a plan found that needs no look until then; right only while nothing else was applied
    /// since the world that it was made of.
    pub fn rest(&mut self, rests: Rests) {
        let Rests { mirrors, clusters } = rests;
        mirrors.into_iter().for_each(|(name, rest)| self.agenda.rest(name, rest));
        self.rest_clusters(clusters);
    }

    /// How many pulls at once; not a record.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.touch_all();
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn mirrors(&self) -> &Table<MirrorName, Mirror> {
        &self.mirrors
    }

    pub fn mirror_states(&self) -> &Table<MirrorName, MirrorState> {
        &self.mirror_states
    }

    pub fn replica(
        &self,
        mirror: &MirrorName,
        node: &NodeName,
    ) -> Option<&Versioned<ReplicaState>> {
        self.replicas.get(mirror)?.get(node)
    }

    pub fn replicas_of(
        &self,
        mirror: &MirrorName,
    ) -> impl Iterator<Item = &Versioned<ReplicaState>> {
        self.replicas.get(mirror).into_iter().flat_map(BTreeMap::values)
    }

    /// All nodes' parts in a run.
    pub fn run(&self, id: &RunId) -> impl Iterator<Item = &Versioned<Run>> {
        self.runs.get(id).into_iter().flat_map(BTreeMap::values)
    }

    pub fn run_on(&self, id: &RunId, node: &NodeName) -> Option<&Versioned<Run>> {
        self.runs.get(id)?.get(node)
    }

    /// The runs of a mirror, oldest first.
    pub fn runs_of(
        &self,
        mirror: &MirrorName,
    ) -> impl DoubleEndedIterator<Item = (&RunId, &Table<NodeName, Run>)> {
        let id = |number| RunId { mirror: mirror.clone(), number };
        self.runs.range(id(0)..=id(u64::MAX))
    }

    pub fn secrets(&self) -> &Table<MirrorName, Secret> {
        &self.secrets
    }

    /// Pulls of mirrors that have not ended.
    pub(crate) fn live_pulls(&self) -> impl Iterator<Item = &Task> {
        self.pulls.iter().filter_map(|key| self.tasks.get(key)).map(|task| &task.value)
    }

    /// Everything that nodes were given for a mirror.
    pub(crate) fn mirror_slots(
        &self,
        name: &MirrorName,
    ) -> impl Iterator<Item = (&NodeName, &Slot)> {
        let slots = self.mirror_slots.get(name).into_iter().flatten();
        slots.map(|((node, slot), _)| (node, slot))
    }
}
