//! A project from its upstream to every replica, as its users see it: a file per subject. Here is only
//! what several of them start from.

mod around;
mod cascade;
mod clocks;
mod commands;
mod crashes;
mod guards;
mod large;
mod modules;
mod owners;
mod publication;
mod roads;
mod secrets;
mod trees;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use lockstep_tests::{Fleet, Net, Upstream};

const SOON: Duration = Duration::from_secs(90);

/// A fleet, and an upstream with a first file.
fn world(nodes: &[&str]) -> Result<(Net, Fleet, Upstream)> {
    let net = Net::new()?;
    let upstream = Upstream::start(&net)?;
    upstream.write("index.html", "<h1>first</h1>\n")?;
    let fleet = Fleet::start(&net, nodes)?;
    Ok((net, fleet, upstream))
}

/// Adds settings of a node's agent, which is started anew.
fn set_agent(fleet: &mut Fleet, node: &str, settings: &str) -> Result<()> {
    let file = fleet.node(node)?.host.path("data/agent.toml");
    let text = fs::read_to_string(&file)?;
    fs::write(file, text + settings)?;
    fleet.restart_agent(node)
}

/// Gives a node a hook `hold` that ends once the file is there: a run stays where it is until then.
fn hold(fleet: &mut Fleet, node: &str) -> Result<PathBuf> {
    let host = fleet.node(node)?.host.clone();
    let (hooks, go_on) = (host.path("hooks"), host.path("go-on"));
    fs::create_dir(&hooks)?;
    let script = format!("#!/bin/sh\nuntil [ -e {} ]; do sleep 0.05; done\n", go_on.display());
    fs::write(hooks.join("hold"), script)?;
    fs::set_permissions(hooks.join("hold"), fs::Permissions::from_mode(0o755))?;
    set_agent(fleet, node, &format!("hook-dir = \"{}\"\n", hooks.display()))?;
    Ok(go_on)
}

/// Every file below, by its content.
fn texts(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        found.push((entry.file_name().to_string_lossy().into_owned(), text));
    }
    found.sort();
    found
}
