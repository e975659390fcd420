//! A PostgreSQL database: one primary, and standbys that follow it.

pub mod goal;
pub mod lease;
pub mod options;
pub mod parameter;
pub mod quorum;
pub mod report;
pub mod settings;
pub mod state;
pub mod wal;

pub use goal::{
    Act, ClusterAct, ClusterPlace, ClusterRelease, CrashPlan, Goal, MemberPeer, Origin, Primary,
};
pub use lease::{Answer, Grant, Renewal};
pub use options::{ClusterOptions, Instance, MemberOptions};
pub use quorum::Quorum;
pub use report::{MemberReport, MemberState};
pub use state::{Cause, ClusterState, Election, Exclusion, Failover, Former, Stage};
pub use wal::{Lineage, Lsn, SystemId, Term};

use std::fmt;

use crate::id::{ClusterName, NodeName};
use crate::path::DirPath;
use crate::time::Timestamp;
use crate::words::words;
use options::SyncPolicy;

/// Most members of one cluster: synchronous_standby_names and wal_max_senders stay readable.
pub const MEMBERS_MAX: usize = 32;

/// What people want of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    pub name: ClusterName,
    /// The first primary takes over a running database rather than makes one.
    pub adopt: bool,
    /// Sorted by name; a name appears once.
    pub members: Vec<Member>,
    pub options: ClusterOptions,
    /// Nothing is decided, all is still reported.
    pub paused: bool,
    pub created_at: Timestamp,
    /// It goes: the record goes once no node has a part in it any more.
    pub leaving: Option<Leaving>,
}

words!(Leaving, "leaving", {
    /// The database runs on.
    Release = "release",
    /// It is stopped, and its data removed.
    Delete = "delete",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub node: NodeName,
    pub options: MemberOptions,
    pub admin: MemberAdmin,
    /// From 1; counted up to have its data copied anew.
    pub copy: u64,
    /// It is to be a member no more: it goes once no quorum and no election counts it and its node has
    /// let go of it.
    pub leaving: Option<Leaving>,
}

words!(MemberAdmin, "admin", {
    Managed = "managed",
    /// No process, until somebody takes it back.
    Fenced = "fenced",
    /// Stopped cleanly, until somebody starts it.
    Stopped = "stopped",
    /// Left alone, and only reported on.
    Maintenance = "maintenance",
});

impl Cluster {
    /// Most clusters of a fleet.
    pub const COUNT_MAX: usize = 1000;

    /// Where a member's instance is and how it is started, its own settings over the cluster's.
    /// `data_dir` is Some.
    pub fn instance(&self, member: &Member) -> Instance {
        let own = &member.options;
        let Instance { bin, data_dir, wal_dir, port, socket_dir, manager } =
            self.options.instance.clone();
        Instance {
            bin: own.bin.clone().or(bin),
            data_dir: own.data_dir.clone().or(data_dir).or_else(|| default_data_dir(&self.name)),
            wal_dir: own.wal_dir.clone().or(wal_dir),
            port: own.port.unwrap_or(port),
            socket_dir,
            manager: own.manager.clone().unwrap_or(manager),
        }
    }

    /// How many standbys are to have each commit, by the policy.
    pub fn commits_wait_for(&self) -> u32 {
        let stays = |member: &&Member| member.leaving.is_none();
        match self.options.sync {
            SyncPolicy::Off => 0,
            SyncPolicy::Count(k) => k,
            SyncPolicy::Auto => u32::from(self.members.iter().filter(stays).count() > 2),
        }
    }

    pub fn member(&self, node: &NodeName) -> Option<&Member> {
        let found = self.members.binary_search_by(|member| member.node.cmp(node));
        found.ok().map(|at| &self.members[at])
    }
}

fn default_data_dir(cluster: &ClusterName) -> Option<DirPath> {
    format!("/var/lib/postgresql/lockstep/{cluster}").parse().ok()
}

/// Passwords of Lockstep's own roles, readable only with the controller's key file.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret {
    pub cluster: ClusterName,
    /// Of the superuser `lockstep`: nonce, ciphertext and tag.
    pub superuser: Vec<u8>,
    /// Of `lockstep_replication`.
    pub replication: Vec<u8>,
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSecret of {}", self.cluster)
    }
}

/// Lockstep's own roles in every database.
pub const SUPERUSER: &str = "lockstep";
pub const REPLICATION_USER: &str = "lockstep_replication";
