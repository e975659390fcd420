//! What agents say is so. Never desired state; lost at a restart and sent again on reconnect.

use crate::cluster::MemberReport;
use crate::id::{ClusterName, Incarnation, LifeId, MirrorName, Revision, SyncName, TaskId};
use crate::mirror::MirrorReport;
use crate::node::NodeReport;
use crate::sync::SyncReport;
use crate::task::TaskPhase;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observation {
    /// A stream of the node is open; what it told first.
    Connected(Told),
    /// Its stream ended, and why in one line.
    Disconnected {
        why: String,
    },
    Node(NodeReport),
    /// None: the agent has no part in the sync any more.
    Sync {
        sync: SyncName,
        report: Option<SyncReport>,
    },
    /// None: the agent has no part in the mirror any more.
    Mirror {
        mirror: MirrorName,
        report: Option<MirrorReport>,
    },
    /// None: the agent has no part in the cluster any more.
    Cluster {
        cluster: ClusterName,
        report: Option<Box<MemberReport>>,
    },
    Task {
        id: TaskId,
        phase: TaskPhase,
    },
}

/// What an agent durably remembers of the controllers it spoke to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Told {
    pub incarnation: Incarnation,
    /// Whose controller told it the revision; NONE: one that knew nothing of lives.
    pub life: LifeId,
    /// The highest revision it was told.
    pub revision: Revision,
}
