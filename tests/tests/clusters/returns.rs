//! Members that come back with other data than the cluster's, with none, or in the middle of a copy.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{member, report};
use lockstep_tests::{Fleet, Host, Net, Writer, sql, until};

use super::{NODES, SOON, check, wait_other_primary, world, world_in_sync, write};

/// A rewind changes what is in the directory, a new copy takes its place.
pub(super) fn identity(fleet: &Fleet, node: &str) -> Result<u64> {
    Ok(fs::metadata(fleet.pg_data(node)?)?.ino())
}

/// Where a primary that is cut off goes on alone for a while.
pub(super) fn loose(more: &[&str]) -> Result<(Net, Fleet, Host)> {
    world(&[&["--sync", "off", "--lease", "3s"], more].concat())
}

/// From here on db1 has rows that nobody else has, and is cut off; another is primary, and has one of
/// its own.
pub(super) fn stray(fleet: &Fleet, client: &Host) -> Result<()> {
    let cut_off = fleet.node("db1")?.host.clone();
    let local = Writer::start(&cut_off, &fleet.pg_target(&["db1"])?);
    cut_off.isolate()?;
    local.wait_more(20);
    drop(local);
    wait_other_primary(fleet, "db1", &["db1"]);
    let target = fleet.pg_target(&["db2", "db3"])?;
    sql::ask(client, &target, "insert into written values (1000000)").map(drop)
}

pub(super) fn with_a_stray(more: &[&str]) -> Result<(Net, Fleet, Host)> {
    let (net, fleet, client) = loose(more)?;
    stray(&fleet, &client)?;
    Ok((net, fleet, client))
}

pub(super) fn rows_are_the_same(fleet: &Fleet, client: &Host) -> Result<()> {
    let present = fleet.rows(client, &fleet.pg_target(&NODES)?)?;
    ensure!(present.contains(&1_000_000), "the new primary's own row is gone");
    for node in NODES {
        until(SOON, &format!("{node} has the same rows"), || -> Result<()> {
            let rows = fleet.rows(client, &fleet.pg_reach(&[node])?)?;
            ensure!(rows == present, "{} of {}", rows.len(), present.len());
            Ok(())
        });
    }
    Ok(())
}

#[test]
#[ignore = "slow: waits for a lease to end"]
fn an_old_primary_that_went_on_alone_is_rewound() -> Result<()> {
    let (_net, fleet, client) = with_a_stray(&[])?;
    let before = identity(&fleet, "db1")?;
    fleet.node("db1")?.host.rejoin()?;
    wait_other_primary(&fleet, "db1", &[]);
    ensure!(identity(&fleet, "db1")? == before, "it was copied anew");
    rows_are_the_same(&fleet, &client)
}

/// Nobody reads what is half of one history and half of another.
#[test]
#[ignore = "slow: waits for a lease to end"]
fn a_rewind_that_is_interrupted_is_ended_later() -> Result<()> {
    let (_net, mut fleet, client) = with_a_stray(&[])?;
    let host = fleet.node("db1")?.host.clone();
    host.rejoin()?;
    until(SOON, "it is rewound", || host.processes("pg_rewind").is_ok_and(|all| !all.is_empty()));
    host.kill_all()?;
    fleet.restart_agent("db1")?;
    wait_other_primary(&fleet, "db1", &[]);
    rows_are_the_same(&fleet, &client)
}

#[test]
#[ignore = "slow: waits for a lease to end"]
fn one_that_may_not_be_rewound_is_copied_anew() -> Result<()> {
    let (_net, fleet, client) = with_a_stray(&["--rewind=no"])?;
    let before = identity(&fleet, "db1")?;
    fleet.node("db1")?.host.rejoin()?;
    wait_other_primary(&fleet, "db1", &[]);
    ensure!(identity(&fleet, "db1")? != before, "it is the old directory");
    rows_are_the_same(&fleet, &client)
}

/// Nobody reads what only it has, and a person decides.
#[test]
#[ignore = "slow: waits for a lease to end"]
fn one_that_may_not_be_mended_stays_closed_until_somebody_says_so() -> Result<()> {
    let (_net, fleet, client) = with_a_stray(&["--rewind=no", "--reclone=no"])?;
    fleet.node("db1")?.host.rejoin()?;
    until(SOON, "it is told", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let seen = report(&cluster, "db1")?;
        ensure!(seen.state == "diverged" && seen.problem.contains("reclone"), "{seen:?}");
        Ok(())
    });
    let read = sql::value(&client, &fleet.pg_reach(&["db1"])?, "select 1");
    ensure!(read.is_err(), "it can be read");
    ensure!(fleet.pg_health("db1", "/replica")?.status == 503);
    fleet.ctl(&["cluster", "reclone", "main", "db1", "--yes"])?.ok()?;
    wait_other_primary(&fleet, "db1", &[]);
    rows_are_the_same(&fleet, &client)
}

/// What a member has beside its data, of copies that are under way or were.
fn beside(fleet: &Fleet, node: &str) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(fleet.node(node)?.host.path("pg"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn wait_copying(fleet: &Fleet, node: &str) -> Result<()> {
    let half = fleet.node(node)?.host.path("pg/data.lockstep/copy/base");
    until(SOON, "a copy is under way", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let seen = report(&cluster, node)?;
        let what = seen.progress.as_ref().map_or("", |progress| &progress.what);
        ensure!(seen.state == "copying" && what == "clone", "{} {:?}", seen.state, seen.progress);
        ensure!(half.exists(), "nothing has come yet");
        Ok(())
    });
    Ok(())
}

/// Killed in the middle, it begins again; taken out in the middle, it leaves nothing.
#[test]
#[ignore = "slow: copies over a slow line"]
fn a_copy_that_is_interrupted_leaves_nothing_half() -> Result<()> {
    let (_net, mut fleet, client) = world(&["--sync", "off"])?;
    let writer = write(&fleet, &client)?;
    let clean = beside(&fleet, "db3")?;
    let before = identity(&fleet, "db3")?;
    let host = fleet.node("db3")?.host.clone();
    host.rate(Some(10_000_000))?;
    let reclone = ["cluster", "reclone", "main", "db3", "--yes", "--no-wait"];
    fleet.ctl(&reclone)?.ok()?;
    wait_copying(&fleet, "db3")?;
    ensure!(identity(&fleet, "db3")? == before, "the old data went before the copy was there");
    host.kill_all()?;
    fleet.restart_agent("db3")?;
    wait_copying(&fleet, "db3")?;
    host.rate(None)?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    until(SOON, "the copy is recorded", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let there = member(&cluster, "db3")?;
        ensure!(there.copy == there.copied && there.copy > 0, "{there:?}");
        Ok(())
    });
    ensure!(identity(&fleet, "db3")? != before, "it is the old directory");
    until(SOON, "nothing else is left", || beside(&fleet, "db3").is_ok_and(|now| now == clean));

    host.rate(Some(10_000_000))?;
    fleet.ctl(&reclone)?.ok()?;
    wait_copying(&fleet, "db3")?;
    fleet.ctl(&["cluster", "remove", "main", "db3", "--delete-data", "--yes"])?.ok()?;
    until(SOON, "it is no member", || {
        fleet.cluster("main").is_ok_and(|cluster| cluster.members.len() == 2)
    });
    let data = fleet.pg_data("db3")?;
    until(SOON, "its data is gone", || !data.join("PG_VERSION").exists());
    until(SOON, "nothing half is left", || -> Result<()> {
        let now = beside(&fleet, "db3")?;
        ensure!(now.iter().all(|name| name == "data"), "{now:?}");
        ensure!(host.processes("pg_basebackup")?.is_empty(), "it copies on");
        Ok(())
    });
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    check(&fleet, &client, writer)
}

/// The machine of the primary burnt down; another one takes its name.
#[test]
#[ignore = "slow: a node is replaced"]
fn a_new_machine_takes_the_name_of_a_lost_one() -> Result<()> {
    let (_net, mut fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let host = fleet.node("db1")?.host.clone();
    host.power_off()?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    fleet.replace_member("main", "db1")?;
    wait_other_primary(&fleet, "db1", &[]);
    fleet.wait_sync_any("main", 1);
    writer.wait_more(20);
    let present = fleet.rows(&client, &fleet.pg_target(&NODES)?)?.len();
    until(SOON, "it has all rows", || -> Result<()> {
        let rows = fleet.rows(&client, &fleet.pg_reach(&["db1"])?)?;
        ensure!(rows.len() >= present, "{} of {present}", rows.len());
        Ok(())
    });
    check(&fleet, &client, writer)
}
