//! From the master's end to every replica, beside a shell's loop that runs rsync on one replica after
//! the other.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Host, Net, Upstream, cmd};

use super::{MIRROR, WITHIN, at, create, head, replicas, run};
use crate::figures::{Figure, Figures};
use crate::sync::files::{plan, write_all};

struct Size {
    replicas: usize,
    files: usize,
    rounds: usize,
}

const FULL: Size = Size { replicas: 8, files: 2000, rounds: 20 };
const QUICK: Size = Size { replicas: 8, files: 200, rounds: 5 };

/// From the master's end to the last replica's start.
const START_S: f64 = 1.0;
const ROOM_BYTES: u64 = 1 << 30;
const PORT: u16 = 8730;

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let net = Net::new()?;
    let up = Upstream::start(&net)?;
    let names: Vec<String> = (1..=size.replicas).map(|n| format!("ftp{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fleet = Fleet::start(&net, &[&["master"], names.as_slice()].concat())?;
    let hosts: Vec<Host> =
        names.iter().map(|name| Ok(fleet.node(name)?.host.clone())).collect::<Result<_>>()?;
    let master = fleet.node("master")?.host.clone();
    let mut disks = vec![up.host.disk("pub", ROOM_BYTES)?];
    for host in hosts.iter().chain([&master]) {
        disks.push(host.disk("ftp", ROOM_BYTES)?);
        disks.push(host.disk("bare", ROOM_BYTES)?);
    }
    create(&fleet, &up, &names, &[])?;
    let _daemon = serve(&master)?;
    plan(&up.tree(), "first", 0)?;
    let kind = format!("mirror, {} files to {} replicas", size.files, size.replicas);
    let (mut starts, mut totals, mut loops) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..size.rounds {
        let files = plan(&up.tree(), &format!("round-{round}"), size.files)?;
        write_all(&up.tree(), &files)?;
        loops.push(looped(&master, &hosts, &up)?);
        let parts = run(&fleet)?;
        let head = head(&parts)?;
        let ended = at(head.ended_at.as_ref())?;
        ensure!(replicas(&parts).count() == size.replicas, "{parts:?}");
        let (mut last_start, mut last_end) = (f64::NAN, f64::NAN);
        for part in replicas(&parts) {
            let pulled = part.pulled.as_ref().context("what it did")?;
            last_start = last_start.max(at(pulled.started_at.as_ref())?);
            last_end = last_end.max(at(part.ended_at.as_ref())?);
        }
        starts.push(last_start - ended);
        totals.push(last_end - at(head.started_at.as_ref())?);
    }
    for name in &names {
        let (here, there) = (fleet.mirrored(name, MIRROR)?, up.tree());
        ensure!(count(&here)? == count(&there)?, "{name} has not all");
    }
    let name = format!("{kind}: master's end to last replica's start");
    figures.add(Figure::p95(name, "s", &starts).goal(START_S));
    let shell = Figure::p50(format!("{kind}: shell loop, total"), "s", &loops);
    figures.add(shell.clone());
    let ours = Figure::p50(format!("{kind}: total"), "s", &totals);
    figures.add(ours.beside("shell loop", &shell).goal_of_peer(1.0));
    drop(disks);
    Ok(())
}

fn count(dir: &Path) -> Result<usize> {
    let mut all = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        all += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(all)
}

/// The master's own daemon, for the loop.
fn serve(master: &Host) -> Result<lockstep_tests::Proc> {
    let dir = master.dir().display();
    let config = format!(
        "use chroot = no\nuid = 0\ngid = 0\naddress = {}\nport = {PORT}\n[bare]\npath = {dir}/bare\n",
        master.ip()
    );
    fs::write(master.path("rsyncd.conf"), config)?;
    let option = format!("--config={dir}/rsyncd.conf");
    let daemon = master.spawn(cmd("rsync").args(["--daemon", "--no-detach", &option]))?;
    let listens = master.at(PORT);
    lockstep_tests::try_until(WITHIN, "the daemon listens", || {
        master.enter(|| std::net::TcpStream::connect(listens).is_ok()).unwrap_or(false)
    })
    .map_err(|waited| anyhow::anyhow!("{waited}"))?;
    Ok(daemon)
}

/// Seconds for the master and then one replica after the other.
fn looped(master: &Host, hosts: &[Host], up: &Upstream) -> Result<f64> {
    let (done, took) = timed(|| -> Result<()> {
        pull(master, &format!("{}/", up.url()))?;
        let from = format!("rsync://{}:{PORT}/bare/", master.ip());
        hosts.iter().try_for_each(|host| pull(host, &from))
    });
    done?;
    Ok(took.as_secs_f64())
}

fn pull(host: &Host, from: &str) -> Result<()> {
    let mut rsync = cmd("rsync");
    rsync.args(["-avH", "--delete-after", from]).arg(host.path("bare"));
    host.spawn(&mut rsync)?.output(WITHIN)?.ok().map(drop)
}
