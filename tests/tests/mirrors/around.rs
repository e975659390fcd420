//! What goes on around a run on real nodes: hooks that wait for all replicas, pushes, and rsync that
//! yields to others.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Flags, Fleet, Net, Upstream, cmd, until, upstream};

use super::{SOON, set_agent, world};

#[test]
fn a_hook_runs_once_all_replicas_have_it() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1", "ftp1", "ftp2"])?;
    let master = fleet.node("master1")?.host.clone();
    let (hooks, told) = (master.path("hooks"), master.path("told"));
    fs::create_dir(&hooks)?;
    // All hosts share one disk, so it can look at the replicas.
    let trees = [fleet.mirrored("ftp1", "fedora")?, fleet.mirrored("ftp2", "fedora")?];
    let [one, two] = trees.map(|tree| tree.join("news").display().to_string());
    let script = format!(
        "#!/bin/sh\necho \"$LOCKSTEP_EVENT $LOCKSTEP_MIRROR $LOCKSTEP_GENERATION $LOCKSTEP_RUN \
         $(cat {one} {two} | tr '\\n' ' ')\" >> {}\necho distributed\n",
        told.display()
    );
    fs::write(hooks.join("push-leaf"), script)?;
    fs::set_permissions(hooks.join("push-leaf"), fs::Permissions::from_mode(0o755))?;
    set_agent(&mut fleet, "master1", &format!("hook-dir = \"{}\"\n", hooks.display()))?;

    up.write("news", "1\n")?;
    let url = up.url();
    let more =
        ["--upstream", &url, "--hook", "push-leaf on=distributed", "--replicas-at-once", "1"];
    fleet.create_mirror("fedora", &["master1", "ftp1", "ftp2"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let lines = || -> Vec<String> {
        let text = fs::read_to_string(&told).unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).collect()
    };
    until(SOON, "the first generation is distributed", || {
        lines() == ["distributed fedora 1 1 1 1"]
    });
    // Unchanged: nothing is distributed.
    fleet.pull("fedora", &[])?.ok()?;
    up.write("news", "22\n")?;
    fleet.pull("fedora", &[])?.ok()?;
    until(SOON, "the second one is", || lines().len() == 2);
    ensure!(lines()[1] == "distributed fedora 2 3 22 22", "{:?}", lines());
    until(SOON, "what it printed is in the run's log", || {
        fleet.ctl(&["mirror", "logs", "fedora/3"]).is_ok_and(|o| o.stdout.contains("distributed"))
    });
    Ok(())
}

#[test]
fn a_push_token_is_typed_and_a_push_makes_a_run() -> Result<()> {
    let net = Net::new()?;
    let up = Upstream::start(&net)?;
    up.write("index.html", "first")?;
    let controller = ["--push-listen", "127.0.0.1:7404"].map(str::to_owned).to_vec();
    let fleet = Fleet::start_with(&net, &["master1"], Flags { controller, ..Flags::default() })?;
    let url = up.url();
    fleet.create_mirror("fedora", &["master1"], &["--upstream", &url])?.ok()?;
    let token = fleet.ctl(&["mirror", "push-token", "create", "fedora"])?.ok()?.trim().to_owned();
    ensure!(token.starts_with("lsp_"), "{token}");
    let push = |token: &str| -> Result<String> {
        let header = format!("Authorization: Bearer {token}");
        let mut curl = cmd("curl");
        curl.args(["-sS", "-X", "POST", "-H", &header, "-w", " %{http_code}"]);
        fleet.controller.host.run(curl.arg("http://127.0.0.1:7404/push/fedora"))?.ok()
    };
    ensure!(push("lsp_wrong")?.ends_with(" 401"));
    let answer = push(&token)?;
    ensure!(answer.contains("\"run\":\"fedora/1\"") && answer.ends_with(" 202"), "{answer}");
    fleet.wait_generation("fedora", &["master1"], 1);
    let list = fleet.ctl(&["mirror", "push-token", "list", "fedora"])?.ok()?;
    let id = list.split_whitespace().find(|word| word.starts_with("push-")).context("an id")?;
    ensure!(!list.contains(&token), "{list}");
    let trigger = fleet.heads("fedora")?[0].trigger.clone();
    ensure!(trigger == format!("push {id}"), "{trigger}");
    fleet.ctl(&["mirror", "push-token", "delete", "fedora", id])?.ok()?;
    ensure!(push(&token)?.ends_with(" 401"));
    let again = fleet.ctl(&["mirror", "push-token", "delete", "fedora", id])?;
    ensure!(again.status.success() && again.stderr.contains("nothing"), "{again}");
    Ok(())
}

#[test]
fn rsync_yields_to_others_when_it_is_asked_to() -> Result<()> {
    let (_net, fleet, up) = world(&["master1"])?;
    upstream::fill(&up.tree().join("big"), 40, 100_000)?;
    let url = up.url();
    let more = ["--upstream", &url, "--bwlimit", "1M", "--nice", "7", "--ionice", "idle"];
    fleet.create_mirror("fedora", &["master1"], &more)?.ok()?;
    fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
    let host = fleet.node("master1")?.host.clone();
    until(SOON, "its rsync is the last in line", || -> Result<()> {
        let pid = *host.processes("rsync")?.first().context("no rsync")?;
        let nice = cmd("ps").args(["-o", "ni=", "-p", &pid.to_string()]).output()?;
        let class = cmd("ionice").args(["-p", &pid.to_string()]).output()?;
        let (nice, class) =
            (String::from_utf8_lossy(&nice.stdout), String::from_utf8_lossy(&class.stdout));
        ensure!(nice.trim() == "7" && class.trim() == "idle", "{nice} {class}");
        Ok(())
    });
    fleet.wait_generation("fedora", &["master1"], 1);
    fleet.check_mirrored("fedora", "master1", &up.tree())
}
