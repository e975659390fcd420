//! Killed programs, cut lines, lost hosts, full disks: what is promised holds through them, and
//! everything converges after them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1::{self, NodeHealth};
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Net, cmd, try_until, until};

const SOON: Duration = Duration::from_secs(90);
/// Three heartbeats of two seconds, and some slack for a loaded machine.
const SILENCE_NOTICED: Duration = Duration::from_secs(30);

/// How often each task was stored, and how often as ended, as the log tells.
fn task_ends(fleet: &Fleet) -> Result<BTreeMap<String, usize>> {
    let log: v1::ListEntriesResponse = fleet.ask(&["log", "task/", "--limit", "1000"])?;
    let mut ends = BTreeMap::new();
    for write in log.entries.iter().flat_map(|entry| &entry.writes) {
        if write.key.starts_with("task/") && !write.deleted {
            let live =
                write.summary.ends_with("to do") || write.summary.ends_with("to be cancelled");
            *ends.entry(write.key.clone()).or_default() += usize::from(!live);
        }
    }
    Ok(ends)
}

#[test]
fn a_killed_controller_loses_nothing_and_repeats_nothing() -> Result<()> {
    kill_the_controller(4)
}

#[test]
#[ignore = "slow: two to four minutes"]
fn a_controller_killed_at_many_moments_loses_nothing_and_repeats_nothing() -> Result<()> {
    kill_the_controller(20)
}

fn kill_the_controller(rounds: u64) -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1"])?;
    for round in 0..rounds {
        // Killed while something is being asked of it: the answer may get lost, the wish may not
        // be half done.
        let place = fleet.place("web2")?;
        let (verb, what) =
            if round % 2 == 0 { ("add-target", &*place) } else { ("remove-target", "web2") };
        let id = format!("round-{round}");
        let args = ["sync", verb, "www", what, "--request-id", &id];
        let mut asking = fleet.controller.host.spawn(fleet.ctl_command().args(args))?;
        try_until(Duration::from_millis(7 * (round + 1)), "it is asked", || false).ok();
        fleet.controller.daemon.kill()?;
        asking.wait_timeout(SOON)?;
        // Changes go on arriving without it.
        fleet.wait_arrives("master1", &["web1"], &format!("away-{round}"))?;
        fleet.restart_controller()?;
        // The same request once more: done once.
        fleet.ctl(&args)?.ok()?;
        fleet.wait_healthy(&["master1", "web1", "web2"]);
        let targets = if round % 2 == 0 { 2 } else { 1 };
        assert_eq!(fleet.show_www()?.targets.len(), targets);
        fleet.wait_arrives("master1", &["web1"], &format!("back-{round}"))?;
    }
    until(SOON, "no task is left", || -> Result<()> {
        let live: v1::ListTasksResponse = fleet.ask(&["task", "list", "--live"])?;
        ensure!(live.tasks.is_empty(), "{live:?}");
        Ok(())
    });
    let ends = task_ends(&fleet)?;
    assert!(ends.len() >= 5, "{ends:?}");
    assert!(ends.values().all(|&ended| ended <= 1), "a task ended twice: {ends:?}");
    assert!(ends.values().filter(|&&ended| ended == 1).count() >= 4, "{ends:?}");
    fleet.wait_in_step("master1", &["web1"]);
    Ok(())
}

#[test]
fn killed_agents_catch_up() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;

    // The target's: changes wait, and are not lost.
    fleet.node_mut("web1")?.daemon.kill()?;
    fs::write(fleet.www("master1")?.join("while-web1-was-dead"), "1")?;
    until(SOON, "the source says why", || -> Result<()> {
        let shown = fleet.ctl(&["explain", "sync/www"])?.ok()?;
        ensure!(shown.contains("web1"), "{shown}");
        Ok(())
    });
    fleet.restart_agent("web1")?;
    fleet.wait_in_step("master1", &["web1"]);

    // The source's, in the middle of changes: what changed while nobody watched is found.
    let master = fleet.node("master1")?.host.clone();
    fs::write(fleet.www("master1")?.join("just-before"), "2")?;
    fleet.node_mut("master1")?.daemon.kill()?;
    until(SOON, "nothing of it is left", || -> Result<()> {
        let pids = master.pids()?;
        ensure!(pids.is_empty(), "{pids:?}");
        Ok(())
    });
    fs::write(fleet.www("master1")?.join("while-master1-was-dead"), "3")?;
    fs::remove_file(fleet.www("master1")?.join("index.html"))?;
    fleet.restart_agent("master1")?;
    fleet.wait_in_step("master1", &["web1"]);

    // lsyncd alone: it is started again.
    let pid = until(SOON, "lsyncd runs", || fleet.lsyncd("master1"));
    master.run(cmd("kill").args(["-KILL", &pid.to_string()]))?.ok()?;
    fs::write(fleet.www("master1")?.join("while-lsyncd-was-dead"), "4")?;
    fleet.wait_in_step("master1", &["web1"]);
    Ok(())
}

#[test]
fn a_silent_line_to_the_controller_is_noticed_on_both_sides() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let (controller, web1) = (fleet.controller.host.clone(), fleet.node("web1")?.host.clone());
    net.cut(&controller, &web1)?;
    let (_, took) = timed(|| fleet.wait_health("web1", NodeHealth::Unavailable));
    assert!(took < SILENCE_NOTICED, "noticed by the controller after {took:?}");
    let noticed = try_until(SILENCE_NOTICED, "the agent notices", || {
        fleet
            .node("web1")
            .and_then(|n| n.health("/node/health"))
            .is_ok_and(|r| r.body.contains("without the controller"))
    });
    ensure!(noticed.is_ok(), "{noticed:?}");
    assert_eq!(fleet.node("web1")?.status("/sync/www"), 200);
    fleet.wait_arrives("master1", &["web1"], "around the cut")?;
    net.heal(&controller, &web1)?;
    fleet.wait_healthy(&["web1"]);
    let _: v1::PingNodeResponse = fleet.ask(&["node", "ping", "web1"])?;
    Ok(())
}

#[test]
fn a_silent_line_between_nodes_heals_and_costs_only_its_target() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    let (master, web1) = (fleet.node("master1")?.host.clone(), fleet.node("web1")?.host.clone());
    net.cut(&master, &web1)?;
    for n in 0..3 {
        fleet.wait_arrives("master1", &["web2"], &format!("cut-{n}"))?;
    }
    until(SOON, "the source names the one it cannot reach", || -> Result<()> {
        let shown = fleet.ctl(&["sync", "show", "www"])?.ok()?;
        let line = shown.lines().find(|line| line.starts_with("web1:")).unwrap_or_default();
        ensure!(line.contains("failing"), "{shown}");
        Ok(())
    });
    net.heal(&master, &web1)?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    until(SOON, "all is well again", || -> Result<()> {
        let shown = fleet.ctl(&["explain", "sync/www"])?.ok()?;
        ensure!(shown.trim() == "nothing waits", "{shown}");
        Ok(())
    });
    Ok(())
}

#[test]
fn hosts_lose_their_power_and_come_back() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    for name in ["web1", "master1"] {
        let host = fleet.node(name)?.host.clone();
        host.power_off()?;
        fs::write(fleet.www("master1")?.join(format!("while-{name}-was-off")), name)?;
        fleet.wait_health(name, NodeHealth::Unavailable);
        host.power_on()?;
        fleet.run_agent(host)?;
        fleet.wait_healthy(&[name]);
        fleet.wait_in_step("master1", &["web1"]);
    }
    // The controller's host as well, with changes meanwhile.
    let host = fleet.controller.host.clone();
    host.power_off()?;
    fleet.wait_arrives("master1", &["web1"], "without-controller")?;
    host.power_on()?;
    fleet.restart_controller()?;
    fleet.wait_healthy(&["master1", "web1"]);
    Ok(())
}

#[test]
fn a_full_disk_on_a_target_heals_and_costs_only_that_target() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    let disk = fleet.node("web1")?.host.disk("www", 4 << 20)?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    disk.fill()?;
    fs::write(fleet.www("master1")?.join("big"), vec![3; 1 << 20])?;
    fleet.wait_arrives("master1", &["web2"], "after-big")?;
    let shown = until(SOON, "the disk is named", || {
        let shown = fleet.ctl(&["explain", "sync/www"]).and_then(|o| o.ok()).unwrap_or_default();
        if shown.contains("No space left") || shown.contains("disk") {
            Ok(shown)
        } else {
            Err(shown)
        }
    });
    assert!(shown.contains("web1") && !shown.contains("web2 is"), "{shown}");
    assert_eq!(fleet.node("web1")?.status("/sync/www"), 200, "what it has is complete, and old");
    disk.free()?;
    fleet.wait_in_step("master1", &["web2"]);
    let copy = fleet.www("web1")?.join("big");
    until(Duration::from_secs(150), "the freed disk is used", || {
        fs::metadata(&copy).is_ok_and(|m| m.len() == 1 << 20)
    });
    Ok(())
}
