//! How a cluster and its members work: one typed value per setting. Their text forms and defaults
//! are in `settings`.

use crate::id::NodeName;
use crate::path::DirPath;
use crate::rate::Size;
use crate::sync::HookName;
use crate::time::Millis;
use crate::words::words;

use super::parameter::{HbaEntry, InitdbOption, Parameter};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterOptions {
    pub instance: Instance,
    pub sync: SyncPolicy,
    pub on_sync_shortage: Shortage,
    pub lease: LeaseOptions,
    pub failover: FailoverOptions,
    pub salvage: SalvageOptions,
    pub rejoin: RejoinOptions,
    pub replication: ReplicationOptions,
    pub checks: CheckOptions,
    /// Of postgresql.conf, the same on every member; sorted by name, a name once.
    pub parameters: Vec<Parameter>,
    /// Further lines of pg_hba.conf, in order, in the block that Lockstep keeps.
    pub hba: Vec<HbaEntry>,
    pub hba_mode: HbaMode,
    /// Of the first initdb only.
    pub initdb: Vec<InitdbOption>,
    /// Data checksums, when initdb makes the cluster.
    pub checksums: bool,
}

/// Where an instance is and how it is started; the same on every member unless the member says
/// otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// Directory of `postgres`, `initdb`, `pg_rewind`; None: the newest that the node has.
    pub bin: Option<DirPath>,
    /// None: `/var/lib/postgresql/lockstep/<cluster>`.
    pub data_dir: Option<DirPath>,
    /// Of pg_wal, when it is to be elsewhere.
    pub wal_dir: Option<DirPath>,
    pub port: u16,
    pub socket_dir: DirPath,
    pub manager: Manager,
}

/// Who starts and stops postgres.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Manager {
    /// The agent itself, in a cgroup of the instance's own.
    Agent,
    /// A systemd unit that holds only this instance, is not enabled at boot and has no `Restart=`.
    Systemd(UnitName),
    /// Debian's pg_ctlcluster, `15/main`.
    PgCtlCluster(DebianCluster),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UnitName(pub(crate) String);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DebianCluster(pub(crate) String);

impl UnitName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DebianCluster {
    /// Major version and name: `15/main`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How many standbys have every commit before its client hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncPolicy {
    /// 1 with two or more standbys, else off.
    Auto,
    Off,
    /// 1 to 31.
    Count(u32),
}

words!(Shortage, "on-sync-shortage", {
    /// Writes wait rather than become unprotected.
    Wait = "wait",
    /// Writes go on unprotected; loud, and ends the promise of no lost commit while it lasts.
    Degrade = "degrade",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseOptions {
    /// How long a primary may write without hearing of the controller or of its peers, 2 s to 5 min.
    pub length: Millis,
    /// From the decision to end an instance to the last process gone, 300 ms to 30 s.
    pub fence: Millis,
    /// A primary that was not heard for so long is looked into, 500 ms to 1 min.
    pub suspect: Millis,
    pub on_isolation: Isolation,
}

words!(Isolation, "on-isolation", {
    /// The primary stops when its lease ends.
    Fence = "fence",
    /// It goes on, and two primaries are possible: gives up the first promise.
    Stay = "stay",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailoverOptions {
    /// False: only when somebody asks.
    pub automatic: bool,
    pub on_crash: OnCrash,
    /// How long a local restart after a crash may take while redo does not advance, 5 s to 1 h.
    pub restart_limit: Millis,
    /// Most failovers after crashes within `window`, 0 to 100; then restarts in place only.
    pub budget: u32,
    pub window: Millis,
    /// Most WAL that may be lost by an asynchronous failover.
    pub max_lag: Size,
    /// A switchover that is not through by then ends with the old primary.
    pub switchover_limit: Millis,
    /// A program in the hook directory of another member's agent that proves a node off: exit 0 and
    /// nothing else means off.
    pub external_fence: Option<HookName>,
    pub external_fence_timeout: Millis,
}

words!(OnCrash, "on-crash", {
    /// Synchronous: failover. Asynchronous: a restart in place.
    Auto = "auto",
    Restart = "restart",
    /// Asynchronous: after the candidate has the dead instance's last WAL.
    Failover = "failover",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SalvageOptions {
    pub enabled: bool,
    pub max_bytes: Size,
    pub timeout: Millis,
    /// When it fails: restart where it crashed, or lose what is missing.
    pub on_failure: SalvageFailure,
}

words!(SalvageFailure, "on-salvage-failure", {
    Restart = "restart",
    LoseData = "lose-data",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejoinOptions {
    /// pg_rewind for a member that went another way.
    pub rewind: bool,
    /// A new copy where it cannot be rewound; the old data is kept aside until that is proven.
    pub clone: bool,
    /// Keep the replaced data directory afterwards.
    pub keep_old: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicationOptions {
    pub tls: ReplicationTls,
    /// Physical slots for members, on every one of them.
    pub slots: bool,
    /// A slot of a member that is away is dropped after so long; None: never.
    pub slot_ttl: Option<Millis>,
    /// WAL that slots hold back is warned of above this.
    pub slot_warning: Size,
}

words!(ReplicationTls, "replication-tls", {
    /// Certificates that agents make and pin for each other.
    Lockstep = "lockstep",
    /// As postgresql.conf says; only asked for.
    Given = "given",
    /// Plain; `check` warns.
    Off = "off",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckOptions {
    /// How often an instance is looked at, 200 ms to 1 h.
    pub poll: Millis,
    /// How often a new connection is made and something written, 1 s to 24 h.
    pub verify: Millis,
    /// A look that takes longer is a failed one.
    pub timeout: Millis,
    /// Failed looks in a row until an instance counts as hung.
    pub retries: u32,
    /// Warned of below it.
    pub min_free: Size,
}

words!(HbaMode, "hba-mode", {
    /// A marked block at the head of pg_hba.conf is Lockstep's.
    Managed = "managed",
    /// Only looked at; `check` says what is missing.
    Checked = "checked",
});

/// What may differ from member to member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberOptions {
    /// Among equals the larger one is promoted, 0 to 1000.
    pub priority: u32,
    /// Never by itself, and by hand only after this was changed.
    pub never_promote: bool,
    /// `/replica` and what is like it says 503.
    pub no_load_balance: bool,
    /// Never waited for by commits.
    pub no_sync: bool,
    /// New copies are taken from here when it can be.
    pub clone_from: bool,
    /// Follows that member rather than the primary.
    pub upstream: Option<NodeName>,
    /// Applies changes so much later; such a member is promoted only by name.
    pub delay: Option<Millis>,
    /// Members with the same fail together: a rack, a room. Those without one are in one place too.
    pub group: Option<String>,
    pub data_dir: Option<DirPath>,
    pub wal_dir: Option<DirPath>,
    pub port: Option<u16>,
    /// Where others reach its postgres; None: the first address of its agent.
    pub host: Option<String>,
    pub bin: Option<DirPath>,
    pub manager: Option<Manager>,
    /// Shown, and asked for by health checks as `tag_KEY=VALUE`; `key=value`, sorted.
    pub tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

impl CheckOptions {
    /// The longest until an instance that answers nothing counts as hung: a probe that is about to begin,
    /// and failed ones, each of which begins when the one before has ended.
    pub fn hang_known_within(&self) -> Millis {
        let tries = u64::from(self.retries.max(1));
        Millis(self.verify.0 + tries * self.timeout.0.max(self.poll.0))
    }
}

impl ClusterOptions {
    pub const PARAMETERS_MAX: usize = 200;
    pub const HBA_MAX: usize = 200;
    pub const INITDB_MAX: usize = 20;
}

impl MemberOptions {
    pub const TAGS_MAX: usize = 20;
    pub const PRIORITY_DEFAULT: u32 = 100;
}
