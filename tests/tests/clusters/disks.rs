//! Disks of members are full, hang, or are slow. Each is one of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, report};
use lockstep_tests::{Flags, Fleet, Host, Net, sql, try_until, until};

use super::{NODES, check, wait_other_primary, write};

const DISKS: [(&str, u64); 2] = [("data", 64 << 20), ("pg", 900 << 20)];
/// Many times a lease.
const MEANWHILE: Duration = Duration::from_secs(20);

/// As `world_in_sync`, with disks.
fn on_disks(more: &[&str]) -> Result<(Net, Fleet, Host)> {
    let net = Net::new()?;
    let flags = Flags { disks: DISKS.into(), ..Flags::default() };
    let fleet = Fleet::start_with(&net, &NODES, flags)?;
    let client = net.host("client")?;
    fleet.create_cluster("main", &NODES, more)?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.make_table(&client, &NODES)?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    Ok((net, fleet, client))
}

fn write_log(fleet: &Fleet, client: &Host) -> Result<()> {
    let message = "select pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) \
                   from generate_series(1, 40)";
    sql::ask(client, &fleet.pg_target(&NODES)?, message).map(drop)
}

#[test]
#[ignore = "slow: fills a disk with log"]
fn a_standby_without_room_stops_nothing_and_follows_when_it_has_some() -> Result<()> {
    let (_net, fleet, client) = on_disks(&[])?;
    let writer = write(&fleet, &client)?;
    let disk = fleet.node("db2")?.host.disk_at("pg");
    disk.fill()?;
    write_log(&fleet, &client)?;
    until(CHANGED_WITHIN, "it cannot go on", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let seen = report(&cluster, "db2")?;
        ensure!(seen.state != "standby" || seen.upstream.is_none(), "{seen:?}");
        Ok(())
    });
    writer.wait_more(100);
    ensure!(writer.failed() == 0, "{:?}", writer.stop()?.failed);
    disk.free()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: waits until it counts as hung"]
fn one_whose_disk_hangs_is_replaced_and_writes_nothing_afterwards() -> Result<()> {
    let impatient = ["--check-timeout", "1s", "--check-retries", "3", "--verify", "1s"];
    let (_net, fleet, client) = on_disks(&impatient)?;
    let writer = write(&fleet, &client)?;
    let hung = fleet.node("db1")?.host.disk_at("pg").hang()?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    writer.wait_more(50);
    drop(hung);
    let cluster = wait_other_primary(&fleet, "db1", &[]);
    ensure!(report(&cluster, "db1")?.state == "standby");
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: a disk is slow for a while"]
fn one_whose_disk_is_slow_keeps_its_place() -> Result<()> {
    let (_net, fleet, client) = on_disks(&[])?;
    let writer = write(&fleet, &client)?;
    let disk = fleet.node("db1")?.host.disk_at("pg");
    let slow = disk.slow(Duration::from_millis(300), Duration::from_millis(50));
    let changed = try_until(MEANWHILE, "a failover begins", || {
        fleet.failovers("main").is_ok_and(|all| !all.is_empty())
    });
    drop(slow);
    ensure!(changed.is_err(), "{:?}", fleet.failovers("main")?);
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    writer.wait_more(50);
    check(&fleet, &client, writer)
}
