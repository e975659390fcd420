//! Lockstep itself goes: a healthy cluster does not notice.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::{try_until, until};

use super::{OUTAGE_MAX, SOON, check, wait_other_primary, world, world_in_sync, write};

/// Many times a lease.
const AWAY: Duration = Duration::from_secs(20);

fn without_a_controller(more: &[&str]) -> Result<()> {
    let (_net, mut fleet, client) = world(more)?;
    let writer = write(&fleet, &client)?;
    fleet.controller.daemon.kill()?;
    let failed = try_until(AWAY, "a write fails", || writer.failed() > 0);
    ensure!(failed.is_err(), "{:?}", writer.stop()?.failed);
    ensure!(fleet.pg_health("db1", "/primary")?.status == 200);
    ensure!(fleet.pg_health("db2", "/replica")?.status == 200);
    fleet.restart_controller()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    writer.wait_more(50);
    let gap = writer.longest_gap(0);
    ensure!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    check(&fleet, &client, writer)
}

#[test]
fn no_write_fails_for_want_of_a_controller() -> Result<()> {
    without_a_controller(&[])
}

#[test]
#[ignore = "slow: as long again, asynchronously"]
fn no_asynchronous_write_fails_either() -> Result<()> {
    without_a_controller(&["--sync", "off"])
}

#[test]
fn the_death_of_an_agent_is_not_that_of_its_database() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let before = fleet.postmaster("db1")?;
    for node in ["db1", "db2"] {
        fleet.restart_agent(node)?;
        writer.wait_more(30);
    }
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    // A lease later.
    let failed = try_until(OUTAGE_MAX * 2, "a write fails", || writer.failed() > 0);
    ensure!(failed.is_err(), "{:?}", writer.stop()?.failed);
    ensure!(fleet.postmaster("db1")? == before, "postgres was restarted");
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: an agent is away for many leases"]
fn an_agent_that_is_stopped_for_a_while_costs_no_write() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let before = fleet.postmaster("db1")?;
    let daemon = &mut fleet.node_mut("db1")?.daemon;
    daemon.term()?;
    daemon.wait_timeout(SOON)?;
    let failed = try_until(AWAY, "a write fails", || writer.failed() > 0);
    ensure!(failed.is_err(), "{:?}", writer.stop()?.failed);
    fleet.restart_agent("db1")?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    // Longer than what it was left with.
    let failed = try_until(AWAY, "a write fails", || writer.failed() > 0);
    ensure!(failed.is_err(), "{:?}", writer.stop()?.failed);
    ensure!(fleet.postmaster("db1")? == before, "postgres was restarted");
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    check(&fleet, &client, writer)
}

/// An agent that stays away cannot renew: its primary ends with the lease, by the guard.
#[test]
#[ignore = "slow: waits for a lease to end"]
fn a_primary_whose_agent_stays_away_ends_with_its_lease() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    fleet.node_mut("db1")?.daemon.kill()?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    writer.wait_more(20);
    fleet.restart_agent("db1")?;
    wait_other_primary(&fleet, "db1", &[]);
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: ten restarts"]
fn a_controller_that_restarts_again_and_again_disturbs_nothing() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let before = fleet.postmaster("db1")?;
    for _ in 0..10 {
        fleet.restart_controller()?;
        writer.wait_more(50);
    }
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    ensure!(fleet.postmaster("db1")? == before, "postgres was restarted");
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_paused_cluster_is_reported_and_left_alone() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    fleet.ctl(&["cluster", "pause", "main"])?.ok()?;
    until(SOON, "it is told", || fleet.cluster("main").is_ok_and(|cluster| cluster.paused));
    writer.wait_more(20);
    let waits = fleet.ctl(&["cluster", "explain", "main"])?.ok()?;
    ensure!(waits.contains("paused"), "{waits}");
    fleet.ctl(&["cluster", "resume", "main"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    check(&fleet, &client, writer)
}
