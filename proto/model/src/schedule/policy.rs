//! What becomes of runs whose time comes while nobody looks or while the last one still runs, and
//! the record from which that is decided.

use crate::reject::Invalid;
use crate::time::{Millis, Timestamp};
use crate::words::words;

words!(
    /// Of runs whose time passed longer ago than the grace.
    #[derive(Default)]
    Missed, "missed", {
    /// None of them.
    Skip = "skip",
    /// One for all of them.
    #[default]
    Once = "once",
    /// Each, one after the other, the oldest first, up to `Progress::OWED_MAX`.
    All = "all",
});

words!(
    /// Of a run whose time comes while the one before has not ended.
    #[derive(Default)]
    Overlap, "overlap", {
    Skip = "skip",
    /// One run follows, however many times passed.
    #[default]
    Queue = "queue",
});

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    pub missed: Missed,
    /// A run that starts so much after its time is still on time.
    pub grace: Millis,
    pub overlap: Overlap,
    /// Starts are spread over so much time after the schedule's instants, each schedule always at
    /// its own place in it.
    pub splay: Millis,
}

impl Policy {
    pub const GRACE_MAX: Millis = Millis::from_secs(7 * 86_400);
    pub const SPLAY_MAX: Millis = Millis::from_secs(86_400);

    pub fn check(&self) -> Result<(), Invalid> {
        let Self { missed: _, grace, overlap: _, splay } = self;
        for (name, value, max) in
            [("grace", grace, Self::GRACE_MAX), ("splay", splay, Self::SPLAY_MAX)]
        {
            if *value > max {
                let problem = format!("is {}, at most {} is allowed", value.exact(), max.exact());
                return Err(Invalid::new(name, problem));
            }
        }
        Ok(())
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            missed: Missed::default(),
            grace: Millis::from_secs(60),
            overlap: Overlap::default(),
            splay: Millis(0),
        }
    }
}

/// How far a schedule has been followed. Kept, so that a restart neither loses nor repeats a run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Tells the schedule that was followed from any other; 0: none was.
    pub mark: u64,
    /// Every instant of the schedule up to this one has been decided on.
    pub considered: Timestamp,
    /// Instants that are still to have their run, oldest first.
    pub owed: Vec<Timestamp>,
    /// The first instant after `considered`, so that nobody has to look for it until then. None: the
    /// schedule is exhausted.
    pub next: Option<Timestamp>,
    /// By the newest decision.
    pub passed_over: PassedOver,
}

impl Progress {
    pub const OWED_MAX: usize = 100;

    /// Of a schedule that was not followed yet; it begins when the planner looks at it.
    pub fn starting(now: Timestamp) -> Self {
        Self { considered: now, ..Self::default() }
    }
}

/// Instants that have no run of their own, and why. Each number stops at 200.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PassedOver {
    /// Missed, by the policy.
    pub missed: u32,
    /// The run before had not ended.
    pub overlapped: u32,
    /// Another run is also for them.
    pub merged: u32,
}
