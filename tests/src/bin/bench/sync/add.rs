//! A target more: how long until it has everything, and what those notice that have it already.

use std::time::Duration;

use anyhow::Result;
use lockstep_tests::wait::timed;

use super::files::{plan, wait_same, write_all};
use super::meter::{Wire, settle};
use super::system::{KINDS, Kind, System};
use super::{Goal, Measured, P50, compare};
use crate::figures::Figures;
use crate::process::rest;

struct Size {
    targets: usize,
    files: usize,
    rounds: usize,
    idle: Duration,
}

const FULL: Size = Size { targets: 20, files: 20_000, rounds: 3, idle: Duration::from_secs(30) };
const QUICK: Size = Size { targets: 4, files: 1000, rounds: 1, idle: Duration::from_secs(5) };

/// Bytes beyond what goes over an idle line, per target: a heartbeat more or less.
const GOAL_BYTES: f64 = 1024.0;

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let rows = KINDS.map(|kind| Ok((kind, one(kind, &size)?)));
    let rows = rows.into_iter().collect::<Result<Vec<(Kind, Added)>>>()?;
    let of = |pick: fn(&Added) -> &Vec<f64>| -> Measured {
        rows.iter().map(|(kind, added)| (*kind, pick(added).clone())).collect()
    };
    let Size { targets, files, .. } = size;
    let name = format!("add a target to {files} files x {targets} targets");
    compare(figures, (&format!("{name}: complete"), "s", P50), &of(|a| &a.took_s), Goal::None);
    let name = format!("each of the {targets} others");
    compare(figures, (&format!("{name}, idle"), "B/s", P50), &of(|a| &a.idle), Goal::None);
    compare(figures, (&format!("{name}, meanwhile"), "B/s", P50), &of(|a| &a.during), Goal::None);
    let goal = Goal::AtMost(GOAL_BYTES);
    compare(figures, (&format!("{name}, beyond idle"), "B", P50), &of(|a| &a.beyond), goal);
    Ok(())
}

#[derive(Default)]
struct Added {
    /// Per round.
    took_s: Vec<f64>,
    /// Per other target, and round: bytes per second, both ways.
    idle: Vec<f64>,
    during: Vec<f64>,
    /// Bytes.
    beyond: Vec<f64>,
}

fn one(kind: Kind, size: &Size) -> Result<Added> {
    let mut system = System::start(kind, size.targets, size.rounds)?;
    let original = system.original();
    let files = plan(&original, "file", size.files)?;
    write_all(&original, &files)?;
    system.begin()?;
    wait_same(&original, &system.copies(), &files)?;
    settle(&system)?;

    let mut added = Added::default();
    let others = system.targets().to_vec();
    let wires = || others.iter().map(|host| Ok(Wire::of(host)?.both())).collect::<Result<Vec<_>>>();
    // A restart of lsyncd takes minutes with many targets.
    let rounds = if kind == Kind::Lockstep { size.rounds } else { 1 };
    for _ in 0..rounds {
        let before = wires()?;
        rest(size.idle);
        let between = wires()?;
        let (done, took) = timed(|| -> Result<Duration> {
            let (done, took) = timed(|| -> Result<()> {
                system.add_target()?;
                let new = system.copies().split_off(system.targets().len() - 1);
                wait_same(&original, &new, &files)
            });
            done?;
            settle(&system)?;
            Ok(took)
        });
        added.took_s.push(done?.as_secs_f64());
        let after = wires()?;
        for ((before, between), after) in before.iter().zip(&between).zip(&after) {
            let idle = (between - before) / size.idle.as_secs_f64();
            added.idle.push(idle);
            added.during.push((after - between) / took.as_secs_f64());
            added.beyond.push((after - between - idle * took.as_secs_f64()).max(0.0));
        }
    }
    Ok(added)
}
