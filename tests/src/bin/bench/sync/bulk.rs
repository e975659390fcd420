//! A great deal at once to one target: Lockstep's mutual TLS beside rsync over ssh and beside a bare
//! rsync daemon, without a disk. They take turns, so that all meet the same machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Host, Net, Proc};

use super::files::{empty, in_memory, plan, write_all, write_large};
use super::reach::{Over, Reach};
use super::system::{Kind, ctl, running};
use super::{P50, WITHIN};
use crate::figures::{Figure, Figures};
use crate::process::{rest, started_s, uptime_s};

struct Size {
    bytes: usize,
    files: usize,
    rounds: usize,
}

const FULL: Size = Size { bytes: 1 << 30, files: 10_000, rounds: 5 };
const QUICK: Size = Size { bytes: 128 << 20, files: 1000, rounds: 2 };

/// Of rsyncd's speed, at least.
const OF_RSYNCD: f64 = 0.9;
const ROOM_BYTES: usize = 256 << 20;
/// How closely the start and the end of an rsync are known is the kernel's matter; this is how often
/// one looks for a new one.
const LOOK: Duration = Duration::from_millis(20);

struct Place {
    kind: Kind,
    target: Host,
    /// For plain rsync.
    reach: Option<Reach>,
}

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["source", "target", "witness"])?;
    fleet.wait_healthy(&["source", "target", "witness"]);
    let source = fleet.node("source")?.host.clone();
    let mut places = Vec::new();
    for (over, name) in [(Over::Ssh, "over-ssh"), (Over::Rsyncd, "over-rsyncd")] {
        let (target, mut reach) = (net.host(name)?, Reach::new(over, &source)?);
        reach.serve(&target)?;
        places.push(Place { kind: Kind::Lsyncd(over), target, reach: Some(reach) });
    }
    let target = fleet.node("target")?.host.clone();
    places.push(Place { kind: Kind::Lockstep, target, reach: None });
    let room = size.bytes + ROOM_BYTES;
    in_memory(&source, room)?;
    in_memory(&fleet.node("witness")?.host, room)?;
    places.iter().try_for_each(|place| in_memory(&place.target, room))?;

    let www = source.path("www");
    write_large(&www.join("large"), size.bytes)?;
    let create = [fleet.create_www("source", &["witness"])?, vec!["--wait".to_owned()]].concat();
    ctl(&fleet, &create.iter().map(String::as_str).collect::<Vec<_>>())?;
    let name = format!("1 file of {} MiB", size.bytes >> 20);
    race(figures, &name, &fleet, &places, size.rounds)?;

    empty(&www)?;
    let files = plan(&www, "file", size.files)?;
    write_all(&www, &files)?;
    // What the witness is sent of this is over before anything is timed.
    rest(Duration::from_secs(3));
    ctl(&fleet, &["sync", "wait", "www"])?;
    race(figures, &format!("{} small files", size.files), &fleet, &places, size.rounds)
}

fn race(
    figures: &mut Figures,
    what: &str,
    fleet: &Fleet,
    places: &[Place],
    rounds: usize,
) -> Result<()> {
    let mut took: Vec<Vec<f64>> = vec![Vec::new(); places.len()];
    let mut asked = Vec::new();
    for _ in 0..rounds {
        for (place, took) in places.iter().zip(&mut took) {
            empty(&place.target.path("www"))?;
            match &place.reach {
                Some(reach) => took.push(plain(fleet, reach, &place.target)?),
                None => {
                    let (rsync_s, all_s) = ours(fleet, &place.target)?;
                    took.push(rsync_s);
                    asked.push(all_s);
                }
            }
            let copied = fs::read_dir(place.target.path("www"))?.count();
            let there = fs::read_dir(fleet.www("source")?)?.count();
            ensure!(copied == there, "{}: {copied} of {there} arrived", place.target.name());
        }
    }
    let figure = |(place, took): (&Place, &Vec<f64>)| {
        let name = match place.kind {
            Kind::Lsyncd(Over::Ssh) => "rsync+ssh",
            Kind::Lsyncd(Over::Rsyncd) => "rsync+rsyncd",
            Kind::Lockstep => "lockstep",
        };
        P50(format!("bulk, {what}: {name}"), "s", took)
    };
    let of: Vec<Figure> = places.iter().zip(&took).map(figure).collect();
    let [ssh, rsyncd, lockstep] = of.as_slice() else { anyhow::bail!("not three") };
    figures.add(ssh.clone());
    figures.add(rsyncd.clone());
    figures.add(lockstep.clone().beside("rsync+ssh", ssh).goal_of_peer(1.0));
    figures.add(lockstep.clone().beside("rsync+rsyncd", rsyncd).goal_of_peer(1.0 / OF_RSYNCD));
    figures.add(P50(format!("bulk, {what}: lockstep, from add-target"), "s", &asked));
    Ok(())
}

/// Seconds that one rsync takes.
fn plain(fleet: &Fleet, reach: &Reach, target: &Host) -> Result<f64> {
    let source = &fleet.node("source")?.host;
    let mut rsync = reach.rsync(&source.path("www"), target);
    let (done, took) = timed(|| source.spawn(&mut rsync)?.output(WITHIN)?.ok());
    done?;
    Ok(took.as_secs_f64())
}

/// The target leaves the sync and is taken in again, empty. Seconds that the source's rsyncs take,
/// one after the other, and seconds from the command until it returns.
fn ours(fleet: &Fleet, target: &Host) -> Result<(f64, f64)> {
    let place = fleet.place(target.name())?;
    let sync = fleet.ask::<lockstep_proto::v1::Sync>(&["sync", "show", "www"])?;
    if sync.targets.iter().any(|t| t.target.as_ref().is_some_and(|p| p.node == target.name())) {
        ctl(fleet, &["sync", "remove-target", "www", target.name(), "--wait"])?;
    }
    empty(&target.path("www"))?;
    let agent = fleet.node("source")?;
    let mut add = fleet.ctl_command();
    add.args(["sync", "add-target", "www", &place, "--wait"]);
    let (done, all) = timed(|| -> Result<f64> {
        let mut add = fleet.controller.host.spawn(&mut add)?;
        let rsync_s = rsyncs_s(&agent.host, &mut add)?;
        add.output(WITHIN)?.ok()?;
        Ok(rsync_s)
    });
    Ok((done?, all.as_secs_f64()))
}

/// Seconds in which the host ran rsync, until a process has ended.
fn rsyncs_s(host: &Host, until: &mut Proc) -> Result<f64> {
    let mut seconds = 0.0;
    while until.is_running() {
        let Some(&first) = running(host, "rsync")?.first() else {
            rest(LOOK);
            continue;
        };
        let Ok(began) = started_s(first) else { continue };
        wait_end(first)?;
        seconds += uptime_s()? - began;
    }
    Ok(seconds)
}

/// Of a process that is not ours.
fn wait_end(pid: u32) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such pid")?;
    if let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) {
        poll(&mut [PollFd::new(&held, PollFlags::IN)], None)?;
    }
    Ok(())
}
