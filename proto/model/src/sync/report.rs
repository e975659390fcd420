//! What the agents of a sync say of it.

use crate::id::NodeName;
use crate::time::{Millis, Timestamp};
use crate::words::words;

/// What the agent of a sync's source or target says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncReport {
    Source(SourceReport),
    Target(TargetReport),
}

impl SyncReport {
    /// What it delivers to others, as a source or as a relay.
    pub fn source(&self) -> Option<&SourceReport> {
        match self {
            Self::Source(report) => Some(report),
            Self::Target(report) => report.relay.as_ref(),
        }
    }

    pub fn target(&self) -> Option<&TargetReport> {
        match self {
            Self::Source(_) => None,
            Self::Target(report) => Some(report),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceReport {
    pub engine: EngineState,
    /// One line on why `engine` is not `Watching`; else empty.
    pub problem: String,
    /// What an operator should mend though all goes on: kernel limits, an overflow, a hook.
    pub warnings: Vec<String>,
    /// Last sequence number in the journal.
    pub head: u64,
    pub deliveries: Vec<Delivery>,
}

impl SourceReport {
    /// Most warnings kept.
    pub const WARNINGS_MAX: usize = 8;
}

words!(EngineState, "engine", {
    Starting = "starting",
    Watching = "watching",
    /// lsyncd does not run; it is started again with backoff.
    Failing = "failing",
    /// A guard holds the sync: nothing is delivered until its cause is gone.
    Held = "held",
    /// A person paused it.
    Paused = "paused",
    /// It does not watch: one-shot, or a relay that is told by its parent.
    Still = "still",
});

/// One target as its source sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    pub target: NodeName,
    pub state: DeliveryState,
    /// Everything up to this journal sequence is on the target.
    pub acked: u64,
    /// Paths that wait; None: anything may differ, a complete pass is due.
    pub waiting_paths: Option<u64>,
    /// Age of the oldest change that is not on the target yet, 0 when none.
    pub lag: Millis,
    /// What the complete pass under way will still take at most, at its rate of the moment.
    pub eta: Option<Millis>,
    /// How much of its bytes that pass has brought, in percent.
    pub done_percent: Option<u8>,
    /// Agent's clock.
    pub last_success_at: Option<Timestamp>,
    /// One line, empty after a success.
    pub last_error: String,
    /// Bytes sent since the agent started.
    pub sent_bytes: u64,
    /// When the copy was last compared with the source and found equal, or repaired.
    pub verified_at: Option<Timestamp>,
    /// Entries that the last comparison found different.
    pub drift: u64,
}

words!(DeliveryState, "state", {
    /// Nothing was delivered yet.
    Initial = "initial",
    /// The first complete pass is under way.
    Filling = "filling",
    /// Changes wait.
    Dirty = "dirty",
    Syncing = "syncing",
    Idle = "idle",
    /// The last try failed; the next one waits for its backoff.
    Failing = "failing",
    Held = "held",
    Paused = "paused",
});

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TargetReport {
    /// The first complete fill arrived; kept over restarts.
    pub filled: bool,
    /// Its source said that it lags more than `max-lag`.
    pub behind: bool,
    /// One line, empty when fine.
    pub problem: String,
    /// What it feeds, when it is a relay.
    pub relay: Option<SourceReport>,
}
