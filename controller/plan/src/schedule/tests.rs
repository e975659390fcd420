//! Against the oracle, against a slow and simple reading of the same rules, and where clocks are set.

mod clocks;
mod due;
mod oracle;
mod properties;

use lockstep_model::Timestamp;
use lockstep_model::schedule::{Policy, Rule, Schedule};

use super::*;

pub fn schedule(rule: &str, zone: &str) -> Schedule {
    let rule: Rule = rule.parse().unwrap_or_else(|e| panic!("{rule}: {e}"));
    let zone = zone.parse().unwrap();
    Schedule { rule, zone, start: None, end: None, policy: Policy::default() }
}

/// An instant by its RFC 3339 text.
pub fn at(text: &str) -> Timestamp {
    let instant: jiff::Timestamp = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    Timestamp(instant.as_millisecond().try_into().unwrap())
}

/// The next `count` instants from `from` on, on the schedule's clock with its distance from UTC.
pub fn fires(rule: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = schedule(rule, zone);
    let timetable = Timetable::new(&schedule).unwrap();
    let show = |at: Timestamp| {
        let seconds = i64::try_from(at.0 / 1000).unwrap();
        let clock = timetable.zone().clock(seconds).unwrap();
        format!("{}{}", clock.strftime("%Y-%m-%dT%H:%M:%S"), timetable.zone().distance(seconds))
    };
    timetable.preview(at(from), count).into_iter().map(show).collect()
}
