//! Schedules as their users see them: looked at before they are used, and followed.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net, until};

const SOON: Duration = Duration::from_secs(90);

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

/// Verifications of `www` that were given, by their target; the oldest first.
fn verifications(fleet: &Fleet) -> Result<Vec<v1::Task>> {
    let list = fleet.ask::<v1::ListTasksResponse>(&["task", "list", "--slot", "verify/www"])?;
    Ok(list.tasks)
}

/// How far the yearly scrub of a target was followed, as the store has it.
fn followed(fleet: &Fleet, target: &str) -> Result<serde_json::Value> {
    let export = fleet.ctl(&["store", "export"])?.ok()?;
    let key = format!("\"sync-state/www/{target}\"");
    let line = export.lines().find(|line| line.contains(&key)).context("a record")?;
    let record: serde_json::Value = serde_json::from_str(line)?;
    let progress = &record["record"]["sync_state"]["scrub"];
    ensure!(progress["considered_ms"] != "0", "{line}");
    Ok(progress.clone())
}

fn done_of(tasks: &[v1::Task], target: &str) -> BTreeSet<String> {
    let slot = format!("verify/www/{target}");
    let done = |task: &&v1::Task| task.slot == slot && task.outcome.is_some();
    tasks.iter().filter(done).map(|task| task.id.clone()).collect()
}

#[test]
fn copies_are_verified_by_a_schedule_that_a_killed_controller_goes_on_with() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    let update = [
        "sync",
        "update",
        "www",
        "--verify-schedule",
        "second=*/5",
        "--scrub-schedule",
        "month=1",
        "--verify-every",
        "none",
        "--schedule-timezone",
        "europe/berlin",
    ];
    fleet.ctl(&update)?.ok()?;
    let shown = fleet.ctl(&["sync", "show", "www"])?.ok()?;
    ensure!(shown.contains("verify:") && shown.contains("next at "), "{shown}");
    let why = fleet.ctl(&["explain", "sync/www"])?.ok()?;
    ensure!(why.contains("verify by 'second=*/5': next at "), "{why}");
    // What nobody told of is found and repaired.
    fs::write(fleet.www("web1")?.join("index.html"), "spoiled")?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    until(SOON, "both were verified", || -> Result<()> {
        let tasks = verifications(&fleet)?;
        ensure!(["web1", "web2"].iter().all(|target| !done_of(&tasks, target).is_empty()));
        Ok(())
    });

    let yearly = followed(&fleet, "web1")?;
    fleet.controller.daemon.kill()?;
    fleet.restart_controller()?;
    ensure!(followed(&fleet, "web1")? == yearly, "it was begun anew: {yearly}");
    let before = verifications(&fleet)?;
    until(SOON, "both were verified again", || -> Result<()> {
        let tasks = verifications(&fleet)?;
        let more = |target: &&str| done_of(&tasks, target).len() > done_of(&before, target).len();
        ensure!(["web1", "web2"].iter().all(more), "{tasks:?}");
        Ok(())
    });

    // Paused, nothing runs; the schedule's end leaves nothing behind.
    fleet.ctl(&["sync", "pause", "www", "--wait"])?.ok()?;
    let shown = fleet.ctl(&["sync", "show", "www"])?.ok()?;
    ensure!(shown.contains("not while the sync is paused"), "{shown}");
    let export = fleet.ctl(&["store", "export"])?.ok()?;
    ensure!(!export.contains("sync-state/"), "{export}");
    fleet.ctl(&["sync", "resume", "www", "--wait"])?.ok()?;
    let export = fleet.ctl(&["store", "export"])?.ok()?;
    ensure!(export.contains("sync-state/www/web1"), "{export}");
    let refused = fleet.ctl(&["sync", "update", "www", "--schedule-timezone", "Berlin"])?;
    ensure!(refused.refused()?.contains("schedule-timezone"));
    let refused = fleet.ctl(&["sync", "update", "www", "--resync-schedule", "minute=75"])?;
    ensure!(refused.refused()?.contains("--resync-schedule"));
    Ok(())
}
