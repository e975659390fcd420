//! Follows a schedule: the one owner of what becomes of its instants, for everything that happens by
//! itself. Pure; it writes nothing and knows no kind of run.

use std::fmt;

use lockstep_model::schedule::{Moment, PassedOver, Policy, Progress, Schedule};
use lockstep_model::{Invalid, Millis, Timestamp};

use super::Timetable;

/// A schedule that is being followed.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    schedule: &'a Schedule,
    mark: u64,
}

/// Whether a run could start now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Free,
    /// A run of the schedule has not ended: the overlap rule decides.
    Running,
    /// Something else is in the way, which is no overlap: one run waits for it.
    Taken,
}

/// What to do about a schedule at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    pub state: State,
    /// To be written, together with the run if one starts. None: nothing was decided.
    pub progress: Option<Progress>,
    /// When time alone changes the answer. None: never again.
    pub wake_at: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Start a run now, for this instant.
    Starts(Timestamp),
    /// A run for this instant starts as soon as it can.
    Owed { instant: Timestamp, place: Place },
    /// The next run starts then.
    Waits(Timestamp),
    /// It fires never again.
    Exhausted,
    /// The clock was set back, and nothing fires a second time.
    ClockBack { by: Millis, until: Option<Timestamp> },
}

impl<'a> Course<'a> {
    pub fn of(schedule: &'a Schedule) -> Self {
        Self { schedule, mark: mark(schedule) }
    }

    /// What to do now. It costs next to nothing until the next instant comes, and some microseconds
    /// then: a planner whose transaction is full should not ask.
    ///
    /// `name` decides the place in the splay. A schedule that was not followed until now, because it
    /// is new, another or was stopped, begins now: what came before is nobody's business.
    ///
    /// # Errors
    /// The zone is not known to this version.
    pub fn look(
        &self,
        name: &str,
        progress: &Progress,
        place: Place,
        now: Timestamp,
    ) -> Result<Look, Invalid> {
        let delay = splay_of(name, self.schedule.policy.splay);
        let owes = !progress.owed.is_empty() && place == Place::Free;
        if !owes && self.nothing_came(progress, delay, now) {
            return Ok(look(progress, None, place, delay, now));
        }
        let timetable = Timetable::new(self.schedule)?;
        if progress.mark != self.mark {
            let next = timetable.next_after(now);
            let begun = Progress { mark: self.mark, next, ..Progress::starting(now) };
            return Ok(look(&begun, None, place, delay, now).keeping(&begun));
        }
        let here = Timestamp(now.0.saturating_sub(delay.0));
        let decided = timetable.decide(progress, place, here);
        let look = look(&decided.progress, decided.start, place, delay, now);
        Ok(if decided.progress == *progress { look } else { look.keeping(&decided.progress) })
    }

    /// Whether there is nothing to do, wherever a run would have its place.
    pub fn rests(&self, name: &str, progress: &Progress, now: Timestamp) -> bool {
        let delay = splay_of(name, self.schedule.policy.splay);
        progress.owed.is_empty() && self.nothing_came(progress, delay, now)
    }

    fn nothing_came(&self, progress: &Progress, delay: Millis, now: Timestamp) -> bool {
        progress.mark == self.mark && progress.next.is_none_or(|next| now < next + delay)
    }

    /// Whether it is this schedule that `progress` is of.
    pub fn follows(&self, progress: &Progress) -> bool {
        progress.mark == self.mark
    }

    /// When the run for an instant starts.
    pub fn delayed(&self, name: &str, instant: Timestamp) -> Timestamp {
        instant + splay_of(name, self.schedule.policy.splay)
    }

    /// How it stands, without a decision.
    pub fn state(&self, name: &str, progress: &Progress, now: Timestamp) -> State {
        let delay = splay_of(name, self.schedule.policy.splay);
        look(progress, None, Place::Running, delay, now).state
    }
}

/// What to keep of a schedule that shall not be followed for now; it begins anew later. None: it
/// was stopped before.
pub fn stopped(progress: &Progress, now: Timestamp) -> Option<Progress> {
    (progress.mark != 0).then(|| Progress::starting(now))
}

fn look(
    progress: &Progress,
    start: Option<Timestamp>,
    place: Place,
    delay: Millis,
    now: Timestamp,
) -> Look {
    let next = progress.next.map(|next| next + delay);
    let behind = progress.considered.since(now);
    let state = match (start, progress.owed.first(), next) {
        (Some(instant), ..) => State::Starts(instant),
        (None, Some(instant), _) => State::Owed { instant: *instant, place },
        (None, None, until) if behind > Millis(0) => State::ClockBack { by: behind, until },
        (None, None, Some(next)) => State::Waits(next),
        (None, None, None) => State::Exhausted,
    };
    Look { state, progress: None, wake_at: next }
}

impl Look {
    fn keeping(self, progress: &Progress) -> Self {
        Self { progress: Some(progress.clone()), ..self }
    }

    /// The instant for which a run is to start now.
    pub fn start(&self) -> Option<Timestamp> {
        match self.state {
            State::Starts(instant) => Some(instant),
            _ => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starts(instant) => write!(f, "starts now, for {instant}"),
            Self::Owed { instant, place: Place::Running } => {
                write!(f, "the run for {instant} follows the one that goes on")
            }
            Self::Owed { instant, place: Place::Free | Place::Taken } => {
                write!(f, "the run for {instant} waits for its place")
            }
            Self::Waits(next) => write!(f, "next at {next}"),
            Self::Exhausted => f.write_str("exhausted: the schedule fires never again"),
            Self::ClockBack { by, until } => {
                write!(f, "the clock was set back by {by}, and nothing fires a second time")?;
                until.map_or(Ok(()), |until| write!(f, "; next at {until}"))
            }
        }
    }
}

/// Of the newest decision, for people. None: every instant has its run.
pub fn passed_over(progress: &Progress) -> Option<String> {
    let PassedOver { missed, overlapped, merged } = progress.passed_over;
    let parts = [
        (missed, "missed"),
        (overlapped, "skipped, as the run before went on"),
        (merged, "covered by another run"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let until = progress.considered;
    (!parts.is_empty()).then(|| format!("without a run up to {until}: {}", parts.join(", ")))
}

/// This schedule's own place in the splay: always the same for the same name.
pub fn splay_of(name: &str, splay: Millis) -> Millis {
    if splay == Millis(0) {
        return splay;
    }
    let hash = fnv(FNV_START, name.as_bytes());
    // Its low bits hardly depend on the first letters.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    Millis(mixed.checked_rem(splay.0).unwrap_or(0))
}

/// Another one for any schedule that differs; never 0. It is kept in stores: that it changes with a
/// version has every schedule begin anew.
fn mark(schedule: &Schedule) -> u64 {
    let Schedule { rule, zone, start, end, policy } = schedule;
    let Policy { missed, grace, overlap, splay } = policy;
    let bound = |moment: &Option<Moment>| moment.as_ref().map_or(u64::MAX, |moment| moment.at.0);
    let words = [rule.as_str(), zone.as_str(), missed.as_str(), overlap.as_str()];
    let hash = words.iter().fold(FNV_START, |hash, word| fnv(fnv(hash, word.as_bytes()), &[0]));
    let numbers = [bound(start), bound(end), grace.0, splay.0];
    numbers.iter().fold(hash, |hash, number| fnv(hash, &number.to_le_bytes())).max(1)
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, which will be the same in every version of this program.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
