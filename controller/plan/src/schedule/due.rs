//! What is due at a moment, from the schedule, how far it was followed, and whether its last run
//! still goes on. The answer holds the record to keep with the run that it asks for, in one write.

use lockstep_model::schedule::{Missed, Overlap, Progress};
use lockstep_model::{Millis, Timestamp};

use super::Timetable;

/// Most instants that are counted one by one.
const COUNTED_MAX: u32 = 1000;

/// The answer for one schedule at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// Start a run now, for this instant of the schedule.
    pub fire: Option<Timestamp>,
    /// What to keep; equal to what was given when nothing was decided.
    pub progress: Progress,
    pub passed_over: PassedOver,
    /// When to ask again because time passed; the start of the next run if none goes on then. None:
    /// the schedule is exhausted.
    pub next: Option<Timestamp>,
    /// How far the clock stands behind what was decided on already: it was set back. Nothing is
    /// fired a second time.
    pub clock_behind: Millis,
}

/// Instants that have no run of their own, and why. Each number stops at 1000.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PassedOver {
    /// Missed, by the policy.
    pub missed: u32,
    /// The run before had not ended.
    pub overlapped: u32,
    /// Another run is also for them.
    pub merged: u32,
}

/// This schedule's own place in the splay: always the same for the same name.
pub fn splay_of(name: &str, splay: Millis) -> Millis {
    // FNV-1a, which will be the same in every version of this program.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // Its low bits hardly depend on the first letters.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    Millis(mixed.checked_rem(splay.0).unwrap_or(0))
}

impl Timetable<'_> {
    /// `splay` is this schedule's place in its splay: each start comes so much after its instant.
    /// `running` is whether the run that was fired last has not ended.
    pub fn due(&self, progress: &Progress, splay: Millis, running: bool, now: Timestamp) -> Due {
        let policy = &self.schedule.policy;
        // On the schedule's own time axis, where no instant is delayed.
        let here = Timestamp(now.0.saturating_sub(splay.0));
        let mut kept = progress.clone();
        let mut passed_over = PassedOver::default();
        if let Some(last) = self.last_between(progress.considered, here) {
            let on_time_since = Timestamp(here.0.saturating_sub(policy.grace.0));
            for instant in self.wanted(progress.considered, last, on_time_since, &mut passed_over) {
                let waiting = kept.owed.len() + usize::from(running);
                // The first of those waiting is no overlap, if nothing runs: it starts now.
                let room = match policy.overlap {
                    _ if policy.missed == Missed::All && instant < on_time_since => {
                        Progress::OWED_MAX
                    }
                    Overlap::Skip => 1,
                    Overlap::Queue => 2,
                };
                match policy.overlap {
                    _ if waiting < room => kept.owed.push(instant),
                    Overlap::Skip => passed_over.overlapped += 1,
                    Overlap::Queue => passed_over.merged += 1,
                }
            }
            kept.considered = last;
        }
        let fire = (!running && !kept.owed.is_empty()).then(|| kept.owed.remove(0));
        let next = self.next_after(kept.considered.max(here)).map(|next| next + splay);
        let clock_behind = progress.considered.since(now);
        Due { fire, progress: kept, passed_over, next, clock_behind }
    }

    /// Those after `considered` up to `last`, the newest, that want a run, oldest first.
    fn wanted(
        &self,
        considered: Timestamp,
        last: Timestamp,
        on_time_since: Timestamp,
        passed_over: &mut PassedOver,
    ) -> Vec<Timestamp> {
        let before_on_time = Timestamp(on_time_since.0.saturating_sub(1));
        let late_until = last.min(before_on_time);
        let (on_time, late) = (
            self.between(considered.max(before_on_time), last),
            self.between(considered, late_until),
        );
        match self.schedule.policy.missed {
            Missed::All => {
                let kept = late.len().min(Progress::OWED_MAX);
                passed_over.missed += count(late.len() - kept);
                late.into_iter().take(kept).chain(on_time).collect()
            }
            Missed::Once => {
                passed_over.merged += count(late.len() + on_time.len()).saturating_sub(1);
                vec![last]
            }
            Missed::Skip => {
                passed_over.missed += count(late.len());
                passed_over.merged += count(on_time.len().saturating_sub(1));
                if on_time.is_empty() { Vec::new() } else { vec![last] }
            }
        }
    }

    /// The instants after `after` up to `until`, oldest first, at most `COUNTED_MAX`.
    fn between(&self, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |at| self.next_after(*at))
            .take_while(|at| *at <= until)
            .take(COUNTED_MAX as usize)
            .collect()
    }

    /// The last instant after `after` up to `until`, however many there are.
    fn last_between(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let next = |after: u64| self.next_after(Timestamp(after)).filter(|at| *at <= until);
        let mut last = next(after.0)?;
        // One that is later lies between these two.
        let (mut low, mut high) = (last.0, until.0);
        while low < high {
            let middle = low + (high - low) / 2;
            match next(middle) {
                Some(found) => (last, low) = (found, found.0),
                None => high = middle,
            }
        }
        Some(last)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(COUNTED_MAX)
}
