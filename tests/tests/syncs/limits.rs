//! The kernel's limits on watching, for an agent in a user namespace, which has its own (the machine's
//! are never written: they belong to all that runs there), and limits of bandwidth.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lockstep_model::Millis;
use lockstep_proto::v1::{self, EngineState};
use lockstep_tests::{Fleet, Net, cmd, until};
use lockstep_transport::clock;
use rustix::process::Signal;

use super::SOON;

/// Of the user namespace of the process that reads or writes it.
const WATCHES: &str = "/proc/sys/user/max_inotify_watches";

/// Runs a program where so many watches are all there are.
fn narrow(watches: u32) -> Command {
    let mut unshare = cmd("unshare");
    let script = format!("echo {watches} >{WATCHES} && exec \"$@\"");
    unshare.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    unshare
}

fn allow(fleet: &Fleet, watches: u32) -> Result<()> {
    let master = fleet.node("master1")?;
    let mut enter = cmd("nsenter");
    enter.args(["--user", "--target", &master.daemon.pid().to_string()]);
    master.host.run(enter.args(["sh", "-c", &format!("echo {watches} >{WATCHES}")]))?.ok()?;
    Ok(())
}

/// Waits until the source of a sync says so.
fn told(fleet: &Fleet, sync: &str, engine: EngineState, words: &[&str]) {
    until(SOON, &format!("{sync} is {} with {words:?}", engine.as_str_name()), || -> Result<()> {
        let shown: v1::Sync = fleet.ask(&["sync", "show", sync])?;
        let report = shown.source_report.context("the source has not reported")?;
        let text = format!("{} {}", report.problem, report.warnings.join(" "));
        let right = report.engine() == engine && words.iter().all(|word| text.contains(word));
        ensure!(right, "{report:?}");
        Ok(())
    });
}

#[test]
fn a_sync_that_needs_too_many_watches_waits_for_more_and_disturbs_no_other() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["web1"])?;
    let token = fleet.token("master1")?;
    let host = net.host("master1")?;
    fleet.join(&host, &token)?.ok()?;
    fleet.run_agent_by(narrow(8), host.clone())?;

    // Its root alone, and then ten directories and the root.
    let (small, copy) = (host.path("small"), fleet.node("web1")?.host.path("small"));
    fs::create_dir_all(&small)?;
    fs::write(small.join("first"), "1")?;
    let source = format!("master1:{}", small.display());
    let target = format!("web1:{}", copy.display());
    let create = ["sync", "create", "small", "--source", &source, "--target", &target, "--wait"];
    fleet.ctl(&create)?.ok()?;
    told(&fleet, "small", EngineState::Watching, &[]);
    let www = fleet.www("master1")?;
    for n in 0..10 {
        fs::create_dir_all(www.join(format!("d{n}")))?;
    }
    fleet.sync_www("master1", &["web1"])?;
    fleet.wait_in_step("master1", &["web1"]);
    let short = ["12 are needed", "limit is 8", "`sysctl user.max_inotify_watches=65536`"];
    told(&fleet, "www", EngineState::Failing, &short);
    let explained = fleet.ctl(&["explain", "sync/www"])?.ok()?;
    assert!(explained.contains("sysctl user.max_inotify_watches="), "{explained}");
    told(&fleet, "small", EngineState::Watching, &[]);
    fs::write(small.join("second"), "2")?;
    until(SOON, "the small one goes on", || copy.join("second").exists());

    allow(&fleet, 14)?;
    told(&fleet, "www", EngineState::Watching, &["12 of 14", "max_inotify_watches=65536"]);
    fleet.wait_arrives("master1", &["web1"], "d3/seen")?;
    // lsyncd ends when it meets the limit.
    for n in 10..20 {
        fs::create_dir(www.join(format!("d{n}")))?;
    }
    told(&fleet, "www", EngineState::Failing, &["22 are needed", "limit is 14"]);
    allow(&fleet, 1000)?;
    told(&fleet, "www", EngineState::Watching, &[]);
    fleet.wait_arrives("master1", &["web1"], "d19/seen")?;
    fleet.wait_in_step("master1", &["web1"]);
    let shown: v1::Sync = fleet.ask(&["sync", "show", "www"])?;
    let warnings = shown.source_report.map(|report| report.warnings);
    assert_eq!(warnings, Some(vec![]), "there is room now");
    Ok(())
}

/// By it the file below takes a quarter of an hour.
const SLOW: &str = "64KiB";
const SLOW_BYTES_PER_S: u64 = 64 << 10;
const BIG_BYTES: usize = 48 << 20;
/// What three seconds' worth takes, when a burst goes at once.
const SHORT: Millis = Millis(2000);

#[test]
fn a_limit_of_bandwidth_changes_while_files_go() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let file = fleet.node("master1")?.host.path("data/agent.toml");
    let given = fs::read_to_string(&file)?;
    let settle = |fleet: &mut Fleet, more: &str| -> Result<()> {
        fs::write(&file, format!("{given}{more}"))?;
        fleet.node_mut("master1")?.daemon.signal(Signal::HUP)
    };
    let told = |fleet: &Fleet, words: &str| -> Result<()> {
        let log = fleet.node("master1")?.daemon.log();
        ensure!(log.contains(words), "{words} is not in {log}");
        Ok(())
    };
    let moved = |fleet: &Fleet| fleet.delivery("web1").map(|delivery| delivery.sent_bytes);

    settle(&mut fleet, &format!("bandwidth-limit = \"{SLOW}\"\nmirror-pulls = 7\n"))?;
    until(SOON, "it is taken up", || told(&fleet, "mirror-pulls"));
    let big: Vec<u8> = (0..BIG_BYTES).map(|n| (n * n / 7 % 251) as u8).collect();
    let (before, began) = (moved(&fleet)?, clock::now());
    fs::write(fleet.www("master1")?.join("big"), big)?;
    // Three seconds' worth.
    until(SOON, "some of it has gone", || -> Result<()> {
        let now = moved(&fleet)? - before;
        ensure!(now >= 3 * SLOW_BYTES_PER_S, "{now}");
        Ok(())
    });
    ensure!(clock::now().since(began) >= SHORT, "it has no limit");
    ensure!(!fleet.www("web1")?.join("big").exists(), "it was not limited");

    // Nonsense leaves what holds.
    settle(&mut fleet, "bandwidth-limit = \"fast\"\n")?;
    until(SOON, "it is refused", || told(&fleet, "the settings stay as they were"));
    ensure!(moved(&fleet)? < before + BIG_BYTES as u64 / 2, "it has no limit any more");

    // The target's own from here on, under the same transfer.
    let place = fleet.place("web1")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--bwlimit", "64K", "--wait"])?.ok()?;
    settle(&mut fleet, "")?;
    let (at, began) = (moved(&fleet)? + 3 * SLOW_BYTES_PER_S, clock::now());
    until(SOON, "it goes on", || moved(&fleet).is_ok_and(|now| now >= at));
    ensure!(clock::now().since(began) >= SHORT, "it has no limit");
    ensure!(!fleet.www("web1")?.join("big").exists(), "the target has no limit");
    fleet.ctl(&["sync", "add-target", "www", &place, "--bwlimit", "1G"])?.ok()?;
    fleet.wait_in_step("master1", &["web1"]);
    ensure!(fleet.delivery("web1")?.sent_bytes < before + 2 * BIG_BYTES as u64, "it went twice");
    Ok(())
}
