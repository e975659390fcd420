//! What following schedules costs, as figures for people. It is apart from the planner, which knows
//! no clock.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout)]

use std::fs;

use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::record::{Change, Record, Versioned};
use lockstep_model::schedule::{Progress, ScheduleText};
use lockstep_model::sync::{Schedules, Sync, SyncOptions};
use lockstep_model::{KeyHash, Revision, Timestamp};
use lockstep_plan::schedule::follow::{Course, Place};
use lockstep_plan::schedule::understand;
use lockstep_plan::{World, plan};

/// Of the processor, by this thread: whatever else the machine does.
fn spent_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

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
        let begun = spent_ns();
        for _ in 0..times {
            for (schedule, progress) in schedules.iter().zip(&mut progress) {
                let look = Course::of(schedule).look("fedora", progress, Place::Free, now).unwrap();
                if let Some(kept) = look.progress {
                    *progress = kept;
                }
            }
        }
        let ns = (spent_ns() - begun) / u64::from(times);
        println!("{what}: {} ns each, {} us for {SCHEDULES}", ns / u64::from(SCHEDULES), ns / 1000);
    }
}

fn node(name: &str) -> Record {
    Record::Node(Node {
        name: name.parse().unwrap(),
        labels: Default::default(),
        admin: NodeAdmin::Enabled,
        key_hash: KeyHash([7; 32]),
        addresses: vec![format!("{name}:7402").parse().unwrap()],
        created_at: Timestamp(0),
    })
}

fn sync(name: &str, targets: u32, schedules: Schedules) -> Record {
    let target = |n: u32| format!("w{n:03}:/srv/{name}").parse().unwrap();
    Record::Sync(Sync {
        name: name.parse().unwrap(),
        source: format!("m:/srv/{name}").parse().unwrap(),
        targets: (0..targets).map(target).collect(),
        selected: None,
        options: SyncOptions { schedules, ..SyncOptions::default() },
        paused: false,
        generation: 0,
        comments: Vec::new(),
        created_at: Timestamp(0),
    })
}

/// A plan in which nothing is to be done, of 10 syncs to 500 targets.
#[test]
#[ignore = "prints figures"]
fn cost_of_a_quiet_plan() {
    let (targets, now) = (500, Timestamp(1_772_323_200_000));
    let hourly = |rule: &str| Some(rule.parse().unwrap());
    let scheduled = Schedules {
        resync: hourly("hour=*"),
        scrub: hourly("hour=*"),
        verify: hourly("hour=*"),
        ..Default::default()
    };
    for (what, schedules) in
        [("without schedules", Schedules::default()), ("with three each", scheduled)]
    {
        let nodes = (0..targets).map(|n| node(&format!("w{n:03}"))).chain([node("m")]);
        let syncs = (0..10).map(|n| sync(&format!("s{n}"), targets, schedules.clone()));
        let records = nodes.chain(syncs);
        let record = |value| Versioned { revision: Revision(1), value };
        let mut world = World::from_records(Revision(1), records.map(record));
        while let Some(txn) = plan(&world, now).txn(&world, now) {
            world.apply(&Change::of(txn));
        }
        let least = (0..30).map(|_| {
            let begun = spent_ns();
            assert!(plan(&world, now).writes.is_empty());
            (spent_ns() - begun) / 1000
        });
        println!("{what}: {} us a plan", least.min().unwrap());
    }
}
