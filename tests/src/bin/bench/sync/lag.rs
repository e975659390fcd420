//! From a write on the source until it is visible on a target: single files at a steady rate, and a
//! burst.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::files::{lags_s, plan, wait_same, write, write_all};
use super::meter::settle;
use super::system::{KINDS, Kind, System};
use super::{Goal, Measured, P50, P95, compare};
use crate::figures::Figures;
use crate::process::rest;

struct Size {
    targets: &'static [usize],
    stream: usize,
    burst: usize,
}

const FULL: Size = Size { targets: &[1, 5, 20], stream: 400, burst: 10_000 };
const QUICK: Size = Size { targets: &[1, 5], stream: 60, burst: 1000 };

/// Between two files of the stream.
const PAUSE: Duration = Duration::from_millis(50);
/// From here on Lockstep should be ahead.
const AHEAD_FROM_TARGETS: usize = 5;

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    for &targets in size.targets {
        let (mut stream, mut burst) = (Measured::new(), Measured::new());
        for kind in KINDS {
            let lags = one(kind, targets, &size)?;
            stream.push((kind, lags.0));
            burst.push((kind, lags.1));
        }
        let goal = if targets >= AHEAD_FROM_TARGETS { Goal::OfPeer(1.0) } else { Goal::None };
        for (what, lags) in [("20 files/s", stream), (&format!("burst of {}", size.burst), burst)] {
            let name = format!("lag, {targets} targets, {what}");
            compare(figures, (&format!("{name}, p50"), "s", P50), &lags, goal);
            compare(figures, (&format!("{name}, p95"), "s", P95), &lags, goal);
        }
    }
    Ok(())
}

/// Seconds for each file and target, of the stream and of the burst.
fn one(kind: Kind, targets: usize, size: &Size) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut system = System::start(kind, targets, 0)?;
    let (original, copies) = (system.original(), system.copies());
    let first = plan(&original, "first", 100)?;
    write_all(&original, &first)?;
    system.begin()?;
    wait_same(&original, &copies, &first)?;
    settle(&system)?;

    let stream = plan(&original, "stream", size.stream)?;
    let began = Instant::now();
    for (name, n) in stream.iter().zip(0..) {
        rest((PAUSE * n).saturating_sub(began.elapsed()));
        write(&original, name)?;
    }
    let lags = |names: &[PathBuf]| -> Result<Vec<f64>> {
        wait_same(&original, &copies, names)?;
        lags_s(&original, &copies, names)
    };
    let stream = lags(&stream)?;
    settle(&system)?;

    let burst = plan(&original, "burst", size.burst)?;
    write_all(&original, &burst)?;
    Ok((stream, lags(&burst)?))
}
