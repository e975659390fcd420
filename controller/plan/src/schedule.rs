//! When a schedule fires: its rule on the clock of its zone, and what is due at a moment. Pure: the
//! zones' tables are part of the program, and now is an argument.

mod due;
pub mod follow;
mod search;
#[cfg(test)]
mod tests;
mod understand;
pub mod when;
mod zone;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use lockstep_model::schedule::{Moment, Schedule};
use lockstep_model::{Invalid, Timestamp};

pub use understand::understand;
use zone::Place;
pub use zone::Zone;

/// Most instants that are shown of a schedule before it is saved.
pub const PREVIEW_MAX: usize = 100;

/// An interval that comes again in less than this needs no run for what the clock left out.
const GAP_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// A schedule with the table of its zone at hand.
#[derive(Clone, Debug)]
pub struct Timetable<'a> {
    schedule: &'a Schedule,
    zone: Zone,
}

impl<'a> Timetable<'a> {
    /// # Errors
    /// The zone is not known to this version.
    pub fn new(schedule: &'a Schedule) -> Result<Self, Invalid> {
        Ok(Self { schedule, zone: Zone::find(&schedule.zone)? })
    }

    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The first instant of the schedule later than `after`. None: there is none any more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_from(Timestamp(after.0.checked_add(1)?))
    }

    /// The first instant of the schedule that is `from` or later.
    pub fn next_from(&self, from: Timestamp) -> Option<Timestamp> {
        let Schedule { rule: _, zone: _, start, end, policy: _ } = self.schedule;
        let at = |moment: &Option<Moment>| moment.as_ref().map(|m| m.at);
        let from = at(start).map_or(from, |start| from.max(start));
        // Instants are whole seconds, so a part of one is already past its own.
        let next = self.next_second(i64::try_from(from.0.div_ceil(1000)).ok()?)?;
        let next = Timestamp(u64::try_from(next).ok()?.checked_mul(1000)?);
        at(end).is_none_or(|end| next <= end).then_some(next)
    }

    /// The next instants from `from` on, at most `count` and `PREVIEW_MAX`.
    pub fn preview(&self, from: Timestamp, count: usize) -> Vec<Timestamp> {
        let next = |at: &Timestamp| self.next_after(*at);
        std::iter::successors(self.next_from(from), next).take(count.min(PREVIEW_MAX)).collect()
    }

    /// Seconds since the epoch. Clocks on walls go forward except where one is set back, so the
    /// first fitting time of the clock is the next instant, and only inside of such a repeated
    /// time is there anything to decide.
    fn next_second(&self, from: i64) -> Option<i64> {
        let rule = &self.schedule.rule;
        let clock = self.zone.clock(from)?;
        let Place::Twice { first, repeated, .. } = self.zone.place(clock) else {
            return self.first_pass(clock);
        };
        let (begin, end) = repeated;
        let fitting = |from| search::next(rule, from).filter(|at| *at < end);
        let second_pass = |at| match self.zone.place(at) {
            Place::Twice { second, .. } => Some(second),
            Place::Once(_) | Place::Skipped { .. } => None,
        };
        let here = fitting(clock);
        if from == first {
            match here {
                Some(at) => return Some(self.zone.place(at).first()),
                None if !rule.is_interval() => (),
                None => {
                    if let Some(at) = fitting(begin) {
                        return second_pass(at);
                    }
                }
            }
        } else if let (Some(at), true) = (here, rule.is_interval()) {
            return second_pass(at);
        }
        self.first_pass(end)
    }

    /// The first instant at which the clock shows a fitting time, `from` or later, when it comes by
    /// for the first time. A time that the clock leaves out counts as the first instant after the
    /// gap; not so for an interval that fits again within the hour after it.
    fn first_pass(&self, from: DateTime) -> Option<i64> {
        let rule = &self.schedule.rule;
        let found = self.zone.place(search::next(rule, from)?);
        let Place::Skipped { resumes, .. } = found else { return Some(found.first()) };
        if rule.is_interval()
            && let Some(soon) = search::next(rule, resumes)
            && soon.duration_since(resumes) < GAP_INTERVAL
        {
            return Some(self.zone.place(soon).first());
        }
        Some(found.first())
    }
}
