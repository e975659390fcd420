//! Histories that went apart because a person said that something may be lost: nobody keeps what the
//! cluster no longer has.

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::{member, report};
use lockstep_tests::{Fleet, Host, sql, until};

use super::{NODES, SOON, last_change, world, world_in_sync};

const REFUSED: i32 = 3;

fn power_on(fleet: &mut Fleet, node: &str) -> Result<()> {
    let host = fleet.node(node)?.host.clone();
    host.power_on()?;
    fleet.run_agent(host)
}

fn insert(fleet: &Fleet, client: &Host, id: u64) -> Result<()> {
    let insert = format!("insert into written values ({id})");
    sql::ask(client, &fleet.pg_target(&NODES)?, &insert)?;
    Ok(())
}

#[track_caller]
fn wait_rows(fleet: &Fleet, client: &Host, node: &str, ids: &[u64]) {
    until(SOON, &format!("{node} has the rows {ids:?}"), || -> Result<()> {
        let rows = fleet.rows(client, &fleet.pg_reach(&[node])?)?;
        ensure!(rows == ids, "{rows:?}");
        Ok(())
    });
}

fn timeline(fleet: &Fleet, node: &str) -> Result<u32> {
    let cluster = fleet.cluster("main")?;
    Ok(report(&cluster, node)?.lineage.last().context("no history")?.timeline)
}

/// The one that is left lacks what another one acknowledged: only a person promotes it.
#[test]
#[ignore = "slow: two hosts are lost, and a lease ends"]
fn one_that_lacks_acknowledged_rows_is_promoted_by_a_person_alone() -> Result<()> {
    let (net, mut fleet, client) = world_in_sync()?;
    insert(&fleet, &client, 1)?;
    wait_rows(&fleet, &client, "db2", &[1]);
    net.cut(&fleet.node("db1")?.host, &fleet.node("db2")?.host)?;
    insert(&fleet, &client, 2)?;
    for node in ["db3", "db1"] {
        fleet.node(node)?.host.power_off()?;
    }
    until(SOON, "they are known to be away", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let there = |node: &str| member(&cluster, node).is_ok_and(|member| member.connected);
        ensure!(!there("db1") && !there("db3"), "{:?}", cluster.members);
        Ok(())
    });
    let failover = ["cluster", "failover", "main", "--to", "db2", "--no-wait"];
    let refused = fleet.ctl(&failover)?;
    let says = "it cannot be excluded that commits are lost";
    ensure!(refused.status.code() == Some(REFUSED), "{refused}");
    ensure!(refused.stderr.contains(says), "{refused}");
    ensure!(fleet.failovers("main")?.is_empty(), "{:?}", fleet.failovers("main")?);
    fleet.ctl(&[&failover[..], &["--allow-data-loss", "--yes"]].concat())?.ok()?;
    // It may live on with db3, for all that db2 knows.
    until(SOON, "it says what to do", || -> Result<()> {
        let waits = fleet.ctl(&["cluster", "explain", "main"])?.ok()?;
        ensure!(waits.contains("node expel db1"), "{waits}");
        Ok(())
    });
    fleet.ctl(&["node", "expel", "db1", "--yes"])?.ok()?;
    fleet.wait_roles("main", "db2", &[]);
    let last = last_change(&fleet, "asked")?;
    ensure!(last.lossless != Some(true) && !last.by.is_empty(), "{last:?}");
    // With nobody else there, writes wait as they are to.
    wait_rows(&fleet, &client, "db2", &[1]);
    power_on(&mut fleet, "db3")?;
    fleet.wait_roles("main", "db2", &["db3"]);
    insert(&fleet, &client, 3)?;
    for node in ["db2", "db3"] {
        wait_rows(&fleet, &client, node, &[1, 3]);
    }
    Ok(())
}

/// Two members make a timeline each from the same one, and neither knows of the other's: when all are
/// back there is one history.
#[test]
#[ignore = "slow: two leases end"]
fn timelines_that_fork_become_one_again() -> Result<()> {
    let (net, mut fleet, client) = world(&["--sync", "off", "--lease", "3s"])?;
    insert(&fleet, &client, 1)?;
    wait_rows(&fleet, &client, "db3", &[1]);
    let host = |node: &str| Ok::<_, anyhow::Error>(fleet.node(node)?.host.clone());
    let (db1, db2, db3) = (host("db1")?, host("db2")?, host("db3")?);
    for other in [&db1, &db2] {
        net.cut(&db3, other)?;
    }
    insert(&fleet, &client, 2)?;
    wait_rows(&fleet, &client, "db2", &[1, 2]);
    db1.power_off()?;
    fleet.wait_roles("main", "db2", &[]);
    insert(&fleet, &client, 3)?;
    ensure!(timeline(&fleet, "db2")? == 2);

    db2.power_off()?;
    until(SOON, "what is left is too old to be chosen by itself", || -> Result<()> {
        let waits = fleet.ctl(&["cluster", "explain", "main"])?.ok()?;
        ensure!(waits.contains("has nothing of the newest timeline"), "{waits}");
        Ok(())
    });
    let failover = ["cluster", "failover", "main", "--to", "db3", "--allow-data-loss", "--yes"];
    fleet.ctl(&[&failover[..], &["--no-wait"]].concat())?.ok()?;
    fleet.wait_roles("main", "db3", &[]);
    wait_rows(&fleet, &client, "db3", &[1]);
    insert(&fleet, &client, 4)?;
    ensure!(timeline(&fleet, "db3")? == 3, "the number of the other's is taken again");

    for other in [&db1, &db2] {
        net.heal(&db3, other)?;
    }
    for node in ["db1", "db2"] {
        power_on(&mut fleet, node)?;
    }
    fleet.wait_roles("main", "db3", &["db1", "db2"]);
    for node in NODES {
        wait_rows(&fleet, &client, node, &[1, 4]);
    }
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db2"])?.ok()?;
    fleet.wait_roles("main", "db2", &["db1", "db3"]);
    insert(&fleet, &client, 5)?;
    for node in NODES {
        wait_rows(&fleet, &client, node, &[1, 4, 5]);
    }
    Ok(())
}
