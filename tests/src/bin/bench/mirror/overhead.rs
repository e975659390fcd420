//! What a run takes beside the bare rsync command with the same options: a tree that is up to date,
//! and a first copy. They take turns, so that both meet the same machine.

use std::fs;

use anyhow::{Result, ensure};
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Host, Net, Upstream, cmd, try_until};

use super::{MIRROR, WITHIN, at, create, head, run};
use crate::figures::{Figure, Figures};
use crate::sync::files::{empty, plan, write_all, write_large};

struct Size {
    files: usize,
    bytes: usize,
    rounds: usize,
}

const FULL: Size = Size { files: 100_000, bytes: 1 << 30, rounds: 9 };
const QUICK: Size = Size { files: 10_000, bytes: 128 << 20, rounds: 3 };

/// Of what the bare command takes, at most.
const OF_RSYNC: f64 = 1.05;
const ROOM_BYTES: usize = 1 << 30;

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let net = Net::new()?;
    let up = Upstream::start(&net)?;
    let fleet = Fleet::start(&net, &["master"])?;
    let master = fleet.node("master")?.host.clone();
    let room = (size.bytes + ROOM_BYTES) as u64;
    // They go with their world.
    let _disks =
        [up.host.disk("pub", room)?, master.disk("ftp", room)?, master.disk("bare", room)?];
    create(&fleet, &up, &[], &[])?;

    let files = plan(&up.tree(), "file", size.files)?;
    write_all(&up.tree(), &files)?;
    run(&fleet)?;
    bare(&master, &up)?;
    let name = format!("{} files up to date", size.files);
    race(figures, &name, &fleet, &up, size.rounds, false)?;

    empty(&up.tree())?;
    write_large(&up.tree().join("large"), size.bytes)?;
    let name = format!("first copy of {} MiB", size.bytes >> 20);
    race(figures, &name, &fleet, &up, size.rounds, true)
}

fn race(
    figures: &mut Figures,
    what: &str,
    fleet: &Fleet,
    up: &Upstream,
    rounds: usize,
    anew: bool,
) -> Result<()> {
    let master = &fleet.node("master")?.host;
    let tree = fleet.mirrored("master", MIRROR)?;
    let (mut plain, mut ours, mut typed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        if anew {
            empty(&master.path("bare"))?;
            made_anew(fleet, up)?;
        }
        plain.push(bare(master, up)?);
        let (parts, took) = timed(|| run(fleet));
        let parts = parts?;
        let part = head(&parts)?;
        ours.push(at(part.ended_at.as_ref())? - at(part.started_at.as_ref())?);
        typed.push(took.as_secs_f64());
        let (here, there) = (fs::read_dir(&tree)?.count(), fs::read_dir(up.tree())?.count());
        ensure!(here == there, "{here} of {there} are there");
    }
    let of_rsync = Figure::p50(format!("mirror, {what}: rsync"), "s", &plain);
    figures.add(of_rsync.clone());
    let run = Figure::p50(format!("mirror, {what}: run"), "s", &ours);
    figures.add(run.beside("rsync", &of_rsync).goal_of_peer(OF_RSYNC));
    figures.add(Figure::p50(format!("mirror, {what}: mirror sync --wait"), "s", &typed));
    // Of each pair, since the machine is not always as fast.
    let ratios: Vec<f64> = ours.iter().zip(&plain).map(|(ours, plain)| ours / plain).collect();
    figures.add(Figure::p50(format!("mirror, {what}: run / rsync"), "x", &ratios).goal(OF_RSYNC));
    Ok(())
}

/// A mirror whose tree was never there.
fn made_anew(fleet: &Fleet, up: &Upstream) -> Result<()> {
    fleet.ctl(&["mirror", "delete", MIRROR, "--delete-files", "--yes"])?.ok()?;
    let tree = fleet.mirrored("master", MIRROR)?;
    try_until(WITHIN, "the tree is gone", || !tree.exists())
        .map_err(|waited| anyhow::anyhow!("{waited}"))?;
    create(fleet, up, &[], &[])
}

/// Seconds that the bare command takes.
fn bare(master: &Host, up: &Upstream) -> Result<f64> {
    let mut rsync = cmd("rsync");
    rsync.args(["-avH", "--delete-after", "--timeout=600"]).arg(format!("{}/", up.url()));
    rsync.arg(master.path("bare"));
    let (done, took) = timed(|| master.spawn(&mut rsync)?.output(WITHIN)?.ok());
    done?;
    Ok(took.as_secs_f64())
}
