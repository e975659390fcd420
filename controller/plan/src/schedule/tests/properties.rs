//! What holds for every schedule: instants only grow, each fits, and a walk through every second
//! finds the same ones.

use jiff::civil::DateTime;
use lockstep_model::schedule::FieldName;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::schedule::zone::Place;

const WINDOW_S: i64 = 5 * 3600;

/// Most begin shortly before a clock is set.
const PLACES: [(&str, &str); 12] = [
    ("UTC", "2024-02-28T22:00:00Z"),
    ("America/New_York", "2026-03-08T05:30:00Z"),
    ("America/New_York", "2026-11-01T04:30:00Z"),
    ("America/Sao_Paulo", "2018-11-04T01:30:00Z"),
    ("America/Sao_Paulo", "2018-02-18T00:30:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T14:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T13:30:00Z"),
    ("Pacific/Apia", "2011-12-30T08:30:00Z"),
    ("Europe/Berlin", "2026-12-31T22:00:00Z"),
    ("Africa/Casablanca", "2024-03-10T00:30:00Z"),
    ("Pacific/Chatham", "2026-04-04T12:30:00Z"),
    ("+05:30", "2027-01-03T17:00:00Z"),
];

fn rule() -> impl Strategy<Value = Rule> {
    let days = select(vec![
        "",
        "",
        "",
        "day=last ",
        "day=*/2 ",
        "day_of_week=sun ",
        "week=1,53 ",
        "day=1st sun,30,31 ",
    ]);
    let hours = select(vec![
        "",
        "",
        "hour=* ",
        "hour=0 ",
        "hour=1,2,3 ",
        "hour=*/2 ",
        "hour=1-3 ",
        "hour=2/5 ",
    ]);
    let minutes = select(vec![
        "",
        "minute=* ",
        "minute=30 ",
        "minute=0,15 ",
        "minute=*/20 ",
        "minute=15/30 ",
        "minute=59 ",
    ]);
    let seconds = select(vec!["", "", "second=0 ", "second=59 ", "second=*/25 ", "second=17 "]);
    let fields = (days, hours, minutes, seconds);
    let crontab = select(vec!["*/15 * * * *", "30 2 * * *", "0 2 13 * 0", "0 0 */2 * 1-5"]);
    prop_oneof![
        9 => fields.prop_filter_map("nothing given", |(d, h, m, s)| {
            format!("{d}{h}{m}{s}").parse().ok()
        }),
        1 => crontab.prop_map(|text| text.parse().unwrap()),
    ]
}

fn fits(rule: &Rule, clock: DateTime) -> bool {
    let number = |n: i8| u32::try_from(n).unwrap();
    let is = |name, value: i8| rule.next_in(name, number(value)) == Some(number(value));
    let year = u32::try_from(clock.year()).unwrap();
    is(FieldName::Second, clock.second())
        && is(FieldName::Minute, clock.minute())
        && is(FieldName::Hour, clock.hour())
        && rule.next_year(year) == Some(year)
        && rule.days(year, number(clock.month())) >> number(clock.day()) & 1 == 1
}

/// By the words of the manual, second by second.
fn walk(timetable: &Timetable<'_>, from: i64) -> Vec<i64> {
    let (rule, zone) = (&timetable.schedule.rule, &timetable.zone);
    let second = |n: i64| jiff::SignedDuration::from_secs(n);
    let fires = |at: &i64| {
        let clock = zone.clock(*at).unwrap();
        let first_time = || match zone.place(clock) {
            Place::Twice { first, .. } => first == *at,
            _ => true,
        };
        if fits(rule, clock) && (rule.is_interval() || first_time()) {
            return true;
        }
        let before = zone.clock(at - 1).unwrap();
        let left_out = (clock.duration_since(before).as_secs() - 1).max(0);
        let left = (1..=left_out).any(|n| fits(rule, before + second(n)));
        let soon = || (0..3600).any(|n| fits(rule, clock + second(n)));
        left && !(rule.is_interval() && soon())
    };
    (from..from + WINDOW_S).filter(fires).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_through_every_second_finds_the_same(rule in rule(), (zone, from) in select(&PLACES[..])) {
        let schedule = Schedule { rule, ..schedule("second=*", zone) };
        let timetable = Timetable::new(&schedule).unwrap();
        let from = at(from);
        let next = |at: &Timestamp| timetable.next_after(*at);
        let end = Timestamp(from.0 + u64::try_from(WINDOW_S).unwrap() * 1000);
        let found: Vec<i64> = std::iter::successors(timetable.next_from(from), next)
            .take_while(|at| *at < end)
            .map(|at| i64::try_from(at.0 / 1000).unwrap())
            .collect();
        prop_assert!(found.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(found, walk(&timetable, i64::try_from(from.0 / 1000).unwrap()));
    }

    #[test]
    fn there_is_nothing_between_two_instants(
        rule in rule(),
        (zone, _) in select(&PLACES[..]),
        from in 0u64..4_000_000_000_000,
        part in 0.0f64..1.0,
    ) {
        let schedule = Schedule { rule, ..schedule("second=*", zone) };
        let timetable = Timetable::new(&schedule).unwrap();
        let next = timetable.next_from(Timestamp(from)).unwrap();
        prop_assert!(next.0 >= from && next.0.is_multiple_of(1000));
        let between = from + ((next.0 - from) as f64 * part) as u64;
        prop_assert_eq!(timetable.next_from(Timestamp(between)), Some(next));
        prop_assert!(timetable.next_after(next).unwrap() > next);
    }
}
