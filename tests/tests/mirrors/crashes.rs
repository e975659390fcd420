//! kill -9 at any moment: no run is lost, none is repeated, and no rsync is left alone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::chance::Chance;
use lockstep_tests::mirrors::on;
use lockstep_tests::{Fleet, Upstream, try_until, until, upstream};

use super::{SOON, world};

const NODES: [&str; 3] = ["master1", "ftp1", "ftp2"];

/// A mirror whose every pull takes a moment.
fn begin(fleet: &Fleet, up: &Upstream) -> Result<()> {
    upstream::fill(&up.tree().join("big"), 20, 50_000)?;
    let url = up.url();
    let more = ["--upstream", &url, "--bwlimit", "1M", "--replica-bwlimit", "1M"];
    fleet.create_mirror("fedora", &NODES, &more)?.ok()?;
    Ok(())
}

/// rsyncs on the host that no agent watches over: their agent is dead.
fn orphans(fleet: &Fleet, node: &str) -> Result<Vec<u32>> {
    let host = &fleet.node(node)?.host;
    let parent = |pid: &u32| -> u32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(") ").next().unwrap_or_default().to_owned();
        after.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let agent = fleet.node(node)?.daemon.pid();
    let mut found = host.processes("rsync")?;
    // rsync's own children have an rsync for a parent, down to one of the agent's.
    let all = found.clone();
    found.retain(|pid| {
        let of = parent(pid);
        of != 0 && of != agent && !all.contains(&of) && Path::new(&format!("/proc/{pid}")).exists()
    });
    Ok(found)
}

/// Every run that was asked for has ended once, numbers without a gap, and everybody has everything.
fn all_is_told(fleet: &Fleet, up: &Upstream, runs: u64) -> Result<()> {
    until(Duration::from_secs(120), "every run has ended", || -> Result<()> {
        let mirror = fleet.mirror("fedora")?;
        ensure!(mirror.wanted_run == 0, "{} waits", mirror.wanted_run);
        let parts = fleet.parts("fedora")?;
        let live: Vec<_> = parts.iter().filter(|part| part.ended_at.is_none()).collect();
        ensure!(live.is_empty(), "{live:?}");
        for node in NODES {
            let there = on(&mirror, node)?;
            ensure!(there.generation == mirror.generation, "{there:?}");
        }
        Ok(())
    });
    let heads = fleet.heads("fedora")?;
    let mut numbers: Vec<u64> = heads.iter().map(|head| head.number).collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (1..=runs).collect();
    ensure!(numbers == expected, "{numbers:?} instead of {expected:?}");
    for node in NODES {
        fleet.check_mirrored("fedora", node, &up.tree())?;
        until(SOON, "no rsync is left", || -> Result<()> {
            let left = fleet.node(node)?.host.processes("rsync")?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        });
    }
    Ok(())
}

#[test]
fn a_run_survives_the_death_of_each_of_its_daemons() -> Result<()> {
    let (_net, mut fleet, up) = world(&NODES)?;
    begin(&fleet, &up)?;
    let pulls = |fleet: &Fleet, node: &str| -> Result<()> {
        let found = fleet.node(node)?.host.processes("rsync")?;
        ensure!(!found.is_empty(), "nothing runs on {node}");
        Ok(())
    };
    fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
    until(SOON, "the master pulls", || pulls(&fleet, "master1"));
    fleet.restart_controller()?;
    fleet.node_mut("master1")?.daemon.kill()?;
    until(SOON, "its rsync ends with it", || {
        orphans(&fleet, "master1").is_ok_and(|found| found.is_empty())
    });
    fleet.restart_agent("master1")?;
    until(SOON, "the replica pulls", || pulls(&fleet, "ftp1"));
    fleet.restart_agent("ftp1")?;
    until(SOON, "the replica pulls again, or has all", || {
        pulls(&fleet, "ftp1").is_ok() || fleet.check_mirrored("fedora", "ftp1", &up.tree()).is_ok()
    });
    // Its data comes through the master's agent.
    fleet.restart_agent("master1")?;
    all_is_told(&fleet, &up, 1)?;
    ensure!(fleet.mirror("fedora")?.generation == 1, "the tree came once");
    Ok(())
}

/// `LOCKSTEP_TEST_SEED` repeats a failure.
#[test]
#[ignore = "slow: 20 kills"]
fn no_run_is_lost_or_repeated_whoever_dies_when() -> Result<()> {
    let seed = std::env::var("LOCKSTEP_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("LOCKSTEP_TEST_SEED={seed}");
    let mut chance = Chance::new(seed);
    let (_net, mut fleet, up) = world(&NODES)?;
    begin(&fleet, &up)?;
    let mut runs = 0;
    for round in 0..20 {
        // Within a second rsync goes by the size alone.
        up.write("round", vec![b'x'; round + 1])?;
        upstream::fill(&up.tree().join(format!("round-{round}")), 5, 40_000)?;
        let asked = fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
        let number: u64 = asked.trim().rsplit('/').next().unwrap_or_default().parse()?;
        ensure!(number == runs + 1 || number == runs, "{number} after {runs}");
        runs = number;
        let pause = Duration::from_millis(chance.below(2500) as u64);
        let _ = try_until(pause, "a moment passes", || false);
        match chance.below(4) {
            0 => fleet.restart_controller()?,
            1 => fleet.restart_agent("master1")?,
            2 => fleet.restart_agent("ftp1")?,
            _ => {
                fleet.node_mut("master1")?.daemon.kill()?;
                fleet.restart_controller()?;
                fleet.restart_agent("master1")?;
            }
        }
    }
    all_is_told(&fleet, &up, runs)
}
