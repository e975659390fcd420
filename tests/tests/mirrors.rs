//! A project from its upstream to every replica, as its users see it: a file per subject. Here is only
//! what several of them start from.

mod cascade;
mod commands;
mod crashes;
mod guards;
mod owners;
mod publication;
mod secrets;
mod trees;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lockstep_tests::{Fleet, Net, Upstream};

const SOON: Duration = Duration::from_secs(30);

/// A fleet, and an upstream with a first file.
fn world(nodes: &[&str]) -> Result<(Net, Fleet, Upstream)> {
    let net = Net::new()?;
    let upstream = Upstream::start(&net)?;
    upstream.write("index.html", "<h1>first</h1>\n")?;
    let fleet = Fleet::start(&net, nodes)?;
    Ok((net, fleet, upstream))
}

/// Every file below, by its content.
fn texts(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        found.push((entry.file_name().to_string_lossy().into_owned(), text));
    }
    found.sort();
    found
}
