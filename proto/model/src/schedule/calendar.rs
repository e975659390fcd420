//! The Gregorian calendar as arithmetic, for years that a schedule can name. It repeats, weekdays
//! and ISO weeks included, every 400 years.

/// After so many years every date has the same weekday and ISO week again.
pub const CYCLE_YEARS: u32 = 400;

pub fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// 0 is Monday.
pub fn weekday(year: u32, month: u32, day: u32) -> u32 {
    // 0001-01-01 was a Monday.
    (days_before_year(year) + day_of_year(year, month, day) - 1) % 7
}

/// ISO 8601's week, 1 to 53: week 1 holds the year's first Thursday.
pub fn iso_week(year: u32, month: u32, day: u32) -> u32 {
    let week = (day_of_year(year, month, day) + 9 - weekday(year, month, day)) / 7;
    match week {
        0 => weeks_in_year(year - 1),
        53 if weeks_in_year(year) == 52 => 1,
        _ => week,
    }
}

fn weeks_in_year(year: u32) -> u32 {
    let first = weekday(year, 1, 1);
    if first == 3 || first == 2 && is_leap(year) { 53 } else { 52 }
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days from 0001-01-01 to the first day of `year`.
fn days_before_year(year: u32) -> u32 {
    let past = year - 1;
    365 * past + past / 4 - past / 100 + past / 400
}

/// 1 is the first of January.
fn day_of_year(year: u32, month: u32, day: u32) -> u32 {
    (1..month).map(|m| days_in_month(year, m)).sum::<u32>() + day
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekdays_and_iso_weeks() {
        for (date, expected) in [
            ((1970, 1, 1), (3, 1)),
            ((2014, 8, 13), (2, 33)),
            ((2016, 2, 29), (0, 9)),
            ((2020, 12, 31), (3, 53)),
            ((2021, 1, 3), (6, 53)),
            ((2021, 1, 4), (0, 1)),
            ((2024, 12, 29), (6, 52)),
            ((2024, 12, 30), (0, 1)),
            ((2026, 1, 1), (3, 1)),
            ((2027, 1, 3), (6, 53)),
            ((9999, 12, 31), (4, 52)),
        ] {
            let (year, month, day) = date;
            assert_eq!(
                (weekday(year, month, day), iso_week(year, month, day)),
                expected,
                "{date:?}"
            );
        }
    }

    #[test]
    fn the_calendar_repeats() {
        for (month, day) in [(1, 1), (1, 3), (2, 28), (12, 28), (12, 31)] {
            for year in 1970..1970 + CYCLE_YEARS {
                let later = year + CYCLE_YEARS;
                assert_eq!(days_in_month(year, 2), days_in_month(later, 2));
                assert_eq!(iso_week(year, month, day), iso_week(later, month, day));
                assert_eq!(weekday(year, month, day), weekday(later, month, day));
            }
        }
    }
}
