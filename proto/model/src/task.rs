//! Tasks: the only way to make something happen on a node. A closed enum; nothing in it can name a
//! program or a shell.

mod slot;

use std::fmt;

use crate::address::HostPort;
use crate::cluster::{ClusterAct, ClusterPlace, ClusterRelease};
use crate::id::{KeyHash, MirrorName, NodeName, SyncName, TaskId};
use crate::mirror::{Allow, HopKind, MirrorOptions, Pulled};
use crate::path::DirPath;
use crate::rate::Rate;
use crate::sync::{HookName, Remote, SyncOptions};
use crate::time::{Millis, Timestamp};
use crate::words::words;

pub use slot::{Slot, Subject};

/// A task record. It lives until its outcome is stored; the newest of each slot is kept after that,
/// because "applied" is read off it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    pub id: TaskId,
    pub node: NodeName,
    pub spec: TaskSpec,
    /// 1 for the first try of the same spec.
    pub attempt: u32,
    pub created_at: Timestamp,
    /// How long it may run on the node before the agent kills it.
    pub run_limit: Millis,
    /// Someone wants it to end; the agent ends it and reports `Cancelled`.
    pub cancel_requested: bool,
    pub ended: Option<Ended>,
    /// W3C traceparent of the span that made it.
    pub traceparent: Option<String>,
}

impl Task {
    pub fn slot(&self) -> Slot {
        self.spec.slot()
    }

    pub fn is_live(&self) -> bool {
        self.ended.is_none()
    }

    pub fn succeeded(&self) -> bool {
        self.ended.as_ref().is_some_and(|e| e.outcome.kind == OutcomeKind::Ok)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Controller's clock.
    pub at: Timestamp,
    pub outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub kind: OutcomeKind,
    /// One line for people: what went wrong and what to do; empty when fine.
    pub message: String,
    /// Of a pull whose rsync ran.
    pub pulled: Option<Pulled>,
}

impl Outcome {
    /// Longest message kept, in bytes.
    pub const MESSAGE_MAX: usize = 1024;

    pub fn ok() -> Self {
        Self { kind: OutcomeKind::Ok, message: String::new(), pulled: None }
    }

    pub fn new(kind: OutcomeKind, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > Self::MESSAGE_MAX {
            message.truncate(message.floor_char_boundary(Self::MESSAGE_MAX));
        }
        Self { kind, message, pulled: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OutcomeKind {
    Ok,
    Failed,
    Cancelled,
    /// The agent ended in the middle.
    Interrupted,
    /// The agent cannot tell whether the effect took place.
    Unknown,
    /// A newer task took the slot.
    Superseded,
    /// The node was expelled or removed.
    Lost,
    /// The agent does not know this kind of task: it is older than the controller.
    Unsupported,
}

impl OutcomeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Unknown => "unknown",
            Self::Superseded => "superseded",
            Self::Lost => "lost",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a live task is, as its agent last said; volatile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TaskPhase {
    /// Durable in the agent's ledger.
    Accepted,
    Running,
}

/// What a node is to do or to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskSpec {
    /// Be the source of a sync. In force from its success until another task takes the slot.
    SyncSource(SyncSource),
    /// Let one peer write one directory. In force like `SyncSource`.
    SyncTarget(SyncTarget),
    /// Have nothing to do with the sync any more; files stay.
    SyncRelease { sync: SyncName },
    /// On the node that feeds the target: one complete pass to it; ends when it is through.
    SyncResync { sync: SyncName, target: NodeName },
    /// On the node that feeds the target: a comparison of the copy with the source; its output
    /// lists what differs.
    SyncVerify(SyncVerify),
    /// On the node that feeds the target: what its guard holds back is let through this once.
    SyncUnhold { sync: SyncName, target: NodeName },
    /// On the source: ends when targets have everything that was written before it began.
    SyncBarrier(SyncBarrier),
    /// Have a mirror's tree. In force from its success until another task takes the slot.
    MirrorPlace(MirrorPlace),
    /// Have nothing to do with the mirror any more.
    MirrorRelease(MirrorRelease),
    /// Bring the tree up to what the other side has.
    MirrorPull(MirrorPull),
    /// On the master: the hooks that wait until replicas have the generation.
    MirrorHooks(MirrorHooks),
    /// Be a member of a cluster. In force from its success until another task takes the slot.
    ClusterPlace(Box<ClusterPlace>),
    /// Have nothing to do with the cluster any more.
    ClusterRelease(ClusterRelease),
    /// Something to be done once to the instance.
    ClusterAct(ClusterAct),
}

impl TaskSpec {
    pub fn slot(&self) -> Slot {
        match self {
            Self::SyncSource(SyncSource { sync, .. })
            | Self::SyncTarget(SyncTarget { sync, .. })
            | Self::SyncRelease { sync } => Slot::Sync(sync.clone()),
            Self::SyncResync { sync, target } => Slot::Resync(sync.clone(), target.clone()),
            Self::SyncVerify(SyncVerify { sync, target, .. }) => {
                Slot::Verify(sync.clone(), target.clone())
            }
            Self::SyncUnhold { sync, target } => Slot::Unhold(sync.clone(), target.clone()),
            Self::SyncBarrier(SyncBarrier { sync, .. }) => Slot::Barrier(sync.clone()),
            Self::MirrorPlace(MirrorPlace { mirror, .. })
            | Self::MirrorRelease(MirrorRelease { mirror, .. }) => Slot::Mirror(mirror.clone()),
            Self::MirrorPull(MirrorPull { mirror, .. }) => Slot::Pull(mirror.clone()),
            Self::MirrorHooks(MirrorHooks { mirror, .. }) => Slot::Hooks(mirror.clone()),
            Self::ClusterPlace(place) => Slot::Cluster(place.cluster.clone()),
            Self::ClusterRelease(ClusterRelease { cluster, .. }) => Slot::Cluster(cluster.clone()),
            Self::ClusterAct(ClusterAct { cluster, .. }) => Slot::Act(cluster.clone()),
        }
    }

    /// Ends by itself, and then nothing is in force.
    pub fn is_run(&self) -> bool {
        self.slot().is_run()
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::SyncSource(_) => "sync-source",
            Self::SyncTarget(_) => "sync-target",
            Self::SyncRelease { .. } => "sync-release",
            Self::SyncResync { .. } => "sync-resync",
            Self::SyncVerify(_) => "sync-verify",
            Self::SyncUnhold { .. } => "sync-unhold",
            Self::SyncBarrier(_) => "sync-barrier",
            Self::MirrorPlace(_) => "mirror-place",
            Self::MirrorRelease(_) => "mirror-release",
            Self::MirrorPull(_) => "mirror-pull",
            Self::MirrorHooks(_) => "mirror-hooks",
            Self::ClusterPlace(_) => "cluster-place",
            Self::ClusterRelease(_) => "cluster-release",
            Self::ClusterAct(_) => "cluster-act",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncSource {
    pub sync: SyncName,
    pub path: DirPath,
    pub receivers: Vec<Receiver>,
    /// Targets that others feed, or nobody yet; sorted.
    pub others: Vec<NodeName>,
    pub options: SyncOptions,
    /// Nothing is delivered; changes wait in the journal.
    pub paused: bool,
    /// As in the sync's record.
    pub generation: u32,
}

impl SyncSource {
    /// With everything else default or none.
    pub fn new(sync: SyncName, path: DirPath) -> Self {
        Self {
            sync,
            path,
            receivers: Vec::new(),
            others: Vec::new(),
            options: SyncOptions::default(),
            paused: false,
            generation: 0,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncTarget {
    pub sync: SyncName,
    pub path: DirPath,
    /// Who may write it; None while that node is disabled or expelled.
    pub source: Option<Peer>,
    /// False tells load balancers NOT_SERVING whatever is on disk: the node is drained.
    pub serve: bool,
    pub options: SyncOptions,
    /// Not empty: it is a relay, and feeds these with what it has.
    pub receivers: Vec<Receiver>,
    pub paused: bool,
    pub generation: u32,
}

impl SyncTarget {
    /// With everything else default or none; it serves.
    pub fn new(sync: SyncName, path: DirPath) -> Self {
        Self {
            sync,
            path,
            source: None,
            serve: true,
            options: SyncOptions::default(),
            receivers: Vec::new(),
            paused: false,
            generation: 0,
        }
    }
}

/// A target as the node that feeds it has to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    pub node: NodeName,
    pub route: Route,
    pub bwlimit: Option<Rate>,
}

impl From<Peer> for Receiver {
    fn from(peer: Peer) -> Self {
        let node = peer.node.clone();
        Self { node, route: Route::Agent(peer), bwlimit: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    Agent(Peer),
    Remote(Remote),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncVerify {
    pub sync: SyncName,
    pub target: NodeName,
    /// Read the files, and not only compare sizes, times and attributes.
    pub content: bool,
    /// Bring what differs; else only tell.
    pub repair: bool,
    /// Below the sync's directory, any bytes but NUL; empty: all.
    pub paths: Vec<Vec<u8>>,
}

impl SyncVerify {
    pub const PATHS_MAX: usize = 1000;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncBarrier {
    pub sync: SyncName,
    /// How many targets are enough; None: all.
    pub at_least: Option<u32>,
    /// Runs on the source when they have it.
    pub hook: Option<HookName>,
}

/// A node's part in a mirror apart from its pulls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorPlace {
    pub mirror: MirrorName,
    /// Where the tree is.
    pub tree: DirPath,
    /// Where it was before, when it is to be moved from there.
    pub moved_from: Option<DirPath>,
    pub hop: HopKind,
    /// Who may read the tree: the replicas on the master, and the master on a replica that it is
    /// rebuilt from.
    pub readers: Vec<Peer>,
    /// False tells load balancers NOT_SERVING whatever is on disk: the node is drained.
    pub serve: bool,
    pub options: MirrorOptions,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorRelease {
    pub mirror: MirrorName,
    /// The tree to remove; None: files stay.
    pub delete: Option<DirPath>,
}

/// One try of a node's part in a run. It ends by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorPull {
    pub mirror: MirrorName,
    /// The run's number.
    pub number: u64,
    /// Of the tree that it brings; the master's next one when it pulls from the upstream.
    pub generation: u64,
    pub tree: DirPath,
    pub hop: HopKind,
    pub from: PullFrom,
    pub stage: Stage,
    pub options: MirrorOptions,
    pub allow: Allow,
    /// The offer carries the upstream's password.
    pub has_password: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PullFrom {
    /// The agent of a node that has the tree.
    Agent(Peer),
    /// The upstream, or a service of the master.
    Remote(Remote),
    /// Nobody: the tree was filled by its owner, and is only counted and published.
    Here,
}

words!(Stage, "stage", {
    /// Everything at once.
    Whole = "whole",
    /// Content without indices, and no removals.
    First = "first",
    /// The rest.
    Second = "second",
});

/// What follows when replicas have a generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorHooks {
    pub mirror: MirrorName,
    /// The run that made the generation.
    pub number: u64,
    pub generation: u64,
    pub tree: DirPath,
    pub options: MirrorOptions,
}

/// Another node as an agent needs to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub node: NodeName,
    /// The key it must show.
    pub key_hash: KeyHash,
    /// Best first. Empty for a peer that only calls.
    pub addresses: Vec<HostPort>,
}
