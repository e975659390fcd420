//! Hosts and lines are lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::report;
use lockstep_tests::{Fleet, Writer, try_until, until};

use super::{
    NODES, OUTAGE_MAX, check, last_change, outage, wait_other_primary, world, world_in_sync, write,
};

/// A lease's five seconds, the client's own patience and a busy machine.
const ASYNC_OUTAGE_MAX: Duration = Duration::from_secs(15);

fn power_on(fleet: &mut Fleet, node: &str) -> Result<()> {
    let host = fleet.node(node)?.host.clone();
    host.power_on()?;
    fleet.run_agent(host)
}

#[test]
fn a_synchronous_cluster_survives_the_loss_of_its_primarys_host() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let gap = outage(&fleet, &writer, "node loss", || fleet.node("db1")?.host.power_off())?;
    ensure!(gap < OUTAGE_MAX * 2, "writes stood still for {gap:?}");
    wait_other_primary(&fleet, "db1", &["db1"]);
    let last = last_change(&fleet, "node-lost")?;
    ensure!(last.exclusion == "sealed" && last.lossless == Some(true), "{last:?}");
    power_on(&mut fleet, "db1")?;
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    ensure!(report(&cluster, "db1")?.state == "standby");
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: waits for a lease to end"]
fn an_asynchronous_cluster_waits_for_the_lease_of_a_lost_host() -> Result<()> {
    let (_net, mut fleet, client) = world(&["--sync", "off"])?;
    let writer = write(&fleet, &client)?;
    let gap = outage(&fleet, &writer, "node loss", || fleet.node("db1")?.host.power_off())?;
    ensure!(gap < ASYNC_OUTAGE_MAX, "writes stood still for {gap:?}");
    wait_other_primary(&fleet, "db1", &["db1"]);
    let last = last_change(&fleet, "node-lost")?;
    ensure!(last.exclusion == "lease-ended" && last.lossless != Some(true), "{last:?}");
    power_on(&mut fleet, "db1")?;
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    ensure!(report(&cluster, "db1")?.state == "standby");
    // Some of the last rows may be lost, and none is there twice.
    let written = writer.stop()?;
    let present = fleet.rows(&client, &fleet.pg_target(&NODES)?)?;
    let lost = written.lost(&present)?;
    ensure!(lost.len() < 100, "{} rows are lost", lost.len());
    // Every member tells the same.
    for node in NODES {
        until(super::SOON, &format!("{node} has the same rows"), || -> Result<()> {
            let rows = fleet.rows(&client, &fleet.pg_reach(&[node])?)?;
            ensure!(rows == present, "{} of {}", rows.len(), present.len());
            Ok(())
        });
    }
    Ok(())
}

/// Whoever writes on the cut-off host is refused before anybody writes elsewhere.
fn never_two_writers(more: &[&str], sync: bool) -> Result<()> {
    let (_net, fleet, client) = world(more)?;
    if sync {
        fleet.wait_sync("main", 1, &["db2", "db3"]);
    }
    fleet.make_table_named(&client, &NODES, "alone")?;
    let cut_off = fleet.node("db1")?.host.clone();
    let local = Writer::start_into(&cut_off, &fleet.pg_target(&["db1"])?, "alone");
    cut_off.isolate()?;
    let others = Writer::start(&client, &fleet.pg_target(&["db2", "db3"])?);
    wait_other_primary(&fleet, "db1", &["db1"]);
    others.wait_more(20);
    let (local, others) = (local.stop()?, others.stop()?);
    let last = local.last.context("the local one wrote before")?;
    let first = others.first.context("the other one wrote")?;
    ensure!(last < first, "two wrote for {:?}", last.duration_since(first));

    cut_off.rejoin()?;
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    ensure!(report(&cluster, "db1")?.state == "standby");
    fleet.check_written(&client, &NODES, &others)
}

#[test]
fn a_cut_off_synchronous_primary_is_no_second_writer() -> Result<()> {
    never_two_writers(&[], true)
}

#[test]
#[ignore = "slow: waits for a lease to end"]
fn a_cut_off_asynchronous_primary_is_no_second_writer() -> Result<()> {
    never_two_writers(&["--sync", "off"], false)
}

#[test]
fn a_lost_synchronous_standby_stops_nothing_while_another_is_there() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let gap = outage(&fleet, &writer, "standby loss", || fleet.node("db2")?.host.power_off())?;
    ensure!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    fleet.wait_roles("main", "db1", &["db3"]);
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    power_on(&mut fleet, "db2")?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    check(&fleet, &client, writer)
}

/// With nobody left to acknowledge, writes wait; or with `degrade` they go on unprotected, and that
/// is loud.
#[test]
#[ignore = "slow: two hosts go and come"]
fn a_shortage_waits_or_degrades() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    for node in ["db2", "db3"] {
        fleet.node(node)?.host.power_off()?;
    }
    let stuck = writer.acknowledged();
    let more = try_until(Duration::from_secs(5), "a write is acknowledged", || {
        writer.acknowledged() > stuck + 1
    });
    ensure!(more.is_err(), "something was acknowledged by nobody");
    fleet.ctl(&["cluster", "edit", "main", "--on-sync-shortage", "degrade"])?.ok()?;
    writer.wait_more(20);
    let shown = fleet.ctl(&["cluster", "show", "main"])?.ok()?;
    ensure!(shown.contains("off"), "{shown}");
    ensure!(fleet.ctl(&["cluster", "check", "main"])?.status.code() == Some(1), "it is not loud");
    for node in ["db2", "db3"] {
        power_on(&mut fleet, node)?;
    }
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    check(&fleet, &client, writer)
}

/// The primary's lines to its standbys are cut, and the controller hears all of them: no failover would
/// make that better, and commits wait or go on by the policy.
#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_primary_that_only_its_standbys_lost_stays_primary() -> Result<()> {
    let (net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let primary = &fleet.node("db1")?.host;
    net.cut(primary, &fleet.node("db2")?.host)?;
    fleet.wait_sync("main", 1, &["db3"]);
    writer.wait_more(20);
    net.cut(primary, &fleet.node("db3")?.host)?;
    until(super::SOON, "commits wait", || -> Result<()> {
        let before = writer.acknowledged();
        let more = try_until(Duration::from_secs(2), "one more", || writer.acknowledged() > before);
        ensure!(more.is_err(), "one was acknowledged");
        Ok(())
    });
    let begun = try_until(Duration::from_secs(6), "a failover begins", || {
        fleet.failovers("main").is_ok_and(|all| !all.is_empty())
    });
    ensure!(begun.is_err(), "{:?}", fleet.failovers("main")?);
    ensure!(fleet.pg_health("db1", "/leader")?.status == 200, "it lost its lease");
    fleet.ctl(&["cluster", "edit", "main", "--on-sync-shortage", "degrade"])?.ok()?;
    writer.wait_more(20);
    for node in ["db2", "db3"] {
        net.heal(primary, &fleet.node(node)?.host)?;
    }
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    ensure!(fleet.failovers("main")?.is_empty(), "{:?}", fleet.failovers("main")?);
    check(&fleet, &client, writer)
}

/// The third member alone cannot tell what the chosen one and the old primary have; with the old primary it
/// can: the chosen one acknowledges nothing without the third. `stage`: how far the chosen one gets.
fn lost_after_the_choice(stage: &str) -> Result<()> {
    let (net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    writer.wait_more(20);
    // So that the third one gets nothing of the chosen one, whenever that is lost.
    net.cut(&fleet.node("db2")?.host, &fleet.node("db3")?.host)?;
    fleet.node("db1")?.host.power_off()?;
    let chosen = until(super::SOON, "somebody is chosen", || -> Result<String> {
        let state = fleet.cluster("main")?.state.context("no state")?;
        ensure!(!state.holder.is_empty() && state.holder != "db1", "{}", state.stage);
        ensure!(stage == "promoting" || state.stage == stage, "{}", state.stage);
        Ok(state.holder)
    });
    fleet.node(&chosen)?.host.power_off()?;
    let third = if chosen == "db2" { "db3" } else { "db2" };
    let alone = try_until(Duration::from_secs(5), "the third one is chosen", || {
        fleet.cluster("main").is_ok_and(|all| all.state.is_some_and(|state| state.holder == third))
    });
    ensure!(alone.is_err(), "{third} alone may lack what was acknowledged");
    let before = writer.acknowledged();
    power_on(&mut fleet, "db1")?;
    wait_other_primary(&fleet, &chosen, &[&chosen]);
    writer.wait_more(20);
    eprintln!("longest outage, from the loss on: {:?}", writer.longest_gap(before));
    net.heal(&fleet.node("db2")?.host, &fleet.node("db3")?.host)?;
    power_on(&mut fleet, &chosen)?;
    wait_other_primary(&fleet, &chosen, &[]);
    check(&fleet, &client, writer)
}

#[test]
fn one_that_is_lost_in_its_promotion_is_replaced_by_those_who_are_back() -> Result<()> {
    lost_after_the_choice("promoting")
}

#[test]
#[ignore = "slow: two hosts are lost"]
fn one_that_is_lost_before_anybody_follows_it_is_replaced_by_those_who_are_back() -> Result<()> {
    lost_after_the_choice("steady")
}
