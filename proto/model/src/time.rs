//! Time as a number that is passed in. Nothing here reads a clock.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

/// Milliseconds since the Unix epoch, UTC, on the controller's clock unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Millis(pub u64);

impl Millis {
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Text that is read back as the same value: `90s`, `1500ms`, `2h`, `1d`.
    pub fn exact(self) -> String {
        let whole = UNITS.iter().rev().find(|(_, ms)| self.0.is_multiple_of(*ms) && self.0 >= *ms);
        let (unit, ms) = whole.unwrap_or(&("s", 1000));
        format!("{}{unit}", self.0 / ms)
    }

    pub fn of(time: std::time::Duration) -> Self {
        Self(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Smallest first.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Millis {
    type Err = Invalid;
    /// A whole number and its unit: `500ms`, `10s`, `5m`, `2h`, `7d`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = text[..text.len() - unit.len()].parse::<u64>().ok();
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
        let product = number.zip(scale).and_then(|(number, ms)| number.checked_mul(ms));
        product.map(Self).ok_or_else(|| {
            let problem = format!("must look like 500ms, 10s, 5m, 2h or 7d, not {}", quote(text));
            Invalid::new("time", problem)
        })
    }
}

impl Timestamp {
    /// Time from `earlier` to `self`, zero when the clock went back.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Self;
    fn add(self, Millis(ms): Millis) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl From<Millis> for std::time::Duration {
    fn from(Millis(ms): Millis) -> Self {
        Self::from_millis(ms)
    }
}

impl fmt::Display for Millis {
    /// Short and for people: `850ms`, `12s`, `3m10s`, `2h5m`, `4d3h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0 / 1000;
        match s {
            0 => write!(f, "{}ms", self.0),
            1..60 => write!(f, "{s}s"),
            60..3600 => write!(f, "{}m{}s", s / 60, s % 60),
            3600..86_400 => write!(f, "{}h{}m", s / 3600, s % 3600 / 60),
            _ => write!(f, "{}d{}h", s / 86_400, s % 86_400 / 3600),
        }
    }
}

impl fmt::Display for Timestamp {
    /// UTC to the second: `2026-11-21T03:49:19Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0 / 1000;
        let (year, month, day) = civil(secs / 86_400);
        let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Year, month and day of a count of days since 1970-01-01. Years are counted from March, so that
/// the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let from_march_0000 = days + 719_468;
    let era = from_march_0000 / DAYS_IN_400_YEARS;
    let day = from_march_0000 % DAYS_IN_400_YEARS;
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, ms) in
            [("0s", 0), ("15m", 900_000), ("1500ms", 1500), ("2h", 7_200_000), ("7d", 604_800_000)]
        {
            assert_eq!(text.parse(), Ok(Millis(ms)));
            assert_eq!(Millis(ms).exact(), text);
        }
        for wrong in ["", "5", "s", "1.5s", "-1s", "10 s", "99999999999999999999s"] {
            assert!(wrong.parse::<Millis>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn timestamps_show_as_utc() {
        for (secs, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_232_959, "2026-11-21T03:49:19Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(secs * 1000).to_string(), shown);
        }
    }
}
