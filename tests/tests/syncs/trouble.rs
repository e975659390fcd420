//! Targets in trouble of every kind: the others keep their lag, and whatever is repaired is brought
//! up to date without a further change.

use std::fs;
use std::io::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Host, Net, cmd, until};

use super::SOON;

/// For a repaired target, whose next try may be a minute away.
const REPAIRED_WITHIN: Duration = Duration::from_secs(150);
/// For a burst on two cores.
const LATER: Duration = Duration::from_secs(240);

/// Waits until the source says so of a target.
fn told(fleet: &Fleet, target: &str, word: &str) {
    until(SOON, &format!("{word:?} is said of {target}"), || -> Result<()> {
        let delivery = fleet.delivery(target)?;
        ensure!(delivery.last_error.contains(word), "{delivery:?}");
        Ok(())
    });
}

/// The longest of some changes' ways to all of these.
fn lag(fleet: &Fleet, targets: &[&str], of: &str) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for n in 0..4 {
        let (arrived, took) =
            timed(|| fleet.wait_arrives("master1", targets, &format!("{of}-{n}")));
        arrived?;
        longest = longest.max(took);
    }
    Ok(longest)
}

#[test]
fn four_bad_targets_of_ten_delay_nobody() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1"])?;
    let names: Vec<String> = (1..=10).map(|n| format!("web{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &all {
        fleet.add_node(name)?;
    }
    let disk = fleet.node("web3")?.host.disk("www", 4 << 20)?;
    fleet.sync_www("master1", &all)?;
    let (bad, good) = all.split_at(4);
    let [dead, silent, full, bare] = bad else { anyhow::bail!("{bad:?}") };
    let usual = lag(&fleet, good, "usual")?;
    // A run that is cut in its middle ends by rsync's own timeout, which is longer than this waits.
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;

    fleet.node(dead)?.host.power_off()?;
    // Its kernel goes on accepting connections; nobody ever answers.
    fleet.node_mut(silent)?.daemon.stop()?;
    disk.fill()?;
    let config = fleet.node(bare)?.host.path("data/agent.toml");
    let whole = fs::read_to_string(&config)?;
    let mut file = fs::File::options().append(true).open(&config)?;
    writeln!(file, "\nrsync = \"/nowhere/rsync\"")?;
    fleet.restart_agent(bare)?;

    fs::write(fleet.www("master1")?.join("more than the disk takes"), vec![1; 1 << 20])?;
    let meanwhile = lag(&fleet, good, "meanwhile")?;
    eprintln!("a change took {usual:?} at most before, {meanwhile:?} among bad targets");
    // Whoever waited for one of the bad would wait for a timeout of rsync, a minute.
    let most = usual * 3 + Duration::from_secs(10);
    assert!(meanwhile < most, "{usual:?}, then {meanwhile:?}");
    for (target, word) in
        [(dead, "unreachable"), (silent, "unreachable"), (full, "No space left"), (bare, "rsync")]
    {
        told(&fleet, target, word);
    }
    // Whoever comes now is filled all the same.
    fleet.add_node("web11")?;
    let place = fleet.place("web11")?;
    let (added, took) = timed(|| fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok());
    added?;
    assert!(took < Duration::from_secs(40), "{took:?}");

    let host = fleet.node(dead)?.host.clone();
    host.power_on()?;
    fleet.run_agent(host)?;
    fleet.node_mut(silent)?.daemon.cont()?;
    disk.free()?;
    fs::write(&config, whole)?;
    fleet.restart_agent(bare)?;
    for target in bad {
        let what = format!("{target} is brought up to date");
        until(REPAIRED_WITHIN, &what, || fleet.check_in_step("master1", target));
    }
    Ok(())
}

/// Whether rsync has begun to write a file that the copy does not have yet.
fn is_arriving(fleet: &Fleet, target: &str, name: &str) -> Result<bool> {
    let begun = format!(".{name}.");
    let mut entries = fs::read_dir(fleet.www(target)?)?.flatten();
    Ok(entries.any(|entry| entry.file_name().to_string_lossy().starts_with(&begun)))
}

fn kill_rsync(host: &Host) -> Result<()> {
    let pids: Vec<String> = host.processes("rsync")?.iter().map(u32::to_string).collect();
    ensure!(!pids.is_empty(), "no rsync runs on {}", host.name());
    // Those that end by themselves meanwhile are no matter.
    host.run(cmd("kill").arg("-KILL").args(pids))?;
    Ok(())
}

#[test]
fn what_did_not_arrive_is_brought_without_a_further_change() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    let web = fleet.node("web1")?.host.clone();
    let disk = web.disk("www", 64 << 20)?;
    fleet.sync_www("master1", &["web1"])?;

    disk.read_only(true)?;
    fs::write(fleet.www("master1")?.join("while-read-only"), "1")?;
    told(&fleet, "web1", "ead-only");
    disk.read_only(false)?;
    until(REPAIRED_WITHIN, "the copy is repaired", || fleet.check_in_step("master1", "web1"));

    for victim in ["master1", "web1"] {
        web.rate(Some(1_000_000))?;
        let name = format!("large-{victim}");
        fs::write(fleet.www("master1")?.join(&name), vec![2; 4 << 20])?;
        until(SOON, "it is on its way", || is_arriving(&fleet, "web1", &name).unwrap_or(false));
        kill_rsync(&fleet.node(victim)?.host)?;
        until(SOON, "the source noticed", || -> Result<()> {
            let delivery = fleet.delivery("web1")?;
            ensure!(!delivery.last_error.is_empty(), "{delivery:?}");
            Ok(())
        });
        assert!(!fs::exists(fleet.www("web1")?.join(&name))?, "half a file is none");
        web.rate(None)?;
        let is_there = || fs::metadata(fleet.www("web1")?.join(&name)).map_err(anyhow::Error::from);
        until(REPAIRED_WITHIN, "it is brought again", is_there);
        // A receiver that is killed leaves its unfinished file; a pass takes it away.
        fleet.ctl(&["sync", "resync", "www", "--wait"])?.ok()?;
        fleet.wait_in_step("master1", &["web1"]);
    }
    Ok(())
}

#[test]
#[ignore = "slow: 40,000 files to six targets"]
fn a_burst_that_overflows_the_kernels_queue_arrives_everywhere() -> Result<()> {
    let net = Net::new()?;
    let targets = ["web1", "web2", "web3", "web4", "web5", "web6"];
    let fleet = Fleet::start(&net, &[&["master1"], &targets[..]].concat())?;
    let www = fleet.www("master1")?;
    // There before, so that what happens in them is watched.
    for dir in 0..40 {
        fs::create_dir_all(www.join(format!("burst/{dir}")))?;
    }
    fleet.sync_www("master1", &targets)?;
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;
    let lsyncd = fleet.lsyncd("master1")?;
    let master = fleet.node("master1")?.host.clone();
    let pid = lsyncd.to_string();
    let signal = |name: &str| master.run(cmd("kill").args([name, &pid]))?.ok();
    // Stopped, so that the queue is certain to overflow.
    signal("-STOP")?;
    for n in 0..40_000 {
        fs::write(www.join(format!("burst/{}/{n}", n / 1000)), n.to_string())?;
    }
    signal("-CONT")?;
    for target in targets {
        let what = format!("the burst is on {target}");
        until(LATER, &what, || fleet.check_in_step("master1", target));
    }
    assert_eq!(fleet.lsyncd("master1")?, lsyncd, "an overflow is no reason to start again");
    for args in [&["sync", "show", "www"][..], &["explain", "sync/www"]] {
        let shown = fleet.ctl(args)?.ok()?;
        let told = shown.contains("overflowed once, at 20")
            && shown.contains("sysctl fs.inotify.max_queued_events=");
        assert!(told, "{shown}");
    }
    fleet.wait_arrives("master1", &targets, "afterwards")?;
    Ok(())
}

#[test]
#[ignore = "slow: a directory of 100,000 files, watched with strace"]
fn a_change_in_a_large_directory_costs_a_few_stats() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    let (www, master) = (fleet.www("master1")?, fleet.node("master1")?.host.clone());
    fs::create_dir_all(www.join("many"))?;
    for n in 0..100_000 {
        fs::write(www.join(format!("many/{n}")), "")?;
    }
    let create = fleet.create_www("master1", &["web1"])?;
    fleet.ctl(&create.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
    until(LATER, "it is filled", || fleet.node("web1").is_ok_and(|n| n.status("/sync/www") == 200));
    fleet.wait_arrives("master1", &["web1"], "many/before")?;
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;

    let log = master.path("strace");
    let mut strace = cmd("strace");
    strace.args(["-f", "-qq", "-e", "trace=%%stat", "-e", "signal=none", "-o"]).arg(&log);
    strace.args(["-p", &fleet.node("master1")?.daemon.pid().to_string()]);
    strace.args(["-p", &fleet.lsyncd("master1")?.to_string()]);
    let mut strace = master.spawn(&mut strace)?;
    until(SOON, "strace is attached", || {
        let tracer = fs::read_to_string(format!("/proc/{}/status", fleet.lsyncd("master1")?))?;
        let attached = format!("TracerPid:\t{}\n", strace.pid());
        ensure!(tracer.contains(&attached), "{tracer}");
        anyhow::Ok(())
    });
    fleet.wait_arrives("master1", &["web1"], "many/after")?;
    strace.signal(rustix::process::Signal::INT)?;
    strace.wait_timeout(SOON)?;
    let text = fs::read_to_string(&log)?;
    let stats = text.lines().count();
    eprintln!("{stats} stats for one change in a directory of 100,000");
    assert!((1..=100).contains(&stats), "{stats}, such as {:?}", text.lines().nth(50));
    Ok(())
}
