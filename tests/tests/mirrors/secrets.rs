//! The upstream's password: it opens the upstream, and stands nowhere.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Host, Upstream, until, upstream};

use super::{SOON, world};

/// `lockstepctl` with something on its standard input.
fn fed(fleet: &Fleet, args: &[&str], input: &str) -> Result<lockstep_tests::Output> {
    fleet.controller.host.run_with(fleet.ctl_command().args(args), input)
}

/// Whether the bytes stand in a file below; sockets and what goes away meanwhile do not count.
fn stands_below(dir: &Path, needle: &[u8]) -> Option<std::path::PathBuf> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            if let Some(found) = stands_below(&path, needle) {
                return Some(found);
            }
        } else if meta.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            if content.windows(needle.len()).any(|window| window == needle) {
                return Some(path);
            }
        }
    }
    None
}

fn argv_and_environment(host: &Host) -> Result<String> {
    let mut all = String::new();
    for pid in host.pids()? {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            all.push_str(&String::from_utf8_lossy(&text).replace('\0', " "));
            all.push('\n');
        }
    }
    Ok(all)
}

#[test]
fn a_wrong_password_is_told_and_a_right_one_stands_nowhere() -> Result<()> {
    let (net, fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.private_url();
    let wrong = fleet.controller.host.path("wrong");
    fs::write(&wrong, "not it\nmore\n")?;
    let wrong = wrong.display().to_string();
    let more = ["--upstream", &url, "--password-file", &wrong, "--bwlimit", "1M"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "{failed}");
    ensure!(failed.stderr.contains("password"), "{failed}");
    let head = &fleet.heads("fedora")?[0];
    ensure!(head.attempts == 1, "a person has to mend it: {head:?}");
    ensure!(head.pulled.as_ref().is_some_and(|p| p.exit_code == Some(5)), "{head:?}");

    let password = Upstream::PASSWORD;
    let update = ["mirror", "update", "fedora", "--password-file", "-"];
    let updated = fed(&fleet, &update, &format!("{password}\n"))?;
    ensure!(!updated.to_string().contains(password), "{updated}");
    updated.ok()?;
    upstream::fill(&up.tree().join("big"), 60, 64 * 1024)?;
    let run = fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
    let master = fleet.node("master1")?.host.clone();
    until(SOON, "rsync runs", || master.processes("rsync").is_ok_and(|found| !found.is_empty()));
    for host in [&master, &fleet.node("ftp1")?.host, &fleet.controller.host] {
        let all = argv_and_environment(host)?;
        ensure!(!all.contains(password), "in a process of {}", host.name());
    }
    let logs = fleet.ctl(&["mirror", "logs", run.trim(), "-f", "--timeout", "60s"])?;
    ensure!(!logs.to_string().contains(password), "{logs}");
    logs.ok()?;
    fleet.wait_generation("fedora", &["ftp1"], 1);

    let shown: v1::Mirror = fleet.mirror("fedora")?;
    ensure!(shown.has_password, "{shown:?}");
    for args in [
        &["mirror", "list", "-o", "json"][..],
        &["mirror", "show", "fedora"],
        &["mirror", "runs", "-o", "json"],
        &["log", "-o", "json"],
        &["task", "list", "-o", "json"],
        &["store", "export", "--with-log"],
    ] {
        let output = fleet.ctl(args)?.ok()?;
        ensure!(!output.contains(password), "{args:?}");
    }
    // The upstream's own files are the one place.
    for host in [&master, &fleet.node("ftp1")?.host, &fleet.controller.host] {
        let found = stands_below(host.dir(), password.as_bytes());
        ensure!(found.is_none(), "{found:?}");
    }
    drop(net);
    Ok(())
}

#[test]
fn a_password_outlives_the_controller_and_the_agent() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1"])?;
    let file = fleet.controller.host.path("password");
    fs::write(&file, Upstream::PASSWORD)?;
    let (url, file) = (up.private_url(), file.display().to_string());
    let more = ["--upstream", &url, "--password-file", &file];
    fleet.create_mirror("fedora", &["master1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.restart_controller()?;
    fleet.restart_agent("master1")?;
    fleet.wait_healthy(&["master1"]);
    up.write("later", "later")?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.check_mirrored("fedora", "master1", &up.tree())?;

    fleet.ctl(&["mirror", "update", "fedora", "--no-password"])?.ok()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "{failed}");
    ensure!(!fleet.mirror("fedora")?.has_password);
    Ok(())
}
