//! Targets that come and go, among few and among many: nobody else notices, neither lsyncd nor
//! another target.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::copies::IN_STEP_WITHIN;
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Net, until};

use super::{SOON, fill_new, wait_idle};

/// A pass over them costs a target that has them all 18 bytes each at least.
const FILES: usize = 6000;
/// What a target hears and says while nothing happens: heartbeats, reports, reminders.
const QUIET_BYTES: u64 = 24 << 10;
const QUIET_BYTES_PER_S: u64 = 2 << 10;
/// For a transfer to be ended that has a minute to go: a moment, on a machine that does nothing else.
const ENDED_WITHIN: Duration = Duration::from_secs(15);
/// The one is how the other begins, as addresses often are.
const TWINS: [&str; 2] = ["h-10-1-1-1", "h-10-1-1-10"];

#[test]
fn targets_come_and_go_and_nobody_else_notices() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fill_new(&fleet)?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;
    let watcher = fleet.lsyncd("master1")?;
    let before = fleet.delivery("web1")?;

    fleet.add_node("web3")?;
    let place = fleet.place("web3")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web3"]);
    let after = fleet.delivery("web1")?;
    // What was reported before may lack the last batch; a pass would be 300 kB.
    let more = after.sent_bytes - before.sent_bytes;
    assert!(more < 10_000, "{more} bytes were sent to another target");
    assert_eq!(fleet.lsyncd("master1")?, watcher, "lsyncd was left alone");

    fleet.ctl(&["sync", "remove-target", "www", "web2", "--wait"])?.ok()?;
    fleet.wait_arrives("master1", &["web1", "web3"], "after")?;
    assert!(fs::exists(fleet.www("web2")?.join("index.html"))?, "its files stay");
    assert!(!fs::exists(fleet.www("web2")?.join("after"))?, "and nothing is sent any more");
    assert_eq!(fleet.lsyncd("master1")?, watcher);
    assert_eq!(fleet.node("web2")?.status("/sync/www"), 404);

    let asked = fleet.ctl(&["sync", "delete", "www"])?.refused()?;
    assert!(asked.contains("--yes"), "{asked}");
    fleet.ctl(&["sync", "delete", "www", "--yes", "--wait"])?.ok()?;
    assert!(fleet.lsyncd("master1").is_err(), "no watcher without a sync");
    assert!(fs::exists(fleet.www("web1")?.join("after"))?);
    assert!(fs::exists(fleet.www("master1")?.join("after"))?);
    let tasks: v1::ListTasksResponse = fleet.ask(&["task", "list", "--live"])?;
    assert!(tasks.tasks.is_empty(), "{tasks:?}");
    assert_eq!(fleet.ctl(&["explain"])?.ok()?.trim(), "nothing waits");
    Ok(())
}

#[test]
fn one_of_twelve_comes_and_one_goes() -> Result<()> {
    one_comes_and_one_goes(12)
}

#[test]
#[ignore = "slow: a hundred agents"]
fn one_of_a_hundred_comes_and_one_goes() -> Result<()> {
    one_comes_and_one_goes(100)
}

/// What shows it when somebody is disturbed.
struct Calm {
    lsyncd: u32,
    /// Of the journal: lsyncd that starts over would tell it.
    head: u64,
    sent_bytes: BTreeMap<String, u64>,
    /// On the targets' own network interfaces.
    traffic_bytes: BTreeMap<String, u64>,
}

impl Calm {
    fn look(fleet: &Fleet, targets: &[&str]) -> Result<Self> {
        let sync = fleet.show_www()?;
        let report = sync.source_report.context("the source has not reported")?;
        let deliveries = sync.targets.into_iter().filter_map(|target| target.delivery);
        let traffic = targets
            .iter()
            .map(|target| Ok(((*target).to_owned(), fleet.node(target)?.host.traffic_bytes()?)));
        Ok(Self {
            lsyncd: fleet.lsyncd("master1")?,
            head: report.head,
            sent_bytes: deliveries.map(|d| (d.target, d.sent_bytes)).collect(),
            traffic_bytes: traffic.collect::<Result<_>>()?,
        })
    }
}

fn one_comes_and_one_goes(count: usize) -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1"])?;
    let names = (TWINS.len()..count).map(|n| format!("web{n}"));
    let names: Vec<String> = TWINS.map(String::from).into_iter().chain(names).collect();
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    for target in &targets {
        fleet.add_node(target)?;
    }
    let www = fleet.www("master1")?;
    for n in 0..FILES {
        let dir = www.join(format!("d{}", n / 100));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("file-{n}")), n.to_string())?;
    }
    let create = fleet.create_www("master1", &targets)?;
    fleet.ctl(&create.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
    wait_idle(&fleet);
    fleet.add_node("late")?;

    let before = Calm::look(&fleet, &targets)?;
    let place = fleet.place("late")?;
    let (added, took) = timed(|| fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok());
    added?;
    let after = Calm::look(&fleet, &targets)?;
    fleet.wait_in_step("master1", &["late"]);
    assert_eq!(after.lsyncd, before.lsyncd, "lsyncd was left alone");
    assert_eq!(after.head, before.head, "lsyncd saw nothing");
    let quiet = QUIET_BYTES + QUIET_BYTES_PER_S * took.as_secs();
    for target in &targets {
        assert_eq!(after.sent_bytes.get(*target), before.sent_bytes.get(*target), "{target}");
        let heard = after.traffic_bytes[*target] - before.traffic_bytes[*target];
        assert!(heard < quiet, "{target}: {heard} bytes in {took:?}");
    }
    let most = targets.iter().map(|t| after.traffic_bytes[*t] - before.traffic_bytes[*t]).max();
    eprintln!("added in {took:?}; {most:?} bytes to one of the others at most");

    // One of them goes in the middle of a transfer.
    let [leaving, staying] = TWINS;
    let (others, host) = (&targets[1..], fleet.node(leaving)?.host.clone());
    // By it the file takes almost three minutes, and the others have it long before.
    host.rate(Some(400_000))?;
    fs::write(www.join("large"), vec![7; 8 << 20])?;
    for target in others.iter().chain(&["late"]) {
        let large = fleet.www(target)?.join("large");
        let there = || fs::metadata(&large).is_ok_and(|found| found.len() == 8 << 20);
        until(IN_STEP_WITHIN, &format!("{target} has it"), there);
    }
    ensure!(!host.processes("rsync")?.is_empty(), "the slow one is through already");
    fleet.ctl(&["sync", "remove-target", "www", leaving])?.ok()?;
    let (_, took) = timed(|| {
        until(SOON, "the transfer ends", || host.processes("rsync").is_ok_and(|p| p.is_empty()));
    });
    eprintln!("its transfer ended {took:?} after it was removed");
    assert!(took < ENDED_WITHIN, "{took:?}");
    let sync = fleet.show_www()?;
    let places: Vec<_> = sync.targets.iter().filter_map(|t| t.target.as_ref()).collect();
    assert!(places.iter().any(|p| p.node == staying) && !places.iter().any(|p| p.node == leaving));
    fleet.wait_arrives("master1", others, "after")?;
    assert_eq!(fleet.lsyncd("master1")?, before.lsyncd);
    let left: Vec<_> =
        fs::read_dir(fleet.www(leaving)?)?.flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("large")), "{left:?}");
    Ok(())
}
