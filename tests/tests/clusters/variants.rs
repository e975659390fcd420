//! Clusters that are not three equals: standbys below standbys, delayed ones, tablespaces, and several
//! clusters on the same nodes.

use std::fs;
use std::os::unix::fs::chown;

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::{PASSWORD, member, report};
use lockstep_tests::{Fleet, Host, Net, sql, until};

use super::{NODES, SOON, check, wait_other_primary, wait_well, world, write};

#[track_caller]
fn wait_upstream(fleet: &Fleet, node: &str, from: &str) {
    until(SOON, &format!("{node} follows {from}"), || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let seen = report(&cluster, node)?;
        let upstream = seen.upstream.clone().unwrap_or_default();
        ensure!(seen.state == "standby" && upstream.from == from, "{upstream:?}");
        Ok(())
    });
}

#[track_caller]
fn wait_rows(fleet: &Fleet, client: &Host, node: &str, count: u64) {
    until(SOON, &format!("{node} has {count} rows"), || -> Result<()> {
        let rows = fleet.rows(client, &fleet.pg_reach(&[node])?)?;
        ensure!(rows.len() as u64 == count, "{}", rows.len());
        Ok(())
    });
}

#[test]
#[ignore = "slow: a host is lost and comes back"]
fn one_that_follows_a_standby_follows_another_when_that_is_gone() -> Result<()> {
    let (_net, mut fleet, client) = world(&["--member", "db3:upstream=db2", "--sync", "1"])?;
    wait_upstream(&fleet, "db3", "db2");
    // Commits wait for nobody who has them from another standby.
    fleet.wait_sync("main", 1, &["db2"]);
    let target = fleet.pg_target(&NODES)?;
    sql::ask(&client, &target, "insert into written values (1)")?;
    wait_rows(&fleet, &client, "db3", 1);

    // It is primary now itself, and then the one below has another above it.
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db2"])?.ok()?;
    wait_upstream(&fleet, "db3", "db2");
    fleet.wait_roles("main", "db2", &["db1", "db3"]);
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db1"])?.ok()?;
    wait_upstream(&fleet, "db3", "db2");
    fleet.wait_roles("main", "db1", &["db2", "db3"]);

    fleet.ctl(&["cluster", "edit", "main", "--sync", "off"])?.ok()?;
    fleet.node("db2")?.host.power_off()?;
    wait_upstream(&fleet, "db3", "db1");
    sql::ask(&client, &target, "insert into written values (2)")?;
    wait_rows(&fleet, &client, "db3", 2);
    let host = fleet.node("db2")?.host.clone();
    host.power_on()?;
    fleet.run_agent(host)?;
    wait_upstream(&fleet, "db3", "db2");
    wait_rows(&fleet, &client, "db3", 2);
    ensure!(fleet.failovers("main")?.len() == 2, "{:?}", fleet.failovers("main")?);
    Ok(())
}

/// It has everything and shows it later; nobody but a person makes it primary.
#[test]
#[ignore = "slow: a host is lost, and a lease ends"]
fn a_delayed_standby_is_behind_and_promoted_by_name_alone() -> Result<()> {
    let late = ["--member", "db3:delay=1h", "--sync", "off", "--lease", "3s"];
    let (_net, fleet, client) = world(&late)?;
    let target = fleet.pg_target(&["db1", "db2"])?;
    sql::ask(&client, &target, "insert into written values (1)")?;
    wait_rows(&fleet, &client, "db2", 1);
    until(SOON, "it is shown to be behind, and has it all", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let late = member(&cluster, "db3")?;
        ensure!(late.lag_bytes == Some(0), "{:?}", late.lag_bytes);
        ensure!(late.replay_lag_bytes.is_some_and(|lag| lag > 0), "{:?}", late.replay_lag_bytes);
        Ok(())
    });
    // By itself it is not chosen, though it has as much as any.
    for node in ["db1", "db2"] {
        fleet.node(node)?.host.power_off()?;
    }
    until(SOON, "the loss is noticed", || -> Result<()> {
        let explained = fleet.ctl(&["cluster", "explain", "main"])?.ok()?;
        let says = "db1 is not heard of: no member that may be promoted by itself is reachable";
        ensure!(explained.contains(says), "{explained}");
        Ok(())
    });
    fleet.ctl(&["node", "expel", "db1", "--yes"])?.ok()?;
    let failover =
        ["cluster", "failover", "main", "--to", "db3", "--allow-data-loss", "--yes", "--no-wait"];
    fleet.ctl(&failover)?.ok()?;
    fleet.wait_roles("main", "db3", &[]);
    ensure!(fleet.rows(&client, &fleet.pg_target(&["db3"])?)? == [1], "what it had was applied");
    Ok(())
}

/// Tablespaces and a log of its own place, in the first copy, in a copy anew and after a switchover.
#[test]
fn tablespaces_and_the_log_are_copied_to_places_of_their_own() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["db1", "db2"])?;
    let client = net.host("client")?;
    let wal = |node: &str| Ok::<_, anyhow::Error>(fleet.node(node)?.host.path("pg/log-of-its-own"));
    let place =
        |node: &str| Ok::<_, anyhow::Error>(format!("{node}:wal-dir={}", wal(node)?.display()));
    fleet.create_cluster("main", &["db1"], &["--member", &place("db1")?])?.ok()?;
    fleet.make_table(&client, &["db1"])?;
    let space = fleet.node("db1")?.host.path("pg/space");
    fs::create_dir(&space)?;
    let owner = fs::metadata(fleet.pg_data("db1")?)?;
    use std::os::unix::fs::MetadataExt;
    chown(&space, Some(owner.uid()), Some(owner.gid()))?;
    let primary = fleet.pg_target(&["db1", "db2"])?;
    for statement in [
        format!("create tablespace aside location '{}'", space.display()),
        "create table far (id int) tablespace aside".to_owned(),
        "insert into far select n from generate_series(1, 1000) n".to_owned(),
    ] {
        sql::ask(&client, &primary, &statement)?;
    }
    let (port, dir) = (fleet.pg_port("db2")?.to_string(), fleet.pg_data("db2")?);
    fleet.member_args("db2")?;
    let add = ["cluster", "add-standby", "main", "db2", "--port", &port, "--data-dir"];
    let (dir, log) = (dir.display().to_string(), wal("db2")?.display().to_string());
    fleet.ctl(&[&add[..], &[&dir, "--wal-dir", &log]].concat())?.ok()?;
    fleet.wait_roles("main", "db1", &["db2"]);
    let count =
        |node: &str| sql::value(&client, &fleet.pg_reach(&[node])?, "select count(*) from far");
    let is_apart = || -> Result<()> {
        let spaces = fleet.pg_data("db2")?.join("pg_tblspc");
        let link = fs::read_dir(&spaces)?.next().context("no tablespace")??;
        let to = fs::read_link(link.path())?;
        ensure!(to != space, "it is the primary's own");
        ensure!(fs::read_dir(&to)?.count() >= 1, "{} is empty", to.display());
        let log = fs::read_link(fleet.pg_data("db2")?.join("pg_wal"))?;
        ensure!(log == wal("db2")?, "{}", log.display());
        Ok(())
    };
    is_apart()?;
    until(SOON, "it has the rows", || count("db2").is_ok_and(|rows| rows == "1000"));

    fleet.ctl(&["cluster", "reclone", "main", "db2", "--yes"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2"]);
    is_apart()?;
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db2"])?.ok()?;
    fleet.wait_roles("main", "db2", &["db1"]);
    sql::ask(&client, &primary, "insert into far values (0)")?;
    until(SOON, "the old one has it too", || count("db1").is_ok_and(|rows| rows == "1001"));
    let left = fs::read_dir(fleet.node("db2")?.host.path("pg"))?;
    let left: Vec<_> = left.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    ensure!(left.iter().all(|name| !name.to_string_lossy().contains(".copy")), "{left:?}");
    Ok(())
}

/// A second cluster `other` on the same nodes, whose primary is db2.
fn create_other(fleet: &Fleet) -> Result<()> {
    let mut args: Vec<String> =
        ["cluster", "create", "other", "--primary", "db2", "--standby", "db1", "--standby", "db3"]
            .map(Into::into)
            .into();
    args.extend(["--socket-dir".to_owned(), fleet.net().dir().join("s").display().to_string()]);
    for node in NODES {
        let data = fleet.node(node)?.host.path("pg/other");
        args.extend(["--member".to_owned(), format!("{node}:data-dir={}", data.display())]);
        args.extend(["--member".to_owned(), format!("{node}:port={}", other_port(fleet, node)?)]);
    }
    let common = ["--set-superuser-password-file", "-", "--min-free", "1M"];
    let hba = ["--hba", "host all all 10.77.0.0/24 scram-sha-256"];
    args.extend(common.iter().chain(&hba).map(|arg| (*arg).to_owned()));
    let mut command = fleet.ctl_command();
    fleet.controller.host.run_with(command.args(args), PASSWORD)?.ok()?;
    Ok(())
}

fn other_port(fleet: &Fleet, node: &str) -> Result<u16> {
    Ok(fleet.pg_port(node)? + 100)
}

/// What happens to one is no business of the other's, but for the loss of a node that both have.
#[test]
#[ignore = "slow: two clusters"]
fn two_clusters_on_the_same_nodes_do_not_disturb_each_other() -> Result<()> {
    let (_net, mut fleet, client) = world(&[])?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    create_other(&fleet)?;
    fleet.wait_roles("other", "db2", &["db1", "db3"]);
    fleet.wait_sync("other", 1, &["db1", "db3"]);
    let url = |nodes: &[&str]| -> Result<String> {
        let mut url = fleet.pg_target(nodes)?;
        for node in nodes {
            let (port, other) = (fleet.pg_port(node)?, other_port(&fleet, node)?);
            url = url.replace(&port.to_string(), &other.to_string());
        }
        Ok(url)
    };
    // Its primary first.
    let url = url(&["db2", "db1", "db3"])?;
    sql::ask(&client, &url, "create table apart (id bigint)")?;
    let there = lockstep_tests::Writer::start_into(&client, &url, "apart");
    let here = write(&fleet, &client)?;

    fleet.kill_postgres("db1")?;
    here.wait_more(20);
    wait_well(&fleet);
    ensure!(there.failed() == 0, "{:?}", there.stop()?.failed);
    ensure!(fleet.failovers("other")?.is_empty(), "it was not killed");
    for node in ["db1", "db3"] {
        ensure!(fleet.pg_health(node, "/cluster/other/replica")?.status == 200);
    }
    ensure!(fleet.pg_health("db2", "/cluster/other/primary")?.status == 200);
    // With two members on a node, the root is neither's.
    ensure!(fleet.pg_health("db2", "/primary")?.status == 404);

    fleet.wait_sync_any("main", 1);
    fleet.ctl(&["cluster", "switchover", "main", "--to", "db2"])?.ok()?;
    fleet.wait_roles("main", "db2", &["db1", "db3"]);
    fleet.wait_sync("main", 1, &["db1", "db3"]);
    fleet.node("db2")?.host.power_off()?;
    wait_other_primary(&fleet, "db2", &["db2"]);
    until(SOON, "the other one has another too", || -> Result<()> {
        let state = fleet.cluster("other")?.state.unwrap_or_default();
        ensure!(
            state.stage == "steady" && state.holder != "db2",
            "{} {}",
            state.stage,
            state.holder
        );
        Ok(())
    });
    here.wait_more(20);
    there.wait_more(20);
    let host = fleet.node("db2")?.host.clone();
    host.power_on()?;
    fleet.run_agent(host)?;
    wait_other_primary(&fleet, "db2", &[]);
    let (holder, _) = super::roles(&fleet.cluster("other")?);
    let rest: Vec<&str> = NODES.into_iter().filter(|node| *node != holder).collect();
    fleet.wait_roles("other", &holder, &rest);
    let written = there.stop()?;
    let rows = sql::ask(&client, &url, "select id from apart")?;
    let rows = rows.iter().map(|row| Ok(row[0].parse()?)).collect::<Result<Vec<u64>>>()?;
    ensure!(written.lost(&rows)?.is_empty(), "{:?}", written.lost(&rows)?);
    check(&fleet, &client, here)
}
