//! The controller dies in the middle of what it decides, or comes back with an old memory.

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, report};
use lockstep_tests::{Fleet, try_until, until};

use super::{NODES, SOON, check, roles, world_in_sync, write};

/// All is well: somebody is primary, the others follow, and nothing in the history is unfinished.
fn wait_well(fleet: &Fleet, not: Option<&str>) -> Result<()> {
    until(CHANGED_WITHIN, "somebody is primary, and the others follow", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let state = cluster.state.clone().unwrap_or_default();
        ensure!(state.stage == "steady" && Some(state.holder.as_str()) != not, "{state:?}");
        for node in NODES {
            let seen = report(&cluster, node)?;
            let role = if node == state.holder { "primary" } else { "standby" };
            let follows = node == state.holder || seen.upstream.is_some();
            ensure!(seen.state == role && follows, "{node}: {} {}", seen.state, seen.problem);
        }
        Ok(())
    });
    let all = fleet.failovers("main")?;
    ensure!(all.iter().all(|change| change.end != "running"), "{all:?}");
    fleet.wait_sync_any("main", 1);
    Ok(())
}

/// Until the history or the stage tells that it got so far, or past it.
fn wait_stage(fleet: &Fleet, stage: &str) {
    let _ = try_until(std::time::Duration::from_secs(1), stage, || {
        let state = fleet.cluster("main").ok()?.state?;
        (state.stage == stage).then_some(())
    });
}

const STAGES: [&str; 5] = ["", "preparing", "handing-over", "electing", "promoting"];

#[test]
#[ignore = "slow: a round per stage"]
fn a_controller_that_dies_in_a_switchover_ends_it_when_it_is_back() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    for stage in STAGES {
        fleet.ctl(&["cluster", "switchover", "main", "--no-wait"])?.ok()?;
        wait_stage(&fleet, stage);
        fleet.controller.daemon.kill()?;
        fleet.restart_controller()?;
        wait_well(&fleet, None)?;
        writer.wait_more(20);
    }
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: a round per stage"]
fn a_controller_that_dies_in_a_failover_ends_it_when_it_is_back() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    fleet.ctl(&["cluster", "edit", "main", "--failover-budget", "100"])?.ok()?;
    let writer = write(&fleet, &client)?;
    for stage in STAGES {
        let (holder, _) = roles(&fleet.cluster("main")?);
        fleet.kill_postgres(&holder)?;
        wait_stage(&fleet, stage);
        fleet.controller.daemon.kill()?;
        fleet.restart_controller()?;
        wait_well(&fleet, Some(&holder))?;
        writer.wait_more(20);
    }
    check(&fleet, &client, writer)
}

/// With nobody to decide, a primary that dies gives its part up, as it was told before.
#[test]
#[ignore = "slow: the controller is away"]
fn a_primary_that_dies_without_a_controller_is_replaced_when_it_is_back() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    fleet.controller.daemon.kill()?;
    fleet.kill_postgres("db1")?;
    fleet.restart_controller()?;
    wait_well(&fleet, Some("db1"))?;
    writer.wait_more(20);
    check(&fleet, &client, writer)
}

/// The store is as it was before a switchover: members know of a later term, and say so.
#[test]
#[ignore = "slow: the store is put back"]
fn an_old_copy_of_the_store_moves_no_primary() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let host = fleet.controller.host.clone();
    let copy = |from: &str, to: &str| -> Result<()> {
        host.run(lockstep_tests::cmd("rm").arg("-rf").arg(host.path(to)))?.ok()?;
        let (from, to) = (host.path(from), host.path(to));
        host.run(lockstep_tests::cmd("cp").arg("-a").arg(from).arg(to))?.ok()?;
        Ok(())
    };
    fleet.controller.daemon.kill()?;
    copy("data", "old")?;
    fleet.restart_controller()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db2"])?.ok()?;
    fleet.wait_roles("main", "db2", &["db1", "db3"]);
    fleet.wait_sync("main", 1, &["db1", "db3"]);
    let term = fleet.cluster("main")?.state.unwrap_or_default().term;
    let writer = write(&fleet, &client)?;

    fleet.controller.daemon.kill()?;
    copy("old", "data")?;
    fleet.restart_controller()?;
    until(SOON, "the old copy is noticed", || -> Result<()> {
        let explained = fleet.ctl(&["explain", "store"])?.ok()?;
        ensure!(explained.contains("store_behind"), "{explained}");
        Ok(())
    });
    // The primary that it does not know of writes on.
    writer.wait_more(200);
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    ensure!(fleet.pg_health("db2", "/primary")?.status == 200);
    fleet.ctl(&["store", "adopt", "--yes"])?.ok()?;
    wait_well(&fleet, None)?;
    let state = fleet.cluster("main")?.state.unwrap_or_default();
    ensure!(state.term > term, "{} is not above {term}", state.term);
    fleet.wait_roles("main", "db2", &["db1", "db3"]);
    writer.wait_more(20);
    // No member's ledger is stuck above what the store knows.
    fleet.wait_sync("main", 1, &["db1", "db3"]);
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db1"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    writer.wait_more(20);
    check(&fleet, &client, writer)
}
