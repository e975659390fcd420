//! From the upstream to every replica: by the clock, on demand, past failures and dead replicas.

use std::fs;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::mirrors::{RUN_WITHIN, on};
use lockstep_tests::until;
use serde_json::Value;

use super::{SOON, hold, world};

#[test]
fn a_schedule_fires_and_every_replica_follows() -> Result<()> {
    let (_net, fleet, upstream) = world(&["master1", "ftp1", "ftp2"])?;
    let url = upstream.url();
    let more = ["--upstream", &url, "--schedule", "second=*/2", "--replica-delete", "after"];
    fleet.create_mirror("fedora", &["master1", "ftp1", "ftp2"], &more)?.ok()?;
    fleet.wait_generation("fedora", &["master1", "ftp1", "ftp2"], 1);
    fleet.check_mirrored("fedora", "ftp2", &upstream.tree())?;

    upstream.write("linux/releases/40/iso", "40")?;
    upstream.remove("index.html")?;
    fleet.wait_generation("fedora", &["master1", "ftp1", "ftp2"], 2);
    for node in ["master1", "ftp1", "ftp2"] {
        fleet.check_mirrored("fedora", node, &upstream.tree())?;
    }
    let heads = fleet.heads("fedora")?;
    ensure!(heads.iter().all(|head| head.trigger == "schedule"), "{heads:?}");
    let part = fleet.part("fedora", "ftp1")?;
    let pulled = part.pulled.context("what it did")?;
    ensure!(pulled.exit_code == Some(0) && pulled.received_bytes > 0, "{pulled:?}");
    ensure!(part.started_at.is_some() && part.ended_at.is_some(), "{part:?}");

    // Nothing new: recorded, and no replica is asked.
    let pulls = |node: &str| -> Result<usize> {
        Ok(fleet.parts("fedora")?.iter().filter(|part| part.node == node).count())
    };
    let (on_master, on_replica) = (pulls("master1")?, pulls("ftp1")?);
    until(SOON, "two more runs", || pulls("master1").is_ok_and(|now| now >= on_master + 2));
    ensure!(pulls("ftp1")? == on_replica, "unchanged, and yet distributed");

    let cells: Vec<Value> = fleet.ask(&["mirror", "matrix"])?;
    ensure!(cells.len() == 3 && cells.iter().all(|cell| cell["current"] == true), "{cells:?}");
    ensure!(cells.iter().all(|cell| cell["age_ms"].is_u64()), "{cells:?}");
    let table = fleet.ctl(&["mirror", "matrix"])?.ok()?;
    ensure!(table.contains("MASTER1") && table.contains(" *"), "{table}");

    // Off: nothing more, until somebody asks.
    fleet.ctl(&["mirror", "disable", "--all"])?.ok()?;
    let off = fleet.mirror("fedora")?;
    ensure!(!off.enabled && off.next_run_at.is_none(), "{off:?}");
    until(SOON, "what ran has ended", || -> Result<()> {
        let heads = fleet.heads("fedora")?;
        ensure!(heads.iter().all(|head| head.ended_at.is_some()), "{heads:?}");
        Ok(())
    });
    upstream.write("later", "later")?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.ctl(&["mirror", "enable", "fedora"])?.ok()?;
    fleet.wait_generation("fedora", &["ftp1", "ftp2"], 3);
    Ok(())
}

#[test]
fn a_failed_upstream_changes_nothing_and_never_cascades() -> Result<()> {
    let (_net, fleet, mut upstream) = world(&["master1", "ftp1"])?;
    let url = upstream.url();
    let more = ["--upstream", &url, "--attempts", "1", "--connect-timeout", "30s"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let kept = upstream.tree();

    upstream.stop()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "{failed}");
    ensure!(failed.stderr.contains("failed on master1"), "{failed}");
    let mirror = fleet.mirror("fedora")?;
    ensure!(mirror.generation == 1, "{mirror:?}");
    ensure!(on(&mirror, "ftp1")?.current, "{mirror:?}");
    ensure!(!mirror.reason.is_empty(), "why is told: {mirror:?}");
    let failures = fleet.heads("fedora")?;
    ensure!(failures[0].pulled.as_ref().is_some_and(|p| p.exit_code == Some(10)), "{failures:?}");
    for node in ["master1", "ftp1"] {
        fleet.check_mirrored("fedora", node, &kept)?;
    }
    let parts = fleet.parts("fedora")?;
    ensure!(parts.iter().filter(|part| part.node == "ftp1").count() == 1, "{parts:?}");

    upstream.start_again()?;
    upstream.write("back", "back")?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.check_mirrored("fedora", "ftp1", &upstream.tree())?;
    until(SOON, "nothing is wrong any more", || -> Result<()> {
        let mirror = fleet.mirror("fedora")?;
        ensure!(mirror.reason.is_empty(), "{mirror:?}");
        Ok(())
    });
    Ok(())
}

#[test]
fn a_dead_replica_delays_nobody_and_pulls_once_when_it_is_back() -> Result<()> {
    let (_net, mut fleet, upstream) = world(&["master1", "ftp1", "ftp2"])?;
    let url = upstream.url();
    fleet.create_mirror("fedora", &["master1", "ftp1", "ftp2"], &["--upstream", &url])?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.node_mut("ftp2")?.daemon.kill()?;
    fleet.wait_health("ftp2", v1::NodeHealth::Unavailable);
    for n in 2..=4 {
        // Within a second rsync goes by the size alone.
        upstream.write("news", vec![b'x'; usize::try_from(n)?])?;
        fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
        fleet.wait_generation("fedora", &["ftp1"], n);
    }
    let mirror = fleet.mirror("fedora")?;
    let away = on(&mirror, "ftp2")?;
    ensure!(away.generation == 1 && !away.current && !away.reason.is_empty(), "{away:?}");
    let explained = fleet.ctl(&["explain", "mirror/fedora"])?.ok()?;
    ensure!(explained.contains("ftp2"), "{explained}");

    fleet.restart_agent("ftp2")?;
    fleet.wait_generation("fedora", &["ftp2"], 4);
    fleet.check_mirrored("fedora", "ftp2", &upstream.tree())?;
    let parts = fleet.parts("fedora")?;
    let pulls = parts.iter().filter(|part| part.node == "ftp2").count();
    ensure!(pulls == 2, "the first and the newest: {parts:?}");
    Ok(())
}

#[test]
#[ignore = "slow: half a minute until a node counts as away"]
fn a_wait_names_who_is_away() -> Result<()> {
    let (_net, mut fleet, upstream) = world(&["master1", "ftp1", "ftp2"])?;
    let url = upstream.url();
    fleet.create_mirror("fedora", &["master1", "ftp1", "ftp2"], &["--upstream", &url])?.ok()?;
    fleet.node_mut("ftp2")?.daemon.kill()?;
    let run = fleet.pull("fedora", &["--timeout", "55s"])?;
    ensure!(run.stderr.contains("did not reach ftp2"), "{run}");
    ensure!(run.status.code() != Some(6), "{run}");
    fleet.check_mirrored("fedora", "ftp1", &upstream.tree())
}

#[test]
fn a_trigger_during_a_run_is_exactly_one_more() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    let go_on = hold(&mut fleet, "master1")?;
    let more = ["--upstream", &url, "--hook", "hold on=before"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    let first = fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
    ensure!(first.trim() == "fedora/1", "{first}");
    until(SOON, "the master pulls", || -> Result<()> {
        let mirror = fleet.mirror("fedora")?;
        let report = on(&mirror, "master1")?.report.clone().unwrap_or_default();
        let pull = report.pull.context("no pull")?;
        ensure!(pull.number == 1, "{pull:?}");
        Ok(())
    });
    let more: Vec<String> =
        (0..5).map(|_| fleet.ctl(&["mirror", "sync", "fedora"])?.ok()).collect::<Result<_>>()?;
    ensure!(more.iter().all(|run| run.trim() == "fedora/2"), "{more:?}");
    fs::write(go_on, "")?;
    until(RUN_WITHIN, "two runs ended", || -> Result<()> {
        let heads = fleet.heads("fedora")?;
        ensure!(heads.len() == 2, "{heads:?}");
        ensure!(heads.iter().all(|head| head.ended_at.is_some()), "{heads:?}");
        Ok(())
    });
    fleet.wait_generation("fedora", &["ftp1"], 1);
    let mirror = fleet.mirror("fedora")?;
    ensure!(mirror.wanted_run == 0 && mirror.generation == 1, "{mirror:?}");
    Ok(())
}

#[test]
fn one_replica_alone_is_brought_up_to_the_master() -> Result<()> {
    let (_net, fleet, upstream) = world(&["master1", "ftp1", "ftp2"])?;
    let url = upstream.url();
    fleet.create_mirror("fedora", &["master1", "ftp1", "ftp2"], &["--upstream", &url])?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    // Somebody worked on a replica by hand.
    let spoiled = fleet.mirrored("ftp2", "fedora")?.join("index.html");
    fs::remove_file(&spoiled)?;
    let before = upstream.pulls();
    fleet.pull("fedora", &["--only", "ftp2"])?.ok()?;
    fleet.check_mirrored("fedora", "ftp2", &upstream.tree())?;
    ensure!(upstream.pulls() == before, "the upstream was asked");
    let part = fleet.part("fedora", "ftp2")?;
    ensure!(part.hop() == v1::HopKind::Replica && part.trigger.starts_with("user/"), "{part:?}");
    let unknown = fleet.ctl(&["mirror", "sync", "fedora", "--only", "ftp9"])?.refused()?;
    ensure!(unknown.contains("ftp9"), "{unknown}");

    // The master lost its tree; a replica's is as good.
    fs::remove_dir_all(fleet.mirrored("master1", "fedora")?)?;
    fleet.pull("fedora", &["--from", "ftp1"])?.ok()?;
    fleet.check_mirrored("fedora", "master1", &upstream.tree())?;
    ensure!(upstream.pulls() == before, "the upstream was asked");
    Ok(())
}
