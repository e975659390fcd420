//! Schedules as their users see them: looked at before they are used, and followed.

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net};

#[test]
fn a_schedule_is_looked_at_before_it_is_used() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &[])?;
    let typed = [
        "schedule",
        "preview",
        "hour=2 minute=30",
        "--timezone",
        "america/new_york",
        "--start-date",
        "Sat, 6 Mar 2100 18:00 America/Los_Angeles",
        "--end-date",
        "2100-03-16",
        "-n",
        "3",
    ];
    let answer: v1::PreviewScheduleResponse = fleet.ask(&typed)?;
    let clocks: Vec<&str> = answer.instants.iter().map(|i| i.clock.as_str()).collect();
    // The clock leaves out half past two on the 14th.
    ensure!(
        clocks == ["2100-03-07 02:30:00 EST", "2100-03-08 02:30:00 EST", "2100-03-09 02:30:00 EST"],
        "{clocks:?}"
    );
    ensure!(answer.schedule.context("the schedule")?.timezone == "America/New_York");
    let table = fleet.ctl(&typed)?.ok()?;
    for words in [
        "fields:   year=* month=* day=* week=* day_of_week=* hour=2 minute=30 second=0",
        "start:    2100-03-07T02:00:00Z (2100-03-06 18:00:00 PST, America/Los_Angeles)",
        "end:      2100-03-16T04:00:00Z (2100-03-16 00:00:00 EDT, America/New_York)",
        "policy:   missed=once grace=1m overlap=queue splay=0s",
        "2100-03-07 02:30:00 EST  2100-03-07T07:30:00Z  in ",
    ] {
        ensure!(table.contains(words), "{words} is not in\n{table}");
    }
    let all = fleet.ctl(&[&typed[..9], &["-n", "20"]].concat())?.ok()?;
    ensure!(all.contains("2100-03-14 03:00:00 EDT"), "{all}");
    ensure!(all.contains("After these it fires never again."), "{all}");
    for (rule, words) in [
        ("minute=75", "minute: "),
        ("day=30 month=2", "can never fire"),
        ("@daily --x", "schedule"),
        ("", "nothing is given"),
    ] {
        let refused = fleet.ctl(&["schedule", "preview", rule])?;
        let stderr = refused.refused()?;
        ensure!(stderr.contains(words), "{rule}: {stderr}");
    }
    let stderr =
        fleet.ctl(&["schedule", "preview", "hour=4", "--timezone", "Berlin"])?.refused()?;
    ensure!(stderr.contains("no known time zone"), "{stderr}");
    Ok(())
}
