//! What touched files take of the source's CPU: to notice and to hand them on, and apart from that to
//! transfer them.

use anyhow::{Result, ensure};

use super::files::{plan, touch_all, wait_same, write_all};
use super::meter::settle;
use super::system::{KINDS, Kind, System};
use super::{Goal, Measured, P50, compare};
use crate::figures::Figures;

struct Size {
    targets: &'static [usize],
    files: usize,
    rounds: usize,
}

const FULL: Size = Size { targets: &[1, 4, 16], files: 10_000, rounds: 3 };
const QUICK: Size = Size { targets: &[1, 4], files: 1000, rounds: 1 };

/// With the most targets.
const GOAL_S: f64 = 10.0;
/// Of the most targets to one.
const GROWTH_GOAL: f64 = 2.0;

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let mut growth = Measured::new();
    for &targets in size.targets {
        let (mut watching, mut rsync) = (Measured::new(), Measured::new());
        for kind in KINDS {
            let took = one(kind, targets, &size)?;
            watching.push((kind, took.0));
            rsync.push((kind, took.1));
        }
        let most = size.targets.last() == Some(&targets);
        let goal = if most { Goal::AtMost(GOAL_S) } else { Goal::None };
        let name = format!("CPU, {} touched files, {targets} targets", size.files);
        compare(figures, (&format!("{name}, watching"), "s", P50), &watching, goal);
        compare(figures, (&format!("{name}, rsync"), "s", P50), &rsync, Goal::None);
        if growth.is_empty() {
            growth = watching;
        } else if most {
            for ((_, one), (_, most)) in growth.iter_mut().zip(&watching) {
                one.iter_mut().zip(most).for_each(|(one, most)| *one = most / *one);
            }
            let name = format!("CPU, watching, {targets} targets to one");
            compare(figures, (&name, "x", P50), &growth, Goal::AtMost(GROWTH_GOAL));
        }
    }
    Ok(())
}

/// CPU seconds of each round: watching, and rsync.
fn one(kind: Kind, targets: usize, size: &Size) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut system = System::start(kind, targets, 0)?;
    let (original, copies) = (system.original(), system.copies());
    let files = plan(&original, "file", size.files)?;
    write_all(&original, &files)?;
    system.begin()?;
    wait_same(&original, &copies, &files)?;
    settle(&system)?;

    let (mut watching, mut rsync) = (Vec::new(), Vec::new());
    // The others take minutes with many targets, and more of them each time.
    let rounds = if kind == Kind::Lockstep { size.rounds } else { 1 };
    for _ in 0..rounds {
        let daemons = system.daemons()?;
        let before = daemons.cpu()?;
        touch_all(&original, &files)?;
        wait_same(&original, &copies, &files)?;
        settle(&system)?;
        ensure!(system.daemons()? == daemons, "a daemon was started again meanwhile");
        let after = daemons.cpu()?;
        watching.push(after.watching_s - before.watching_s);
        rsync.push(after.rsync_s - before.rsync_s);
    }
    Ok((watching, rsync))
}
