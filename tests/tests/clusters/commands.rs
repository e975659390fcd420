//! The commands as people type them: what they show, what they refuse, and how they end.

use std::fs;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::clusters::{member, report};
use lockstep_tests::{Fleet, Net, cmd, sql, until};

use super::{NODES, SOON, world, world_in_sync};

const USAGE: i32 = 2;
const REFUSED: i32 = 3;

#[test]
fn a_cluster_is_made_shown_and_deleted() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let cluster = fleet.cluster("main")?;
    for node in NODES {
        let there = member(&cluster, node)?;
        let report = report(&cluster, node)?;
        ensure!(there.applied && there.connected && there.admin == "managed", "{there:?}");
        ensure!(there.copied == there.copy, "{there:?}");
        ensure!(report.version.starts_with(|c: char| c.is_ascii_digit()), "{}", report.version);
        ensure!(report.lineage.len() == 1 && !report.lsn.is_empty(), "{report:?}");
        ensure!(report.system_id != 0);
    }
    ensure!(member(&cluster, "db2")?.sync_state == "quorum", "{cluster:?}");
    let lease = cluster.lease.clone().context("a lease")?;
    ensure!(lease.holder == "db1" && lease.left_ms.is_some_and(|left| left > 0), "{lease:?}");
    let checksums = sql::value(&client, &fleet.pg_target(&NODES)?, "show data_checksums")?;
    ensure!(checksums == "on");

    let typed = |args: &[&str]| fleet.ctl(args)?.ok();
    let list = typed(&["cluster", "list"])?;
    for words in ["main", "db1", "2/2", "1 of 2", "steady"] {
        ensure!(list.contains(words), "{words} is not in\n{list}");
    }
    let shown = typed(&["cluster", "show", "main"])?;
    for words in ["any 1 of db2, db3", "primary", "standby", "quorum", "TIMELINE", "LAG"] {
        ensure!(shown.contains(words), "{words} is not in\n{shown}");
    }
    let all: v1::ListClustersResponse = fleet.ask(&["cluster", "list"])?;
    ensure!(all.clusters.len() == 1);
    typed(&["cluster", "explain", "main"])?;
    typed(&["cluster", "history", "main"])?;
    typed(&["cluster", "settings"])?;
    typed(&["cluster", "settings", "--member"])?;
    let checked = fleet.ctl(&["cluster", "check", "main"])?;
    ensure!(checked.status.success(), "{checked}");
    let url = typed(&["cluster", "url", "main", "--user", "lockstep"])?;
    let mut psql = cmd("psql");
    psql.arg(url.trim()).args(["-Atc", "select pg_is_in_recovery()"]);
    psql.env("PGPASSWORD", lockstep_tests::clusters::PASSWORD);
    ensure!(client.run(&mut psql)?.ok()?.trim() == "f");

    typed(&["cluster", "delete", "main", "--yes"])?;
    until(SOON, "its data is gone", || {
        NODES
            .iter()
            .all(|node| fleet.pg_data(node).is_ok_and(|data| !data.join("PG_VERSION").exists()))
    });
    until(SOON, "it is gone", || {
        let all: v1::ListClustersResponse = fleet.ask(&["cluster", "list"]).ok()?;
        all.clusters.is_empty().then_some(())
    });
    Ok(())
}

#[test]
fn a_running_database_is_taken_over_and_left_again() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &NODES)?;
    let client = net.host("client")?;
    fleet.create_cluster("main", &["db1", "db2"], &[])?.ok()?;
    fleet.make_table(&client, &["db1", "db2"])?;
    sql::ask(&client, &fleet.pg_target(&["db1"])?, "insert into written values (1)")?;
    let before = fleet.postmaster("db1")?;
    fleet.ctl(&["cluster", "release", "main", "--yes"])?.ok()?;
    until(SOON, "it is nobody's", || {
        let all: v1::ListClustersResponse = fleet.ask(&["cluster", "list"]).ok()?;
        all.clusters.is_empty().then_some(())
    });
    ensure!(fleet.postmaster("db1")? == before, "it was restarted");
    ensure!(fleet.rows(&client, &fleet.pg_target(&["db1"])?)? == [1]);

    fs::remove_dir_all(fleet.node("db3")?.host.path("pg")).ok();
    fleet.create_cluster("again", &["db1", "db3"], &["--adopt"])?.ok()?;
    fleet.wait_roles("again", "db1", &["db3"]);
    ensure!(fleet.rows(&client, &fleet.pg_reach(&["db3"])?)? == [1]);
    Ok(())
}

#[test]
fn settings_are_changed_and_those_that_wait_are_told() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "off"])?;
    let set = "work_mem=5MB";
    let edit = ["cluster", "edit", "main", "--parameter", "shared_buffers=16MB"];
    let more = ["--parameter", "max_connections=50", "--parameter", set];
    fleet.ctl(&[&edit[..], &more[..]].concat())?.ok()?;
    let now = |name: &str| sql::value(&client, &fleet.pg_target(&NODES)?, &format!("show {name}"));
    until(SOON, "what needs no restart is in force", || now("work_mem").is_ok_and(|v| v == "5MB"));
    until(SOON, "what needs one is told", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        for node in NODES {
            let pending = &report(&cluster, node)?.pending_restart;
            ensure!(pending.iter().any(|row| row.name == "max_connections"), "{node}: {pending:?}");
        }
        Ok(())
    });
    let checked = fleet.ctl(&["cluster", "check", "main"])?;
    ensure!(checked.status.code() == Some(1) && checked.stdout.contains("max_connections"));
    fleet.ctl(&["cluster", "restart", "main", "--pending"])?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    ensure!(now("max_connections")? == "50");
    ensure!(fleet.failovers("main")?.is_empty(), "a restart is no crash");
    Ok(())
}

#[test]
fn what_would_break_a_promise_is_told_and_a_restart_goes_round() -> Result<()> {
    let (_net, fleet, client) = world_in_sync()?;
    let check = || fleet.ctl(&["cluster", "check", "main", "--now"]);
    let well = check()?;
    ensure!(well.status.success(), "{well}");
    for words in ["rewind", "collations", "extensions", "reach", "clock", "archive"] {
        ensure!(well.stdout.contains(words), "{words} is not in\n{well}");
    }
    let sql = |sql: &str| sql::ask(&client, &fleet.pg_target(&NODES)?, sql);
    sql("create role hasty; alter role hasty set synchronous_commit = off")?;
    let told = check()?;
    ensure!(told.status.code() == Some(1), "{told}");
    ensure!(told.stdout.contains("hasty in every database (off)"), "{told}");
    sql("alter role hasty reset synchronous_commit")?;
    until(SOON, "all is well again", || check().is_ok_and(|told| told.status.success()));

    let shown = fleet.ctl(&["cluster", "show", "main"])?.ok()?;
    ensure!(shown.contains("a lost node after 1s, a hang within 25s"), "{shown}");

    let before = NODES.map(|node| fleet.postmaster(node).ok());
    fleet.ctl(&["cluster", "restart", "main", "--switchover"])?.ok()?;
    ensure!(fleet.failovers("main")?.len() == 1, "it is no switchover");
    let holder = fleet.cluster("main")?.state.context("no state")?.holder;
    ensure!(holder != "db1", "the primary was restarted");
    for (node, before) in NODES.iter().zip(before) {
        ensure!(fleet.postmaster(node).ok() != before, "{node} was not restarted");
    }
    Ok(())
}

#[test]
fn every_wrong_argument_is_named_and_changes_nothing() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["db1", "db2"])?;
    let create = ["cluster", "create"];
    for (args, code, says) in [
        (vec!["../x", "--primary", "db1"], USAGE, "cluster name"),
        (vec!["x"], USAGE, "--primary"),
        (vec!["x", "--primary", "nobody", "--no-wait"], REFUSED, "nobody"),
        (vec!["x", "--primary", "db1", "--standby", "nobody", "--no-wait"], REFUSED, "nobody"),
        (vec!["x", "--primary", "db1", "--standby", "db1"], USAGE, "twice"),
        (vec!["x", "--primary", "db1", "--sync", "0"], USAGE, "--sync"),
        (vec!["x", "--primary", "db1", "--sync", "3", "--no-wait"], REFUSED, "sync"),
        (vec!["x", "--primary", "db1", "--lease", "1s"], USAGE, "--lease"),
        (vec!["x", "--primary", "db1", "--parameter", "fsync=off"], USAGE, "fsync is Lockstep's"),
        (vec!["x", "--primary", "db1", "--parameter", "port=1"], USAGE, "port is Lockstep's"),
        (vec!["x", "--primary", "db1", "--hba", "all"], USAGE, "--hba"),
        (vec!["x", "--primary", "db1", "--initdb-option", "-D=/x"], USAGE, "--initdb-option"),
        (vec!["x", "--primary", "db1", "--member", "db9:priority=1"], USAGE, "no member"),
        (vec!["x", "--primary", "db1", "--member", "db1:prio=1"], USAGE, "unknown"),
        (vec!["x", "--primary", "db1", "--data-dir", "relative"], USAGE, "absolute"),
        (vec!["x", "--primary", "db1", "--manager", "launchd"], USAGE, "--manager"),
    ] {
        let refused = fleet.ctl(&[&create[..], &args].concat())?;
        ensure!(refused.status.code() == Some(code), "{args:?}: {refused}");
        ensure!(refused.stderr.contains(says), "{args:?}: {refused}");
    }
    let nothing: v1::ListClustersResponse = fleet.ask(&["cluster", "list"])?;
    ensure!(nothing.clusters.is_empty(), "{nothing:?}");
    for verb in ["show", "pause", "resume", "switchover", "failover", "reload", "restart"] {
        let refused = fleet.ctl(&["cluster", verb, "nobody"])?;
        ensure!(refused.status.code() == Some(REFUSED), "{refused}");
        ensure!(refused.stderr.contains("nobody"), "{refused}");
    }
    for verb in ["delete", "release"] {
        let asked = fleet.ctl(&["cluster", verb, "nobody"])?;
        ensure!(asked.status.code() == Some(USAGE) && asked.stderr.contains("--yes"), "{asked}");
    }
    Ok(())
}

/// What only a member can see is told by the member, and its data is not touched.
#[test]
fn data_that_is_not_the_clusters_is_refused_by_the_member() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["db1", "db2"])?;
    let data = fleet.pg_data("db2")?;
    fleet.member_args("db2")?;
    fs::create_dir_all(&data)?;
    fs::write(data.join("precious"), "mine")?;
    let create = fleet.create_cluster("main", &["db1", "db2"], &["--no-wait"])?;
    create.ok()?;
    let told = until(SOON, "it is told", || -> Result<String> {
        let cluster = fleet.cluster("main")?;
        let report = report(&cluster, "db2")?;
        ensure!(report.state == "foreign", "{report:?}");
        Ok(report.problem.clone())
    });
    ensure!(told.contains("data"), "{told}");
    ensure!(fs::read_to_string(data.join("precious"))? == "mine");
    ensure!(fs::read_dir(&data)?.count() == 1, "something was put there");
    Ok(())
}
