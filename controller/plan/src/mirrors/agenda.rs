//! Which mirrors have to be looked at: those that something was written or said about since they
//! were found quiet, those whose time has come, and those that wait for their turn. An index and no
//! state: without it each plan looks at every mirror and finds the same.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{MirrorName, Timestamp};

use super::limits::Hosts;

/// A mirror that needs nothing for now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rest {
    /// When time alone changes that.
    pub(crate) until: Option<Timestamp>,
    /// It could start as soon as others have ended.
    pub(crate) queued: Option<Queued>,
    /// False: nothing is left of it.
    pub(crate) is_known: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Queued {
    pub since: Timestamp,
    /// Of upstreams, at which others are.
    pub hosts: Hosts,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Agenda {
    dirty: BTreeSet<MirrorName>,
    rests: BTreeMap<MirrorName, Rest>,
    /// Index of `rests`.
    due: BTreeSet<(Timestamp, MirrorName)>,
    /// Index of `rests`, by how long they wait.
    queue: BTreeSet<(Timestamp, MirrorName)>,
}

impl Agenda {
    pub fn touch(&mut self, name: &MirrorName) {
        if self.dirty.contains(name) {
            return;
        }
        self.forget(name);
        self.dirty.insert(name.clone());
    }

    pub fn rest(&mut self, name: MirrorName, rest: Rest) {
        self.forget(&name);
        self.dirty.remove(&name);
        if let Some(until) = rest.until {
            self.due.insert((until, name.clone()));
        }
        if let Some(queued) = &rest.queued {
            self.queue.insert((queued.since, name.clone()));
        }
        if rest.is_known || rest.until.is_some() {
            self.rests.insert(name, rest);
        }
    }

    fn forget(&mut self, name: &MirrorName) {
        let Some(Rest { until, queued, .. }) = self.rests.remove(name) else { return };
        if let Some(until) = until {
            self.due.remove(&(until, name.clone()));
        }
        if let Some(queued) = queued {
            self.queue.remove(&(queued.since, name.clone()));
        }
    }

    /// Those that wait for their turn and whose own time has not come, longest first.
    pub fn queued(&self) -> impl Iterator<Item = (&MirrorName, &Queued)> {
        let rest = |name| self.rests.get(name)?.queued.as_ref();
        self.queue.iter().filter_map(move |(_, name)| Some((name, rest(name)?)))
    }

    /// Those that changed, and those whose time has come and that are not in the queue.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = &MirrorName> {
        let due = self.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, name)| name);
        self.dirty.iter().chain(due)
    }

    /// When the next one's time comes.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.due.iter().map(|(at, _)| *at).find(|at| *at > now)
    }
}
