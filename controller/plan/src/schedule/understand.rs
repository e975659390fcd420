//! A schedule as a person gives it, made one that is kept: zone and dates looked up, nothing left
//! in it that depends on when it was said.

use lockstep_model::schedule::{Moment, Schedule, ScheduleText, ZoneName};
use lockstep_model::{Invalid, Timestamp};

use super::when;
use super::zone::Zone;

/// # Errors
/// The first part that is not understood, by its name.
pub fn understand(text: &ScheduleText, now: Timestamp) -> Result<Schedule, Invalid> {
    let ScheduleText { rule, zone, start_date, end_date, policy } = text;
    let rule = rule.parse()?;
    let zone = match zone.as_str() {
        "" => Zone::find(&ZoneName::utc())?,
        named => Zone::find(&named.parse()?)?,
    };
    let date = |field: &str, text: &str| -> Result<Option<Moment>, Invalid> {
        if text.is_empty() { Ok(None) } else { when::read(field, text, &zone, now).map(Some) }
    };
    let schedule = Schedule {
        rule,
        start: date("start_date", start_date)?,
        end: date("end_date", end_date)?,
        zone: zone.name().clone(),
        policy: policy.clone(),
    };
    schedule.check()?;
    Ok(schedule)
}
