//! What may not be lost by accident: a source that is not there, a node that is switched off or
//! thrown out, a command that gives up waiting.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::copies::IN_STEP_WITHIN;
use lockstep_tests::{Fleet, Net, cmd, try_until, until};

const SOON: Duration = Duration::from_secs(90);
/// How long nothing may happen.
const STEADY: Duration = Duration::from_secs(4);

fn explained(fleet: &Fleet, words: &str) {
    until(SOON, &format!("{words:?} is explained"), || -> Result<()> {
        let shown = fleet.ctl(&["explain", "sync/www"])?.ok()?;
        ensure!(shown.contains(words), "{shown}");
        Ok(())
    });
}

/// The copy keeps its files, and its head serves on.
fn stays(fleet: &Fleet, node: &str) -> Result<()> {
    let file = fleet.www(node)?.join("index.html");
    let lost = try_until(STEADY, "the copy is emptied", || {
        !file.exists() || fleet.node(node).is_ok_and(|n| n.status("/sync/www") != 200)
    });
    ensure!(lost.is_err(), "{node} lost its copy, or stopped serving");
    Ok(())
}

#[test]
fn a_source_that_vanishes_empties_no_copy() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let source = fleet.www("master1")?;
    let aside = source.with_file_name("aside");

    fs::rename(&source, &aside)?;
    explained(&fleet, "missing");
    stays(&fleet, "web1")?;
    fs::create_dir(&source)?;
    explained(&fleet, "empty");
    stays(&fleet, "web1")?;
    // Another one in its place is taken, since it is on the same file system.
    fs::write(source.join("index.html"), "<h1>second</h1>\n")?;
    fleet.wait_in_step("master1", &["web1"]);
    fs::remove_dir_all(&source)?;
    fs::rename(&aside, &source)?;
    fleet.wait_in_step("master1", &["web1"]);
    fleet.wait_arrives("master1", &["web1"], "and changes follow")?;
    Ok(())
}

#[test]
fn a_source_on_another_disk_waits_for_a_person() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let master = fleet.node("master1")?.host.clone();
    // As a disk that is mounted over what it should not be, or the other way round.
    let disk = master.disk("www", 4 << 20)?;
    fs::write(disk.path().join("stray"), "stray")?;
    explained(&fleet, "another file system");
    stays(&fleet, "web1")?;
    fleet.ctl(&["sync", "resync", "www", "--wait"])?.ok()?;
    fleet.check_in_step("master1", "web1")?;
    fleet.wait_arrives("master1", &["web1"], "accepted")?;
    Ok(())
}

#[test]
fn a_source_that_is_unmounted_empties_no_copy_and_goes_on_when_it_is_back() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    let disk = fleet.node("master1")?.host.disk("disk", 4 << 20)?;
    let source = fleet.www("master1")?;
    disk.show_at(&source)?;
    fleet.sync_www("master1", &["web1"])?;

    disk.hide_at(&source)?;
    explained(&fleet, "empty");
    stays(&fleet, "web1")?;
    // Whatever lay below the mount point is not the source.
    fs::write(source.join("stray"), "stray")?;
    explained(&fleet, "another file system");
    stays(&fleet, "web1")?;
    fs::write(disk.path().join("while-away"), "1")?;
    fs::remove_file(disk.path().join("index.html"))?;
    disk.show_at(&source)?;
    fleet.wait_in_step("master1", &["web1"]);
    fleet.wait_arrives("master1", &["web1"], "and changes follow")?;
    Ok(())
}

#[test]
fn a_copy_that_is_gone_is_brought_anew() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    fs::remove_dir_all(fleet.www("web1")?)?;
    fs::write(fleet.www("master1")?.join("next"), "change")?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    until(SOON, "it serves again", || {
        fleet.node("web1").is_ok_and(|n| n.status("/sync/www") == 200)
    });
    Ok(())
}

#[test]
fn a_source_that_is_disabled_or_expelled_leaves_its_targets_serving() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    fleet.ctl(&["node", "disable", "master1"])?.ok()?;
    explained(&fleet, "node_disabled");
    let file = fleet.www("master1")?.join("while-disabled");
    fs::write(&file, "1")?;
    stays(&fleet, "web1")?;
    assert!(!fleet.www("web1")?.join("while-disabled").exists());
    fleet.ctl(&["node", "enable", "master1"])?.ok()?;
    fleet.wait_in_step("master1", &["web1"]);

    fleet.ctl(&["node", "expel", "master1", "--yes"])?.ok()?;
    explained(&fleet, "node_expelled");
    stays(&fleet, "web1")?;
    fs::write(fleet.www("master1")?.join("after"), "2")?;
    stays(&fleet, "web1")?;
    assert!(!fleet.www("web1")?.join("after").exists());
    let refused = fleet.ctl(&["node", "remove", "master1", "--yes"])?.refused()?;
    assert!(refused.contains("sync delete www"), "{refused}");
    fleet.ctl(&["sync", "delete", "www", "--yes", "--wait"])?.ok()?;
    fleet.ctl(&["node", "remove", "master1", "--yes"])?.ok()?;
    Ok(())
}

#[test]
fn a_wait_gives_up_in_time_and_what_was_begun_goes_on() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    let (master, web) = (fleet.node("master1")?.host.clone(), fleet.node("web1")?.host.clone());
    net.cut(&master, &web)?;
    fs::create_dir_all(fleet.www("master1")?)?;
    fs::write(fleet.www("master1")?.join("index.html"), "hello")?;
    let mut create = fleet.create_www("master1", &["web1"])?;
    create.extend(["--wait", "--timeout", "4s"].map(String::from));
    let gave_up = fleet.ctl(&create.iter().map(String::as_str).collect::<Vec<_>>())?;
    assert_eq!(gave_up.status.code(), Some(6), "{gave_up}");
    assert!(gave_up.stderr.contains("goes on"), "{gave_up}");
    let same = fleet.create_www("master1", &["web1"])?;
    let again = fleet.ctl(&same.iter().map(String::as_str).collect::<Vec<_>>())?;
    assert!(again.stderr.contains("nothing to change"), "{again}");
    net.heal(&master, &web)?;
    until(IN_STEP_WITHIN, "it is filled", || fleet.check_in_step("master1", "web1"));

    // Nobody there at all.
    fleet.controller.host.power_off()?;
    let mut ctl = fleet.ctl_command();
    web.run(cmd("cp").arg("-a").arg(fleet.controller.host.path("ctl")).arg(web.path("ctl")))?
        .ok()?;
    ctl.env("LOCKSTEP_CONFIG_DIR", web.path("ctl")).args(["node", "list"]);
    let away = web.run(&mut ctl)?;
    assert_eq!(away.status.code(), Some(5), "{away}");
    assert!(away.stderr.contains("10.77.0.1:7400"), "{away}");
    Ok(())
}

#[test]
fn a_watch_shows_changes_as_they_come() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["web1"])?;
    fleet.wait_healthy(&["web1"]);
    let mut ctl = fleet.ctl_command();
    let watch = fleet.controller.host.spawn(ctl.args(["watch", "node/web1", "-o", "json"]))?;
    let entries = || -> Vec<v1::LogEntry> {
        let text = watch.stdout();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let mut label = 0;
    until(SOON, "the watch has begun", || -> Result<()> {
        label += 1;
        fleet.ctl(&["node", "label", "web1", &format!("n={label}")])?.ok()?;
        ensure!(!entries().is_empty(), "nothing yet");
        Ok(())
    });
    let first = entries().first().map_or(0, |entry| entry.revision);
    fleet.ctl(&["node", "drain", "web1"])?.ok()?;
    let drained = until(SOON, "the drain is shown", || {
        entries().into_iter().find(|entry| entry.cause == "NodeService/DrainNode")
    });
    assert_eq!(drained.actor, "user/admin");
    assert!(drained.revision > first);
    let since = (first - 1).to_string();
    let again = fleet.ctl(&["watch", "node/web1", "--after", &since, "--timeout", "2s"])?;
    assert_eq!(again.status.code(), Some(6), "{again}");
    assert!(again.stdout.contains("NodeService/DrainNode"), "{again}");
    Ok(())
}
