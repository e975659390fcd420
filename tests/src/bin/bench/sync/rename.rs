//! A large file gets another name: what goes over the wire for it.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use lockstep_tests::try_until;

use super::files::{in_memory, wait_same, write_large};
use super::meter::{Wire, settle};
use super::system::{KINDS, Kind, System};
use super::{Goal, Measured, P50, WITHIN, compare};
use crate::figures::Figures;

struct Size {
    bytes: usize,
    rounds: usize,
}

const FULL: Size = Size { bytes: 1 << 30, rounds: 3 };
const QUICK: Size = Size { bytes: 64 << 20, rounds: 1 };

const TARGETS: usize = 2;
const MIB: f64 = 1024.0 * 1024.0;
/// Per target.
const GOAL_MIB: f64 = 1.0;
/// Beside the file: a target may hold it twice for a while.
const ROOM_BYTES: usize = 64 << 20;

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let measured = KINDS.into_iter().map(|kind| Ok((kind, one(kind, &size)?)));
    let measured = measured.collect::<Result<Measured>>()?;
    let name = format!("sent for a rename of {} MiB, each target", size.bytes >> 20);
    compare(figures, (&name, "MiB", P50), &measured, Goal::AtMost(GOAL_MIB));
    Ok(())
}

fn one(kind: Kind, size: &Size) -> Result<Vec<f64>> {
    let mut system = System::start(kind, TARGETS, 0)?;
    for host in system.targets().iter().chain([&system.source]) {
        in_memory(host, 2 * size.bytes + ROOM_BYTES)?;
    }
    let (original, copies) = (system.original(), system.copies());
    let mut name = PathBuf::from("large-0");
    write_large(&original.join(&name), size.bytes)?;
    system.begin()?;
    wait_same(&original, &copies, std::slice::from_ref(&name))?;
    settle(&system)?;

    let mut sent = Vec::new();
    for round in 1..=size.rounds {
        let next = PathBuf::from(format!("large-{round}"));
        let before = Wire::of(&system.source)?;
        fs::rename(original.join(&name), original.join(&next))?;
        wait_same(&original, &copies, std::slice::from_ref(&next))?;
        let gone = || copies.iter().all(|copy| !copy.join(&name).exists());
        try_until(WITHIN, "the old name is gone", gone).map_err(|w| anyhow::anyhow!("{w}"))?;
        settle(&system)?;
        let after = Wire::of(&system.source)?;
        sent.push((after.sent - before.sent) / MIB / TARGETS as f64);
        name = next;
    }
    Ok(sent)
}
