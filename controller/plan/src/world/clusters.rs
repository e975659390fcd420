//! The part of the world that is about clusters: their tables, the tasks of each, what members say,
//! and the leases that were granted. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::cluster::report::Stream;
use lockstep_model::cluster::{
    Cluster, ClusterSecret, ClusterState, Failover, Lsn, MemberReport, Stage,
};
use lockstep_model::record::{Key, Record, Versioned};
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{ClusterName, Millis, NodeName, Revision, TaskId, Timestamp};

use super::{Slots, Table, World};
use crate::clusters::Agenda;
use crate::leases::Leases;
use crate::seen::Heard;

#[derive(Clone, Default, Debug)]
pub(super) struct Clusters {
    clusters: Table<ClusterName, Cluster>,
    states: Table<ClusterName, ClusterState>,
    failovers: Table<(ClusterName, u64), Failover>,
    secrets: Table<ClusterName, ClusterSecret>,
    /// The tasks of each, oldest first.
    pub(super) slots: BTreeMap<ClusterName, Slots>,
    leases: Leases,
    /// Which have to be looked at.
    agenda: Agenda,
}

impl World {
    pub(super) fn put_cluster_record(&mut self, revision: Revision, record: Record) {
        let tables = &mut self.of_clusters;
        match record {
            Record::Cluster(value) => {
                self.uses.take();
                let value = *value;
                tables.agenda.touch(&value.name);
                tables.clusters.insert(value.name.clone(), Versioned { revision, value });
            }
            Record::ClusterState(value) => {
                let value = *value;
                tables.agenda.touch(&value.cluster);
                tables.states.insert(value.cluster.clone(), Versioned { revision, value });
            }
            Record::Failover(value) => {
                let value = *value;
                let key = (value.cluster.clone(), value.number);
                tables.agenda.touch(&value.cluster);
                tables.failovers.insert(key, Versioned { revision, value });
            }
            Record::ClusterSecret(value) => {
                tables.secrets.insert(value.cluster.clone(), Versioned { revision, value });
            }
            _ => debug_assert!(false, "no record of a cluster"),
        }
    }

    pub(super) fn delete_cluster_record(&mut self, key: &Key) {
        let tables = &mut self.of_clusters;
        match key {
            Key::Cluster(name) => {
                self.uses.take();
                tables.agenda.touch(name);
                tables.clusters.remove(name);
            }
            Key::ClusterState(name) => {
                tables.agenda.touch(name);
                tables.states.remove(name);
            }
            Key::Failover(name, number) => {
                tables.failovers.remove(&(name.clone(), *number));
            }
            Key::ClusterSecret(name) => {
                tables.secrets.remove(name);
            }
            _ => debug_assert!(false, "no key of a cluster's record"),
        }
    }

    pub fn clusters(&self) -> &Table<ClusterName, Cluster> {
        &self.of_clusters.clusters
    }

    pub fn cluster_states(&self) -> &Table<ClusterName, ClusterState> {
        &self.of_clusters.states
    }

    pub fn cluster_state(&self, name: &ClusterName) -> Option<&ClusterState> {
        self.of_clusters.states.get(name).map(|state| &state.value)
    }

    pub fn cluster_secrets(&self) -> &Table<ClusterName, ClusterSecret> {
        &self.of_clusters.secrets
    }

    /// The history of a cluster, oldest first.
    pub fn failovers_of(
        &self,
        name: &ClusterName,
    ) -> impl DoubleEndedIterator<Item = &Versioned<Failover>> {
        let key = |number| (name.clone(), number);
        self.of_clusters.failovers.range(key(0)..=key(u64::MAX)).map(|(_, report)| report)
    }

    pub fn failover(&self, name: &ClusterName, number: u64) -> Option<&Failover> {
        self.of_clusters.failovers.get(&(name.clone(), number)).map(|report| &report.value)
    }

    pub(super) fn all_failovers(&self) -> impl Iterator<Item = &Versioned<Failover>> {
        self.of_clusters.failovers.values()
    }

    /// What a member says, and when it said so; None: nothing since the controller started.
    pub fn member_said(&self, name: &ClusterName, node: &NodeName) -> Option<&Heard<MemberReport>> {
        self.seen(node)?.cluster(name)
    }

    /// Whether rules could find something else than before: positions matter only while a primary is
    /// being chosen or handed over.
    pub(crate) fn tells_rules(
        &self,
        name: &ClusterName,
        before: &MemberReport,
        now: &MemberReport,
    ) -> bool {
        let moves = |state: &ClusterState| {
            !matches!(state.stage, Stage::Steady) || !state.is_settled() || state.wanted.is_some()
        };
        if self.cluster_state(name).is_none_or(moves) {
            return before != now;
        }
        let said = |report: &MemberReport| MemberReport {
            lsn: None,
            replayed: None,
            upstream: report.upstream.as_ref().map(|up| Stream {
                from: up.from.clone(),
                age: Millis(0),
                end: Lsn(0),
            }),
            standbys: Vec::new(),
            progress: None,
            warnings: Vec::new(),
            pending_restart: Vec::new(),
            ..report.clone()
        };
        let sends_to = |report: &MemberReport| -> Vec<NodeName> {
            let rows = report.standbys.iter().filter(|row| row.streaming);
            rows.map(|row| row.node.clone()).collect()
        };
        // Of a stream that is silent for so long the age counts.
        let suspect = self.clusters().get(name).map(|cluster| cluster.value.options.lease.suspect);
        let is_silent = |report: &MemberReport| {
            report.upstream.as_ref().zip(suspect).is_some_and(|(up, suspect)| up.age >= suspect)
        };
        said(before) != said(now)
            || sends_to(before) != sends_to(now)
            || is_silent(before) != is_silent(now)
    }

    /// The task is a member's place in a cluster whose next primary is being found: no rule asks then
    /// whether it was taken up.
    pub fn is_of_election(&self, node: &NodeName, id: TaskId) -> bool {
        let Some(TaskSpec::ClusterPlace(place)) = self.task_at(node, id).map(|task| &task.spec)
        else {
            return false;
        };
        let stage = self.cluster_state(&place.cluster).map(|state| &state.stage);
        matches!(stage, Some(Stage::Handing(_) | Stage::Electing(_) | Stage::Promoting(_)))
    }

    /// What was granted since the controller started.
    pub fn leases(&self) -> &Leases {
        &self.of_clusters.leases
    }

    pub fn leases_mut(&mut self) -> &mut Leases {
        &mut self.of_clusters.leases
    }

    /// Those with a record, those of which a node was given something, and those that agents have
    /// and no record knows.
    pub(crate) fn cluster_names(&self) -> BTreeSet<ClusterName> {
        let known = self.of_clusters.clusters.keys().chain(self.of_clusters.slots.keys()).cloned();
        let strays = self.strays().filter_map(|(_, slot)| match slot {
            Slot::Cluster(name) => Some(name),
            _ => None,
        });
        known.chain(strays).collect()
    }

    pub(crate) fn due_clusters(&self, now: Timestamp) -> impl Iterator<Item = &ClusterName> {
        self.of_clusters.agenda.due(now)
    }

    pub(crate) fn next_cluster_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.of_clusters.agenda.next_after(now)
    }

    pub(super) fn rest_clusters(
        &mut self,
        rests: impl IntoIterator<Item = (ClusterName, Option<Timestamp>)>,
    ) {
        rests.into_iter().for_each(|(name, until)| self.of_clusters.agenda.rest(name, until));
    }

    pub(crate) fn touch_cluster(&mut self, name: &ClusterName) {
        self.of_clusters.agenda.touch(name);
    }

    pub(super) fn touch_clusters(&mut self) {
        for name in self.cluster_names() {
            self.of_clusters.agenda.touch(&name);
        }
    }

    /// Those that a node is a member of, or has something of.
    pub(super) fn touch_clusters_of(&mut self, node: &NodeName) {
        let Clusters { clusters, slots, agenda, .. } = &mut self.of_clusters;
        let is_member = |cluster: &Versioned<Cluster>| cluster.value.member(node).is_some();
        let members = clusters.iter().filter(|(_, cluster)| is_member(cluster));
        members.for_each(|(name, _)| agenda.touch(name));
        let has = |slots: &Slots| slots.keys().any(|(of, _)| of == node);
        slots.iter().filter(|(_, slots)| has(slots)).for_each(|(name, _)| agenda.touch(name));
    }

    /// Everything that nodes were given for a cluster.
    pub(crate) fn cluster_slots(
        &self,
        name: &ClusterName,
    ) -> impl Iterator<Item = (&NodeName, &Slot)> {
        let slots = self.of_clusters.slots.get(name).into_iter().flatten();
        slots.map(|((node, slot), _)| (node, slot))
    }
}
