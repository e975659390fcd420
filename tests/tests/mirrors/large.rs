//! An upstream that lists a million files.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, until};

use super::{SOON, world};

const FILES: u64 = 1_000_000;
/// What the agent may grow by for them: far below what their names alone take.
const GROWTH_MAX_KB: u64 = 48 << 10;

/// The most memory that a node's agent ever had, in KiB.
fn peak_kb(fleet: &Fleet, node: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", fleet.node(node)?.daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    line.trim().trim_end_matches(" kB").parse().context("no number")
}

/// A run of the mirror that has ended, on the master.
fn run(fleet: &Fleet) -> Result<v1::Run> {
    let asked = fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
    let number: u64 = asked.trim().rsplit('/').next().unwrap_or_default().parse()?;
    Ok(until(Duration::from_secs(900), "the run ends", || -> Result<v1::Run> {
        let head = fleet.heads("fedora")?.into_iter().find(|head| head.number == number);
        let head = head.context("no such run")?;
        ensure!(head.ended_at.is_some(), "{head:?}");
        Ok(head)
    }))
}

#[test]
#[ignore = "slow: a million files"]
fn a_million_files_take_no_memory_of_the_agent() -> Result<()> {
    let (_net, fleet, up) = world(&["master1"])?;
    // In memory; all of them are names of one empty file.
    let disk = up.host.disk("million", 1 << 30)?;
    let many = disk.path().join("many");
    fs::create_dir(&many)?;
    fs::write(many.join("0"), "")?;
    for n in 1..FILES {
        fs::hard_link(many.join("0"), many.join(n.to_string()))?;
    }
    fs::write(disk.path().join("index.html"), "<h1>first</h1>\n")?;
    let url = up.url();
    let _copy = fleet.node("master1")?.host.disk("ftp", 4 << 30)?;
    let more = ["--upstream", &url, "--attempts", "1", "--io-timeout", "5m"];
    fleet.create_mirror("fedora", &["master1"], &more)?.ok()?;
    ensure!(run(&fleet)?.message.is_empty());
    let before = peak_kb(&fleet, "master1")?;
    let grown = |what: &str| -> Result<()> {
        let growth = peak_kb(&fleet, "master1")?.saturating_sub(before);
        eprintln!("{what}: the agent grew by {growth} KiB from {before} KiB");
        ensure!(growth <= GROWTH_MAX_KB, "{what}: {growth} KiB on top of {before} KiB");
        Ok(())
    };

    disk.show_at(&up.tree())?;
    let first = run(&fleet)?;
    ensure!(first.message.is_empty(), "{first:?}");
    let files = first.pulled.context("what it did")?.entries;
    ensure!(files > FILES, "{files}");
    let copy = fleet.mirrored("master1", "fedora")?;
    ensure!(fs::read_dir(copy.join("many"))?.count() as u64 == FILES, "not all are there");
    grown("first copy")?;
    let again = run(&fleet)?;
    ensure!(again.message.is_empty(), "{again:?}");
    ensure!(fleet.mirror("fedora")?.generation == 2, "nothing had changed");
    grown("unchanged")?;

    // Gone again: counted, and held.
    disk.hide_at(&up.tree())?;
    let held = run(&fleet)?;
    ensure!(held.message.contains("would be removed"), "{held:?}");
    ensure!(held.message.contains("--allow delete"), "{held:?}");
    ensure!(fs::read_dir(copy.join("many"))?.count() as u64 == FILES, "some were removed");
    grown("held")?;
    until(SOON, "nothing is left running", || {
        fleet
            .node("master1")
            .and_then(|node| node.host.processes("rsync"))
            .is_ok_and(|p| p.is_empty())
    });
    Ok(())
}
