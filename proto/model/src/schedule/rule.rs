//! A rule: eight fields that must all fit, read once from either text form and kept as it was
//! written. A rule that exists can fire in some year.

use std::fmt;
use std::str::FromStr;

use super::calendar::{CYCLE_YEARS, days_in_month, iso_week, weekday};
use super::expr::Expr;
use super::field::{FieldName, Form};
use crate::id::quote;
use crate::reject::Invalid;

/// Which instants, as the clock on a wall shows them, to the second.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule {
    text: String,
    /// In the order of `FieldName::ALL`; none is empty.
    fields: [Vec<Expr>; 8],
    /// One bit per value, for the fields whose values do not depend on the date.
    sets: [u64; 8],
    /// Crontab's own rule: a day fits by its number or by its weekday.
    either_day: bool,
}

impl Rule {
    /// Longest text, in bytes.
    pub const TEXT_MAX: usize = 512;

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// From fields given one by one, such as `("minute", "*/30")`.
    pub fn of_fields<'a>(
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Invalid> {
        let given: Vec<(&str, &str)> = given.into_iter().collect();
        let text: Vec<String> =
            given.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = checked(&text.join(" "))?;
        Self::read_fields(text, &given)
    }

    fn read_fields(text: String, given: &[(&str, &str)]) -> Result<Self, Invalid> {
        let mut values: [Option<&str>; 8] = [None; 8];
        for &(key, value) in given {
            let (slot, _) = values
                .iter_mut()
                .zip(FieldName::ALL)
                .find(|(_, name)| name.text() == key)
                .ok_or_else(|| unknown(key))?;
            if slot.replace(value).is_some() {
                return Err(Invalid::new(key, "is given twice"));
            }
        }
        let Some(last) = values.iter().rposition(Option::is_some) else {
            let problem = "nothing is given, which would mean every second; if that is meant, give \
                           second=*";
            return Err(Invalid::new("schedule", problem));
        };
        let mut fields: [Vec<Expr>; 8] = Default::default();
        for (i, (field, name)) in fields.iter_mut().zip(FieldName::ALL).enumerate() {
            let default = if i < last { "*" } else { name.default() };
            *field = list(&name.form(), values.get(i).copied().flatten().unwrap_or(default))?;
        }
        Self::new(text, fields, false)
    }

    pub(super) fn new(
        text: String,
        fields: [Vec<Expr>; 8],
        either_day: bool,
    ) -> Result<Self, Invalid> {
        let mut sets = [0; 8];
        for ((set, exprs), name) in sets.iter_mut().zip(&fields).zip(FieldName::ALL) {
            *set = match name {
                // Too many of them; asked for one by one.
                FieldName::Year | FieldName::Day => 0,
                _ => bits(exprs, name.min(), name.max(), 0),
            };
        }
        let rule = Self { text, fields, sets, either_day };
        if rule.can_fire() { Ok(rule) } else { Err(rule.never_fires()) }
    }

    /// Whether some year has a day that fits; times of the day always exist.
    fn can_fire(&self) -> bool {
        let mut seen = [false; CYCLE_YEARS as usize];
        let mut year = self.next_year(0);
        while let Some(this) = year {
            if let Some(seen) = seen.get_mut((this % CYCLE_YEARS) as usize)
                && !std::mem::replace(seen, true)
                && (1..=12).any(|month| self.days(this, month) != 0)
            {
                return true;
            }
            year = self.next_year(this + 1);
        }
        false
    }

    fn never_fires(&self) -> Invalid {
        let shown: Vec<String> = self.expanded()[..5]
            .iter()
            .filter(|(_, value)| value != "*")
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let problem = format!("can never fire: no day fits {}", shown.join(" "));
        Invalid::new("schedule", problem)
    }

    /// The first year from `from` on.
    pub fn next_year(&self, from: u32) -> Option<u32> {
        let [years, ..] = &self.fields;
        let (min, max) = (FieldName::Year.min(), FieldName::Year.max());
        years.iter().filter_map(|expr| expr.next(from, min, max, 0)).min()
    }

    /// The first value from `from` on of a month, hour, minute or second.
    pub fn next_in(&self, name: FieldName, from: u32) -> Option<u32> {
        let rest = self.set(name).checked_shr(from)?;
        (rest != 0).then(|| from + rest.trailing_zeros())
    }

    fn set(&self, name: FieldName) -> u64 {
        self.sets.get(name as usize).copied().unwrap_or(0)
    }

    /// The days of a month that fit, a bit each: `1 << 1` is the first. 0 when the month does not.
    pub fn days(&self, year: u32, month: u32) -> u32 {
        if self.set(FieldName::Month) >> month & 1 == 0 {
            return 0;
        }
        let last = days_in_month(year, month);
        let first_weekday = weekday(year, month, 1);
        let [_, _, days, ..] = &self.fields;
        let by_number = bits(days, 1, last, first_weekday);
        let mut by_weekday = 0;
        let mut by_week = 0;
        for day in 1..=last {
            by_weekday |=
                (self.set(FieldName::DayOfWeek) >> ((first_weekday + day - 1) % 7) & 1) << day;
        }
        let days = if self.either_day { by_number | by_weekday } else { by_number & by_weekday };
        if self.fields[FieldName::Week as usize] == [Expr::Every { step: None }] {
            by_week = u64::from(u32::MAX);
        } else if days != 0 {
            for day in 1..=last {
                by_week |= (self.set(FieldName::Week) >> iso_week(year, month, day) & 1) << day;
            }
        }
        // Day 31 is the highest bit.
        u32::try_from(days & by_week & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// It goes through hours, minutes or seconds (`*`, `*/30`, `10-20/3`) instead of naming them:
    /// what it promises is a distance in time, not a place on the clock.
    pub fn is_interval(&self) -> bool {
        self.fields[FieldName::Hour as usize..].iter().flatten().any(Expr::repeats)
    }

    /// A day fits when its number or its weekday does.
    pub fn is_either_day(&self) -> bool {
        self.either_day
    }

    /// All eight fields in their one normal form, those that were not given filled in.
    pub fn expanded(&self) -> [(FieldName, String); 8] {
        let mut shown = FieldName::ALL.map(|name| (name, String::new()));
        for ((name, text), exprs) in shown.iter_mut().zip(&self.fields) {
            for (i, expr) in exprs.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                // Writing to a String does not fail.
                let _ = expr.write(&name.form(), text);
            }
        }
        shown
    }
}

/// The values of `exprs`, a bit each.
fn bits(exprs: &[Expr], min: u32, max: u32, first_weekday: u32) -> u64 {
    let mut set = 0;
    for expr in exprs {
        let mut from = min;
        while let Some(value) = expr.next(from, min, max, first_weekday) {
            set |= 1 << value;
            from = value + 1;
        }
    }
    set
}

/// Expressions with commas between; blanks around them mean nothing.
pub(super) fn list(form: &Form, text: &str) -> Result<Vec<Expr>, Invalid> {
    text.trim().split(',').map(|item| Expr::parse(form, item.trim_matches(' '))).collect()
}

fn checked(text: &str) -> Result<String, Invalid> {
    let wrong = |problem| Err(Invalid::new("schedule", problem));
    if text.len() > Rule::TEXT_MAX {
        return wrong(format!("has {} bytes, at most {} fit", text.len(), Rule::TEXT_MAX));
    }
    if text.contains(char::is_control) {
        return wrong(format!("must be one line without control characters, not {}", quote(text)));
    }
    Ok(text.to_owned())
}

fn unknown(key: &str) -> Invalid {
    let names = FieldName::ALL.map(FieldName::text).join(", ");
    let problem = format!("{} is no field of a schedule; there are {names}", quote(key));
    Invalid::new("schedule", problem)
}

/// `key=value key=value`, where a value may hold blanks: `day=last fri hour=3`.
fn pairs(text: &str) -> Result<Vec<(&str, &str)>, Invalid> {
    let mut parts = text.split('=');
    let mut key = parts.next().unwrap_or_default().trim();
    let mut parts = parts.peekable();
    let mut found = Vec::new();
    while let Some(part) = parts.next() {
        let part = part.trim();
        // What stands before the next '=' ends in the next key.
        let (value, next) = match parts.peek() {
            Some(_) => part.rsplit_once(' ').unwrap_or(("", part)),
            None => (part, ""),
        };
        if FieldName::of_text(key).is_none() {
            return Err(unknown(key));
        }
        if value.trim().is_empty() {
            return Err(Invalid::new(key, "has no value"));
        }
        found.push((key, value.trim()));
        key = next;
    }
    Ok(found)
}

impl FromStr for Rule {
    type Err = Invalid;
    /// Fields when it holds a `=`, else crontab text.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let kept = checked(text)?;
        if text.contains('=') || text.trim().is_empty() {
            let given = if text.contains('=') { pairs(text)? } else { Vec::new() };
            return Self::read_fields(kept, &given);
        }
        super::crontab::read(kept)
    }
}

impl fmt::Display for Rule {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({:?})", self.text)
    }
}
