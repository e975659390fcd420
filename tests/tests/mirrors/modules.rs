//! Third parties pull from a node's own rsync daemon, whose modules the agent keeps.

use std::ffi::OsString;
use std::fs;

use anyhow::{Result, ensure};
use lockstep_tests::mirrors::on;
use lockstep_tests::tree::Tree;
use lockstep_tests::{Host, Output, Proc, cmd, until};

use super::{SOON, set_agent, world};

/// As a site has it, with a module of its own.
fn daemon(host: &Host) -> Result<Proc> {
    let dir = host.dir().display();
    fs::create_dir_all(host.path("rsyncd.d"))?;
    fs::create_dir_all(host.path("own"))?;
    fs::write(host.path("rsyncd.d/site.conf"), format!("[own]\npath = {dir}/own\n"))?;
    let config = format!(
        "uid = 0\ngid = 0\naddress = {}\nreverse lookup = no\nlock file = {dir}/lock\n\
         &include {dir}/rsyncd.d\n",
        host.ip()
    );
    fs::write(host.path("rsyncd.conf"), config)?;
    let mut option = OsString::from("--config=");
    option.push(host.path("rsyncd.conf"));
    let daemon = host.spawn(cmd("rsync").args(["--daemon", "--no-detach"]).arg(option))?;
    let at = host.at(873);
    until(SOON, "the node's daemon listens", || {
        host.enter(|| std::net::TcpStream::connect(at).is_ok()).unwrap_or(false)
    });
    Ok(daemon)
}

fn rsync(from: &Host, args: &[&str]) -> Result<Output> {
    from.run(cmd("rsync").args(["-rlt", "--contimeout=5"]).args(args).current_dir(from.dir()))
}

#[test]
fn who_is_no_replica_pulls_from_a_nodes_own_daemon() -> Result<()> {
    let (net, mut fleet, up) = world(&["master1", "ftp1"])?;
    let (leaf, other) = (net.host("leaf")?, net.host("other")?);
    let node = fleet.node("ftp1")?.host.clone();
    let _daemon = daemon(&node)?;
    let file = node.path("rsyncd.d/lockstep-fedora.conf");
    set_agent(
        &mut fleet,
        "ftp1",
        &format!("rsyncd-dir = \"{}/rsyncd.d\"\n", node.dir().display()),
    )?;

    let (url, module) = (up.url(), format!("pub allow={} connections=5", leaf.ip()));
    let more = ["--upstream", &url, "--rsyncd-module", &module];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    let from = format!("rsync://{}/pub/", node.ip());
    until(SOON, "the node that lends nothing is named", || -> Result<()> {
        let mirror = fleet.mirror("fedora")?;
        ensure!(on(&mirror, "ftp1")?.applied, "{mirror:?}");
        Ok(())
    });
    ensure!(!file.exists(), "there is nothing complete to pull yet");
    fleet.pull("fedora", &[])?.ok()?;
    let shown = fleet.ctl(&["mirror", "show", "fedora"])?.ok()?;
    ensure!(shown.contains("rsyncd-dir"), "the master has no directory: {shown}");

    rsync(&leaf, &[&from, "copy/"])?.ok()?;
    let differences = Tree::read(&leaf.path("copy"))?
        .whole_seconds()
        .differences(&Tree::read(&up.tree())?.whole_seconds());
    ensure!(differences.is_empty(), "{differences}");
    let denied = rsync(&other, &[&from, "copy/"])?;
    ensure!(!denied.status.success() && denied.stderr.contains("denied"), "{denied}");
    let written = rsync(&leaf, &["copy/", &from])?;
    ensure!(!written.status.success() && written.stderr.contains("read only"), "{written}");

    // Changed, taken back, given again, and gone with its mirror; what is the site's own stays.
    fleet.ctl(&["mirror", "update", "fedora", "--rsyncd-module", "pub2"])?.ok()?;
    until(SOON, "everybody may", || {
        rsync(&other, &[&from.replace("pub", "pub2"), "copy/"]).is_ok_and(|o| o.status.success())
    });
    ensure!(!rsync(&leaf, &[&from, "copy/"])?.status.success(), "the old name is gone");
    fleet.ctl(&["mirror", "update", "fedora", "--rsyncd-module", "none"])?.ok()?;
    until(SOON, "the module is gone", || !file.exists());
    fleet.ctl(&["mirror", "update", "fedora", "--rsyncd-module", "pub at=replica"])?.ok()?;
    until(SOON, "the module is there again", || file.exists());
    let second = fleet.create_mirror(
        "second",
        &["ftp1"],
        &["--upstream", &url, "--rsyncd-module", "pub"],
    )?;
    ensure!(second.refused()?.contains("is the module of mirror fedora"));
    fleet.ctl(&["mirror", "delete", "fedora", "--yes"])?.ok()?;
    until(SOON, "it goes with its mirror", || !file.exists());
    let own = format!("rsync://{}/own/", node.ip());
    rsync(&leaf, &[&own, "own/"])?.ok()?;
    let left: Vec<_> = fs::read_dir(node.path("rsyncd.d"))?.collect::<std::io::Result<_>>()?;
    ensure!(left.len() == 1, "{left:?}");
    Ok(())
}
