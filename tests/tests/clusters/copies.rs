//! Standbys are copied, added, removed, and come back.

use std::fs;

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{member, report};
use lockstep_tests::until;

use super::{NODES, SOON, check, world, world_in_sync, write};

#[test]
fn a_standby_is_copied_anew_under_writes() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let before = fs::metadata(fleet.pg_data("db2")?.join("PG_VERSION"))?;
    fleet.ctl(&["cluster", "reclone", "main", "db2", "--yes"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    until(SOON, "the copy is recorded", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let there = member(&cluster, "db2")?;
        ensure!(there.copy == there.copied && there.copy > 0, "{there:?}");
        Ok(())
    });
    let after = fs::metadata(fleet.pg_data("db2")?.join("PG_VERSION"))?;
    ensure!(before.modified()? != after.modified()?, "it is the old directory");
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    check(&fleet, &client, writer)
}

#[test]
fn a_standby_is_removed_and_added_again() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "off"])?;
    let writer = write(&fleet, &client)?;
    fleet.ctl(&["cluster", "remove", "main", "db3", "--delete-data", "--yes"])?.ok()?;
    let data = fleet.pg_data("db3")?;
    until(SOON, "its data is gone", || !data.join("PG_VERSION").exists());
    until(SOON, "it is no member", || {
        fleet.cluster("main").is_ok_and(|cluster| cluster.members.len() == 2)
    });
    let (port, dir) = (fleet.pg_port("db3")?.to_string(), data.display().to_string());
    let add = ["cluster", "add-standby", "main", "db3", "--port", &port, "--data-dir", &dir];
    fleet.ctl(&[&add[..], &["--priority", "50"]].concat())?.ok()?;
    let cluster = fleet.wait_roles("main", "db1", &["db2", "db3"]);
    ensure!(member(&cluster, "db3")?.settings.iter().any(|s| s.name == "priority"));
    check(&fleet, &client, writer)
}

/// Fenced, stopped and in maintenance, each until it is taken back.
#[test]
fn a_standby_is_taken_out_and_back() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "off"])?;
    let writer = write(&fleet, &client)?;
    for (out, state, back) in [("fence", "fenced", "unfence"), ("stop", "stopped", "start")] {
        fleet.ctl(&["cluster", out, "main", "db2"])?.ok()?;
        until(SOON, &format!("it is {state}"), || -> Result<()> {
            let cluster = fleet.cluster("main")?;
            let seen = &report(&cluster, "db2")?.state;
            ensure!(seen == state, "{seen}");
            Ok(())
        });
        fleet.ctl(&["cluster", back, "main", "db2"])?.ok()?;
        fleet.wait_roles("main", "db1", &["db2", "db3"]);
    }
    fleet.ctl(&["cluster", "maintenance", "main", "db2"])?.ok()?;
    fleet.kill_postgres("db2")?;
    until(SOON, "it is told and left alone", || {
        let cluster = fleet.cluster("main").ok()?;
        (report(&cluster, "db2").ok()?.state == "crashed").then_some(())
    });
    fleet.ctl(&["cluster", "maintenance", "main", "db2", "--off"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    check(&fleet, &client, writer)
}

/// A standby's own crash is nobody else's.
#[test]
fn a_killed_standby_is_started_again() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let old = fleet.postmaster("db2")?;
    fleet.kill_postgres("db2")?;
    until(SOON, "it runs again", || fleet.postmaster("db2").is_ok_and(|pid| pid != old));
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    ensure!(fleet.failovers("main")?.is_empty());
    check(&fleet, &client, writer)?;
    let rows = fleet.rows(&client, &fleet.pg_target(&NODES)?)?;
    until(SOON, "it has all rows", || -> Result<()> {
        let there = fleet.rows(&client, &fleet.pg_reach(&["db2"])?)?;
        ensure!(there == rows, "{} of {}", there.len(), rows.len());
        Ok(())
    });
    Ok(())
}
