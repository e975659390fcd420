//! Mirrors: a run beside the bare rsync command, a cascade beside a shell's loop of rsyncs, and
//! thousands of schedules in one controller.

mod cascade;
mod clock;
mod overhead;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::convert::from_wire_time;
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Upstream};

use crate::Part;

pub const PARTS: &[Part] = &[
    Part { name: "overhead", run: overhead::measure },
    Part { name: "cascade", run: cascade::measure },
    Part { name: "clock", run: clock::measure },
];

/// For any one thing that is waited for; far above what it takes.
const WITHIN: Duration = Duration::from_secs(1800);
const MIRROR: &str = "project";

fn create(fleet: &Fleet, up: &Upstream, replicas: &[&str], more: &[&str]) -> Result<()> {
    let nodes: Vec<&str> = std::iter::once("master").chain(replicas.iter().copied()).collect();
    let url = up.url();
    let more = [&["--upstream", &url, "--min-free", "1M"], more].concat();
    fleet.create_mirror(MIRROR, &nodes, &more)?.ok().map(drop)
}

/// A run from the command to its end, cascade included; the parts that it had.
fn run(fleet: &Fleet) -> Result<Vec<v1::Run>> {
    let mut sync = fleet.ctl_command();
    sync.args(["mirror", "sync", MIRROR, "--wait", "-o", "json"]);
    let text = fleet.controller.host.spawn(&mut sync)?.output(WITHIN)?.ok()?;
    let ended: serde_json::Value = serde_json::from_str(&text)?;
    let parts: Vec<v1::Run> = serde_json::from_value(ended["parts"].clone())?;
    ensure!(!parts.is_empty(), "{text}");
    Ok(parts)
}

fn head(parts: &[v1::Run]) -> Result<&v1::Run> {
    parts.iter().find(|part| part.hop() == v1::HopKind::Upstream).context("no head")
}

fn replicas(parts: &[v1::Run]) -> impl Iterator<Item = &v1::Run> {
    parts.iter().filter(|part| part.hop() == v1::HopKind::Replica)
}

/// Seconds since the epoch.
fn at(time: Option<&pbjson_types::Timestamp>) -> Result<f64> {
    Ok(from_wire_time(time.context("no time")?).0 as f64 / 1000.0)
}
