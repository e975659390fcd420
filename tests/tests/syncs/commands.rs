//! What people type for syncs, over a real fleet: definitions, settings, selectors, lists, questions,
//! runs. How the engine does its part is in the other files.

use std::fs;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net, Output, until};

use super::{SOON, fill_new};

fn settings(sync: &v1::Sync) -> Vec<String> {
    let options = sync.options.clone().unwrap_or_default();
    options.settings.iter().map(|s| format!("{}={}", s.name, s.value)).collect()
}

fn names(sync: &v1::Sync) -> Vec<&str> {
    sync.targets.iter().filter_map(|t| Some(t.target.as_ref()?.node.as_str())).collect()
}

/// `lockstepctl` with something on its standard input.
fn typed(fleet: &Fleet, args: &[&str], input: &str) -> Result<Output> {
    fleet.controller.host.run_with(fleet.ctl_command().args(args), input)
}

#[test]
fn settings_are_given_changed_and_emptied() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fill_new(&fleet)?;
    let list = fleet.controller.host.path("patterns");
    fs::write(&list, "# not these\n\n*.tmp\n+ /assets/\n")?;
    let mut create = fleet.create_www("master1", &["web1"])?;
    let list = list.to_string_lossy().into_owned();
    for word in ["--include", "/keep.tmp", "--exclude-from", &list, "--hard-links", "--delay", "2s"]
    {
        create.push(word.to_owned());
    }
    create.push("--wait".to_owned());
    let made: v1::Sync = fleet.ask(&create.iter().map(String::as_str).collect::<Vec<_>>())?;
    let filters = ["filter=+ /keep.tmp", "filter=- *.tmp", "filter=+ /assets/"];
    assert_eq!(settings(&made), [&filters[..], &["delay=2s", "hard-links=yes"]].concat());

    // Only what is named changes.
    let changed: v1::Sync = fleet.ask(&["sync", "update", "www", "--delay", "1s", "--wait"])?;
    assert_eq!(settings(&changed), [&filters[..], &["hard-links=yes"]].concat());
    let www = fleet.www("master1")?;
    fs::write(www.join("keep.tmp"), "kept")?;
    fs::write(www.join("left.tmp"), "left out")?;
    fleet.wait_arrives("master1", &["web1"], "after")?;
    until(SOON, "what is kept arrives", || {
        fleet.www("web1").is_ok_and(|www| www.join("keep.tmp").exists())
    });
    assert!(!fleet.www("web1")?.join("left.tmp").exists());

    let emptied: v1::Sync =
        fleet.ask(&["sync", "update", "www", "--no-filter", "--hard-links=no", "--wait"])?;
    assert_eq!(settings(&emptied), [""; 0]);
    let same = fleet.ctl(&["sync", "update", "www", "--delay", "1s"])?;
    assert!(same.stderr.contains("nothing to change"), "{same}");
    assert!(fleet.ctl(&["sync", "update", "www"])?.refused()?.contains("nothing to change"));

    // Without a controller.
    let all: v1::ListSettingsResponse = fleet.ask(&["sync", "settings"])?;
    assert!(all.settings.iter().any(|s| s.name == "delay" && s.default_values == ["1s"]));
    Ok(())
}

#[test]
fn a_pause_a_reload_and_targets_by_label() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1"])?;

    let paused: v1::Sync = fleet.ask(&["sync", "pause", "www", "--wait"])?;
    assert!(paused.paused);
    assert!(fleet.ctl(&["sync", "pause", "www"])?.stderr.contains("paused already"));
    assert!(fleet.ctl(&["sync", "show", "www"])?.ok()?.contains("paused"));
    fleet.ctl(&["sync", "resume", "www", "--wait"])?.ok()?;
    fleet.wait_arrives("master1", &["web1"], "resumed")?;

    let told: v1::ListTasksResponse = fleet.ask(&["sync", "reload", "www", "--wait"])?;
    let mut nodes: Vec<&str> = told.tasks.iter().map(|task| task.node.as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["master1", "web1"]);

    let path = fleet.www("web2")?.to_string_lossy().into_owned();
    let select = ["sync", "update", "www", "--target-selector", "role=webhead", "--dest", &path];
    fleet.ctl(&select)?.ok()?;
    fleet.ctl(&["node", "label", "web2", "role=webhead"])?.ok()?;
    fleet.wait_in_step("master1", &["web2"]);
    assert_eq!(names(&fleet.show_www()?), ["web1", "web2"]);
    let shown = fleet.ctl(&["sync", "show", "www"])?.ok()?;
    assert!(shown.contains("selector") && shown.contains("role=webhead"), "{shown}");
    assert!(!shown.contains("DRIFT"), "a column in which nothing stands: {shown}");
    let refused = fleet.ctl(&["sync", "remove-target", "www", "web2"])?.refused()?;
    assert!(refused.contains("labels"), "{refused}");
    let changed: v1::Sync = fleet.ask(&["sync", "update", "www", "--no-target-selector"])?;
    assert_eq!(names(&changed), ["web1"]);
    Ok(())
}

#[test]
fn an_old_list_is_imported_and_given_back() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1"])?;
    let ip = fleet.node("web2")?.host.ip().to_string();
    let (one, two) = (fleet.place("web1")?, fleet.place("web2")?);
    let dest = fleet.www("web2")?.to_string_lossy().into_owned();
    let import = ["sync", "import", "www", "--file", "-", "--dest", &dest];

    // As Slavemaster had it: one address or host a line.
    let old = format!("# web heads\n{one}\n\n{ip}  # rack 2\n# end\n");
    let new = format!("# web heads\n{one}\n\n# rack 2\n{two}\n# end\n");
    let revision = fleet.show_www()?.revision;
    let dry = typed(&fleet, &[&import[..], &["--dry-run"]].concat(), &old)?;
    assert!(dry.stderr.contains("added web2"), "{dry}");
    assert_eq!(fleet.show_www()?.revision, revision);
    let done = typed(&fleet, &[&import[..], &["--wait"]].concat(), &old)?;
    assert!(done.stderr.contains("added web2"), "{done}");
    done.ok()?;
    fleet.check_in_step("master1", "web2")?;
    assert_eq!(fleet.ctl(&["sync", "export", "www"])?.ok()?, new);
    let again = typed(&fleet, &import, &new)?;
    assert!(again.stderr.contains("nothing to change"), "{again}");

    // A mistake is told with its place, and nothing is half applied.
    let revision = fleet.show_www()?.revision;
    for (list, says) in [
        ("web2\n  web1 web2\n", "line 2, column 8: \"web2\" is unknown"),
        ("web2\n10.9.9.9\n", "line 2, column 1: no node is called or reached as 10.9.9.9"),
        ("web2\n$(id)\n", "line 2, column 1: node name"),
        ("web1:/a\nweb1:/b\n", "line 2, column 1: web1:/b differs"),
        ("web2\nnobody\n", "nobody"),
    ] {
        let refused = typed(&fleet, &import, list)?;
        assert!(refused.stderr.contains(says), "{says:?} is not in: {refused}");
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused}");
    }
    assert_eq!(fleet.show_www()?.revision, revision);

    // An address is as good as a name elsewhere too.
    let removed: v1::Sync = fleet.ask(&["sync", "remove-target", "www", &ip, "--wait"])?;
    assert_eq!(names(&removed), ["web1"]);
    let added: v1::Sync =
        fleet.ask(&["sync", "add-target", "www", &format!("{ip}:{dest}"), "--bwlimit", "5M"])?;
    let bwlimit = added.targets.last().and_then(|t| t.target.as_ref()).map(|t| t.bwlimit);
    assert_eq!(bwlimit, Some(5 << 20));
    Ok(())
}

#[test]
fn the_generator_creates_or_prints() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fill_new(&fleet)?;
    let (source, dest) = (fleet.place("master1")?, fleet.www("web1")?);
    let dest = dest.display();
    let answers = format!("{source}\nweb9\nweb1\n{dest}\n");
    let printed =
        typed(&fleet, &["sync", "generate", "--print"], &format!("{source}\nweb1\n{dest}\n"))?;
    let expected =
        format!("lockstepctl sync create www --source {source} --target web1 --dest {dest}\n");
    assert_eq!(printed.ok()?, expected);

    // Somebody who may only look gets the command.
    let token = fleet.ctl(&["user", "add", "eve", "--role", "viewer"])?.ok()?;
    let eve = fleet.controller.host.path("eve");
    let as_eve = |args: &[&str], input: &str| {
        let mut ctl = fleet.ctl_command();
        ctl.env("LOCKSTEP_CONFIG_DIR", &eve).args(args);
        fleet.controller.host.run_with(&mut ctl, input)
    };
    let listen = fleet.controller.host.at(7400).to_string();
    as_eve(&["login", "--controller", &listen, "--token", "-"], &token)?.ok()?;
    let refused = as_eve(&["sync", "generate"], &answers)?;
    assert_eq!(refused.status.code(), Some(4), "{refused}");
    assert_eq!(refused.stdout, expected);
    assert!(refused.stderr.contains("web9 has not joined"), "{refused}");

    typed(&fleet, &["sync", "generate"], &answers)?.ok()?;
    fleet.wait_in_step("master1", &["web1"]);
    Ok(())
}

#[test]
fn several_sources_are_a_sync_each() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    let refused = fleet.ctl(&[
        "sync",
        "create",
        "web",
        "--source",
        "master1:/srv/a",
        "--source",
        "master1:/srv/b",
        "--target",
        "web1:/srv/x",
    ])?;
    assert!(refused.refused()?.contains("leave --dest"));
    let sources = ["--source", "master1:/srv/a", "--source", "master1:/srv/b"];
    let create =
        [&["sync", "create", "web", "--paused", "--target", "web1"], &sources[..]].concat();
    fleet.ctl(&[&create[..], &["--dry-run"]].concat())?.ok()?;
    fleet.ctl(&create)?.ok()?;
    let all: v1::ListSyncsResponse = fleet.ask(&["sync", "list"])?;
    let made: Vec<&str> = all.syncs.iter().map(|sync| sync.name.as_str()).collect();
    assert_eq!(made, ["web-a", "web-b"]);
    let target = all.syncs[0].targets[0].target.clone().context("a target")?;
    assert_eq!((target.node.as_str(), target.at.as_str()), ("web1", "/srv/a"));
    Ok(())
}

#[test]
fn a_wait_says_who_is_missing_and_a_watch_what_changes() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    let watch = fleet.controller.host.spawn(fleet.ctl_command().args([
        "sync",
        "watch",
        "www",
        "--timeout",
        "2m",
    ]))?;
    until(SOON, "the watch has begun", || watch.stdout().contains("web2 idle"));
    let (master, web2) = (fleet.node("master1")?.host.clone(), fleet.node("web2")?.host.clone());
    net.cut(&master, &web2)?;
    fs::write(fleet.www("master1")?.join("new"), "new")?;
    fleet.ctl(&["sync", "wait", "www", "--at-least", "1"])?.ok()?;
    assert!(fs::exists(fleet.www("web1")?.join("new"))?, "before the wait ended");
    let wait = ["sync", "wait", "www", "--timeout", "5m"];
    let waits = fleet.controller.host.spawn(fleet.ctl_command().args(wait))?;
    until(SOON, "who lacks it is named", || waits.stderr().contains("not yet: web2"));
    drop(waits);
    let gave_up = fleet.ctl(&["sync", "wait", "www", "--timeout", "1s"])?;
    assert_eq!(gave_up.status.code(), Some(6), "{gave_up}");
    until(SOON, "the watch tells", || -> Result<()> {
        let text = watch.stdout();
        ensure!(text.contains("web2 failing") || text.contains("web2 syncing"), "{text}");
        Ok(())
    });
    net.heal(&master, &web2)?;
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;
    assert!(fs::exists(fleet.www("web2")?.join("new"))?, "before the wait ended");
    fleet.ctl(&["sync", "delete", "www", "--yes"])?.ok()?;
    until(SOON, "the watch ends", || watch.stderr().contains("was deleted"));
    Ok(())
}

#[test]
fn a_diff_tells_and_a_verify_mends() -> Result<()> {
    const DIFFERS: i32 = 7;
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fill_new(&fleet)?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    let equal = fleet.ctl(&["sync", "diff", "www"])?;
    assert!(equal.stderr.contains("web1: equal"), "{equal}");
    assert_eq!(equal.ok()?, "");

    fs::write(fleet.www("web1")?.join("intruder"), "intruder")?;
    fs::remove_file(fleet.www("web1")?.join("run.sh"))?;
    let differs = fleet.ctl(&["sync", "diff", "www"])?;
    assert_eq!(differs.status.code(), Some(DIFFERS), "{differs}");
    let expected = "web1  extra       intruder\nweb1  missing     run.sh\n";
    assert_eq!(differs.stdout, expected, "{differs}");
    let json = fleet.ctl(&["sync", "diff", "www", "--target", "web1", "-o", "json"])?;
    let first = json.stdout.lines().next().context("a line")?;
    assert_eq!(first, r#"{"target":"web1","kind":"extra","path":"intruder"}"#);
    let elsewhere = ["sync", "diff", "www", "--target", "web1", "--path", "assets"];
    fleet.ctl(&elsewhere)?.ok()?;
    fleet.ctl(&["sync", "diff", "www", "--target", "web2"])?.ok()?;
    assert!(fleet.www("web1")?.join("intruder").exists(), "a diff changes nothing");

    let mended = fleet.ctl(&["sync", "verify", "www", "--content", "--wait"])?.ok()?;
    assert!(mended.contains("run.sh"), "{mended}");
    fleet.check_in_step("master1", "web1")?;

    // As long and as old, and not the same.
    let copy = fleet.www("web1")?.join("assets/css/site.css");
    let at = fs::metadata(&copy)?.modified()?;
    fs::write(&copy, "BODY {}\n")?;
    fs::File::options().write(true).open(&copy)?.set_modified(at)?;
    fleet.ctl(&["sync", "diff", "www"])?.ok()?;
    let by_content = ["sync", "diff", "www", "--content"];
    let differs = fleet.ctl(&by_content)?;
    assert_eq!(differs.status.code(), Some(DIFFERS), "{differs}");
    assert_eq!(differs.stdout, "web1  differs     assets/css/site.css  (content)\n", "{differs}");
    let mended = fleet.ctl(&["sync", "verify", "www", "--content", "--wait"])?.ok()?;
    assert!(mended.contains("site.css"), "{mended}");
    assert_eq!(fs::read_to_string(&copy)?, "body {}\n");
    fleet.ctl(&by_content)?.ok()?;
    Ok(())
}
