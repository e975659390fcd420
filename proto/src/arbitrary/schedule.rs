//! Any schedule.

use lockstep_model::schedule::{
    Missed, Moment, Overlap, PassedOver, Policy, Progress, Rule, Schedule, ScheduleText,
};
use lockstep_model::{Millis, Timestamp};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub fn rule() -> impl Strategy<Value = Rule> {
    let texts = prop_oneof![
        "minute=(\\*/[1-9]|[0-5][0-9]|[0-9],5[0-9])( hour=[0-9])?( day=(last|2nd  Tue))?",
        "[0-9] (\\*|1[0-9]) \\* [1-9] (mon|\\*/2)",
    ];
    texts.prop_map(|text| text.parse().unwrap())
}

pub fn policy() -> impl Strategy<Value = Policy> {
    let (grace, splay) = (0..=Policy::GRACE_MAX.0, 0..=Policy::SPLAY_MAX.0);
    (select(&Missed::ALL), grace, select(&Overlap::ALL), splay).prop_map(
        |(missed, grace, overlap, splay)| Policy {
            missed,
            grace: Millis(grace),
            overlap,
            splay: Millis(splay),
        },
    )
}

/// Of this millennium.
fn moment(ms: std::ops::Range<u64>) -> impl Strategy<Value = Option<Moment>> {
    let zone = select(vec!["UTC", "Europe/Berlin", "-07:00"]);
    option::of(
        (ms, zone).prop_map(|(ms, zone)| Moment { at: Timestamp(ms), zone: zone.parse().unwrap() }),
    )
}

pub fn schedule() -> impl Strategy<Value = Schedule> {
    const BETWEEN: u64 = 2_000_000_000_000;
    let bounds = (moment(0..BETWEEN), moment(BETWEEN..2 * BETWEEN));
    let zone = select(vec!["UTC", "America/Argentina/Buenos_Aires", "+05:30"]);
    (rule(), zone, bounds, policy()).prop_map(|(rule, zone, (start, end), policy)| Schedule {
        rule,
        zone: zone.parse().unwrap(),
        start,
        end,
        policy,
    })
}

pub fn text() -> impl Strategy<Value = ScheduleText> {
    (".{0,20}", ".{0,9}", ".{0,20}", ".{0,20}", policy()).prop_map(
        |(rule, zone, start_date, end_date, policy)| ScheduleText {
            rule,
            zone,
            start_date,
            end_date,
            policy,
        },
    )
}

pub fn progress() -> impl Strategy<Value = Progress> {
    let passed_over = (0..=1000_u32, 0..=1000_u32, 0..=1000_u32)
        .prop_map(|(missed, overlapped, merged)| PassedOver { missed, overlapped, merged });
    let instants = prop::collection::btree_set(1..u64::MAX, 1..=Progress::OWED_MAX);
    (any::<u64>(), instants, option::of(1..u64::MAX), passed_over).prop_map(
        |(mark, instants, after, passed_over)| {
            let mut owed: Vec<Timestamp> = instants.into_iter().map(Timestamp).collect();
            let considered = owed.last().copied().unwrap_or_default();
            owed.truncate(Progress::OWED_MAX / 2);
            let next = after.map(|after| Timestamp(considered.0.saturating_add(after)));
            Progress { mark, considered, owed, next, passed_over }
        },
    )
}
