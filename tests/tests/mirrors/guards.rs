//! What no run may do to a good tree: empty it, thin it out, fill the disk; and upstreams in trouble.

use std::fs;

use anyhow::{Result, ensure};
use lockstep_tests::tree::Tree;
use lockstep_tests::{Fleet, cmd, upstream};

use super::world;

fn tree(fleet: &Fleet, node: &str) -> Result<Tree> {
    Ok(Tree::read(&fleet.mirrored(node, "fedora")?)?.whole_seconds())
}

/// The run failed on the master for this reason, and nothing came of it.
fn held(fleet: &Fleet, nodes: &[&str], words: &[&str], kept: &Tree) -> Result<()> {
    let generation = fleet.mirror("fedora")?.generation;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "{failed}");
    for word in words {
        ensure!(failed.stderr.contains(word), "{word} is not in {failed}");
    }
    ensure!(fleet.mirror("fedora")?.generation == generation);
    for node in nodes {
        let differences = tree(fleet, node)?.differences(kept);
        ensure!(differences.is_empty(), "{node}: {differences}");
    }
    Ok(())
}

#[test]
fn an_empty_upstream_and_many_removals_are_held_and_let_through_once() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    upstream::fill(&up.tree().join("old"), 50, 10)?;
    let more = ["--upstream", &url, "--delete-limit", "20"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let nodes = ["master1", "ftp1"];
    let kept = tree(&fleet, "ftp1")?;

    // Over the limit.
    let aside = up.host.path("aside");
    fs::rename(up.tree().join("old"), &aside)?;
    held(&fleet, &nodes, &["would be removed", "--allow delete"], &kept)?;

    // Nothing at all, whatever the limit is.
    fs::rename(up.tree().join("index.html"), up.host.path("index.html"))?;
    fleet.ctl(&["mirror", "update", "fedora", "--delete-limit", "none"])?.ok()?;
    held(&fleet, &nodes, &["empty", "--allow empty"], &kept)?;
    fs::rename(up.host.path("index.html"), up.tree().join("index.html"))?;
    fleet.ctl(&["mirror", "update", "fedora", "--delete-limit", "20"])?.ok()?;

    // Meant, this once; what the master was allowed holds for its replicas.
    fleet.pull("fedora", &["--allow", "delete"])?.ok()?;
    for node in nodes {
        fleet.check_mirrored("fedora", node, &up.tree())?;
    }
    fs::rename(&aside, up.tree().join("old"))?;
    fleet.pull("fedora", &[])?.ok()?;
    let kept = tree(&fleet, "ftp1")?;
    fs::remove_dir_all(up.tree().join("old"))?;
    held(&fleet, &nodes, &["--allow delete"], &kept)?;
    Ok(())
}

#[test]
fn a_tree_that_does_not_fit_is_not_begun() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    let disk = fleet.node("master1")?.host.disk("ftp", 16 << 20)?;
    upstream::fill(&up.tree().join("big"), 4, 3 << 20)?;
    let more = ["--upstream", &url, "--min-free", "10M"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "{failed}");
    ensure!(failed.stderr.contains("--allow space"), "{failed}");
    let big = fleet.mirrored("master1", "fedora")?.join("big");
    ensure!(!big.exists(), "it was begun");
    fleet.pull("fedora", &["--allow", "space"])?.ok()?;
    fleet.check_mirrored("fedora", "ftp1", &up.tree())?;
    drop(disk);
    Ok(())
}

/// A daemon of our own on the upstream's host that answers as no rsync does.
fn strange(up: &lockstep_tests::Upstream, port: u16, script: &str) -> Result<lockstep_tests::Proc> {
    let listen = format!(
        "import socket,sys,time\ns=socket.socket()\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('{}',{port}))\ns.listen(8)\nprint('listens', flush=True)\nheld=[]\n\
         while True:\n  c,_=s.accept()\n  held.append(c)\n  try:\n    {script}\n  except OSError: pass\n",
        up.host.ip()
    );
    let proc = up.host.spawn(cmd("python3").args(["-c", &listen]))?;
    lockstep_tests::until(super::SOON, "it listens", || proc.stdout().contains("listens"));
    Ok(proc)
}

#[test]
fn an_upstream_in_trouble_is_named_and_harms_nothing() -> Result<()> {
    let (_net, fleet, up) = world(&["master1"])?;
    let url = up.url();
    fleet.create_mirror("fedora", &["master1"], &["--upstream", &url, "--attempts", "1"])?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let timeouts = |time: &str| {
        let update =
            ["mirror", "update", "fedora", "--connect-timeout", time, "--io-timeout", time];
        fleet.ctl(&update)?.ok()
    };
    timeouts("1s")?;
    let kept = tree(&fleet, "master1")?;
    let _procs = [
        strange(&up, 8001, "pass")?,
        strange(&up, 8002, "c.sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n' * 99); c.close()")?,
        strange(&up, 8003, "c.sendall(b'@RSYNCD: 31.0 md5 md4\\n'); c.close()")?,
        strange(&up, 8004, "c.sendall(b'@RSYNCD: 31.0 md5 md4\\n@RSYNCD: OK\\n' + bytes(4096))")?,
    ];
    for (port, module) in
        [(8001, "pub"), (8002, "pub"), (8003, "pub"), (8004, "pub"), (873, "gone")]
    {
        let url = format!("rsync://{}:{port}/{module}", up.host.ip());
        fleet.ctl(&["mirror", "update", "fedora", "--upstream", &url])?.ok()?;
        held(&fleet, &["master1"], &["failed on master1: "], &kept)?;
        let head = &fleet.heads("fedora")?[0];
        ensure!(!head.message.is_empty() && head.ended_at.is_some(), "{port}: {head:?}");
    }
    timeouts("1m")?;
    fleet.ctl(&["mirror", "update", "fedora", "--upstream", &url])?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    Ok(())
}

#[test]
fn a_full_disk_of_the_master_costs_the_run_and_nothing_else() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    let disk = fleet.node("master1")?.host.disk("ftp", 8 << 20)?;
    let more = ["--upstream", &url, "--min-free", "100K"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let kept = tree(&fleet, "ftp1")?;
    upstream::fill(&up.tree().join("big"), 4, 3 << 20)?;
    // The guard looks before the first copy only, and before it at what is free.
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "{failed}");
    ensure!(failed.stderr.contains("No space left"), "{failed}");
    let head = &fleet.heads("fedora")?[0];
    ensure!(head.pulled.as_ref().is_some_and(|pulled| pulled.exit_code == Some(11)), "{head:?}");
    ensure!(fleet.mirror("fedora")?.generation == 1);
    let differences = tree(&fleet, "ftp1")?.differences(&kept);
    ensure!(differences.is_empty(), "{differences}");
    let index = fleet.mirrored("master1", "fedora")?.join("index.html");
    ensure!(index.exists(), "what was there stays");
    // Not enough is free for any start now; then there is room again.
    let refused = fleet.pull("fedora", &[])?;
    ensure!(refused.status.code() == Some(1), "{refused}");
    fs::remove_dir_all(up.tree().join("big"))?;
    up.write("small", "small")?;
    fs::remove_dir_all(fleet.mirrored("master1", "fedora")?.join("big"))?;
    fleet.pull("fedora", &[])?.ok()?;
    for node in ["master1", "ftp1"] {
        fleet.check_mirrored("fedora", node, &up.tree())?;
    }
    drop(disk);
    Ok(())
}
