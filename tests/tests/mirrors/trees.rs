//! Where trees are: renamed, moved, removed, refused.

use anyhow::{Result, ensure};
use lockstep_tests::mirrors::{RUN_WITHIN, on};
use lockstep_tests::{Fleet, until};

use super::world;

/// Every node of it has confirmed the newest definition.
fn applied(fleet: &Fleet, name: &str, nodes: &[&str]) {
    until(RUN_WITHIN, "every node has confirmed it", || -> Result<()> {
        let mirror = fleet.mirror(name)?;
        for node in nodes {
            let there = on(&mirror, node)?;
            ensure!(there.applied, "{there:?}");
        }
        Ok(())
    });
}

#[test]
fn a_mirror_is_renamed_with_its_files_or_without() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let (url, nodes) = (up.url(), ["master1", "ftp1"]);
    fleet.create_mirror("fedora", &nodes, &["--upstream", &url])?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;

    fleet.ctl(&["mirror", "rename", "fedora", "linux"])?.ok()?;
    applied(&fleet, "linux", &nodes);
    ensure!(fleet.ctl(&["mirror", "show", "fedora"])?.refused()?.contains("fedora"));
    ensure!(fleet.mirrored("ftp1", "fedora")?.join("index.html").exists());
    up.write("second", "2")?;
    fleet.pull("linux", &[])?.ok()?;
    ensure!(
        fleet.mirrored("ftp1", "fedora")?.join("second").exists(),
        "the tree stays where it is"
    );

    fleet.ctl(&["mirror", "rename", "linux", "fedora-linux", "--move-files"])?.ok()?;
    applied(&fleet, "fedora-linux", &nodes);
    for node in nodes {
        ensure!(!fleet.mirrored(node, "fedora")?.exists(), "moved on {node}");
        fleet.check_mirrored("fedora-linux", node, &up.tree())?;
    }
    up.write("third", "3")?;
    let before = fleet.mirror("fedora-linux")?.generation;
    fleet.pull("fedora-linux", &[])?.ok()?;
    fleet.check_mirrored("fedora-linux", "ftp1", &up.tree())?;
    ensure!(fleet.mirror("fedora-linux")?.generation == before + 1);
    Ok(())
}

#[test]
fn trees_are_moved_and_removed_on_request_only() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let (url, nodes) = (up.url(), ["master1", "ftp1"]);
    fleet.create_mirror("fedora", &nodes, &["--upstream", &url])?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let other = fleet.node("master1")?.host.path("other");
    std::fs::create_dir(&other)?;
    let dest = other.display().to_string();
    fleet.ctl(&["mirror", "update", "fedora", "--dest", &dest])?.ok()?;
    until(RUN_WITHIN, "the tree is moved", || other.join("fedora/index.html").exists());
    applied(&fleet, "fedora", &nodes);
    ensure!(!fleet.mirrored("master1", "fedora")?.exists());
    up.write("second", "2")?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.check_mirrored("fedora", "ftp1", &up.tree())?;

    // A replica less keeps its files.
    fleet.ctl(&["mirror", "update", "fedora", "--remove-replica", "ftp1"])?.ok()?;
    up.write("third", "3")?;
    fleet.pull("fedora", &[])?.ok()?;
    let copy = fleet.mirrored("ftp1", "fedora")?;
    ensure!(copy.join("second").exists() && !copy.join("third").exists());
    let add = format!("ftp1:{}", fleet.ftp("ftp1")?.display());
    fleet.ctl(&["mirror", "update", "fedora", "--add-replica", &add])?.ok()?;
    fleet.wait_generation("fedora", &["ftp1"], 3);

    let confirm = fleet.ctl(&["mirror", "delete", "fedora", "--delete-files"])?.refused()?;
    ensure!(confirm.contains("--yes"), "{confirm}");
    fleet.ctl(&["mirror", "delete", "fedora", "--delete-files", "--yes"])?.ok()?;
    until(RUN_WITHIN, "the trees are gone", || !other.join("fedora").exists() && !copy.exists());
    ensure!(fleet.ftp("ftp1")?.exists(), "only the trees");
    // Again: no error, and nothing to do.
    let again = fleet.ctl(&["mirror", "delete", "fedora", "--yes", "-o", "json"])?.ok()?;
    let again: serde_json::Value = serde_json::from_str(&again)?;
    ensure!(again["result"]["changed"] != true, "{again}");
    Ok(())
}

#[test]
fn a_node_decides_where_trees_may_be() -> Result<()> {
    let (_net, mut fleet, up) = world(&["ftp1", "master1"])?;
    let url = up.url();
    // All hosts share one /etc, so each agent's own file says it.
    let host = fleet.node("ftp1")?.host.clone();
    let file = host.path("data/agent.toml");
    let settings = std::fs::read_to_string(&file)?;
    let allowed = host.path("ftp");
    std::fs::create_dir_all(&allowed)?;
    std::fs::write(&file, format!("{settings}allow-roots = [\"{}\"]\n", allowed.display()))?;
    fleet.restart_agent("ftp1")?;
    fleet.wait_healthy(&["ftp1", "master1"]);

    let outside = format!("ftp1:{}", host.path("etc").display());
    fleet
        .create_mirror("fedora", &["master1"], &["--upstream", &url, "--replica", &outside])?
        .ok()?;
    fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
    until(RUN_WITHIN, "the refusal is told", || -> Result<()> {
        let mirror = fleet.mirror("fedora")?;
        let there = on(&mirror, "ftp1")?;
        let report = there.report.clone().unwrap_or_default();
        let told = format!("{} {}", there.reason, report.problem);
        ensure!(told.contains("allow-roots"), "{there:?}");
        Ok(())
    });
    ensure!(!host.path("etc").exists(), "nothing was written there");
    let inside = format!("ftp1:{}", allowed.display());
    fleet.ctl(&["mirror", "update", "fedora", "--add-replica", &inside])?.ok()?;
    fleet.wait_generation("fedora", &["ftp1"], 1);
    Ok(())
}
