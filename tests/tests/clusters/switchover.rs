//! The primary's part goes from one member to another because somebody wants it to.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::{cmd, try_until, until};

use super::{NODES, OUTAGE_MAX, SOON, check, last_change, outage, world, world_in_sync, write};

const REFUSED: i32 = 3;

#[test]
fn there_and_back_under_writes_loses_nothing() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    for (to, others) in [("db2", ["db1", "db3"]), ("db1", ["db2", "db3"])] {
        let gap = outage(&fleet, &writer, &format!("switchover to {to}"), || {
            let shown = fleet.ctl(&["cluster", "switchover", "main", "--to", to])?.ok()?;
            ensure!(shown.contains(to) && shown.contains("done"), "{shown}");
            Ok(())
        })?;
        ensure!(gap < OUTAGE_MAX, "writes stood still for {gap:?}");
        fleet.wait_roles("main", to, &others);
        let last = last_change(&fleet, "switchover")?;
        ensure!(last.to == to && last.lossless == Some(true), "{last:?}");
        ensure!(last.by.starts_with("user/"), "{last:?}");
    }
    check(&fleet, &client, writer)
}

#[test]
fn an_asynchronous_one_loses_nothing_either() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "off"])?;
    let writer = write(&fleet, &client)?;
    let switch = || fleet.ctl(&["cluster", "switchover", "main"])?.ok().map(drop);
    let gap = outage(&fleet, &writer, "asynchronous switchover", switch)?;
    ensure!(gap < OUTAGE_MAX, "writes stood still for {gap:?}");
    super::wait_other_primary(&fleet, "db1", &[]);
    last_change(&fleet, "switchover")?;
    check(&fleet, &client, writer)
}

#[test]
fn what_cannot_be_is_refused_and_what_is_later_waits() -> Result<()> {
    let (_net, fleet, _client) = world_in_sync()?;
    fleet.ctl(&["cluster", "edit", "main", "--member", "db3:never-promote=yes"])?.ok()?;
    for (args, says) in [
        (vec!["--to", "db3"], "never-promote"),
        (vec!["--to", "nobody"], "nobody"),
        (vec!["--at", "2020-01-01T00:00:00Z"], "at"),
    ] {
        let args = [&["cluster", "switchover", "main"], args.as_slice()].concat();
        let refused = fleet.ctl(&args)?;
        ensure!(refused.status.code() == Some(REFUSED), "{refused}");
        ensure!(refused.stderr.contains(says), "{refused}");
    }
    let here = fleet.ctl(&["cluster", "switchover", "main", "--to", "db1"])?;
    ensure!(here.status.success() || here.status.code() == Some(REFUSED), "{here}");
    ensure!(fleet.failovers("main")?.is_empty(), "nothing was to change");

    let in_a_month = date("+30 days", "+%F")?;
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db2", "--at", &in_a_month])?.ok()?;
    let waits = fleet.ctl(&["cluster", "show", "main"])?.ok()?;
    ensure!(waits.contains("switchover:") && waits.contains(&in_a_month), "{waits}");
    fleet.ctl(&["cluster", "switchover", "main", "--cancel"])?.ok()?;
    ensure!(fleet.cluster("main")?.state.unwrap_or_default().wanted.is_none());

    let at = date("+4 seconds", "+%FT%TZ")?;
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db2", "--at", &at])?.ok()?;
    let early = try_until(Duration::from_secs(1), "it begins too early", || {
        fleet.failovers("main").is_ok_and(|all| !all.is_empty())
    });
    ensure!(early.is_err(), "it began before its time");
    fleet.wait_roles("main", "db2", &["db1", "db3"]);
    Ok(())
}

/// The target goes in the middle: the old primary serves on, or the other one; never nobody.
#[test]
#[ignore = "slow: a host is off"]
fn a_target_that_goes_leaves_somebody_serving() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let begun = fleet.ctl(&["cluster", "switchover", "main", "--to", "db2", "--no-wait"])?;
    fleet.node("db2")?.host.power_off()?;
    begun.ok()?;
    writer.wait_more(50);
    until(SOON, "it has ended", || -> Result<()> {
        let all = fleet.failovers("main")?;
        ensure!(all.iter().all(|change| change.end != "running"), "{all:?}");
        let state = fleet.cluster("main")?.state.unwrap_or_default();
        ensure!(state.stage == "steady" && NODES.contains(&state.holder.as_str()), "{state:?}");
        Ok(())
    });
    check(&fleet, &client, writer)
}

/// UTC, from now.
fn date(after: &str, format: &str) -> Result<String> {
    let date = cmd("date").args(["-u", "-d", after, format]).output()?;
    Ok(String::from_utf8(date.stdout)?.trim().to_owned())
}
