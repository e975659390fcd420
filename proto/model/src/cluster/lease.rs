//! What a primary's agent and the controller say to each other of its lease. Who counts which end on
//! which clock is decided where the clocks are.

use super::wal::Term;
use crate::id::ClusterName;
use crate::time::Millis;

/// Clocks of two machines may run apart by so many parts of a thousand: ten times what a healthy
/// oscillator does. The holder of a lease counts so much less, its giver so much more.
pub const DRIFT_PER_MILLE: u64 = 1;

/// For how long an agent that is stopped cleanly leaves its primary alone at most: a restart and an
/// upgrade take less, and nobody takes over from a node that is lost meanwhile.
pub const AWAY_MAX: Millis = Millis(30_000);

/// The holder of a term asks to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renewal {
    pub cluster: ClusterName,
    pub term: Term,
    /// Milliseconds on the agent's clock, CLOCK_BOOTTIME; nobody else reads them.
    pub sent_ms: u64,
    /// The agent is about to be stopped, and postgres is to serve on for so long without it.
    pub away: Option<Millis>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    pub cluster: ClusterName,
    pub term: Term,
    /// Of the renewal that this answers.
    pub sent_ms: u64,
    pub answer: Answer,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// So long, counted from `sent_ms`.
    For(Millis),
    /// The cluster is paused.
    WithoutEnd,
    /// Why not, one line.
    Refused(String),
}

impl Grant {
    pub fn answering(renewal: Renewal, answer: Answer) -> Self {
        let Renewal { cluster, term, sent_ms, away: _ } = renewal;
        Self { cluster, term, sent_ms, answer }
    }
}
