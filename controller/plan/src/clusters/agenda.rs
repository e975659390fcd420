//! Which clusters have to be looked at: those that something was written or said about since they
//! were found quiet, and those whose time has come. An index and no state: without it each plan looks
//! at every cluster and finds the same.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{ClusterName, Timestamp};

#[derive(Clone, Default, Debug)]
pub(crate) struct Agenda {
    dirty: BTreeSet<ClusterName>,
    due: BTreeMap<ClusterName, Timestamp>,
}

impl Agenda {
    pub fn touch(&mut self, name: &ClusterName) {
        if !self.dirty.contains(name) {
            self.due.remove(name);
            self.dirty.insert(name.clone());
        }
    }

    /// It needs nothing, until then unless something happens.
    pub fn rest(&mut self, name: ClusterName, until: Option<Timestamp>) {
        self.dirty.remove(&name);
        match until {
            Some(until) => drop(self.due.insert(name, until)),
            None => drop(self.due.remove(&name)),
        }
    }

    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = &ClusterName> {
        let due = self.due.iter().filter(move |(_, at)| **at <= now).map(|(name, _)| name);
        self.dirty.iter().chain(due)
    }

    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.due.values().filter(|at| **at > now).min().copied()
    }
}
