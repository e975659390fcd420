//! The eight fields: their order, their ranges, their names, and what one means that is not given.

use std::fmt;

/// From the slowest to the fastest. The first four and `day_of_week` choose days.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FieldName {
    Year,
    Month,
    Day,
    Week,
    DayOfWeek,
    Hour,
    Minute,
    Second,
}

pub(super) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
pub(super) const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

impl FieldName {
    pub const ALL: [Self; 8] = [
        Self::Year,
        Self::Month,
        Self::Day,
        Self::Week,
        Self::DayOfWeek,
        Self::Hour,
        Self::Minute,
        Self::Second,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Month => "month",
            Self::Day => "day",
            Self::Week => "week",
            Self::DayOfWeek => "day_of_week",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
        }
    }

    pub fn of_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.text() == text)
    }

    pub fn min(self) -> u32 {
        self.form().min
    }

    pub fn max(self) -> u32 {
        self.form().max
    }

    /// What it means behind the last field that is given; before that one every field means `*`.
    pub(super) fn default(self) -> &'static str {
        match self {
            Self::Month | Self::Day => "1",
            Self::Hour | Self::Minute | Self::Second => "0",
            Self::Year | Self::Week | Self::DayOfWeek => "*",
        }
    }

    pub(super) fn form(self) -> Form {
        let (min, max, names, first_name): (u32, u32, &'static [&'static str], u32) = match self {
            Self::Year => (1970, 9999, &[], 0),
            Self::Month => (1, 12, &MONTHS, 1),
            Self::Day => (1, 31, &[], 0),
            Self::Week => (1, 53, &[], 0),
            Self::DayOfWeek => (0, 6, &WEEKDAYS, 0),
            Self::Hour => (0, 23, &[], 0),
            Self::Minute | Self::Second => (0, 59, &[], 0),
        };
        Form { name: self, min, max, names, first_name, days_of_month: self == Self::Day }
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What may stand in a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub name: FieldName,
    pub min: u32,
    pub max: u32,
    pub names: &'static [&'static str],
    /// The number of the first of `names`.
    pub first_name: u32,
    /// `last`, `last fri`, `3rd mon`.
    pub days_of_month: bool,
}

impl Form {
    /// The number behind a name, in any case.
    pub fn number_of(&self, name: &str) -> Option<u32> {
        let at = self.names.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u32::try_from(at).ok().map(|at| at + self.first_name)
    }

    pub fn name_of(&self, number: u32) -> Option<&'static str> {
        let at = usize::try_from(number.checked_sub(self.first_name)?).ok()?;
        self.names.get(at).copied()
    }

    /// For error messages.
    pub fn allowed(&self) -> String {
        let Self { min, max, .. } = self;
        let names = match self.names {
            [first, .., last] => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        let days = if self.days_of_month { ", last, last fri, 1st mon to 5th sun" } else { "" };
        let from = min + (max - min) / 4;
        let to = max - (max - min) / 4;
        format!(
            "allowed are {min} to {max}{names}, ranges {from}-{to}, steps */2, {from}-{to}/2 and \
             {from}/2{days}, and lists of these with commas"
        )
    }
}
