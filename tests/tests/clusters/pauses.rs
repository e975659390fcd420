//! People say that nothing is to be decided, or that a member is theirs for a while.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{member, report};
use lockstep_tests::{Fleet, try_until, until};

use super::{SOON, check, last_change, wait_other_primary, world, world_in_sync, write};

/// Longer than any lease and suspicion.
const MEANWHILE: Duration = Duration::from_secs(10);

fn pause(fleet: &Fleet) -> Result<()> {
    fleet.ctl(&["cluster", "pause", "main"])?.ok()?;
    until(SOON, "its lease has no end", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let state = cluster.state.unwrap_or_default();
        let lease = cluster.lease.unwrap_or_default();
        ensure!(cluster.paused && state.longest_lease_ms.is_none(), "{state:?}");
        ensure!(lease.left_ms.is_none(), "{lease:?}");
        Ok(())
    });
    Ok(())
}

fn nothing_is_decided(fleet: &Fleet) -> Result<()> {
    let begun = try_until(MEANWHILE, "a failover begins", || {
        fleet.failovers("main").is_ok_and(|all| !all.is_empty())
    });
    ensure!(begun.is_err(), "{:?}", fleet.failovers("main")?);
    Ok(())
}

#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_primary_that_dies_in_a_pause_is_started_where_it_was() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    pause(&fleet)?;
    let old = fleet.postmaster("db1")?;
    fleet.kill_postgres("db1")?;
    writer.wait_more(20);
    nothing_is_decided(&fleet)?;
    ensure!(fleet.postmaster("db1")? != old, "it was never killed");
    fleet.ctl(&["cluster", "resume", "main"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    // From now on it is as before.
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    until(SOON, "its lease ends again", || {
        let lease = fleet.cluster("main").ok()?.lease?;
        lease.left_ms.map(drop)
    });
    fleet.kill_postgres("db1")?;
    wait_other_primary(&fleet, "db1", &[]);
    last_change(&fleet, "crash")?;
    writer.wait_more(20);
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_primary_that_is_lost_in_a_pause_is_replaced_after_it() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    pause(&fleet)?;
    fleet.node("db1")?.host.power_off()?;
    nothing_is_decided(&fleet)?;
    let waits = fleet.ctl(&["cluster", "explain", "main"])?.ok()?;
    ensure!(waits.contains("resume"), "{waits}");
    fleet.ctl(&["cluster", "resume", "main"])?.ok()?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    let last = last_change(&fleet, "node-lost")?;
    ensure!(last.exclusion == "sealed" && last.lossless == Some(true), "{last:?}");
    writer.wait_more(20);
    check(&fleet, &client, writer)
}

/// Its lease has no end: only people know that it never writes again.
#[test]
#[ignore = "slow: waits that nothing is decided"]
fn an_asynchronous_one_that_is_lost_in_a_pause_is_replaced_when_people_say_so() -> Result<()> {
    let (_net, fleet, _client) = world(&["--sync", "off"])?;
    pause(&fleet)?;
    fleet.node("db1")?.host.power_off()?;
    nothing_is_decided(&fleet)?;
    fleet.ctl(&["cluster", "resume", "main"])?.ok()?;
    until(SOON, "it says what to do", || -> Result<()> {
        let waits = fleet.ctl(&["cluster", "explain", "main"])?.ok()?;
        ensure!(waits.contains("node expel db1"), "{waits}");
        Ok(())
    });
    let state = fleet.cluster("main")?.state.unwrap_or_default();
    ensure!(state.holder.is_empty() || state.holder == "db1", "{state:?}");
    fleet.ctl(&["node", "expel", "db1", "--yes"])?.ok()?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    let last = last_change(&fleet, "node-lost")?;
    ensure!(last.exclusion == "fenced", "{last:?}");
    Ok(())
}

/// The primary's part goes to another first; then the member is nobody's but the person's.
#[test]
fn a_primary_in_maintenance_hands_over_and_is_left_alone() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    fleet.ctl(&["cluster", "maintenance", "main", "db1"])?.ok()?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    let last = last_change(&fleet, "withdrawn")?;
    ensure!(last.lossless == Some(true), "{last:?}");
    let shown = fleet.cluster("main")?;
    ensure!(member(&shown, "db1")?.admin == "maintenance");
    writer.wait_more(20);
    // What is left of it is the person's to start.
    let left = try_until(Duration::from_secs(3), "something is done to it", || {
        let cluster = fleet.cluster("main").ok()?;
        (report(&cluster, "db1").ok()?.state == "standby").then_some(())
    });
    ensure!(left.is_err(), "it was started");
    fleet.ctl(&["cluster", "maintenance", "main", "db1", "--off"])?.ok()?;
    wait_other_primary(&fleet, "db1", &[]);
    ensure!(writer.failed() <= 2, "{:?}", writer.stop()?.failed);
    check(&fleet, &client, writer)
}
