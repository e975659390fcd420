//! A large file to twelve targets over slow lines: from the source to each, and over relays, three
//! below each node.

use std::path::PathBuf;

use anyhow::Result;
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Net};

use super::files::{wait_same, write_large};
use super::meter::Wire;
use super::system::ctl;
use crate::figures::{Figure, Figures};

const TARGETS: usize = 12;
const BITS_PER_S: u64 = 200_000_000;
const FANOUT: [&str; 2] = ["--fanout", "3"];

const FULL_BYTES: usize = 1 << 30;
const QUICK_BYTES: usize = 64 << 20;

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let bytes = if quick { QUICK_BYTES } else { FULL_BYTES };
    let name = |way| format!("{} MiB to {TARGETS} at 200 Mbit/s: {way}", bytes >> 20);
    let Some((star_s, star_sent)) = one(bytes, &[])? else { return Ok(()) };
    let star = Figure::p50(name("star"), "s", &[star_s]);
    let sent = Figure::p50(name("star, sent by the source"), "x", &[star_sent]);
    figures.add(star.clone());
    figures.add(sent.clone());
    let Some((tree_s, tree_sent)) = one(bytes, &FANOUT)? else { return Ok(()) };
    let tree = Figure::p50(name("tree of 3"), "s", &[tree_s]);
    figures.add(tree.beside("star", &star).goal_of_peer(1.0));
    let tree = Figure::p50(name("tree of 3, sent by the source"), "x", &[tree_sent]);
    // Three copies, and what the protocols add.
    figures.add(tree.beside("star", &sent).goal(3.5));
    Ok(())
}

/// Seconds until all have the file, and how many times its bytes the source has sent; none if this
/// `lockstepctl` does not know the options.
fn one(bytes: usize, options: &[&str]) -> Result<Option<(f64, f64)>> {
    let net = Net::new()?;
    let names: Vec<String> = (1..=TARGETS).map(|n| format!("target-{n}")).collect();
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    let nodes: Vec<&str> = ["source"].into_iter().chain(targets.iter().copied()).collect();
    let fleet = Fleet::start(&net, &nodes)?;
    if let Some(option) = options.first()
        && !fleet.ctl(&["sync", "create", "--help"])?.ok()?.contains(option)
    {
        eprintln!("left out: lockstepctl sync create knows no {option} yet");
        return Ok(None);
    }
    fleet.wait_healthy(&nodes);
    for node in &nodes {
        fleet.node(node)?.host.rate(Some(BITS_PER_S))?;
    }
    let original = fleet.www("source")?;
    std::fs::create_dir(&original)?;
    let large = [PathBuf::from("large")];
    write_large(&original.join("large"), bytes)?;
    let mut create = fleet.create_www("source", &targets)?;
    create.extend(options.iter().map(|&option| option.to_owned()));
    let copies = targets.iter().map(|t| fleet.www(t)).collect::<Result<Vec<_>>>()?;
    let before = Wire::of(&fleet.node("source")?.host)?;
    let (done, took) = timed(|| -> Result<()> {
        ctl(&fleet, &create.iter().map(String::as_str).collect::<Vec<_>>())?;
        wait_same(&original, &copies, &large)
    });
    done?;
    let after = Wire::of(&fleet.node("source")?.host)?;
    Ok(Some((took.as_secs_f64(), (after.sent - before.sent) / bytes as f64)))
}
