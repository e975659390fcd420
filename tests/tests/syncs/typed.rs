//! Command lines as people type them: those that were promised, at a terminal, given up half way, and
//! the ways through what is held.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use lockstep_proto::v1;

use lockstep_tests::{Flags, Fleet, Net, Output, cmd, until};
use rustix::process::Signal;

use super::SOON;

/// `--timeout` passed.
const TIMED_OUT: i32 = 6;
/// A shell's 128 and SIGINT.
const INTERRUPTED: i32 = 130;
const CTRL_C: &[u8] = b"\x03";

/// The hosts share the machine's files, so `/srv` is a directory of each.
struct Fields<'a> {
    fleet: &'a Fleet,
    srv: Vec<(&'static str, PathBuf)>,
}

impl<'a> Fields<'a> {
    fn new(fleet: &'a Fleet, nodes: &[&'static str]) -> Result<Self> {
        let srv = |node: &&'static str| -> Result<_> {
            let path = fleet.node(node)?.host.path("srv");
            fs::create_dir_all(&path)?;
            Ok((*node, path))
        };
        Ok(Self { fleet, srv: nodes.iter().map(srv).collect::<Result<_>>()? })
    }

    fn srv(&self, node: &str) -> Result<&PathBuf> {
        let found = self.srv.iter().find(|(name, _)| *name == node);
        found.map(|(_, path)| path).context("a node of the test")
    }

    /// As typed on the controller's host; a path without a node is the last one's.
    fn shell(&self, line: &str) -> std::process::Command {
        let mut text = line.to_owned();
        for (node, path) in &self.srv {
            text = text.replace(&format!("{node}:/srv"), &format!("{node}:{}", path.display()));
        }
        if let Some((_, last)) = self.srv.last() {
            text = text.replace(" /srv", &format!(" {}", last.display()));
        }
        let bins = self.fleet.bins().ctl().parent().map(|dir| dir.display().to_string());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = cmd("bash");
        shell.args(["-c", &text]).env("PATH", format!("{}:{path}", bins.unwrap_or_default()));
        shell.env("LOCKSTEP_CONFIG_DIR", self.fleet.controller.host.path("ctl"));
        shell
    }

    fn type_line(&self, line: &str) -> Result<Output> {
        self.fleet.controller.host.run(&mut self.shell(line))
    }
}

#[test]
fn what_was_promised_is_typed_as_it_stands() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    let typed = Fields::new(&fleet, &["master1", "web1"])?;
    let (source, copy) = (typed.srv("master1")?.join("www"), typed.srv("web1")?.join("www"));
    fs::create_dir_all(&source)?;
    for name in ["index.html", "left.tmp"] {
        fs::write(source.join(name), name)?;
    }
    typed.type_line("lockstepctl node label web1 role=webhead")?.ok()?;
    let create = "lockstepctl sync create webroot --source master1:/srv/www --target-selector \
                  role=webhead --dest /srv/www --exclude '*.tmp' --delete running --delay 1s \
                  --transport mtls";
    typed.type_line(create)?.ok()?;
    typed.type_line("lockstepctl sync wait webroot --all")?.ok()?;
    assert!(copy.join("index.html").exists() && !copy.join("left.tmp").exists());
    let shown = typed.type_line("lockstepctl sync show webroot")?.ok()?;
    for word in ["STATE", "QUEUE", "LAG", "SENT", "LAST SUCCESS", "delete=running", "*.tmp"] {
        ensure!(shown.contains(word), "{word} is not in {shown}");
    }
    for line in [
        "lockstepctl sync update webroot --delay 2s --max-lag 5m",
        "lockstepctl sync pause webroot",
        "lockstepctl sync resume webroot",
        "lockstepctl sync resync webroot --wait",
        "lockstepctl sync resync webroot --target web1 --wait",
        "lockstepctl sync wait webroot",
        "lockstepctl sync wait webroot --at-least 1",
        "lockstepctl sync diff webroot",
        "lockstepctl sync verify webroot --wait",
        "lockstepctl sync export webroot > heads",
        "lockstepctl sync import webroot --file heads",
        "printf '%s\\n' master1:/srv/docs web1 '' | lockstepctl sync generate --print",
        "timeout --preserve-status --signal INT 2 lockstepctl sync watch webroot; test $? = 130",
    ] {
        typed.type_line(line)?.ok().with_context(|| line.to_owned())?;
    }
    fs::remove_file(source.join("index.html"))?;
    until(SOON, "what is removed goes", || !copy.join("index.html").exists());
    Ok(())
}

#[test]
fn a_watch_draws_anew_on_a_terminal() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let typed = Fields::new(&fleet, &[])?;
    // A terminal that is too narrow for a line and too low for nothing.
    let watch = "stty cols 60 rows 12; exec lockstepctl sync watch www";
    let mut script = typed.shell(&format!("exec script -qefc '{watch}' /dev/null"));
    let (mut terminal, mut keys) = fleet.controller.host.spawn_fed(&mut script)?;
    until(SOON, "the first table", || terminal.stdout().contains("idle"));
    fleet.ctl(&["sync", "pause", "www"])?.ok()?;
    until(SOON, "the table that tells of the pause", || terminal.stdout().contains("paused"));
    let text = terminal.stdout();
    assert!(text.contains("A\x1b[J"), "drawn over what was there: {text:?}");
    let longest = text.split(['\n', '\r']).map(|line| line.chars().count()).max();
    assert!(longest <= Some(60 + "\x1b[12A\x1b[J".len()), "no line may wrap: {text:?}");
    keys.write_all(CTRL_C)?;
    let ended = terminal.wait_timeout(SOON)?;
    assert_eq!(ended.code(), Some(INTERRUPTED));
    Ok(())
}

/// The newest run of this kind.
fn newest(fleet: &Fleet, kind: &str) -> Result<v1::Task> {
    let all: v1::ListTasksResponse = fleet.ask(&["task", "list", "--node", "master1"])?;
    let found = all.tasks.into_iter().find(|task| task.kind == kind);
    found.with_context(|| format!("no {kind}"))
}

#[test]
fn ctrl_c_ends_what_nobody_waits_for_any_more() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let (master, web1) = (fleet.node("master1")?.host.clone(), fleet.node("web1")?.host.clone());
    net.cut(&master, &web1)?;
    fs::write(fleet.www("master1")?.join("new"), "new")?;
    let begin = |fleet: &Fleet, args: &[&str], says: &str| -> Result<_> {
        let command = fleet.controller.host.spawn(fleet.ctl_command().args(args))?;
        until(SOON, says, || command.stderr().contains(says));
        Ok(command)
    };
    let wait = ["sync", "wait", "www", "--timeout", "5m"];
    let mut waits = begin(&fleet, &wait, "not yet: web1")?;
    waits.signal(Signal::INT)?;
    let gave_up = waits.output(SOON)?;
    assert_eq!(gave_up.status.code(), Some(INTERRUPTED), "{gave_up}");
    assert!(gave_up.stderr.contains("cancelling"), "{gave_up}");
    let cancelled = |fleet: &Fleet, kind: &str| {
        until(SOON, "its task ends", || -> Result<()> {
            let task = newest(fleet, kind)?;
            let Some(outcome) = task.outcome else { bail!("it runs") };
            ensure!(outcome.kind() == v1::OutcomeKind::Cancelled, "{outcome:?}");
            Ok(())
        });
    };
    cancelled(&fleet, "sync-barrier");
    for (command, kind) in [("wait", "sync-barrier"), ("diff", "sync-verify")] {
        let late = fleet.ctl(&["sync", command, "www", "--timeout", "2s"])?;
        assert_eq!(late.status.code(), Some(TIMED_OUT), "{late}");
        cancelled(&fleet, kind);
    }

    // A controller that does not answer keeps nobody.
    let mut waits = begin(&fleet, &wait, "not yet: web1")?;
    fleet.controller.daemon.stop()?;
    waits.signal(Signal::INT)?;
    until(SOON, "it wants to cancel", || waits.stderr().contains("cancelling"));
    assert!(waits.is_running());
    waits.signal(Signal::INT)?;
    assert_eq!(waits.wait_timeout(SOON)?.code(), Some(INTERRUPTED));
    fleet.controller.daemon.cont()?;
    Ok(())
}

#[test]
fn a_wait_runs_a_hook_where_the_source_is_once_all_have_everything() -> Result<()> {
    let net = Net::new()?;
    let hooks = tempfile::tempdir()?;
    let flip = hooks.path().join("flip-release");
    fs::write(
        &flip,
        format!("#!/bin/sh\nls > {}/flipped\necho it is flipped\n", hooks.path().display()),
    )?;
    fs::set_permissions(&flip, fs::Permissions::from_mode(0o755))?;
    let agent = vec!["--hook-dir".to_owned(), hooks.path().display().to_string()];
    let flags = Flags { agent, ..Flags::default() };
    let fleet = Fleet::start_with(&net, &["master1", "web1"], flags)?;
    fleet.sync_www("master1", &["web1"])?;
    fs::write(fleet.www("master1")?.join("release"), "2")?;
    let done = fleet.ctl(&["sync", "wait", "www", "--hook", "flip-release"])?;
    assert!(done.stderr.contains("it is flipped"), "{done}");
    done.ok()?;
    assert!(fleet.www("web1")?.join("release").exists(), "before the hook ran");
    assert!(hooks.path().join("flipped").exists());
    let absent = fleet.ctl(&["sync", "wait", "www", "--hook", "absent"])?;
    assert_eq!(absent.status.code(), Some(1), "{absent}");
    assert!(absent.stderr.contains("absent"), "{absent}");
    Ok(())
}

#[test]
fn a_person_lets_go_what_is_held_once() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    let source = fleet.www("master1")?;
    fs::create_dir_all(source.join("old"))?;
    for n in 0..20 {
        fs::write(source.join(format!("old/{n}")), "x")?;
    }
    fleet.sync_www("master1", &["web1"])?;
    fleet.ctl(&["sync", "update", "www", "--delete-limit", "10"])?.ok()?;
    fleet.wait_in_step("master1", &["web1"]);
    // In one step, so that no batch takes a part of it.
    fs::rename(source.join("old"), source.with_file_name("old-away"))?;
    let shown = until(SOON, "it is held", || -> Result<String> {
        let shown = fleet.ctl(&["sync", "show", "www"])?.ok()?;
        ensure!(shown.contains("21 entries would be removed"), "{shown}");
        Ok(shown)
    });
    assert!(shown.contains("lockstepctl sync release www --target web1"), "{shown}");
    assert!(fleet.ctl(&["sync", "release", "www"])?.refused()?.contains("--yes"));
    let dry = fleet.ctl(&["sync", "release", "www", "--dry-run"])?;
    assert!(dry.stderr.contains("nothing was changed"), "{dry}");
    assert!(fleet.www("web1")?.join("old/0").exists());
    fleet.ctl(&["sync", "release", "www", "--target", "web1", "--yes", "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web1"]);
    let again = fleet.ctl(&["sync", "release", "www", "--yes", "--wait"])?;
    assert!(again.stderr.contains("no removals are held"), "{again}");
    assert!(!again.status.success(), "{again}");
    Ok(())
}
