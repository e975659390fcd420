//! The first time of a clock that fits a rule, whatever the zone. It goes from field to field and
//! ends with the last year a rule can name.

use jiff::civil::DateTime;
use lockstep_model::schedule::{FieldName, Rule};

/// `from` itself when it fits. Every rule fits somewhere in each 400 years that it allows, so what
/// is looked at is at most those years' months.
pub fn next(rule: &Rule, from: DateTime) -> Option<DateTime> {
    let from = Parts::of(from)?;
    let mut year = rule.next_year(from.year);
    while let Some(this) = year {
        let first_month = if this == from.year { from.month } else { 1 };
        for month in first_month..=12 {
            let is_first = (this, month) == (from.year, from.month);
            let mut days = rule.days(this, month);
            if is_first {
                days &= u32::MAX << from.day;
            }
            while days != 0 {
                let day = days.trailing_zeros();
                let since = if is_first && day == from.day { from.time } else { (0, 0, 0) };
                if let Some(time) = time_of_day(rule, since) {
                    return Parts { year: this, month, day, time }.to_civil();
                }
                days &= days - 1;
            }
        }
        year = rule.next_year(this + 1);
    }
    None
}

/// The first fitting hour, minute and second, not before `from`.
fn time_of_day(rule: &Rule, (hour, minute, second): (u32, u32, u32)) -> Option<(u32, u32, u32)> {
    let first = |name| rule.next_in(name, 0);
    let (first_minute, first_second) = (first(FieldName::Minute)?, first(FieldName::Second)?);
    let later_hour =
        |from| Some((rule.next_in(FieldName::Hour, from)?, first_minute, first_second));
    if rule.next_in(FieldName::Hour, hour)? != hour {
        return later_hour(hour);
    }
    match rule.next_in(FieldName::Minute, minute) {
        Some(found) if found == minute => {
            if let Some(second) = rule.next_in(FieldName::Second, second) {
                return Some((hour, minute, second));
            }
        }
        Some(found) => return Some((hour, found, first_second)),
        None => return later_hour(hour + 1),
    }
    match rule.next_in(FieldName::Minute, minute + 1) {
        Some(found) => Some((hour, found, first_second)),
        None => later_hour(hour + 1),
    }
}

/// A reading of a clock, in the numbers of rules.
struct Parts {
    year: u32,
    month: u32,
    day: u32,
    time: (u32, u32, u32),
}

impl Parts {
    fn of(civil: DateTime) -> Option<Self> {
        let number = |n: i8| u32::try_from(n).ok();
        Some(Self {
            year: u32::try_from(civil.year()).ok()?,
            month: number(civil.month())?,
            day: number(civil.day())?,
            time: (number(civil.hour())?, number(civil.minute())?, number(civil.second())?),
        })
    }

    fn to_civil(&self) -> Option<DateTime> {
        let Self { year, month, day, time: (hour, minute, second) } = *self;
        let number = |n: u32| i8::try_from(n).ok();
        let year = i16::try_from(year).ok()?;
        let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
        DateTime::new(year, number(month)?, number(day)?, hour, minute, second, 0).ok()
    }
}
