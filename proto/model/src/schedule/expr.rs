//! One expression of a field, read strictly: whatever is not understood whole is refused.

use std::fmt;

use super::field::{FieldName, Form, WEEKDAYS};
use crate::id::quote;
use crate::reject::Invalid;

/// Steps count from the start of what they step through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expr {
    /// `*`, `*/a`: the whole range of the field.
    Every { step: Option<u32> },
    /// `a`, `a-b`, `a-b/c`; `named` when it was written with names.
    Range { first: u32, last: u32, step: Option<u32>, named: bool },
    /// `a/c`: from a to the end of the field's range.
    From { first: u32, step: u32 },
    /// `3rd mon`: `nth` is 1 to 5, `weekday` 0 for Monday.
    Nth { nth: u32, weekday: u32 },
    /// `last fri`.
    LastWeekday { weekday: u32 },
    /// `last`: the last day of the month.
    LastDay,
}

const POSITIONS: [&str; 5] = ["1st", "2nd", "3rd", "4th", "5th"];

impl Expr {
    pub(super) fn parse(form: &Form, item: &str) -> Result<Self, Invalid> {
        let wrong = |problem: &str| {
            let shown = if item.is_empty() { "an empty item".to_owned() } else { quote(item) };
            Invalid::new(form.name.text(), format!("{shown} {problem}: {}", form.allowed()))
        };
        if form.days_of_month && item.bytes().any(|b| b.is_ascii_alphabetic()) {
            return Self::day_of_month(item).ok_or_else(|| wrong("is not understood"));
        }
        let (span, step) = match item.split_once('/') {
            Some((span, step)) => {
                let step = number(step).ok_or_else(|| wrong("has no number as its step"))?;
                if step == 0 {
                    return Err(wrong("has the step 0"));
                }
                (span, Some(step))
            }
            None => (item, None),
        };
        let too_wide = |first: u32, last: u32| step.is_some_and(|step| step > last - first);
        if span == "*" {
            if too_wide(form.min, form.max) {
                return Err(wrong("has a step larger than the field's range"));
            }
            return Ok(Self::Every { step });
        }
        let (first, last) = match span.split_once('-') {
            Some((first, last)) => (first, Some(last)),
            None => (span, None),
        };
        let named = number(first).is_none();
        let value = |text: &str| match number(text) {
            Some(value) if !named => Some(value),
            None if named => form.number_of(text),
            _ => None,
        };
        let first = value(first).ok_or_else(|| wrong("is not understood"))?;
        let last = last.map(|l| value(l).ok_or_else(|| wrong("is not understood"))).transpose()?;
        if named && step.is_some() {
            return Err(wrong("has a step behind a name; write it with numbers"));
        }
        // In crontab's numbers Sunday ends a week as well as it begins one.
        let last = if named && last == Some(0) && form.max == 7 { Some(7) } else { last };
        if first < form.min || first.max(last.unwrap_or(first)) > form.max {
            return Err(wrong("is out of range"));
        }
        match (last, step) {
            (Some(last), _) if last < first => {
                Err(wrong("ends before it begins; to wrap around, write two ranges"))
            }
            (Some(last), _) if too_wide(first, last) => {
                Err(wrong("has a step larger than its range"))
            }
            (Some(last), step) => Ok(Self::Range { first, last, step, named }),
            (None, Some(_)) if too_wide(first, form.max) => {
                Err(wrong("has a step larger than what is left of the field's range"))
            }
            (None, Some(step)) => Ok(Self::From { first, step }),
            (None, None) => Ok(Self::Range { first, last: first, step: None, named }),
        }
    }

    fn day_of_month(item: &str) -> Option<Self> {
        let mut words = item.split(' ').filter(|word| !word.is_empty());
        let (position, weekday, rest) = (words.next()?, words.next(), words.next());
        if rest.is_some() {
            return None;
        }
        let is_last = position.eq_ignore_ascii_case("last");
        let Some(weekday) = weekday else { return is_last.then_some(Self::LastDay) };
        let weekday = FieldName::DayOfWeek.form().number_of(weekday)?;
        if is_last {
            return Some(Self::LastWeekday { weekday });
        }
        let nth = (1..).zip(POSITIONS).find(|(_, text)| text.eq_ignore_ascii_case(position))?.0;
        Some(Self::Nth { nth, weekday })
    }

    /// The smallest value from `from` on, of a field whose values now are `min` to `max`. For days
    /// of a month `max` is that month's last, and `first_weekday` the weekday of its first.
    pub(super) fn next(&self, from: u32, min: u32, max: u32, first_weekday: u32) -> Option<u32> {
        let step_from = |first: u32, last: u32, step: Option<u32>| {
            let from = from.max(first);
            let next = first + (from - first).next_multiple_of(step.unwrap_or(1));
            (next <= last.min(max)).then_some(next)
        };
        let first_of = |weekday: u32| 1 + (weekday + 7 - first_weekday) % 7;
        let day = match *self {
            Self::Every { step } => return step_from(min, max, step),
            Self::Range { first, last, step, .. } => return step_from(first, last, step),
            Self::From { first, step } => return step_from(first, max, Some(step)),
            Self::Nth { nth, weekday } => first_of(weekday) + 7 * (nth - 1),
            Self::LastWeekday { weekday } => {
                let first = first_of(weekday);
                first + (max - first) / 7 * 7
            }
            Self::LastDay => max,
        };
        (from..=max).contains(&day).then_some(day)
    }

    /// It goes through its range rather than naming values.
    pub(super) fn repeats(&self) -> bool {
        match self {
            Self::Every { .. } | Self::From { .. } => true,
            Self::Range { step, .. } => step.is_some(),
            Self::Nth { .. } | Self::LastWeekday { .. } | Self::LastDay => false,
        }
    }

    /// The one way of writing it that the old list of projects knew.
    pub(super) fn write(&self, form: &Form, f: &mut impl fmt::Write) -> fmt::Result {
        let weekday = |day: u32| WEEKDAYS.get(day as usize).copied().unwrap_or_default();
        match *self {
            Self::Every { step: None } => f.write_char('*'),
            Self::Every { step: Some(step) } => write!(f, "*/{step}"),
            Self::Range { first, last, step, named } => {
                let name = |n: u32| form.name_of(n).filter(|_| named);
                let text = |n: u32| name(n).map_or_else(|| n.to_string(), str::to_owned);
                f.write_str(&text(first))?;
                if last != first {
                    write!(f, "-{}", text(last))?;
                }
                step.map_or(Ok(()), |step| write!(f, "/{step}"))
            }
            Self::From { first, step } => write!(f, "{first}/{step}"),
            Self::Nth { nth, weekday: day } => {
                let position = POSITIONS.get(nth as usize - 1).copied().unwrap_or_default();
                write!(f, "{position} {}", weekday(day))
            }
            Self::LastWeekday { weekday: day } => write!(f, "last {}", weekday(day)),
            Self::LastDay => f.write_str("last"),
        }
    }
}

/// Digits only; None as well for numbers that no field can hold.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
