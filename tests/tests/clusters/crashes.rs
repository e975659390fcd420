//! postgres is killed on a living host.

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, member, report};
use lockstep_tests::{Fleet, Host, Proc, cmd, sql, until};
use rustix::process::Signal;

use super::{
    NODES, OUTAGE_MAX, SOON, check, last_change, outage, wait_other_primary, wait_well, world,
    world_in_sync, write,
};

#[test]
fn a_synchronous_cluster_fails_over_at_once_and_loses_nothing() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let gap = outage(&fleet, &writer, "synchronous crash", || fleet.kill_postgres("db1"))?;
    ensure!(gap < OUTAGE_MAX, "writes stood still for {gap:?}");
    // The old one is back as a standby by itself, with the others.
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    ensure!(report(&cluster, "db1")?.state == "standby");
    let last = last_change(&fleet, "crash")?;
    ensure!(last.from == "db1" && last.lossless == Some(true) && last.by.is_empty(), "{last:?}");
    ensure!(last.exclusion == "released" || last.exclusion == "sealed", "{last:?}");
    check(&fleet, &client, writer)
}

#[test]
fn an_asynchronous_cluster_restarts_where_it_crashed() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "off"])?;
    let writer = write(&fleet, &client)?;
    let old = fleet.postmaster("db1")?;
    let gap = outage(&fleet, &writer, "asynchronous crash", || fleet.kill_postgres("db1"))?;
    ensure!(gap < OUTAGE_MAX * 2, "writes stood still for {gap:?}");
    ensure!(fleet.postmaster("db1")? != old, "it was never killed");
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    check(&fleet, &client, writer)
}

#[test]
fn an_asynchronous_failover_gives_the_candidate_what_only_the_dead_one_has() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "off", "--on-crash", "failover"])?;
    let writer = write(&fleet, &client)?;
    writer.wait_more(100);
    fleet.kill_postgres("db1")?;
    writer.wait_more(50);
    wait_other_primary(&fleet, "db1", &[]);
    let last = last_change(&fleet, "crash")?;
    ensure!(last.lossless == Some(true), "{last:?}");
    check(&fleet, &client, writer)
}

/// Standbys on slow lines, which follow and lack most of it: that is in the dead one's log alone.
#[test]
#[ignore = "slow: several segments are salvaged"]
fn salvage_brings_several_segments() -> Result<()> {
    let options = ["--sync", "off", "--on-crash", "failover", "--salvage-timeout", "1m"];
    let (_net, fleet, client) = world(&options)?;
    let standbys = ["db2", "db3"];
    for node in standbys {
        fleet.node(node)?.host.rate(Some(4_000_000))?;
    }
    for part in 1..=6 {
        let fill = format!(
            "insert into written select {part}000000 + n from generate_series(1, 100000) n"
        );
        sql::ask(&client, &fleet.pg_target(&["db1"])?, &fill)?;
    }
    fleet.kill_postgres("db1")?;
    for node in standbys {
        fleet.node(node)?.host.rate(None)?;
    }
    wait_other_primary(&fleet, "db1", &[]);
    let last = last_change(&fleet, "crash")?;
    ensure!(last.lossless == Some(true), "{last:?}");
    let rows = sql::value(&client, &fleet.pg_target(&NODES)?, "select count(*) from written")?;
    ensure!(rows == "600000", "{rows} rows are left");
    ensure!(last.salvaged_bytes > 16 << 20, "{last:?}");
    Ok(())
}

/// A statement that kills each primary must not walk through every node for ever.
#[test]
#[ignore = "slow: three crashes"]
fn crashes_beyond_the_budget_restart_in_place() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    for round in 1..=3 {
        let cluster = fleet.cluster("main")?;
        let (primary, _) = super::roles(&cluster);
        fleet.wait_sync_any("main", 1);
        fleet.kill_postgres(&primary)?;
        writer.wait_more(50);
        wait_well(&fleet);
        let changes = fleet.failovers("main")?.len();
        ensure!(changes <= 2, "{changes} failovers after {round} crashes");
    }
    check(&fleet, &client, writer)
}

/// SIGSTOP: it hangs, and hangs no longer; nothing is to be done meanwhile that makes it worse.
#[test]
#[ignore = "slow: waits until it counts as hung"]
fn a_hung_primary_is_replaced_and_writes_nothing_afterwards() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let stopped = fleet.postmaster("db1")?;
    fleet.signal_instance("db1", Signal::STOP)?;
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    ensure!(report(&cluster, "db1")?.state == "standby");
    ensure!(fleet.postmaster("db1")? != stopped, "it was not ended");
    writer.wait_more(20);
    check(&fleet, &client, writer)
}

/// Commits on and on in one statement, which does not notice that its postmaster is dead.
fn commit_on(fleet: &Fleet, client: &Host, node: &str) -> Result<Proc> {
    let endless = "do $$ begin loop insert into endless default values; commit; end loop; end $$";
    let target = fleet.pg_target(&[node])?;
    let busy = client.spawn(cmd("psql").args(["-X", &target, "-c", endless]))?;
    let count = || sql::value(client, &target, "select count(*) from endless");
    let before: u64 = count()?.parse()?;
    until(SOON, "it commits", || -> Result<()> {
        let now: u64 = count()?.parse()?;
        ensure!(now > before + 100, "{now} and {before}");
        Ok(())
    });
    Ok(busy)
}

/// All members have the same, and it becomes no more.
fn nobody_commits(fleet: &Fleet, client: &Host) -> Result<()> {
    let count = |target: &str| sql::value(client, target, "select count(*) from endless");
    let rows = count(&fleet.pg_target(&NODES)?)?;
    for node in NODES {
        until(SOON, &format!("{node} has {rows} rows"), || -> Result<()> {
            let there = count(&fleet.pg_reach(&[node])?)?;
            ensure!(there == rows, "{there}");
            Ok(())
        });
    }
    ensure!(count(&fleet.pg_target(&NODES)?)? == rows, "somebody commits on");
    Ok(())
}

/// A dead postmaster's sessions are ended before anybody else writes, and before it is started again.
#[test]
#[ignore = "slow: two crashes"]
fn sessions_that_outlive_their_postmaster_are_ended_first() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "off", "--on-crash", "failover"])?;
    let target = fleet.pg_target(&NODES)?;
    sql::ask(&client, &target, "create table endless (id bigserial)")?;
    let busy = commit_on(&fleet, &client, "db1")?;
    fleet.kill_postgres("db1")?;
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    let last = last_change(&fleet, "crash")?;
    ensure!(last.lossless == Some(true), "{last:?}");
    nobody_commits(&fleet, &client)?;
    drop(busy);

    let (primary, others) = super::roles(&cluster);
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    fleet.ctl(&["cluster", "edit", "main", "--on-crash", "restart"])?.ok()?;
    until(SOON, "it is told", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        ensure!(member(&cluster, &primary)?.applied, "not yet");
        Ok(())
    });
    let _busy = commit_on(&fleet, &client, &primary)?;
    let old = fleet.postmaster(&primary)?;
    fleet.kill_postgres(&primary)?;
    until(SOON, "it was started again", || fleet.postmaster(&primary).is_ok_and(|now| now != old));
    fleet.wait_roles("main", &primary, &others);
    ensure!(fleet.failovers("main")?.len() == 1, "{:?}", fleet.failovers("main")?);
    nobody_commits(&fleet, &client)
}

/// A client that sends the same deadly statement to whoever is primary.
#[test]
#[ignore = "slow: four crashes"]
fn a_statement_that_kills_its_server_does_not_walk_through_all_members() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    for _ in 0..4 {
        fleet.wait_sync_any("main", 1);
        let deadly = "copy (select 1) to program 'kill -SEGV $PPID'";
        let target = fleet.pg_target(&NODES)?;
        let (primary, _) = super::roles(&fleet.cluster("main")?);
        let running = fleet.postmaster(&primary)?;
        let died = sql::ask(&client, &target, deadly);
        ensure!(died.is_err(), "it lives on");
        until(CHANGED_WITHIN, "it runs again", || {
            fleet.postmaster(&primary).is_ok_and(|now| now != running)
        });
        writer.wait_more(20);
    }
    fleet.wait_sync_any("main", 1);
    let all = fleet.failovers("main")?;
    ensure!(all.len() <= 2 && all.iter().all(|one| one.cause == "crash"), "{all:?}");
    check(&fleet, &client, writer)
}
