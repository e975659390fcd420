//! What becomes of instants that have come: which of them get a run, which are passed over, and
//! whether a run starts now. Only `follow` asks.

use lockstep_model::Timestamp;
use lockstep_model::schedule::{Missed, Overlap, PassedOver, Progress};

use super::Timetable;
use super::follow::Place;

/// Most instants that are counted one by one.
const COUNTED_MAX: u32 = 200;

pub(super) struct Decision {
    /// Start a run now, for this instant of the schedule.
    pub start: Option<Timestamp>,
    pub progress: Progress,
}

impl Timetable<'_> {
    /// `here` is now on the schedule's own time axis, where no start is delayed.
    pub(super) fn decide(&self, progress: &Progress, place: Place, here: Timestamp) -> Decision {
        let policy = &self.schedule.policy;
        let mut kept = progress.clone();
        if let Some(last) = self.last_between(progress.considered, here) {
            let mut passed_over = PassedOver::default();
            let on_time_since = Timestamp(here.0.saturating_sub(policy.grace.0));
            for instant in self.wanted(progress.considered, last, on_time_since, &mut passed_over) {
                let waiting = kept.owed.len() + usize::from(place == Place::Running);
                // The first of those waiting is no overlap, if no run of its own goes on.
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
            kept.passed_over = passed_over;
        }
        let may_start = place == Place::Free && !kept.owed.is_empty();
        let start = may_start.then(|| kept.owed.remove(0));
        kept.next = self.next_after(kept.considered.max(here));
        Decision { start, progress: kept }
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
        let Some(second) = next(last.0) else { return Some(last) };
        last = second;
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
