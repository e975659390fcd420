//! postgres lives and is not well: that is told apart from death, and nothing is done that makes it
//! worse.

use std::io::PipeWriter;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, report};
use lockstep_tests::{Disk, Fleet, Host, Net, Proc, cmd, sql, try_until, until};
use rustix::process::Signal;

use super::{NODES, SOON, check, last_change, wait_other_primary, world, world_in_sync, write};

/// Looks that end and are tried again soon.
const IMPATIENT: [&str; 8] =
    ["--check-timeout", "1s", "--check-retries", "3", "--verify", "1s", "--restart-limit", "5s"];

/// Nothing is decided for so long.
fn stays_so(fleet: &Fleet, within: Duration) -> Result<()> {
    let changed = try_until(within, "a failover begins", || {
        fleet.failovers("main").is_ok_and(|all| !all.is_empty())
    });
    ensure!(changed.is_err(), "{:?}", fleet.failovers("main")?);
    Ok(())
}

#[track_caller]
fn wait_trouble(fleet: &Fleet, node: &str, trouble: &str) {
    until(SOON, &format!("{node} is told to be {trouble}"), || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let seen = report(&cluster, node)?;
        ensure!(seen.trouble == trouble, "{} {} {}", seen.state, seen.trouble, seen.problem);
        Ok(())
    });
}

/// Sessions that do nothing, until they are dropped.
fn occupy(client: &Host, target: &str, count: usize) -> Result<Vec<(Proc, PipeWriter)>> {
    (0..count).map(|_| client.spawn_fed(cmd("psql").args(["-X", target]))).collect()
}

/// A moment is no hang: what was stopped goes on.
#[test]
#[ignore = "slow: waits that nothing is decided"]
fn one_that_stands_still_for_a_moment_is_left_alone() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let writer = write(&fleet, &client)?;
    let before = fleet.postmaster("db1")?;
    fleet.signal_instance("db1", Signal::STOP)?;
    // Less than check-timeout by far, on a busy machine too.
    let stood = stays_so(&fleet, Duration::from_secs(2));
    fleet.signal_instance("db1", Signal::CONT)?;
    stood?;
    writer.wait_more(50);
    stays_so(&fleet, Duration::from_secs(8))?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    ensure!(fleet.postmaster("db1")? == before, "it was restarted");
    check(&fleet, &client, writer)
}

/// Sessions that exist go on, and nobody can open one: that is a hang too.
#[test]
#[ignore = "slow: waits until it counts as hung"]
fn a_postmaster_that_hangs_alone_is_replaced() -> Result<()> {
    let (_net, fleet, client) = world(&IMPATIENT)?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    let writer = write(&fleet, &client)?;
    let stopped = fleet.postmaster("db1")?;
    fleet.signal_postgres("db1", Signal::STOP)?;
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    ensure!(report(&cluster, "db1")?.state == "standby");
    ensure!(fleet.postmaster("db1")? != stopped, "it was not ended");
    let last = last_change(&fleet, "hung")?;
    ensure!(last.lossless == Some(true), "{last:?}");
    writer.wait_more(20);
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: waits that nothing is decided"]
fn one_without_a_free_connection_is_told_and_not_replaced() -> Result<()> {
    let (_net, mut fleet, client) = world(&IMPATIENT)?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    let writer = write(&fleet, &client)?;
    let running = ["db1", "db2"].map(|node| fleet.postmaster(node).ok());
    // The superuser's reserve too.
    let mut taken = occupy(&client, &fleet.pg_reach(&["db1"])?, 45)?;
    // An agent that begins anew has no session of its own yet.
    taken.extend(occupy(&client, &fleet.pg_reach(&["db2"])?, 45)?);
    until(SOON, "db2 takes no more", || -> Result<()> {
        let reach = fleet.pg_reach(&["db2"])?;
        let refused = sql::ask(&client, &reach, "select 1")
            .map_or_else(|e| format!("{e:#}"), |_| String::new());
        ensure!(refused.contains("53300"), "{refused}");
        Ok(())
    });
    fleet.restart_agent("db2")?;
    wait_trouble(&fleet, "db2", "out-of-connections");
    wait_trouble(&fleet, "db1", "out-of-connections");
    let shown = fleet.ctl(&["cluster", "show", "main"])?.ok()?;
    ensure!(shown.contains("out-of-connections"), "{shown}");
    stays_so(&fleet, Duration::from_secs(6))?;
    let before = writer.acknowledged();
    writer.wait_more(20);
    ensure!(writer.acknowledged() > before, "it has a session, and writes");
    drop(taken);
    wait_trouble(&fleet, "db1", "none");
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    let after = ["db1", "db2"].map(|node| fleet.postmaster(node).ok());
    ensure!(running == after, "postgres was restarted");
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    check(&fleet, &client, writer)
}

/// A primary on a small disk of its own.
fn on_a_disk(
    more: &[&str],
    disk: impl FnOnce(&Host) -> Result<Disk>,
) -> Result<(Net, Fleet, Host, Disk)> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &NODES)?;
    let disk = disk(&fleet.node("db1")?.host)?;
    let client = net.host("client")?;
    fleet.create_cluster("main", &NODES, more)?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.make_table(&client, &NODES)?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    Ok((net, fleet, client, disk))
}

/// Nothing can be written any more where the primary's data is, and it can be read.
#[test]
#[ignore = "slow: formats a disk"]
fn one_whose_disk_fails_is_replaced() -> Result<()> {
    let frail = |host: &Host| host.frail_disk("pg", 600 << 20);
    let (_net, fleet, client, disk) = on_a_disk(&IMPATIENT, frail)?;
    let writer = write(&fleet, &client)?;
    disk.fail()?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    let all = fleet.failovers("main")?;
    ensure!(all.last().is_some_and(|last| last.lossless == Some(true)), "{all:?}");
    writer.wait_more(50);
    let cluster = fleet.cluster("main")?;
    let broken = report(&cluster, "db1")?;
    ensure!(!broken.problem.is_empty(), "nothing says what is wrong with it: {broken:?}");
    check(&fleet, &client, writer)
}

/// Tables cannot grow, and the log still has room: the others are as full as this one would be.
#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_full_disk_is_told_and_no_reason_for_a_failover() -> Result<()> {
    let (_net, fleet, client, disk) = on_a_disk(&IMPATIENT, |host| host.disk("pg", 600 << 20))?;
    let before = fleet.postmaster("db1")?;
    disk.fill()?;
    until(SOON, "it is told", || -> Result<()> {
        let checked = fleet.ctl(&["cluster", "check", "main"])?;
        ensure!(checked.status.code() == Some(1) && checked.stdout.contains("left"), "{checked}");
        Ok(())
    });
    let fill = "insert into written select -n from generate_series(1, 20000) n";
    let refused = sql::ask(&client, &fleet.pg_target(&["db1"])?, fill);
    ensure!(format!("{refused:?}").contains("No space left"), "{refused:?}");
    stays_so(&fleet, Duration::from_secs(6))?;
    ensure!(fleet.postmaster("db1")? == before, "it was restarted");
    disk.free()?;
    sql::ask(&client, &fleet.pg_target(&["db1"])?, fill)?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    stays_so(&fleet, Duration::from_secs(1))
}

/// The log itself has no room: postgres dies of it, and does not come up again. Others have room.
#[test]
#[ignore = "slow: fills a disk with log"]
fn one_whose_log_has_no_room_is_replaced_and_comes_back_with_room() -> Result<()> {
    let (_net, fleet, client, disk) = on_a_disk(&IMPATIENT, |host| host.disk("pg", 600 << 20))?;
    let writer = write(&fleet, &client)?;
    disk.fill()?;
    until(SOON, "postgres cannot go on", || {
        // Messages in the log need no table.
        let log = "select pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) \
                   from generate_series(1, 20)";
        fleet.pg_target(&["db1"]).is_ok_and(|target| sql::ask(&client, &target, log).is_err())
    });
    wait_other_primary(&fleet, "db1", &["db1"]);
    let last = last_change(&fleet, "crash")?;
    ensure!(last.lossless == Some(true), "{last:?}");
    writer.wait_more(50);
    disk.free()?;
    wait_other_primary(&fleet, "db1", &[]);
    check(&fleet, &client, writer)
}

/// Some 300 MB of log since the last checkpoint, and then no postgres.
fn crash_with_much_to_redo(fleet: &Fleet, client: &Host) -> Result<()> {
    let target = fleet.pg_target(&["db1"])?;
    let fill = "insert into written select -n from generate_series(1, 200000) n";
    for _ in 0..15 {
        sql::ask(client, &target, fill)?;
    }
    fleet.kill_postgres("db1")?;
    // Before that it is a start that hangs.
    until(SOON, "recovery has begun", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let state = &report(&cluster, "db1")?.state;
        ensure!(state == "starting", "{state}");
        Ok(())
    });
    Ok(())
}

const MUCH_LOG: [&str; 6] =
    ["--sync", "off", "--parameter", "max_wal_size=4GB", "--parameter", "checkpoint_timeout=1h"];

/// `restart-limit` counts while nothing moves: recovery that gets on may take as long as it takes.
#[test]
#[ignore = "slow: recovery is held up again and again"]
fn a_long_recovery_is_waited_for_while_it_gets_on() -> Result<()> {
    // More in all than it may stand still at once.
    const LIMIT: [&str; 6] =
        ["--check-timeout", "1s", "--check-retries", "3", "--restart-limit", "10s"];
    const STANDS: Duration = Duration::from_secs(3);
    let (_net, fleet, client) = world(&[&LIMIT[..], &MUCH_LOG].concat())?;
    crash_with_much_to_redo(&fleet, &client)?;
    for _ in 0..4 {
        let stop = || fleet.signal_child("db1", "startup", Signal::STOP);
        until(SOON, "it recovers", stop);
        let stood = stays_so(&fleet, STANDS);
        wait_trouble(&fleet, "db1", "recovering");
        let at = fleet.child_title("db1", "startup")?;
        fleet.signal_child("db1", "startup", Signal::CONT)?;
        stood?;
        until(SOON, "it gets on", || {
            fleet.child_title("db1", "startup").map_or(true, |now| now != at)
        });
    }
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    stays_so(&fleet, Duration::from_secs(1))?;
    let rows = sql::value(&client, &fleet.pg_target(&NODES)?, "select count(*) from written")?;
    ensure!(rows == "3000000", "{rows} rows");
    Ok(())
}

/// What stands still for `restart-limit` is given up, and another member takes over with everything.
#[test]
#[ignore = "slow: waits for restart-limit"]
fn a_recovery_that_stands_still_is_given_up() -> Result<()> {
    let (_net, fleet, client) = world(&[&IMPATIENT[..], &MUCH_LOG].concat())?;
    crash_with_much_to_redo(&fleet, &client)?;
    until(SOON, "it recovers", || fleet.signal_child("db1", "startup", Signal::STOP));
    // All of its log is read to its end then, by a program that nobody made quick.
    until(CHANGED_WITHIN * 2, "it is given up", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        ensure!(report(&cluster, "db1")?.released.is_some(), "not yet");
        Ok(())
    });
    wait_other_primary(&fleet, "db1", &[]);
    last_change(&fleet, "crash")?;
    let rows = sql::value(&client, &fleet.pg_target(&NODES)?, "select count(*) from written")?;
    ensure!(rows == "3000000", "{rows} rows");
    Ok(())
}
