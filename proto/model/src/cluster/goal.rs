//! What a member's agent is to bring about, and all it has to know for it. A goal is a level: the
//! agent goes there from wherever it finds the instance, and keeps it there.

use super::options::{ClusterOptions, MemberOptions};
use super::quorum::Quorum;
use super::wal::{Lineage, Lsn, SystemId, Term};
use crate::address::HostPort;
use crate::id::{ClusterName, NodeName};
use crate::task::Peer;
use crate::time::Millis;
use crate::words::words;

/// A node's part in a cluster. In force until another task takes the slot. Its task succeeds as soon
/// as the agent has it durably; what became of it is in reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterPlace {
    pub cluster: ClusterName,
    /// The agent refuses a smaller one than it ever promised.
    pub term: Term,
    pub goal: Goal,
    /// None until the first primary told it.
    pub system_id: Option<SystemId>,
    /// Who may be primary in the term; None: nobody yet.
    pub holder: Option<NodeName>,
    /// The data that counts: what went another way is not served.
    pub lineage: Lineage,
    /// Of the member's data: with another number than the agent has, it is copied anew.
    pub copy: u64,
    pub options: ClusterOptions,
    pub member: MemberOptions,
    /// The other members; sorted by name.
    pub peers: Vec<MemberPeer>,
    /// Whose promises a primary without controller needs while `Quorum` is off; sorted.
    pub promotable: Vec<NodeName>,
    /// Commits may wait for this member: it is in every quorum. Health checks ask for it.
    pub sync: bool,
    /// Nothing is decided: no lease ends.
    pub paused: bool,
    /// Load balancers may send it readers: its node is not drained or disabled.
    pub serve: bool,
}

/// Another member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberPeer {
    pub peer: Peer,
    /// Where its postgres is reached.
    pub postgres: HostPort,
    /// Its postgres' certificate, PEM; empty: none was told.
    pub certificate: String,
    /// Copies are taken from it first.
    pub clone_from: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Be the primary of the term.
    Primary(Primary),
    /// Stop cleanly, so that everything is with the standbys, and attest it.
    HandOver,
    /// Follow.
    Standby {
        /// None: nobody to follow yet; it waits as it is.
        upstream: Option<NodeName>,
    },
    /// In recovery, receive nothing, and report the position. A running primary is fenced first.
    Sealed {
        /// The node whose dead instance has what this one lacks.
        salvage: Option<NodeName>,
    },
    /// No process, and none that could start writable.
    Fenced,
    /// Stopped cleanly, until another goal.
    Stopped,
    /// Left alone; only reported on.
    Maintenance,
}

impl Goal {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Primary(_) => "primary",
            Self::HandOver => "hand-over",
            Self::Standby { .. } => "standby",
            Self::Sealed { .. } => "sealed",
            Self::Fenced => "fenced",
            Self::Stopped => "stopped",
            Self::Maintenance => "maintenance",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Primary {
    /// What to do with a member that is no primary and has no data.
    pub origin: Origin,
    /// Its log must reach this before it is promoted.
    pub at_least: Lsn,
    /// The number of the timeline that it makes when it is promoted, and nobody else ever; 0: any.
    pub timeline: u32,
    /// In force before it writes.
    pub quorum: Quorum,
    pub crash: CrashPlan,
    /// Write a checkpoint soon and say when it is done: a switchover comes.
    pub prepare: bool,
}

words!(Origin, "origin", {
    /// The data is there or was: nothing is made.
    Existing = "existing",
    /// initdb.
    Initdb = "initdb",
    /// A primary that was running before Lockstep came.
    Adopt = "adopt",
});

words!(CrashPlan, "crash-plan", {
    /// Start it again, keeping the lease.
    Restart = "restart",
    /// Fence it, and give the lease up.
    Release = "release",
});

/// Something to be done once to an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterAct {
    pub cluster: ClusterName,
    pub act: Act,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// With `pending`: only when a setting waits for it.
    Restart {
        pending: bool,
    },
    Reload,
    Checkpoint,
    /// A new connection, a write and all checks, now rather than at their time.
    Verify,
    /// Look whether it went another way, and rewind it if so.
    Rewind,
    /// Prove that a node is off, by the program of `external-fence`.
    Fence {
        node: NodeName,
        timeout: Millis,
    },
}

/// Have nothing to do with the cluster any more. The instance runs on as it is, unless it is to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterRelease {
    pub cluster: ClusterName,
    /// Stop it and remove its data.
    pub delete: bool,
}
