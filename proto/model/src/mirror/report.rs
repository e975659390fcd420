//! What the agent of a mirror's master or replica says of it.

use crate::time::{Millis, Timestamp};
use crate::words::words;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorReport {
    /// A complete tree is there; kept over restarts.
    pub filled: bool,
    /// One line on what keeps the node from its part; empty when fine.
    pub problem: String,
    /// Hooks that failed, leftovers and the like, one line each.
    pub warnings: Vec<String>,
    /// The pull under way.
    pub pull: Option<PullProgress>,
}

impl MirrorReport {
    /// Most warnings kept.
    pub const WARNINGS_MAX: usize = 8;
}

/// A pull under way. Times are the agent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PullProgress {
    /// The run's number.
    pub number: u64,
    pub phase: PullPhase,
    pub started_at: Timestamp,
    /// 0 to 100; None while rsync still counts.
    pub percent: Option<u8>,
    pub done_bytes: u64,
    pub done_files: u64,
    pub rate_bytes_per_s: u64,
    pub eta: Option<Millis>,
}

words!(PullPhase, "phase", {
    /// Others of this node's pulls go first.
    Queued = "queued",
    /// A hook runs before.
    Before = "before",
    /// A dry run: how much, and whether it fits.
    Counting = "counting",
    /// Files come.
    Content = "content",
    /// What the other side does not have any more goes.
    Deleting = "deleting",
    /// Snapshot, trace file and what else makes it complete.
    Finishing = "finishing",
    /// A hook runs after.
    After = "after",
});
