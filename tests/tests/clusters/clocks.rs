//! Wall clocks jump by an hour, there and back. Leases and waits are counted on clocks that nobody sets,
//! so nothing follows from it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_model::Timestamp;
use lockstep_tests::{Flags, Fleet, Host, Net, clock, until};
use lockstep_transport::clock::now;

use super::{NODES, SOON, check, nothing_changes, write};

const HOUR_S: i64 = 3600;
/// More than any delay, less than the jump.
const FAR_MS: i64 = 1_800_000;
/// Many times a lease.
const MEANWHILE: Duration = Duration::from_secs(12);

/// Two leases after each jump the primary is the same process, and rows are still written.
fn jumps(whose: &str) -> Result<()> {
    let net = Net::new()?;
    let flags = Flags { clocks: true, ..Flags::default() };
    let fleet = Fleet::start_with(&net, &NODES, flags)?;
    let client = net.host("client")?;
    fleet.create_cluster("main", &NODES, &[])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.make_table(&client, &NODES)?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    let writer = write(&fleet, &client)?;
    let host = fleet.hosts().find(|host| host.name() == whose).cloned();
    let host: Host = anyhow::Context::context(host, "a host")?;
    let mut edits = 0;
    for offset_s in [HOUR_S, -HOUR_S, 0] {
        clock::set(&host, offset_s)?;
        until(SOON, &format!("{whose} reads {offset_s:+} s"), || -> Result<()> {
            // Something to log, there too.
            edits += 1;
            let setting = format!("work_mem={}kB", 4096 + edits);
            fleet.ctl(&["cluster", "edit", "main", "--parameter", &setting])?.ok()?;
            reads(&fleet, whose, offset_s)
        });
        nothing_changes(&fleet, &writer, MEANWHILE)?;
    }
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    check(&fleet, &client, writer)
}

/// By the newest line of a daemon's log, whose times are those of its clock.
fn reads(fleet: &Fleet, whose: &str, offset_s: i64) -> Result<()> {
    let log = match whose {
        "controller" => fleet.controller.daemon.log(),
        node => fleet.node(node)?.daemon.log(),
    };
    let stamp = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(value.get("timestamp")?.as_str()?.to_owned())
    };
    let newest = log.lines().rev().find_map(stamp).unwrap_or_default();
    let about = now().0.saturating_add_signed(1000 * offset_s);
    let near = |ms: i64| Timestamp(about.saturating_add_signed(ms)).to_string();
    // Such texts are in the order of their times.
    ensure!(newest > near(-FAR_MS) && newest < near(FAR_MS), "the newest line is of {newest}");
    Ok(())
}

#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_controllers_clock_that_jumps_by_an_hour_changes_nothing() -> Result<()> {
    jumps("controller")
}

#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_primarys_clock_that_jumps_by_an_hour_changes_nothing() -> Result<()> {
    jumps("db1")
}

#[test]
#[ignore = "slow: waits that nothing is decided"]
fn a_standbys_clock_that_jumps_by_an_hour_changes_nothing() -> Result<()> {
    jumps("db2")
}
