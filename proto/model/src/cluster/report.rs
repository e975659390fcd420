//! What a member's agent says of its instance.

use super::quorum::Quorum;
use super::wal::{Lineage, Lsn, SystemId, Term};
use crate::id::NodeName;
use crate::time::Millis;
use crate::words::words;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberReport {
    pub state: MemberState,
    /// The highest that it promised.
    pub term: Term,
    /// The term whose lease it holds.
    pub holds: Option<Term>,
    /// The term that it gave up, with proof: no process is left and none can start writable.
    pub released: Option<Released>,
    pub system_id: Option<SystemId>,
    /// PostgreSQL's version, `15.18`; empty: not known.
    pub version: String,
    pub lineage: Lineage,
    /// A primary's write position; a standby's received and flushed one; of a dead instance the end of
    /// what is valid on disk. None: not known.
    pub lsn: Option<Lsn>,
    /// Applied by a standby.
    pub replayed: Option<Lsn>,
    /// Who a standby receives from now.
    pub upstream: Option<Stream>,
    /// Of synchronous_standby_names, read back from a running primary, once every standby that was
    /// added, and at least `k` of all that are named, have flushed what was written before it was in
    /// force: elections then need no earlier one.
    pub quorum: Option<Quorum>,
    /// The promotable set that the agent of a primary has durably.
    pub promotable: Vec<NodeName>,
    /// Who a primary sends to.
    pub standbys: Vec<StandbyRow>,
    /// The checkpoint after a promotion is through: others may rewind from here.
    pub rewindable: bool,
    /// The checkpoint that `Primary::prepare` asked for is through.
    pub prepared: bool,
    /// The number of `ClusterPlace::copy` that its data is.
    pub copy: u64,
    /// A copy, a rewind, a recovery or a salvage under way.
    pub progress: Option<Progress>,
    /// Bytes that it was given from a dead instance in this term.
    pub salvaged_bytes: u64,
    /// Its postgres' certificate, PEM; empty: none.
    pub certificate: String,
    /// Settings that wait for a restart, with the value in force and the one that waits.
    pub pending_restart: Vec<PendingRestart>,
    /// Tells a look at the instance that went wrong from death.
    pub trouble: Trouble,
    /// One line on what keeps it from its goal; empty when fine.
    pub problem: String,
    /// What `check` shows, one line each.
    pub warnings: Vec<String>,
    /// What was looked at now and then, in no hurry.
    pub findings: Vec<Finding>,
}

impl MemberReport {
    pub const WARNINGS_MAX: usize = 32;
    pub const STANDBYS_MAX: usize = 64;
    pub const PENDING_MAX: usize = 64;
    pub const FINDINGS_MAX: usize = 64;
    /// Longest certificate, in bytes.
    pub const CERTIFICATE_MAX: usize = 16 * 1024;
}

words!(MemberState, "state", {
    /// There is no data directory.
    Missing = "missing",
    /// It is being made or copied.
    Copying = "copying",
    Rewinding = "rewinding",
    /// No process, by a clean stop.
    Stopped = "stopped",
    /// No process, by a crash or a kill.
    Crashed = "crashed",
    /// Processes, and not ready: crash recovery, or a standby that is not consistent yet.
    Starting = "starting",
    /// In recovery and readable.
    Standby = "standby",
    /// In recovery, receives nothing of anybody but a dead instance's last log.
    Sealed = "sealed",
    /// Asked to leave recovery.
    Promoting = "promoting",
    /// It takes writes, under a lease or while the cluster is paused.
    Primary = "primary",
    /// It takes writes and has no right to: it is being ended.
    Rogue = "rogue",
    /// Being stopped.
    Stopping = "stopping",
    /// No process, durably marked.
    Fenced = "fenced",
    /// Processes that do not end: storage hangs.
    Unfenced = "unfenced",
    /// Its data went another way than the cluster's; not readable.
    Diverged = "diverged",
    /// The data is another cluster's, or of another major version, or cannot be read.
    Foreign = "foreign",
});

// What a running instance lacks, told apart from death.
words!(Trouble, "trouble", {
    None = "none",
    /// Takes connections or processes exist, and nothing answers in time.
    Hung = "hung",
    /// Every connection is taken; it works.
    Busy = "out-of-connections",
    DiskFull = "disk-full",
    ReadOnlyFs = "read-only-file-system",
    /// Crash recovery that advances.
    Recovering = "recovering",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Released {
    pub term: Term,
    /// The end of its log; None: it could not be found out.
    pub end: Option<Lsn>,
    /// It was stopped cleanly: its last record is the shutdown's checkpoint.
    pub clean: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    pub from: NodeName,
    /// Since the last word of the upstream's postgres.
    pub age: Millis,
    /// Where its log ended by that word.
    pub end: Lsn,
}

/// A row of pg_stat_replication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandbyRow {
    /// Its application_name, when it is a member's.
    pub node: NodeName,
    pub streaming: bool,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: SyncState,
    pub sent: Lsn,
    pub flushed: Lsn,
    pub replayed: Lsn,
    /// How long it is behind in applying; None: not known.
    pub replay_lag: Option<Millis>,
    /// Since its last answer, by the primary's clock.
    pub reply_age: Millis,
}

words!(SyncState, "sync-state", {
    Async = "async",
    Potential = "potential",
    Sync = "sync",
    Quorum = "quorum",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    pub what: ProgressKind,
    pub done_bytes: u64,
    /// None: not known.
    pub total_bytes: Option<u64>,
    /// How long it has been under way.
    pub for_ms: Millis,
}

words!(ProgressKind, "progress", {
    Clone = "clone",
    Rewind = "rewind",
    Recovery = "recovery",
    Salvage = "salvage",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingRestart {
    pub name: String,
    pub now: String,
    pub then: String,
}

/// What was found of one thing that could break a promise later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub check: Check,
    pub verdict: Verdict,
    /// One line: what is so, and unless it is well what to do.
    pub text: String,
}

words!(Check, "check", {
    /// Nobody takes the promise out of commits by `synchronous_commit`.
    Commits = "commits",
    /// What pg_rewind needs.
    Rewind = "rewind",
    /// Text sorts here as where the indexes were made.
    Collations = "collations",
    /// What databases use is installed here.
    Extensions = "extensions",
    /// Standbys are sent to over TLS.
    ReplicationTls = "replication-tls",
    /// pg_hba.conf and postgresql.conf can be read, and let members in.
    Configuration = "configuration",
    Archive = "archive",
    /// This machine's clock and the upstream's.
    Clock = "clock",
    /// Slots that are not Lockstep's.
    Slots = "slots",
    /// The other members' postgres answers from here.
    Reach = "reach",
});

words!(Verdict, "verdict", {
    Ok = "ok",
    Warn = "warn",
    Fail = "fail",
});
