//! Syncs: Lockstep beside plain lsyncd, which reaches its targets over ssh or over rsyncd. All three
//! do the same work on the same machine in the same run, with the same delay.

mod add;
mod bulk;
mod cpu;
mod directory;
pub mod files;
mod lag;
mod meter;
mod reach;
mod rename;
mod system;
mod tree;

use std::time::Duration;

use crate::Part;
use crate::figures::{Figure, Figures};
use system::Kind;

pub const PARTS: &[Part] = &[
    Part { name: "lag", run: lag::measure },
    Part { name: "cpu", run: cpu::measure },
    Part { name: "directory", run: directory::measure },
    Part { name: "rename", run: rename::measure },
    Part { name: "add", run: add::measure },
    Part { name: "bulk", run: bulk::measure },
    Part { name: "tree", run: tree::measure },
];

/// For any one thing that is waited for; far above what it takes.
const WITHIN: Duration = Duration::from_secs(1800);

/// What Lockstep should reach.
#[derive(Clone, Copy)]
enum Goal {
    None,
    AtMost(f64),
    /// So many times what the better one of the others takes.
    OfPeer(f64),
}

/// Makes the one number of many.
type Sum = fn(String, &'static str, &[f64]) -> Figure;

const P50: Sum = |name, unit, values| Figure::p50(name, unit, values);
const P95: Sum = |name, unit, values| Figure::p95(name, unit, values);

/// What was measured of each.
type Measured = Vec<(Kind, Vec<f64>)>;

/// A line for each; Lockstep's stands beside the better one of the others.
fn compare(
    figures: &mut Figures,
    (name, unit, sum): (&str, &'static str, Sum),
    measured: &Measured,
    goal: Goal,
) {
    let mut best: Option<(Kind, Figure)> = None;
    for (kind, values) in measured {
        let figure = sum(format!("{name}: {}", kind.name()), unit, values);
        if *kind != Kind::Lockstep {
            if best.as_ref().is_none_or(|(_, best)| figure.value() < best.value()) {
                best = Some((*kind, figure.clone()));
            }
            figures.add(figure);
            continue;
        }
        let figure = match &best {
            Some((kind, best)) => figure.beside(kind.name(), best),
            None => figure,
        };
        figures.add(match goal {
            Goal::None => figure,
            Goal::AtMost(most) => figure.goal(most),
            Goal::OfPeer(ratio) => figure.goal_of_peer(ratio),
        });
    }
}
