//! What following schedules costs, as figures for people. It is apart from the planner, which knows
//! no clock.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use lockstep_model::Timestamp;
use lockstep_model::schedule::{Progress, ScheduleText};
use lockstep_plan::schedule::follow::{Course, Place};
use lockstep_plan::schedule::understand;

/// `cargo nextest run -p lockstep-plan cost --run-ignored all --no-capture`
#[test]
#[ignore = "prints figures"]
fn cost_of_following() {
    const SCHEDULES: u32 = 5000;
    // 2026-03-01T00:00:00Z.
    let minutes = |n: u64| Timestamp(1_772_323_200_000 + n * 60_000);
    let schedules: Vec<_> = (0..SCHEDULES)
        .map(|i| {
            let zone = ["UTC", "Europe/Berlin", "America/New_York"][i as usize % 3].to_owned();
            let rule = format!("minute=*/{}", i % 5 + 1);
            understand(&ScheduleText { rule, zone, ..Default::default() }, minutes(0)).unwrap()
        })
        .collect();
    let mut progress = vec![Progress::default(); schedules.len()];
    for (what, now, times) in [
        ("first look", minutes(0), 1_u32),
        ("nothing due", minutes(0), 100),
        ("most due", minutes(4), 1),
        ("all due, after a day", minutes(24 * 60), 1),
    ] {
        let begun = Instant::now();
        for _ in 0..times {
            for (schedule, progress) in schedules.iter().zip(&mut progress) {
                let look = Course::of(schedule).look("fedora", progress, Place::Free, now).unwrap();
                if let Some(kept) = look.progress {
                    *progress = kept;
                }
            }
        }
        let ns = begun.elapsed().as_nanos() / u128::from(times);
        println!(
            "{what}: {} ns each, {} us for {SCHEDULES}",
            ns / u128::from(SCHEDULES),
            ns / 1000
        );
    }
}
