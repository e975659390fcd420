//! What agents said since the controller started, and the node health that follows from it. Lost at
//! a restart; never desired state.

use std::collections::BTreeMap;

use lockstep_model::node::{NodeAdmin, NodeHealth, NodeReport};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::sync::SyncReport;
use lockstep_model::task::TaskPhase;
use lockstep_model::{Millis, NodeName, SyncName, TaskId, Timestamp};

use crate::world::World;

/// A node whose stream ended this long ago is down; before that it is unavailable.
pub const DOWN_AFTER: Millis = Millis::from_secs(30);

/// One node's agent, as it last showed itself. Times are arrivals on the controller's clock.
#[derive(Clone, Debug)]
pub struct Seen {
    pub stream: Stream,
    /// What the agent remembered when it last connected.
    pub told: Told,
    pub last_contact_at: Timestamp,
    pub report: Option<NodeReport>,
    /// When version or features became what they are.
    pub version_since: Timestamp,
    /// When warnings came or went.
    pub warned_since: Timestamp,
    syncs: BTreeMap<SyncName, Reported>,
    phases: BTreeMap<TaskId, TaskPhase>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stream {
    Open { since: Timestamp },
    Closed { since: Timestamp, why: String },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    pub at: Timestamp,
    pub report: SyncReport,
}

/// `since` is unset for a node that is unknown; `why` is one line, empty when healthy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    pub health: NodeHealth,
    pub since: Option<Timestamp>,
    pub why: String,
}

impl Seen {
    fn new(now: Timestamp) -> Self {
        Self {
            stream: Stream::Open { since: now },
            told: Told::default(),
            last_contact_at: now,
            report: None,
            version_since: now,
            warned_since: now,
            syncs: BTreeMap::new(),
            phases: BTreeMap::new(),
        }
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.stream, Stream::Open { .. })
    }

    /// What it says of a sync it has a part in.
    pub fn sync(&self, sync: &SyncName) -> Option<&Reported> {
        self.syncs.get(sync)
    }

    /// None: the agent has not confirmed the task.
    pub fn phase(&self, id: TaskId) -> Option<TaskPhase> {
        self.phases.get(&id).copied()
    }

    pub(crate) fn forget_task(&mut self, id: TaskId) {
        self.phases.remove(&id);
    }

    pub(crate) fn forget_sync(&mut self, sync: &SyncName) {
        self.syncs.remove(sync);
    }

    /// True when planning could be affected.
    fn report(&mut self, report: NodeReport, now: Timestamp) -> bool {
        let last = self.report.as_ref();
        let other_version =
            last.is_none_or(|l| l.version != report.version || l.features != report.features);
        let warned = |r: &NodeReport| !r.warnings.is_empty();
        if last.is_some_and(warned) != warned(&report) {
            self.warned_since = now;
        }
        if other_version {
            self.version_since = now;
        }
        self.report = Some(report);
        other_version
    }
}

impl World {
    /// What an agent said, stamped with the controller's clock. True when planning could be
    /// affected; a node without a record is not listened to.
    pub fn observe(&mut self, node: &NodeName, observation: Observation, now: Timestamp) -> bool {
        if !self.nodes().contains_key(node) {
            return false;
        }
        // Nothing is kept for tasks and syncs that the node has no part in, so memory is bounded.
        let wanted = match &observation {
            Observation::Sync { sync, report: Some(_) } => {
                self.syncs().get(sync).is_some_and(|sync| sync.value.involves(node))
            }
            Observation::Task { id, .. } => self.task_at(node, *id).is_some_and(|t| t.is_live()),
            _ => true,
        };
        let seen = self.seen.entry(node.clone()).or_insert_with(|| Seen::new(now));
        seen.last_contact_at = now;
        if !wanted {
            return false;
        }
        match observation {
            Observation::Connected(told) => {
                seen.stream = Stream::Open { since: now };
                seen.told = told;
                seen.phases.clear();
                true
            }
            Observation::Disconnected { why } => {
                let was_open = seen.is_connected();
                if was_open {
                    seen.stream = Stream::Closed { since: now, why };
                }
                was_open
            }
            Observation::Node(report) => seen.report(report, now),
            // No rule reads it; `explain` does.
            Observation::Sync { sync, report: Some(report) } => {
                seen.syncs.insert(sync, Reported { at: now, report });
                false
            }
            Observation::Sync { sync, report: None } => {
                seen.syncs.remove(&sync);
                false
            }
            Observation::Task { id, phase } => seen.phases.insert(id, phase) != Some(phase),
        }
    }

    /// A sign of life that says nothing else.
    pub fn heard(&mut self, node: &NodeName, now: Timestamp) {
        if let Some(seen) = self.seen.get_mut(node) {
            seen.last_contact_at = now;
        }
    }

    /// None: not heard of since the controller started.
    pub fn seen(&self, node: &NodeName) -> Option<&Seen> {
        self.seen.get(node)
    }

    pub fn node_health(&self, node: &NodeName, now: Timestamp) -> NodeStatus {
        let Some(seen) = self.seen(node) else {
            let why = "not heard of since the controller started".to_owned();
            return NodeStatus { health: NodeHealth::Unknown, since: None, why };
        };
        let (health, since, why) = match &seen.stream {
            Stream::Closed { since, why } => {
                let down = now.since(*since) >= DOWN_AFTER;
                let health = if down { NodeHealth::Down } else { NodeHealth::Unavailable };
                (health, *since, format!("not connected: {why}"))
            }
            Stream::Open { since } => {
                let warnings = seen.report.as_ref().map_or(&[][..], |r| &r.warnings);
                match warnings {
                    [] => (NodeHealth::Healthy, seen.warned_since.max(*since), String::new()),
                    [first] => (NodeHealth::Warning, seen.warned_since.max(*since), first.clone()),
                    [first, more @ ..] => {
                        let why = format!("{first} (and {} more)", more.len());
                        (NodeHealth::Warning, seen.warned_since.max(*since), why)
                    }
                }
            }
        };
        NodeStatus { health, since: Some(since), why }
    }

    /// The node that was told the most of what this store does not know, when there is one: the
    /// store is an old copy.
    pub fn store_behind(&self) -> Option<(&NodeName, Told)> {
        let incarnation = self.fleet()?.value.incarnation;
        self.seen
            .iter()
            .filter(|(node, seen)| {
                let expelled = |admin| admin == NodeAdmin::Expelled;
                seen.told.incarnation == incarnation
                    && seen.told.revision > self.revision()
                    && !self.nodes().get(*node).is_some_and(|n| expelled(n.value.admin))
            })
            .max_by_key(|(_, seen)| seen.told.revision)
            .map(|(node, seen)| (node, seen.told))
    }
}
