//! A primary is cut off, and its agent cannot end it: the guard does, before anybody else writes. Commits
//! wait for no standby here, so nothing but time keeps two from writing.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, report};
use lockstep_tests::witness::{Seat, Witness, verdict};
use lockstep_tests::{Flags, Fleet, Net, until, writer};

use super::{NODES, SOON, last_change};

const DISKS: [(&str, u64); 2] = [("data", 64 << 20), ("pg", 700 << 20)];

/// `harm` happens to the agent of the cut-off primary, until what it returns is dropped; `mend` is what is
/// to be done besides.
fn nobody_writes_beside<T>(
    harm: impl FnOnce(&mut Fleet) -> Result<T>,
    mend: impl FnOnce(&mut Fleet) -> Result<()>,
) -> Result<()> {
    let net = Net::new()?;
    let flags = Flags { disks: DISKS.into(), ..Flags::default() };
    let mut fleet = Fleet::start_with(&net, &NODES, flags)?;
    let client = net.host("client")?;
    fleet.create_cluster("main", &NODES, &["--sync", "off"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.make_table(&client, &NODES)?;
    let cut_off = fleet.node("db1")?.host.clone();
    let seats = NODES.map(|node| -> Result<Seat> {
        let is_outside = node != "db1";
        let from = if is_outside { client.clone() } else { cut_off.clone() };
        let (node, target) = (node.to_owned(), fleet.pg_reach(&[node])?);
        Ok(Seat { from, node, target, is_outside, pace: Duration::from_millis(10) })
    });
    let seats = seats.into_iter().collect::<Result<_>>()?;
    let mut witness = Witness::start(writer::TABLE, None, seats);
    until(SOON, "the primary writes", || witness.acknowledged() > 20);

    cut_off.isolate()?;
    let harmed = harm(&mut fleet)?;
    let others = || witness.rows().iter().any(|row| row.node != "db1");
    until(CHANGED_WITHIN, "another one writes", others);
    // As soon as that is seen, and not some time later.
    let left = cut_off.processes("postgres")?;
    ensure!(left.is_empty(), "{left:?} of its postgres were left");
    let change = until(CHANGED_WITHIN, "it is recorded", || last_change(&fleet, "node-lost"));
    ensure!(change.exclusion == "lease-ended", "{change:?}");
    drop(harmed);
    mend(&mut fleet)?;
    cut_off.rejoin()?;
    until(CHANGED_WITHIN, "its agent takes the new term up", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let seen = report(&cluster, "db1")?;
        ensure!(seen.term >= change.term && seen.state != "primary", "{seen:?}");
        Ok(())
    });
    witness.stop();
    let two = verdict::overlap(&witness.rows());
    ensure!(two.is_none(), "two wrote for {two:?}");
    Ok(())
}

#[test]
#[ignore = "slow: waits for a lease to end"]
fn an_agent_that_is_dead() -> Result<()> {
    nobody_writes_beside(
        |fleet| fleet.node_mut("db1")?.daemon.kill(),
        |fleet| fleet.restart_agent("db1"),
    )
}

#[test]
#[ignore = "slow: waits for a lease to end"]
fn an_agent_that_stands_still() -> Result<()> {
    nobody_writes_beside(
        |fleet| fleet.node_mut("db1")?.daemon.stop(),
        |fleet| fleet.node_mut("db1")?.daemon.cont(),
    )
}

/// It cannot write down what it promises. To end the instance it needs no disk, so the guard is not alone
/// here: this one is kept also without it.
#[test]
#[ignore = "slow: waits for a lease to end"]
fn an_agent_whose_disk_hangs() -> Result<()> {
    nobody_writes_beside(|fleet| fleet.node("db1")?.host.disk_at("data").hang(), |_| Ok(()))
}
