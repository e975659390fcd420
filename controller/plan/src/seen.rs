//! What agents said since the controller started, and the node health that follows from it. Lost at
//! a restart; never desired state.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::cluster::{Cluster, MemberReport};
use lockstep_model::mirror::MirrorReport;
use lockstep_model::node::{NodeHealth, NodeReport};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::record::Versioned;
use lockstep_model::sync::SyncReport;
use lockstep_model::task::{Slot, TaskPhase};
use lockstep_model::{
    ClusterName, Millis, MirrorName, NodeName, Revision, SyncName, TaskId, Timestamp,
};

use crate::leases::Uptime;
use crate::members::involves;
use crate::world::World;

/// A node whose stream ended this long ago is down; before that it is unavailable.
pub const DOWN_AFTER: Millis = Millis::from_secs(30);

/// Most parts of one node that no record knows; more are noticed when these are released.
const STRAYS_MAX: usize = 1000;

/// One node's agent, as it last showed itself. Times are arrivals on the controller's clock.
#[derive(Clone, Debug)]
pub struct Seen {
    pub stream: Stream,
    /// What the agent remembered when it last connected.
    pub told: Told,
    /// The agent has lost what it carried out up to this revision.
    pub forgot_upto: Revision,
    pub last_contact_at: Timestamp,
    pub report: Option<NodeReport>,
    /// When version or features became what they are.
    pub version_since: Timestamp,
    /// When warnings came or went.
    pub warned_since: Timestamp,
    syncs: BTreeMap<SyncName, Reported>,
    mirrors: BTreeMap<MirrorName, MirrorReport>,
    clusters: BTreeMap<ClusterName, Heard<MemberReport>>,
    /// What the agent has a part in and the records give it none: left over from a lost store, or
    /// from an earlier node of that name.
    strays: BTreeSet<Slot>,
    phases: BTreeMap<TaskId, TaskPhase>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stream {
    Open { since: Timestamp },
    Closed { since: Timestamp, why: String },
}

/// What was said, and when by the clock of leases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard<T> {
    pub at: Uptime,
    /// On the stream that is open; else it is what was so before.
    pub current: bool,
    pub report: T,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    pub at: Timestamp,
    pub report: SyncReport,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Away {
    No,
    /// From then on, if it does not return.
    Soon(Timestamp),
    Yes,
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
            forgot_upto: Revision::ZERO,
            last_contact_at: now,
            report: None,
            version_since: now,
            warned_since: now,
            syncs: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            clusters: BTreeMap::new(),
            strays: BTreeSet::new(),
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

    /// What it says of a mirror it has a part in.
    pub fn mirror(&self, mirror: &MirrorName) -> Option<&MirrorReport> {
        self.mirrors.get(mirror)
    }

    /// What it says of a cluster it has a part in.
    pub fn cluster(&self, cluster: &ClusterName) -> Option<&Heard<MemberReport>> {
        self.clusters.get(cluster)
    }

    /// None: the agent has not confirmed the task.
    pub fn phase(&self, id: TaskId) -> Option<TaskPhase> {
        self.phases.get(&id).copied()
    }

    pub(crate) fn forget_task(&mut self, id: TaskId) {
        self.phases.remove(&id);
    }

    pub(crate) fn strays(&self) -> impl Iterator<Item = &Slot> {
        self.strays.iter()
    }

    pub(crate) fn is_stray(&self, slot: &Slot) -> bool {
        self.strays.contains(slot)
    }

    pub(crate) fn forget_stray(&mut self, slot: &Slot) {
        self.strays.remove(slot);
    }

    pub(crate) fn forget_sync(&mut self, sync: &SyncName) {
        self.syncs.remove(sync);
    }

    pub(crate) fn forget_mirror(&mut self, mirror: &MirrorName) {
        self.mirrors.remove(mirror);
    }

    pub(crate) fn forget_cluster(&mut self, cluster: &ClusterName) {
        self.clusters.remove(cluster);
    }

    /// What was said of clusters may not be so any more.
    fn outdate_clusters(&mut self) {
        self.clusters.values_mut().for_each(|heard| heard.current = false);
    }

    fn add_stray(&mut self, slot: Slot) -> bool {
        self.strays.len() < STRAYS_MAX && self.strays.insert(slot)
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
        // Little is kept for tasks and syncs that the node has no part in, so memory is bounded.
        let has_part = match &observation {
            Observation::Sync { sync, .. } => {
                self.syncs().get(sync).is_some_and(|sync| involves(self, &sync.value, node))
            }
            Observation::Mirror { mirror, .. } => {
                self.newest(node, &Slot::Mirror(mirror.clone())).is_some()
            }
            Observation::Cluster { cluster, .. } => {
                let member = |of: &Versioned<Cluster>| of.value.member(node).is_some();
                self.newest(node, &Slot::Cluster(cluster.clone())).is_some()
                    || self.clusters().get(cluster).is_some_and(member)
            }
            Observation::Task { id, .. } => self.task_at(node, *id).is_some_and(|t| t.is_live()),
            _ => true,
        };
        if self.heard_since.is_none() {
            self.heard_since = Some(now);
            self.touch_all();
        }
        if !self.seen.contains_key(node) {
            self.touch_node(node);
        }
        let revision = self.revision();
        let up = self.leases().now();
        let seen = self.seen.entry(node.clone()).or_insert_with(|| Seen::new(now));
        seen.last_contact_at = now;
        match observation {
            Observation::Connected(told) => {
                seen.stream = Stream::Open { since: now };
                seen.told = told;
                if told == Told::default() {
                    seen.forgot_upto = revision;
                }
                seen.phases.clear();
                seen.strays.clear();
                seen.outdate_clusters();
                self.touch_node(node);
                true
            }
            Observation::Disconnected { why } => {
                let was_open = seen.is_connected();
                if was_open {
                    seen.stream = Stream::Closed { since: now, why };
                    seen.outdate_clusters();
                    self.touch_node(node);
                }
                was_open
            }
            Observation::Node(report) => {
                let affects = seen.report(report, now);
                if affects {
                    self.touch_node(node);
                }
                affects
            }
            Observation::Sync { sync, report: Some(_) } if !has_part => {
                seen.add_stray(Slot::Sync(sync))
            }
            // No rule reads it; `explain` does.
            Observation::Sync { sync, report: Some(report) } => {
                seen.syncs.insert(sync, Reported { at: now, report });
                false
            }
            Observation::Sync { sync, report: None } => {
                seen.syncs.remove(&sync);
                seen.strays.remove(&Slot::Sync(sync))
            }
            Observation::Mirror { mirror, report: Some(_) } if !has_part => {
                let is_new = seen.add_stray(Slot::Mirror(mirror.clone()));
                self.touch(&mirror);
                is_new
            }
            // No rule reads it; lists do.
            Observation::Mirror { mirror, report: Some(report) } => {
                seen.mirrors.insert(mirror, report);
                false
            }
            Observation::Mirror { mirror, report: None } => {
                seen.mirrors.remove(&mirror);
                seen.strays.remove(&Slot::Mirror(mirror))
            }
            Observation::Cluster { cluster, report: Some(_) } if !has_part => {
                let is_new = seen.add_stray(Slot::Cluster(cluster.clone()));
                self.touch_cluster(&cluster);
                is_new
            }
            Observation::Cluster { cluster, report: Some(report) } => {
                let report = *report;
                let heard = Heard { at: up, current: true, report: report.clone() };
                let last = seen.clusters.insert(cluster.clone(), heard);
                let affects = last.is_none_or(|last| {
                    !last.current || self.tells_rules(&cluster, &last.report, &report)
                });
                if affects {
                    self.touch_cluster(&cluster);
                }
                affects
            }
            Observation::Cluster { cluster, report: None } => {
                let had = seen.clusters.remove(&cluster).is_some();
                let stray = seen.strays.remove(&Slot::Cluster(cluster.clone()));
                self.touch_cluster(&cluster);
                stray || had
            }
            Observation::Task { id, phase } => {
                has_part && seen.phases.insert(id, phase) != Some(phase)
            }
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

    /// Whether the agent of a node is away and nobody waits for it; else until when it may not be.
    pub(crate) fn away(&self, node: &NodeName, now: Timestamp) -> Away {
        let since = match self.seen(node).map(|seen| &seen.stream) {
            Some(Stream::Open { .. }) => return Away::No,
            Some(Stream::Closed { since, .. }) => Some(*since),
            None => self.heard_since,
        };
        match since.map(|since| since + DOWN_AFTER) {
            Some(down) if now >= down => Away::Yes,
            Some(down) => Away::Soon(down),
            None => Away::No,
        }
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
}

#[cfg(test)]
mod tests {
    use lockstep_model::sync::TargetReport;

    use super::*;
    use crate::tests::dsl::{INCARNATION, Lab, START, create_sync};

    fn report(version: &str, warnings: &[&str]) -> Observation {
        Observation::Node(NodeReport {
            version: version.to_owned(),
            warnings: warnings.iter().map(|&warning| warning.to_owned()).collect(),
            ..NodeReport::default()
        })
    }

    #[test]
    fn health_follows_the_stream_and_the_warnings() {
        let mut lab = Lab::new();
        lab.join("w");
        let told = Told { incarnation: INCARNATION, revision: Revision(1), ..Told::default() };
        let closed = || Observation::Disconnected { why: "link lost".to_owned() };
        let mut shown = Vec::new();
        for (after_secs, observation) in [
            (1, None),
            (1, Some(Observation::Connected(told))),
            (1, Some(report("0.1.0", &[]))),
            (1, Some(report("0.1.0", &["rsync is missing", "clock is off"]))),
            (1, Some(report("0.1.0", &["rsync is missing"]))),
            (1, Some(report("0.1.0", &[]))),
            (1, Some(closed())),
            (29, Some(closed())),
            (1, None),
            (1, Some(Observation::Connected(told))),
        ] {
            lab.now = lab.now + Millis::from_secs(after_secs);
            if let Some(observation) = observation {
                lab.observe("w", observation);
            }
            let NodeStatus { health, since, why } =
                lab.world.node_health(&"w".parse().unwrap(), lab.now);
            let at = |at: Timestamp| at.since(START).0 / 1000;
            shown.push(format!("{} {health} {:?} {why}\n", at(lab.now), since.map(at)));
        }
        expect_test::expect![[r#"
            1 unknown None not heard of since the controller started
            2 healthy Some(2) 
            3 healthy Some(2) 
            4 warning Some(4) rsync is missing (and 1 more)
            5 warning Some(4) rsync is missing
            6 healthy Some(6) 
            7 unavailable Some(7) not connected: link lost
            36 unavailable Some(7) not connected: link lost
            37 down Some(7) not connected: link lost
            38 healthy Some(38) 
        "#]]
        .assert_eq(&shown.concat());
    }

    #[test]
    fn only_what_rules_read_makes_them_run() {
        let mut lab = Lab::with_nodes(&["m", "w"]);
        lab.ask(create_sync("s", "m:/srv", &["w:/srv"]));
        let id = lab.world.live_tasks_of(&"w".parse().unwrap()).next().unwrap().value.id;
        let foreign = lab.world.live_tasks_of(&"m".parse().unwrap()).next().unwrap().value.id;
        let phase = |id, phase| Observation::Task { id, phase };
        let sync = |name: &str| Observation::Sync {
            sync: name.parse().unwrap(),
            report: Some(SyncReport::Target(TargetReport { filled: true, ..Default::default() })),
        };
        for (observation, affects) in [
            (report("0.1.0", &[]), true),
            (report("0.1.0", &[]), false),
            (report("0.1.0", &["rsync is missing"]), false),
            (report("0.2.0", &["rsync is missing"]), true),
            (phase(id, TaskPhase::Accepted), true),
            (phase(id, TaskPhase::Accepted), false),
            (phase(id, TaskPhase::Running), true),
            (phase(foreign, TaskPhase::Running), false),
            (sync("s"), false),
            (sync("unknown"), true),
            (sync("unknown"), false),
            (Observation::Disconnected { why: "link lost".to_owned() }, true),
            (Observation::Disconnected { why: "again".to_owned() }, false),
        ] {
            assert_eq!(lab.observe("w", observation.clone()), affects, "{observation:?}");
        }
        assert!(!lab.observe("stranger", report("0.1.0", &[])));
        let seen = lab.world.seen(&"w".parse().unwrap()).unwrap();
        assert_eq!(seen.phase(foreign), None, "not its task");
        assert!(seen.sync(&"s".parse().unwrap()).is_some());
        assert!(seen.sync(&"unknown".parse().unwrap()).is_none());
    }

    #[test]
    fn reports_of_parts_that_ended_are_forgotten() {
        let mut lab = Lab::with_nodes(&["m", "w"]);
        lab.ask(create_sync("s", "m:/srv", &["w:/srv"]));
        let report = SyncReport::Target(TargetReport { filled: true, ..Default::default() });
        let s: SyncName = "s".parse().unwrap();
        lab.observe("w", Observation::Sync { sync: s.clone(), report: Some(report) });
        let id = lab.world.live_tasks_of(&"w".parse().unwrap()).next().unwrap().value.id;
        lab.observe("w", Observation::Task { id, phase: TaskPhase::Running });
        lab.ask(crate::tests::dsl::remove_targets("s", &["w"]));
        let seen = lab.world.seen(&"w".parse().unwrap()).unwrap();
        assert_eq!((seen.sync(&s), seen.phase(id)), (None, None));
    }
}
