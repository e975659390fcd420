//! When something is to happen by itself: a rule over calendar fields, the zone it is read in, the
//! days it is bound to, and what becomes of runs that come too late. Text and values; no zones'
//! tables and no search, which are the planner's.

pub mod calendar;
mod crontab;
mod expr;
mod field;
mod policy;
mod rule;
#[cfg(test)]
mod tests;
mod zone;

pub use field::FieldName;
pub use policy::{Missed, Overlap, PassedOver, Policy, Progress};
pub use rule::Rule;
pub use zone::{Moment, ZoneName};

use crate::reject::Invalid;

/// A schedule as it is kept: everything in it was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub rule: Rule,
    /// The clock on the wall that the rule speaks of.
    pub zone: ZoneName,
    /// Nothing fires before; an instant that is exactly this one does.
    pub start: Option<Moment>,
    /// Nothing fires after; an instant that is exactly this one does.
    pub end: Option<Moment>,
    pub policy: Policy,
}

impl Schedule {
    /// What no single part can check by itself.
    pub fn check(&self) -> Result<(), Invalid> {
        self.policy.check()?;
        if let (Some(start), Some(end)) = (&self.start, &self.end)
            && end.at < start.at
        {
            let problem = format!("{} is before the start, {}", end.at, start.at);
            return Err(Invalid::new("end_date", problem));
        }
        Ok(())
    }
}

/// A schedule as a person gives it: dates and zone still text.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScheduleText {
    /// `minute=*/30 hour=1-5`, or crontab text such as `*/15 * * * *`.
    pub rule: String,
    /// Empty: UTC.
    pub zone: String,
    /// Empty: none.
    pub start_date: String,
    /// Empty: none.
    pub end_date: String,
    pub policy: Policy,
}
