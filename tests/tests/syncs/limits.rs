//! The kernel's limits on watching, for an agent in a user namespace, which has its own. The
//! machine's limits are never written: they belong to all that runs there.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1::{self, EngineState};
use lockstep_tests::{Fleet, Net, cmd, until};

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
