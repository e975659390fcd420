//! Everything the planner may look at: all records in memory, and what agents said since the start.
//! Changes only by `apply` and `observe`; decides nothing.

mod clusters;
mod mirrors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use lockstep_model::identity::{Token, User};
use lockstep_model::mirror::{Mirror, MirrorState, ReplicaState, Run, RunId};
use lockstep_model::node::Node;
use lockstep_model::past::Past;
use lockstep_model::record::{
    Change, Fleet, Key, Record, RequestDone, RequestId, Secret, Versioned, Write,
};
use lockstep_model::sync::{Sync, SyncState};
use lockstep_model::task::{Slot, Subject, Task, TaskSpec};
use lockstep_model::{
    MirrorName, NodeName, Revision, SyncName, TaskId, Timestamp, TokenId, UserName,
};

use crate::members::{Uses, is_selected};
use crate::mirrors::{Agenda, Limits};
use crate::seen::Seen;

pub type Table<K, T> = BTreeMap<K, Versioned<T>>;

#[derive(Clone, Default, Debug)]
pub struct World {
    revision: Revision,
    fleet: Option<Versioned<Fleet>>,
    past: Option<Versioned<Past>>,
    nodes: Table<NodeName, Node>,
    tokens: Table<TokenId, Token>,
    users: Table<UserName, User>,
    syncs: Table<SyncName, Sync>,
    sync_states: BTreeMap<SyncName, Table<NodeName, SyncState>>,
    mirrors: Table<MirrorName, Mirror>,
    /// Index of `mirrors`: those with replicas by label.
    selecting: BTreeSet<MirrorName>,
    mirror_states: Table<MirrorName, MirrorState>,
    replicas: BTreeMap<MirrorName, Table<NodeName, ReplicaState>>,
    runs: BTreeMap<RunId, Table<NodeName, Run>>,
    secrets: Table<MirrorName, Secret>,
    of_clusters: clusters::Clusters,
    tasks: Table<(NodeName, TaskId), Task>,
    requests: Table<RequestId, RequestDone>,
    /// Index of the tasks of syncs, oldest first.
    slots: Slots,
    /// The same of mirrors.
    mirror_slots: BTreeMap<MirrorName, Slots>,
    /// Index of `tasks`: those that have not ended.
    live: BTreeSet<(NodeName, TaskId)>,
    /// Index of `live`: the pulls of mirrors.
    pulls: BTreeSet<(NodeName, TaskId)>,
    /// Index of `tasks`: ids are unique in the fleet, keys start with the node.
    homes: BTreeMap<TaskId, NodeName>,
    /// Made of records when it is asked for.
    uses: OnceLock<Uses>,
    /// Which mirrors have to be looked at.
    pub(crate) agenda: Agenda,
    limits: Limits,
    /// What agents said; not records.
    pub(crate) seen: BTreeMap<NodeName, Seen>,
    /// When the first of them spoke.
    pub(crate) heard_since: Option<Timestamp>,
}

/// The tasks of each slot, oldest first.
pub type Slots = BTreeMap<(NodeName, Slot), BTreeSet<TaskId>>;

impl World {
    /// The world of a store's snapshot, before any agent spoke.
    pub fn from_records(
        revision: Revision,
        records: impl IntoIterator<Item = Versioned<Record>>,
    ) -> Self {
        let mut world = Self { revision, ..Self::default() };
        for record in records {
            world.put(record.revision, record.value);
        }
        world
    }

    /// A committed transaction. Revisions only grow; adopting a store makes them jump.
    pub fn apply(&mut self, change: &Change) {
        debug_assert!(change.revision > self.revision, "{} is applied again", change.revision);
        for write in &change.writes {
            match write {
                Write::Put(record) => self.put(change.revision, record.clone()),
                Write::Delete(key) => self.delete(key),
            }
        }
        self.revision = change.revision;
    }

    fn put(&mut self, revision: Revision, record: Record) {
        match record {
            Record::Fleet(value) => {
                self.touch_all();
                self.fleet = Some(Versioned { revision, value });
            }
            Record::Past(value) => self.past = Some(Versioned { revision, value }),
            Record::Node(value) => {
                self.uses.take();
                self.touch_all();
                self.nodes.insert(value.name.clone(), Versioned { revision, value });
            }
            Record::Token(value) => {
                self.tokens.insert(value.id.clone(), Versioned { revision, value });
            }
            Record::User(value) => {
                self.users.insert(value.name.clone(), Versioned { revision, value });
            }
            Record::Sync(value) => {
                self.uses.take();
                self.touch_selecting();
                self.forget_reports(&value.name, Some(&value));
                self.syncs.insert(value.name.clone(), Versioned { revision, value });
            }
            Record::SyncState(value) => {
                let of_sync = self.sync_states.entry(value.sync.clone()).or_default();
                of_sync.insert(value.target.clone(), Versioned { revision, value });
            }
            Record::Mirror(value) => self.put_mirror(Versioned { revision, value }),
            Record::MirrorState(value) => {
                self.agenda.touch(&value.mirror);
                self.mirror_states.insert(value.mirror.clone(), Versioned { revision, value });
            }
            Record::Replica(value) => {
                self.agenda.touch(&value.mirror);
                let rows = self.replicas.entry(value.mirror.clone()).or_default();
                rows.insert(value.node.clone(), Versioned { revision, value });
            }
            Record::Run(value) => {
                self.agenda.touch(&value.id.mirror);
                let rows = self.runs.entry(value.id.clone()).or_default();
                rows.insert(value.node.clone(), Versioned { revision, value });
            }
            Record::Secret(value) => {
                self.agenda.touch(&value.mirror);
                self.secrets.insert(value.mirror.clone(), Versioned { revision, value });
            }
            Record::Cluster(_)
            | Record::ClusterState(_)
            | Record::Failover(_)
            | Record::ClusterSecret(_) => self.put_cluster_record(revision, record),
            Record::Request(value) => {
                self.requests.insert(value.id.clone(), Versioned { revision, value });
            }
            Record::Task(value) => {
                let (node, id) = (value.node.clone(), value.id);
                if !value.is_live() {
                    self.forget_phase(&node, id);
                }
                if let (true, TaskSpec::SyncRelease { sync }) = (value.succeeded(), &value.spec)
                    && let Some(seen) = self.seen.get_mut(&node)
                {
                    seen.forget_stray(&Slot::Sync(sync.clone()));
                }
                self.note_task(&value);
                self.homes.insert(id, node.clone());
                self.tasks.insert((node, id), Versioned { revision, value });
            }
        }
    }

    fn delete(&mut self, key: &Key) {
        match key {
            Key::Fleet => self.fleet = None,
            Key::Past => self.past = None,
            Key::Node(name) => {
                self.uses.take();
                self.touch_all();
                self.nodes.remove(name);
                self.seen.remove(name);
            }
            Key::Token(id) => {
                self.tokens.remove(id);
            }
            Key::User(name) => {
                self.users.remove(name);
            }
            Key::Sync(name) => {
                self.uses.take();
                self.touch_selecting();
                self.forget_reports(name, None);
                self.syncs.remove(name);
            }
            Key::SyncState(sync, target) => {
                let Some(of_sync) = self.sync_states.get_mut(sync) else { return };
                of_sync.remove(target);
                if of_sync.is_empty() {
                    self.sync_states.remove(sync);
                }
            }
            Key::Mirror(name) => self.delete_mirror(name),
            Key::MirrorState(name) => {
                self.agenda.touch(name);
                self.mirror_states.remove(name);
            }
            Key::Replica(mirror, node) => {
                self.agenda.touch(mirror);
                if let Some(rows) = self.replicas.get_mut(mirror) {
                    rows.remove(node);
                    if rows.is_empty() {
                        self.replicas.remove(mirror);
                    }
                }
            }
            Key::Run(id, node) => {
                self.agenda.touch(&id.mirror);
                if let Some(rows) = self.runs.get_mut(id) {
                    rows.remove(node);
                    if rows.is_empty() {
                        self.runs.remove(id);
                    }
                }
            }
            Key::Secret(name) => {
                self.agenda.touch(name);
                self.secrets.remove(name);
            }
            Key::Cluster(_) | Key::ClusterState(_) | Key::Failover(..) | Key::ClusterSecret(_) => {
                self.delete_cluster_record(key)
            }
            Key::Request(id) => {
                self.requests.remove(id);
            }
            Key::Task(node, id) => {
                self.forget_phase(node, *id);
                self.homes.remove(id);
                let Some(task) = self.tasks.remove(&(node.clone(), *id)) else { return };
                self.forget_task(&task.value);
            }
        }
    }

    fn forget_phase(&mut self, node: &NodeName, id: TaskId) {
        if let Some(seen) = self.seen.get_mut(node) {
            seen.forget_task(id);
        }
    }

    /// Reports of nodes that have no part in the sync any more.
    fn forget_reports(&mut self, name: &SyncName, sync: Option<&Sync>) {
        let labels = |node| self.nodes.get(node).map(|node: &Versioned<Node>| &node.value);
        for (node, seen) in &mut self.seen {
            let selected = |sync| labels(node).is_some_and(|node| is_selected(sync, node));
            if sync.is_some_and(|sync| sync.names(node) || selected(sync)) {
                seen.forget_stray(&Slot::Sync(name.clone()));
            } else {
                seen.forget_sync(name);
            }
        }
    }

    /// Slots that agents fill and no record knows.
    pub(crate) fn strays(&self) -> impl Iterator<Item = (NodeName, Slot)> {
        self.seen
            .iter()
            .flat_map(|(node, seen)| seen.strays().map(|slot| (node.clone(), slot.clone())))
    }

    /// The directories in use.
    pub fn uses(&self) -> &Uses {
        self.uses.get_or_init(|| Uses::of(self))
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn fleet(&self) -> Option<&Versioned<Fleet>> {
        self.fleet.as_ref()
    }

    /// The starts of controllers on this store, as far as they are recorded.
    pub fn past(&self) -> &Past {
        static NONE: Past = Past { lives: Vec::new() };
        self.past.as_ref().map_or(&NONE, |past| &past.value)
    }

    pub fn nodes(&self) -> &Table<NodeName, Node> {
        &self.nodes
    }

    pub fn tokens(&self) -> &Table<TokenId, Token> {
        &self.tokens
    }

    pub fn users(&self) -> &Table<UserName, User> {
        &self.users
    }

    pub fn syncs(&self) -> &Table<SyncName, Sync> {
        &self.syncs
    }

    /// Of every sync that has one, by target.
    pub fn sync_states(&self) -> &BTreeMap<SyncName, Table<NodeName, SyncState>> {
        &self.sync_states
    }

    pub fn sync_states_of(&self, sync: &SyncName) -> impl Iterator<Item = &SyncState> {
        let of_sync = self.sync_states.get(sync).into_iter();
        of_sync.flat_map(|of_sync| of_sync.values().map(|state| &state.value))
    }

    pub fn sync_state(&self, sync: &SyncName, target: &NodeName) -> Option<&SyncState> {
        self.sync_states.get(sync)?.get(target).map(|state| &state.value)
    }

    pub fn requests(&self) -> &Table<RequestId, RequestDone> {
        &self.requests
    }

    /// All tasks, by node and then by age.
    pub fn tasks(&self) -> impl Iterator<Item = &Versioned<Task>> {
        self.tasks.values()
    }

    pub fn task(&self, id: TaskId) -> Option<&Versioned<Task>> {
        let node = self.homes.get(&id)?;
        self.tasks.get(&(node.clone(), id))
    }

    /// Oldest first.
    pub fn tasks_of(&self, node: &NodeName) -> impl Iterator<Item = &Versioned<Task>> {
        let first = TaskId { revision: Revision::ZERO, n: 0 };
        let last = TaskId { revision: Revision(u64::MAX), n: u32::MAX };
        self.tasks.range((node.clone(), first)..=(node.clone(), last)).map(|(_, task)| task)
    }

    /// What the node has to be told; oldest first.
    pub fn live_tasks_of(&self, node: &NodeName) -> impl Iterator<Item = &Versioned<Task>> {
        let first = TaskId { revision: Revision::ZERO, n: 0 };
        let last = TaskId { revision: Revision(u64::MAX), n: u32::MAX };
        let keys = self.live.range((node.clone(), first)..=(node.clone(), last));
        keys.filter_map(|key| self.tasks.get(key))
    }

    /// Every slot that has a task, with its tasks' ids, oldest first.
    pub fn slots(&self) -> impl Iterator<Item = (&NodeName, &Slot, &BTreeSet<TaskId>)> {
        let of_mirrors = self.mirror_slots.values().flatten();
        let of_clusters = self.of_clusters.slots.values().flatten();
        let all = self.slots.iter().chain(of_mirrors).chain(of_clusters);
        all.map(|((node, slot), ids)| (node, slot, ids))
    }

    pub(crate) fn sync_slots(&self) -> impl Iterator<Item = (&NodeName, &Slot, &BTreeSet<TaskId>)> {
        self.slots.iter().map(|((node, slot), ids)| (node, slot, ids))
    }

    fn slot(&self, node: &NodeName, slot: &Slot) -> Option<&BTreeSet<TaskId>> {
        let slots = match slot.subject() {
            Subject::Sync(_) => &self.slots,
            Subject::Mirror(mirror) => self.mirror_slots.get(mirror)?,
            Subject::Cluster(cluster) => self.of_clusters.slots.get(cluster)?,
        };
        slots.get(&(node.clone(), slot.clone()))
    }

    /// The tasks of one slot, oldest first.
    pub fn ids(&self, node: &NodeName, slot: &Slot) -> impl Iterator<Item = &TaskId> {
        self.slot(node, slot).into_iter().flatten()
    }

    /// The newest task of a slot, which says what is in force or on its way there.
    pub fn newest(&self, node: &NodeName, slot: &Slot) -> Option<&Task> {
        self.task_at(node, *self.slot(node, slot)?.last()?)
    }

    pub(crate) fn task_at(&self, node: &NodeName, id: TaskId) -> Option<&Task> {
        self.tasks.get(&(node.clone(), id)).map(|task| &task.value)
    }

    /// Every record, in the order of the store's keys.
    pub fn records(&self) -> Vec<Versioned<Record>> {
        fn all<'a, T: Clone + 'a>(
            rows: impl IntoIterator<Item = &'a Versioned<T>>,
            wrap: fn(T) -> Record,
        ) -> Vec<Versioned<Record>> {
            let row =
                |v: &Versioned<T>| Versioned { revision: v.revision, value: wrap(v.value.clone()) };
            rows.into_iter().map(row).collect()
        }
        // '-' sorts before '/'.
        let mut records = all(self.cluster_secrets().values(), Record::ClusterSecret);
        let boxed = |state| Record::ClusterState(Box::new(state));
        records.extend(all(self.cluster_states().values(), boxed));
        records.extend(all(self.clusters().values(), |c| Record::Cluster(Box::new(c))));
        records.extend(all(self.all_failovers(), |f| Record::Failover(Box::new(f))));
        records.extend(all(&self.fleet, Record::Fleet));
        records.extend(all(&self.past, Record::Past));
        records.extend(all(self.mirror_states.values(), Record::MirrorState));
        records.extend(all(self.mirrors.values(), Record::Mirror));
        records.extend(all(self.nodes.values(), Record::Node));
        records.extend(all(self.replicas.values().flat_map(BTreeMap::values), Record::Replica));
        records.extend(all(self.requests.values(), Record::Request));
        records.extend(all(self.runs.values().flat_map(BTreeMap::values), Record::Run));
        records.extend(all(self.secrets.values(), Record::Secret));
        let states = self.sync_states.values().flat_map(BTreeMap::values);
        records.extend(all(states, Record::SyncState));
        records.extend(all(self.syncs.values(), Record::Sync));
        records.extend(all(self.tasks.values(), Record::Task));
        records.extend(all(self.tokens.values(), Record::Token));
        records.extend(all(self.users.values(), Record::User));
        records
    }
}
