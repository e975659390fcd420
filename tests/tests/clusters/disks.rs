//! Disks of members are full, hang, or are slow. Each is one of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, report};
use lockstep_tests::{Disk, Flags, Fleet, Host, Net, sql, try_until, until};

use super::{NODES, SOON, check, nothing_changes, wait_other_primary, write};

const DISKS: [(&str, u64); 2] = [("data", 64 << 20), ("pg", 900 << 20)];
/// Many times a lease.
const MEANWHILE: Duration = Duration::from_secs(20);

/// Settings of a kilobyte each, of a name that PostgreSQL leaves to others.
const LARGE: usize = 100;

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

/// What is recorded fails, and what runs is not touched.
#[test]
#[ignore = "slow: fills the store's disk"]
fn a_controller_without_room_disturbs_nobody_and_goes_on_with_some() -> Result<()> {
    let (_net, mut fleet, client) = on_disks(&[])?;
    let writer = write(&fleet, &client)?;
    let disk = fleet.controller.host.disk_at("data");
    disk.fill()?;
    let mut edits = 0;
    // The store's file has some room of its own, so what is written is large.
    until(2 * CHANGED_WITHIN, "it says what is wrong", || -> Result<()> {
        edits += 1;
        let settings = (0..LARGE).map(|n| format!("large.n{n}={edits}{}", "x".repeat(1000)));
        let settings: Vec<String> =
            settings.flat_map(|text| ["--parameter".to_owned(), text]).collect();
        let mut edit = fleet.ctl_command();
        edit.args(["cluster", "edit", "main", "--timeout", "5s"]).args(settings);
        // What becomes of it depends on the room that was left.
        fleet.controller.host.run(&mut edit)?;
        ensure!(fleet.controller.daemon.log().contains("No space left"), "not after {edits} edits");
        Ok(())
    });
    let refused = fleet.ctl(&["node", "label", "db1", "room=none", "--timeout", "5s"])?;
    ensure!(!refused.status.success() && !refused.stderr.is_empty(), "{refused}");
    nothing_changes(&fleet, &writer, MEANWHILE)?;
    disk.free()?;
    fleet.restart_controller()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    fleet.ctl(&["node", "label", "db1", "room=some"])?.ok()?;
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    nothing_changes(&fleet, &writer, MEANWHILE / 4)?;
    check(&fleet, &client, writer)
}

/// It cannot write down what it is told, and has nothing to write down for what it does.
#[test]
#[ignore = "slow: fills an agent's disk"]
fn an_agent_without_room_keeps_its_primary_and_goes_on_with_some() -> Result<()> {
    let (_net, fleet, client) = on_disks(&[])?;
    let writer = write(&fleet, &client)?;
    let disk = fleet.node("db1")?.host.disk_at("data");
    disk.fill()?;
    fleet.ctl(&["cluster", "edit", "main", "--parameter", "work_mem=5MB"])?.ok()?;
    until(SOON, "it is told", || -> Result<()> {
        let explained = fleet.ctl(&["cluster", "explain", "main"])?;
        ensure!(explained.stdout.contains("disk full"), "{explained}");
        Ok(())
    });
    nothing_changes(&fleet, &writer, MEANWHILE)?;
    disk.free()?;
    until(CHANGED_WITHIN, "it does what it was told", || -> Result<()> {
        let now = sql::ask(&client, &fleet.pg_target(&["db1"])?, "show work_mem")?;
        ensure!(now[0][0] == "5MB", "{now:?}");
        Ok(())
    });
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    ensure!(fleet.failovers("main")?.is_empty(), "nobody was to be promoted");
    check(&fleet, &client, writer)
}

/// All at once; nothing of what was not flushed is left on any of the disks.
fn lose_power(disks: &[Disk], hosts: &[Host]) -> Result<()> {
    match disks.split_first() {
        Some((disk, rest)) => disk.lose_power(|| lose_power(rest, hosts)),
        None => hosts.iter().try_for_each(Host::power_off),
    }
}

fn power_cut(nodes: &[&str]) -> Result<()> {
    let (_net, mut fleet, client) = on_disks(&[])?;
    let writer = write(&fleet, &client)?;
    writer.wait_more(100);
    let hosts = nodes.iter().map(|node| Ok(fleet.node(node)?.host.clone()));
    let hosts: Vec<Host> = hosts.collect::<Result<_>>()?;
    let disks: Vec<Disk> =
        hosts.iter().flat_map(|host| DISKS.map(|(below, _)| host.disk_at(below))).collect();
    lose_power(&disks, &hosts)?;
    if nodes.len() < NODES.len() {
        wait_other_primary(&fleet, "db1", nodes);
        writer.wait_more(20);
    }
    for host in hosts {
        host.power_on()?;
        fleet.run_agent(host)?;
    }
    super::wait_well(&fleet);
    fleet.wait_sync_any("main", 1);
    writer.wait_more(20);
    check(&fleet, &client, writer)
}

#[test]
#[ignore = "slow: checks file systems"]
fn a_primary_whose_power_and_caches_are_lost_takes_nothing_with_it() -> Result<()> {
    power_cut(&["db1"])
}

/// Nobody is left who could have it but on disk.
#[test]
#[ignore = "slow: checks file systems"]
fn a_room_whose_power_and_caches_are_lost_has_all_that_was_acknowledged() -> Result<()> {
    power_cut(&NODES)
}
