//! One change in a large directory: how often the source looks at a path for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::files::wait_same;
use super::meter::{Stats, settle};
use super::system::{KINDS, Kind, System};
use super::{Goal, Measured, P50, compare};
use crate::figures::Figures;
use crate::process::rest;

struct Size {
    entries: usize,
    rounds: usize,
}

const FULL: Size = Size { entries: 100_000, rounds: 3 };
const QUICK: Size = Size { entries: 5000, rounds: 1 };

const TARGETS: usize = 2;
/// Per change and target.
const GOAL: f64 = 100.0;
/// For what follows a delivery.
const AFTER: Duration = Duration::from_secs(2);

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let measured = KINDS.into_iter().map(|kind| Ok((kind, one(kind, &size)?)));
    let measured = measured.collect::<Result<Measured>>()?;
    let name = format!("looks for a change among {} entries, each target", size.entries);
    compare(figures, (&name, "", P50), &measured, Goal::AtMost(GOAL));
    Ok(())
}

fn one(kind: Kind, size: &Size) -> Result<Vec<f64>> {
    let mut system = System::start(kind, TARGETS, 0)?;
    let (original, copies) = (system.original(), system.copies());
    fs::create_dir(original.join("large"))?;
    let names: Vec<_> = (0..size.entries).map(|n| PathBuf::from(format!("large/{n}"))).collect();
    names.iter().try_for_each(|name| fs::write(original.join(name), ""))?;
    system.begin()?;
    wait_same(&original, &copies, &names)?;
    settle(&system)?;

    let mut looks = Vec::new();
    for name in names.iter().take(size.rounds) {
        let stats = Stats::start(&system)?;
        fs::write(original.join(name), "changed")?;
        wait_same(&original, &copies, std::slice::from_ref(name))?;
        rest(AFTER);
        looks.push(stats.stop()? / TARGETS as f64);
    }
    Ok(looks)
}
