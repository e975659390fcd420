//! The commands as people type them: what they show, on a terminal and elsewhere, and how they end.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net, Output, Upstream, cmd, until, upstream};
use rustix::process::Signal;
use serde_json::Value;

use super::{SOON, hold, world};

const USAGE: i32 = 2;
const REFUSED: i32 = 3;
const TIMED_OUT: i32 = 6;
const INTERRUPTED: i32 = 130;

/// As typed on the controller's host: `MASTER` and `REPLICA` stand for directories of the two nodes.
fn shell(fleet: &Fleet, up: &Upstream, line: &str) -> Result<std::process::Command> {
    let dir = |node: &str| -> Result<String> { Ok(fleet.ftp(node)?.display().to_string()) };
    let text = line
        .replace("/MASTER", &dir("master1")?)
        .replace("/REPLICA", &dir("ftp1")?)
        .replace("UPSTREAM", &up.host.ip().to_string());
    let bins = fleet.bins().ctl().parent().map(|dir| dir.display().to_string());
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = cmd("bash");
    shell.args(["-c", &text]).env("PATH", format!("{}:{path}", bins.unwrap_or_default()));
    shell.env("LOCKSTEP_CONFIG_DIR", fleet.controller.host.path("ctl"));
    Ok(shell)
}

fn type_line(fleet: &Fleet, up: &Upstream, line: &str) -> Result<Output> {
    fleet.controller.host.run(&mut shell(fleet, up, line)?)
}

#[test]
fn what_was_promised_is_typed_as_it_stands() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    for node in ["master1", "ftp1"] {
        fs::create_dir_all(fleet.ftp(node)?)?;
    }
    up.write("big.iso", "iso")?;
    let typed = |line: &str| type_line(&fleet, &up, line);
    typed("lockstepctl node label ftp1 role=mirror")?.ok()?;
    let create = "echo open-sesame-4711 | lockstepctl mirror create fedora \
                  --upstream rsync://mirror@UPSTREAM/private --master master1 --dest /MASTER \
                  --replica-selector role=mirror --replica-dest /REPLICA \
                  --schedule 'minute=*/30' --start-date '2014-05-7 18:00' \
                  --rsync-option --exclude=*.iso --rsync-option -z --delete after --password-file -";
    let shown = typed(create)?.ok()?;
    for words in ["minute=*/30 in UTC", "from 2014-05-07T18:00:00Z", "hour=* minute=*/30 second=0"]
    {
        ensure!(shown.contains(words), "{words} is not in {shown}");
    }
    let run = typed("lockstepctl mirror sync fedora --wait")?;
    for words in ["run fedora/1", "master1 ok after", "ftp1 ok after"] {
        ensure!(run.stderr.contains(words), "{words} is not in {run}");
    }
    let table = run.ok()?;
    for words in ["RUN", "EXIT", "RECEIVED", "SPEED", "upstream", "replica", "fedora/1"] {
        ensure!(table.contains(words), "{words} is not in {table}");
    }
    let copy = fleet.mirrored("ftp1", "fedora")?;
    ensure!(copy.join("index.html").exists() && !copy.join("big.iso").exists());

    for line in [
        "lockstepctl mirror logs fedora/1",
        "lockstepctl mirror logs fedora/1 -f",
        "lockstepctl mirror logs fedora/1 --node ftp1",
        "lockstepctl mirror list",
        "lockstepctl mirror show fedora",
        "lockstepctl mirror sync fedora",
        "lockstepctl mirror sync fedora --only ftp1 --wait",
        "lockstepctl mirror runs fedora",
        "lockstepctl mirror runs",
        "lockstepctl mirror sizes fedora --node ftp1",
        "lockstepctl mirror matrix",
        "lockstepctl mirror settings",
        "lockstepctl explain mirror/fedora",
        "lockstepctl mirror update fedora --bwlimit 10M --replica-delete delay",
        "lockstepctl mirror reschedule fedora --schedule '*/15 * * * *' --timezone Europe/Berlin",
        "lockstepctl mirror reschedule fedora --schedule '20 */15 * * * *' --schedule-preview 5",
        "lockstepctl mirror disable fedora",
        "lockstepctl mirror enable fedora",
        "lockstepctl mirror disable --all",
        "lockstepctl mirror enable --all",
        "lockstepctl mirror rename fedora linux",
        "lockstepctl mirror delete linux --delete-files --yes",
    ] {
        typed(line)?.ok().with_context(|| line.to_owned())?;
    }
    until(SOON, "its files are gone", || !copy.exists());
    Ok(())
}

#[test]
fn a_preview_is_shown_before_anything_is_kept() -> Result<()> {
    let (_net, fleet, up) = world(&["master1"])?;
    let url = up.url();
    let more = ["--upstream", &url, "--schedule", "hour=*/4", "--schedule-preview", "3"];
    let dry = fleet.create_mirror("fedora", &["master1"], &[&more[..], &["--dry-run"]].concat())?;
    ensure!(dry.stderr.contains("FROM NOW") && dry.stderr.contains("nothing was changed"), "{dry}");
    ensure!(fleet.ask::<v1::ListMirrorsResponse>(&["mirror", "list"])?.mirrors.is_empty());
    let kept = fleet.create_mirror("fedora", &["master1"], &more)?;
    ensure!(kept.stderr.matches(":00:00 UTC").count() >= 3, "{kept}");
    kept.ok()?;
    let mirror = fleet.mirror("fedora")?;
    ensure!(mirror.schedule_fields.get("hour").is_some_and(|h| h == "*/4"), "{mirror:?}");
    ensure!(mirror.next_run_at.is_some());

    // The whole schedule is another one, and off stays off.
    fleet.ctl(&["mirror", "disable", "fedora"])?.ok()?;
    fleet.ctl(&["mirror", "reschedule", "fedora", "--schedule", "year=2099 day=last"])?.ok()?;
    let mirror = fleet.mirror("fedora")?;
    ensure!(!mirror.enabled && mirror.schedule_fields["hour"] == "0", "{mirror:?}");
    fleet.ctl(&["mirror", "reschedule", "fedora", "--no-schedule"])?.ok()?;
    ensure!(fleet.mirror("fedora")?.schedule.is_none());
    Ok(())
}

#[test]
fn every_wrong_argument_is_named_and_changes_nothing() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    let nodes = ["master1", "ftp1"];
    fleet.create_mirror("fedora", &nodes, &["--upstream", &url])?.ok()?;
    let revision = || -> Result<u64> { Ok(fleet.mirror("fedora")?.revision) };
    let before = revision()?;
    let long = format!("rsync://host/{}", "p/".repeat(3000));
    let creates: &[(&str, &[&str], i32, &str)] = &[
        ("fedora", &["--upstream", &url], REFUSED, "fedora"),
        ("../x", &["--upstream", &url], USAGE, "mirror name"),
        ("a b", &["--upstream", &url], USAGE, "mirror name"),
        ("x", &["--upstream", "ftp://host/pub"], USAGE, "rsync://"),
        ("x", &["--upstream", "rsync://-oProxyCommand=x/pub"], USAGE, "--upstream"),
        ("x", &["--upstream", "rsync://host/../etc"], USAGE, "'..'"),
        ("x", &["--upstream", "http://host/pub"], USAGE, "upstream: must look like"),
        (
            "x",
            &["--upstream", &url, "--publish", "snapshot", "--delete", "none"],
            REFUSED,
            "publish=direct keeps them",
        ),
        (
            "x",
            &["--upstream", &url, "--publish", "snapshot", "--rsync-option", "--inplace"],
            REFUSED,
            "--inplace writes into files",
        ),
        ("x", &["--upstream", &long], USAGE, "path"),
        ("x", &["--upstream", "rsync://host/pub;id"], USAGE, "module"),
        ("x", &["--upstream", &url, "--schedule", "minute=75"], REFUSED, "minute: "),
        ("x", &["--upstream", &url, "--schedule", "minutes=5"], REFUSED, "minutes"),
        ("x", &["--upstream", &url, "--schedule", ""], REFUSED, "nothing is given"),
        ("x", &["--upstream", &url, "--schedule", "month=2 day=30"], REFUSED, "never"),
        (
            "x",
            &["--upstream", &url, "--schedule", "hour=4", "--timezone", "Berlin"],
            REFUSED,
            "zone",
        ),
        ("x", &["--upstream", &url, "--timezone", "UTC"], USAGE, "--schedule"),
        ("x", &["--upstream", &url, "--rsync-option", "-e"], USAGE, "-e is not allowed"),
        (
            "x",
            &["--upstream", &url, "--rsync-option", "--rsync-path=id"],
            USAGE,
            "--rsync-path is not",
        ),
        ("x", &["--upstream", &url, "--rsync-option", "--config=/etc/x"], USAGE, "--config is not"),
        ("x", &["--upstream", &url, "--rsync-option", "--delete-after"], USAGE, "--delete-after"),
        ("x", &["--upstream", &url, "--delete", "sometimes"], USAGE, "--delete"),
        ("x", &["--upstream", &url, "--delet", "after"], USAGE, "--delete"),
        ("x", &["--upstream", &url, "--replica", "nobody:/srv"], REFUSED, "nobody"),
        ("x", &["--upstream", &url, "--replica", "master1:/srv"], REFUSED, "master1"),
        ("x", &["--upstream", &url, "--owner", "nobody"], REFUSED, "nobody"),
        ("x", &["--upstream", &url, "--password-file", "/no/such/file"], USAGE, "/no/such/file"),
        ("x", &["--password-file", "/etc/hostname"], USAGE, "--upstream"),
        ("x", &["--upstream", &url, "--hook", "/bin/sh"], USAGE, "--hook"),
        ("x", &["--upstream", &url, "--proxy", "host"], USAGE, "--proxy"),
        ("x", &["--upstream", &url, "--trace", "../x"], USAGE, "--trace"),
    ];
    for (name, more, code, says) in creates {
        let output = fleet.create_mirror(name, &["master1"], more)?;
        ensure!(output.status.code() == Some(*code), "{more:?}: {output}");
        ensure!(output.stderr.contains(says), "{more:?}: {says} is not in {output}");
    }
    let others: &[(&[&str], i32, &str)] = &[
        (&["show", "nobody"], REFUSED, "nobody"),
        (&["sync", "nobody"], REFUSED, "nobody"),
        (&["enable", "nobody"], REFUSED, "nobody"),
        (&["enable"], USAGE, "<NAME>"),
        (&["enable", "fedora", "--all"], USAGE, "--all"),
        (&["update", "fedora"], USAGE, "nothing to change"),
        (&["update", "nobody", "--nice", "3"], REFUSED, "nobody"),
        (&["update", "fedora", "--nice", "20"], USAGE, "--nice"),
        (
            &["update", "fedora", "--publish", "snapshot", "--replica-delete", "none"],
            REFUSED,
            "replica-delete",
        ),
        (&["update", "fedora", "--master", "nobody"], REFUSED, "nobody"),
        (&["update", "fedora", "--dest", "srv"], USAGE, "absolute"),
        (
            &["update", "fedora", "--remove-replica", "ftp1", "--replica", "ftp1"],
            USAGE,
            "--replica",
        ),
        (&["update", "fedora", "--nice", "3", "--if-revision", "1"], REFUSED, "revision"),
        (&["reschedule", "fedora"], USAGE, "--schedule"),
        (&["reschedule", "nobody", "--schedule", "hour=4"], REFUSED, "nobody"),
        (&["rename", "fedora", "-x"], USAGE, "'-x'"),
        (&["rename", "nobody", "other"], REFUSED, "nobody"),
        (&["sync", "fedora", "--allow", "all"], USAGE, "--allow"),
        (&["sync", "fedora", "--only", "ftp1", "--from", "ftp1"], USAGE, "--from"),
        (&["ready", "fedora"], REFUSED, "upstream"),
        (&["logs", "fedora"], USAGE, "fedora/17"),
        (&["logs", "fedora/99"], REFUSED, "fedora/99"),
        (&["delete", "fedora"], USAGE, "--yes"),
        (&["runs", "fedora", "--limit", "0"], USAGE, "--limit"),
        (&["sizes", "nobody"], REFUSED, "nobody"),
        (&["sizes"], USAGE, "<NAME>"),
    ];
    for (args, code, says) in others {
        let output = fleet.ctl(&[&["mirror"], *args].concat())?;
        ensure!(output.status.code() == Some(*code), "{args:?}: {output}");
        ensure!(output.stderr.contains(says), "{args:?}: {says} is not in {output}");
    }
    // Two into one tree, or one around another.
    let dir = fleet.node("master1")?.host.dir().display().to_string();
    for (name, dest, may) in [
        ("inside", format!("{dir}/ftp/fedora"), false),
        ("ftp", dir.clone(), false),
        ("beside", format!("{dir}/ftp"), true),
    ] {
        let args = ["mirror", "create", name, "--master", "master1", "--dest", &dest];
        let output = fleet.ctl(&[&args[..], &["--upstream", &url]].concat())?;
        ensure!(output.status.success() == may, "{output}");
        ensure!(may || output.stderr.contains("mirror fedora writes"), "{output}");
    }
    ensure!(revision()? == before, "something was changed");
    Ok(())
}

#[test]
fn sizes_are_told_run_by_run() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    fleet.create_mirror("fedora", &["master1", "ftp1"], &["--upstream", &url])?.ok()?;
    let first = fs::metadata(up.tree().join("index.html"))?.len();
    fleet.pull("fedora", &[])?.ok()?;
    up.write("more", vec![b'x'; 5000])?;
    fleet.pull("fedora", &[])?.ok()?;
    up.remove("more")?;
    fleet.pull("fedora", &[])?.ok()?;
    for node in [&[][..], &["--node", "ftp1"]] {
        let told: Value = fleet.ask(&[&["mirror", "sizes", "fedora"], node].concat())?;
        let column = |name: &str| -> Vec<Option<i64>> {
            told.as_array().into_iter().flatten().map(|size| size[name].as_i64()).collect()
        };
        let first = i64::try_from(first)?;
        ensure!(column("bytes") == [first, first + 5000, first].map(Some), "{told}");
        ensure!(column("entries") == [1, 2, 1].map(Some), "{told}");
        ensure!(column("change_bytes") == [None, Some(5000), Some(-5000)], "{told}");
        ensure!(column("free_bytes").iter().all(|free| *free > Some(0)), "{told}");
    }
    let table = fleet.ctl(&["mirror", "sizes", "fedora"])?.ok()?;
    ensure!(table.contains("+4.88 KiB") && table.contains("-4.88 KiB"), "{table}");
    Ok(())
}

#[test]
fn the_log_of_an_older_run_is_read_from_its_node() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    fleet.create_mirror("fedora", &["master1", "ftp1"], &["--upstream", &url])?.ok()?;
    for n in 1..=3 {
        up.write(&format!("file-{n}"), "x")?;
        fleet.pull("fedora", &[])?.ok()?;
    }
    // What was only in memory is gone.
    fleet.restart_agent("master1")?;
    fleet.wait_health("master1", v1::NodeHealth::Healthy);
    let logs = |more: &[&str]| fleet.ctl(&[&["mirror", "logs"], more].concat());
    for (run, node) in [("fedora/1", ""), ("fedora/2", "ftp1"), ("fedora/3", "master1")] {
        let of: &[&str] = if node.is_empty() { &[] } else { &["--node", node] };
        for follow in [&[][..], &["-f"]] {
            let text = logs(&[&[run], of, follow].concat())?.ok()?;
            let file = run.replace("fedora/", "file-");
            ensure!(text.contains(&format!("run {run}, stage whole")), "{text}");
            ensure!(text.contains(&file) && text.trim_end().ends_with("ok"), "{text}");
            ensure!(!text.contains("file-4") && text.matches("stage whole").count() == 1, "{text}");
        }
    }
    let dir = fleet.node("master1")?.host.path("data/mirror/fedora/log");
    fs::remove_file(dir.join("1"))?;
    let gone = logs(&["fedora/1"])?.refused()?;
    for words in ["master1", "last 14 runs", "lockstepctl mirror runs fedora"] {
        ensure!(gone.contains(words), "{words} is not in {gone}");
    }
    Ok(())
}

/// A mirror whose pull takes a few seconds.
fn slow() -> Result<(Net, Fleet, Upstream)> {
    let (net, fleet, up) = world(&["master1", "ftp1"])?;
    upstream::fill(&up.tree().join("big"), 40, 100_000)?;
    let url = up.url();
    let more = ["--upstream", &url, "--bwlimit", "1M", "--replica-bwlimit", "2M"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    Ok((net, fleet, up))
}

#[test]
fn a_run_is_drawn_as_bars_on_a_terminal_and_told_in_lines_elsewhere() -> Result<()> {
    let (_net, fleet, up) = slow()?;
    let watch = "stty cols 100 rows 20; exec lockstepctl mirror sync fedora --wait";
    let mut script = shell(&fleet, &up, &format!("exec script -qefc '{watch}' /dev/null"))?;
    let (mut terminal, _keys) = fleet.controller.host.spawn_fed(&mut script)?;
    until(SOON, "the master's bar", || terminal.stdout().contains("master1          ["));
    ensure!(terminal.wait_timeout(SOON)?.success(), "{}", terminal.stdout());
    let drawn = terminal.stdout();
    for words in ["content", "files", "/s", "left", "ftp1             [", "ok after"] {
        ensure!(drawn.contains(words), "{words} was never drawn: {drawn}");
    }

    up.write("more", vec![b'y'; 2_000_000])?;
    let lines = fleet.pull("fedora", &[])?;
    let phases = lines.stderr.matches("master1 content").count();
    ensure!((1..=12).contains(&phases), "{lines}");
    ensure!(!lines.stderr.contains('\r') && !lines.stderr.contains('\x1b'), "{lines}");
    let json = fleet.pull("fedora", &["-o", "json"])?.ok()?;
    let json: Value = serde_json::from_str(&json)?;
    ensure!(json["run"] == "fedora/3" && json["ok"] == true, "{json}");
    ensure!(json["parts"][0]["node"] == "master1", "the head first: {json}");
    Ok(())
}

#[test]
fn ctrl_c_and_timeouts_end_the_watching_and_not_the_run() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1", "ftp1"])?;
    let (url, go_on) = (up.url(), hold(&mut fleet, "master1")?);
    let more = ["--upstream", &url, "--hook", "hold on=before"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    let late = fleet.ctl(&["mirror", "sync", "fedora", "--wait", "--timeout", "1s"])?;
    ensure!(late.status.code() == Some(TIMED_OUT), "{late}");
    let logs = ["mirror", "logs", "fedora/1", "-f"];
    let mut follow = fleet.controller.host.spawn(fleet.ctl_command().args(logs))?;
    until(SOON, "lines come", || follow.stderr().contains("master1"));
    follow.signal(Signal::INT)?;
    let ended = follow.output(SOON)?;
    ensure!(ended.status.code() == Some(INTERRUPTED), "{ended}");
    ensure!(ended.stderr.contains("lockstepctl mirror logs fedora/1 -f"), "{ended}");
    fs::write(go_on, "")?;
    let all = fleet.ctl(&[&logs[..], &["--timeout", "60s"]].concat())?;
    ensure!(all.stdout.contains("index.html"), "{all}");
    all.ok()?;
    fleet.wait_generation("fedora", &["ftp1"], 1);
    fleet.check_mirrored("fedora", "ftp1", &up.tree())
}

#[test]
fn a_wait_outlives_the_controller() -> Result<()> {
    let (_net, mut fleet, up) = slow()?;
    let wait = ["mirror", "sync", "fedora", "--wait"];
    let mut waits = fleet.controller.host.spawn(fleet.ctl_command().args(wait))?;
    until(SOON, "the run began", || waits.stderr().contains("master1 "));
    fleet.restart_controller()?;
    let ended = waits.output(Duration::from_secs(60))?;
    ensure!(ended.stderr.contains("asking again"), "{ended}");
    ended.ok()?;
    fleet.check_mirrored("fedora", "ftp1", &up.tree())?;
    let heads = fleet.heads("fedora")?;
    ensure!(heads.len() == 1, "{heads:?}");
    Ok(())
}
