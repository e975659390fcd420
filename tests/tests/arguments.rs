//! Bad input from people: every wrong argument and every wrong setting is named, the exit code tells,
//! and nothing is half made.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net, Output, cmd, until};

const SOON: Duration = Duration::from_secs(90);

/// What a shell reports of a command line that was not understood, and of a refusal.
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

#[test]
fn every_wrong_argument_is_named() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1"])?;
    let revision =
        || -> Result<u64> { Ok(fleet.ask::<v1::GetStatusResponse>(&["status"])?.revision) };
    fleet.wait_healthy(&["master1", "web1", "web2"]);
    until(SOON, "the fleet is quiet", || -> Result<()> {
        let live: v1::ListTasksResponse = fleet.ask(&["task", "list", "--live"])?;
        ensure!(live.tasks.is_empty(), "{live:?}");
        Ok(())
    });
    let before = revision()?;

    let long_name = "n".repeat(64);
    let long_path = format!("web1:/{}", "p/".repeat(3000));
    let www = fleet.place("web1")?;
    let inside = format!("{www}/below");
    let many = "x".repeat(2000);
    let table: &[(&[&str], i32, &str)] = &[
        // Names.
        (&["token", "create", "--node", "we b"], USAGE, "node name"),
        (&["token", "create", "--node", "web\n1"], USAGE, "node name"),
        (&["token", "create", "--node", "web\u{1b}[31m"], USAGE, "node name"),
        (&["token", "create", "--node", ""], USAGE, "node name: must not be empty"),
        (&["token", "create", "--node=-web"], USAGE, "must start with a letter or a digit"),
        (&["token", "create", "--node", "-web"], USAGE, "'-w'"),
        (&["token", "create", "--node", ".."], USAGE, "node name"),
        (&["token", "create", "--node", "a..b"], USAGE, "'..'"),
        (&["token", "create", "--node", "../../etc"], USAGE, "node name"),
        (&["token", "create", "--node", "WEB"], USAGE, "a-z"),
        (&["token", "create", "--node", "w\u{e9}b"], USAGE, "node name"),
        (&["token", "create", "--node", &long_name], USAGE, "at most 63"),
        (&["token", "create", "--node", "2001:db8::7"], USAGE, "node name"),
        (&["token", "create", "--node", "web1"], REFUSED, "node web1 has joined already"),
        (&["token", "create"], USAGE, "--node"),
        (&["token", "create", "--user", "nobody"], REFUSED, "user nobody does not exist"),
        (&["token", "create", "--node", "w", "--ttl", "25h"], REFUSED, "ttl"),
        (&["token", "create", "--node", "w", "--ttl", "5"], USAGE, "--ttl"),
        (&["token", "create", "--node", "w", "--label", "a b=c"], USAGE, "label"),
        (&["user", "add", "anna", "--role", "king"], USAGE, "role"),
        (&["user", "disable", "nobody"], REFUSED, "user nobody does not exist"),
        (&["node", "show", "nobody"], REFUSED, "node nobody does not exist"),
        (&["node", "ping", "nobody"], REFUSED, "nobody"),
        (&["node", "label", "web1", "noequals"], USAGE, "noequals"),
        (&["node", "label", "web1", "k=v\nw"], USAGE, "label"),
        (&["node", "expel", "web1"], USAGE, "--yes"),
        (&["node", "drain", "web1", "--if-revision", "1"], REFUSED, "revision"),
        (&["node", "drain", "web1", "--request-id", "a b"], REFUSED, "request_id"),
        (&["node", "drain", "web1", "--request-id", &many], REFUSED, "request_id"),
        // Places.
        (
            &["sync", "create", "s", "--source", "master1:srv", "--target", &www],
            USAGE,
            "must be absolute",
        ),
        (&["sync", "create", "s", "--source", "master1:/a/../b", "--target", &www], USAGE, "'..'"),
        (
            &["sync", "create", "s", "--source", "master1:/a\nb", "--target", &www],
            USAGE,
            "control characters",
        ),
        (
            &["sync", "create", "s", "--source", "master1:/", "--target", &www],
            USAGE,
            "must not be '/'",
        ),
        (&["sync", "create", "s", "--source", "master1", "--target", &www], USAGE, "node:/path"),
        (
            &["sync", "create", "s", "--source", "[fd77::2]:/srv", "--target", &www],
            USAGE,
            "node name",
        ),
        (
            &["sync", "create", "s", "--source", "master1:/srv", "--target", &long_path],
            USAGE,
            "at most 4095",
        ),
        (
            &["sync", "create", "s", "--source", "nobody:/srv", "--target", "web2:/srv"],
            REFUSED,
            "node nobody has not joined",
        ),
        (
            &["sync", "create", "s", "--source", "web1:/srv", "--target", "nobody:/srv"],
            REFUSED,
            "node nobody has not joined",
        ),
        (&["sync", "create", "s", "--source", "master1:/srv"], REFUSED, "targets"),
        (
            &["sync", "create", "s", "--source", "web2:/a", "--target", "web2:/b"],
            REFUSED,
            "web2 is the source",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--target",
                "web2:/b",
            ],
            REFUSED,
            "targets[1]",
        ),
        (&["sync", "create", "s", "--source", "web2:/a", "--target", &www], REFUSED, "overlaps"),
        (&["sync", "create", "s", "--source", "web2:/a", "--target", &inside], REFUSED, "overlaps"),
        (&["sync", "create", "s", "--source", &inside, "--target", "web2:/a"], REFUSED, "overlaps"),
        (
            &["sync", "create", "www", "--source", "master1:/a", "--target", "web2:/a"],
            REFUSED,
            "sync www exists",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--delay",
                "1500ms",
            ],
            USAGE,
            "delay",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--delay",
                "11m",
            ],
            USAGE,
            "delay",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--exclude",
                "a\nb",
            ],
            USAGE,
            "exclude",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--delete",
                "maybe",
            ],
            USAGE,
            "delete",
        ),
        (&["sync", "add-target", "nosync", "web2:/a"], REFUSED, "sync nosync does not exist"),
        (&["sync", "add-target", "www", "web1:/elsewhere"], REFUSED, "is a target already"),
        (&["sync", "remove-target", "www", "web2"], REFUSED, "no target"),
        (&["sync", "show", "nosync"], REFUSED, "sync nosync does not exist"),
        (&["sync", "delete", "nosync", "--yes"], REFUSED, "sync nosync does not exist"),
        // The rest.
        (&["task", "show", "x"], USAGE, "task id"),
        (&["task", "show", "99999999999999999999.0"], USAGE, "task id"),
        (&["task", "cancel", "999999.0"], REFUSED, "999999.0 does not exist"),
        (&["task", "list", "--node", "a b"], USAGE, "node name"),
        (&["explain", "cluster/main"], REFUSED, "main does not exist"),
        (&["explain", "house/main"], REFUSED, "subject"),
        (&["explain", "node/nobody"], REFUSED, "nobody does not exist"),
        (&["log", "--limit", "0"], USAGE, "--limit"),
        (&["node", "list", "--timeout", "5"], USAGE, "--timeout"),
        (&["node", "list", "--context", "nowhere"], USAGE, "nowhere"),
        (&["node", "list", "--context", "../../etc"], USAGE, "context"),
        (&["login", "--controller", "a b", "--token", "x"], USAGE, "--controller"),
        (&["login", "--controller", "::1:x:", "--token", "x"], USAGE, "--controller"),
        (&["login", "--controller", "h:99999", "--token", "x"], USAGE, "port"),
        (&["login", "--controller", "h", "--token", "ls1.short"], USAGE, "--token"),
        (&["store", "adopt"], USAGE, "--yes"),
        (&["nonsense"], USAGE, "nonsense"),
    ];
    for (args, code, says) in table {
        let done = fleet.ctl(args)?;
        assert_eq!(done.status.code(), Some(*code), "{done}");
        assert!(done.stderr.contains(says), "{says:?} is not in: {done}");
        assert!(done.stdout.is_empty(), "data of a refused command: {done}");
    }
    assert_eq!(revision()?, before, "something was written");

    // A dry run checks as much and changes as little.
    let ok = fleet.ctl(&["node", "drain", "web1", "--dry-run"])?;
    assert!(ok.status.success() && ok.stderr.contains("would change"), "{ok}");
    assert_eq!(revision()?, before);
    Ok(())
}

/// What rsync, ssh or a shell would take for something else than a value, in every field that a
/// definition has: refused with the field's name, and nothing runs.
#[test]
fn no_field_of_a_sync_lets_an_option_or_a_command_in() -> Result<()> {
    const ODD: &[&str] = &[
        "-e sh -c id",
        "--rsh=sh",
        "--rsync-path=touch pwned",
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned",
        "| touch pwned",
        "a\nb",
        "a\u{1b}[31m",
        "../../../etc/passwd\n",
        "merge /etc/passwd\n",
        "",
    ];
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let before = fleet.ask::<v1::GetStatusResponse>(&["status"])?.revision;
    let known: v1::ListSettingsResponse = fleet.ask(&["sync", "settings"])?;
    // Patterns and files of the source may be called as they like, but for control characters.
    let free = ["filter", "priority", "ignore", "marker", "sentinel"];
    let mut fields = vec![("exclude", true), ("include", true)];
    fields
        .extend(known.settings.iter().map(|s| (s.name.as_str(), free.contains(&s.name.as_str()))));
    let emptied = |name: &str| known.settings.iter().any(|s| s.name == name && s.repeated);
    let mut tried = 0;
    for (field, is_free) in fields {
        for odd in ODD {
            let fits = is_free && !odd.is_empty() && !odd.chars().any(char::is_control);
            if (fits && field != "filter") || (odd.is_empty() && emptied(field)) {
                continue;
            }
            let option = format!("--{field}={odd}");
            let done = fleet.ctl(&["sync", "update", "www", &option])?;
            assert_eq!(done.status.code(), Some(USAGE), "{option:?}: {done}");
            assert!(done.stderr.contains(&format!("--{field}")), "{option:?}: {done}");
            tried += 1;
        }
    }
    ensure!(tried > 300, "only {tried} were tried");
    let table: &[(&[&str], &str)] = &[
        (&["update", "www", "--target-selector", "a b", "--dest", "/x"], "--target-selector"),
        (&["update", "www", "--target-selector", "role=x", "--dest", "srv"], "--dest"),
        (&["update", "www", "--target-selector", "role=x", "--dest", "/a/../b"], "--dest"),
        (&["add-target", "www", "ssh://-oProxyCommand=touch/x"], "TARGET"),
        (&["add-target", "www", "ssh://u;touch@web9/x"], "TARGET"),
        (&["add-target", "www", "ssh://web9/x?key=../../root/.ssh/id"], "TARGET"),
        (&["add-target", "www", "rsync://web9/-e/x"], "TARGET"),
        (&["add-target", "www", "rsync://web9/m$x"], "TARGET"),
        (&["add-target", "www", "file:///etc/passwd"], "TARGET"),
        (&["add-target", "www", "-oProxyCommand=touch:/x"], "-o"),
        (&["add-target", "www", "--transport", "rsh", "web9:/x"], "--transport"),
        (&["add-target", "www", "--transport", "ssh", "u x@web9:/x"], "user"),
        (&["add-target", "www", "root@web9:/x"], "ssh://root@web9/x"),
        (&["add-target", "www", "web1", "--bwlimit", "1"], "--bwlimit"),
        (&["wait", "www", "--hook", "/bin/sh"], "--hook"),
        (&["wait", "www", "--hook", "../sh"], "--hook"),
        (&["wait", "www", "--at-least", "0"], "--at-least"),
        (&["resync", "www", "--target=-e"], "--target"),
        (&["release", "www", "--target", "a b"], "--target"),
        (&["release", "www"], "--yes"),
        (&["import", "www", "--file", "/nowhere"], "/nowhere"),
        (&["import", "www", "--file", "/dev/zero"], "/dev/zero"),
        (&["update", "www", "--exclude-from", "/nowhere"], "/nowhere"),
        (&["update", "www", "--exclude-from", "/dev/zero"], "/dev/zero"),
        (&["update", "www", "--dest", "/x"], "--target-selector"),
    ];
    for (args, says) in table {
        let done = fleet.ctl(&[&["sync"], *args].concat())?;
        assert_eq!(done.status.code(), Some(USAGE), "{args:?}: {done}");
        assert!(done.stderr.contains(says), "{says:?} is not in: {args:?}: {done}");
        assert!(done.stdout.is_empty(), "data of a refused command: {done}");
    }
    let refused = fleet.ctl(&["sync", "diff", "www", "--path", "../../etc"])?;
    assert_eq!(refused.status.code(), Some(REFUSED), "{refused}");
    assert!(refused.stderr.contains("path"), "{refused}");
    let after = fleet.ask::<v1::GetStatusResponse>(&["status"])?.revision;
    assert_eq!(after, before, "something was written");
    for host in [&fleet.controller.host, &fleet.node("master1")?.host, &fleet.node("web1")?.host] {
        ensure!(!fs::exists(host.path("pwned"))?, "a command ran on {}", host.name());
    }
    Ok(())
}

fn controller_run(fleet: &Fleet, args: &[&str]) -> Result<Output> {
    fleet.controller.host.run(cmd(fleet.bins().controller()).arg("run").args(args))
}

#[test]
fn ten_mistakes_are_ten_lines() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["web1"])?;
    let host = &fleet.controller.host;
    let file = host.path("wrong.toml");
    let name = file.to_string_lossy().into_owned();
    fs::write(
        &file,
        "data-dir = 5\nlisten = \"here\"\nhealth-listen = \"1.2.3.4\"\nadvertise = [\"a b\"]\n\
         leaf-life = \"1 year\"\nheartbeat = \"0s\"\nlog-format = \"xml\"\nlog-filter = 7\n\
         health_listen = \"x\"\ncolour = \"red\"\n",
    )?;
    let refused = controller_run(&fleet, &["--config", &name, "--check-config"])?;
    assert_eq!(refused.status.code(), Some(USAGE), "{refused}");
    for key in [
        "data-dir",
        "listen",
        "health-listen",
        "advertise",
        "leaf-life",
        "heartbeat",
        "log-format",
        "log-filter",
        "health_listen",
        "colour",
    ] {
        assert!(refused.stderr.lines().any(|line| line.contains(key)), "{key} is not in {refused}");
    }
    let lines = refused.stderr.lines().filter(|line| line.contains("wrong.toml")).count();
    assert_eq!(lines, 10, "{refused}");

    fs::write(&file, "listen = [\n")?;
    assert!(controller_run(&fleet, &["--config", &name])?.refused()?.contains("wrong.toml"));
    assert!(
        controller_run(&fleet, &["--config", "/nowhere.toml"])?
            .refused()?
            .contains("/nowhere.toml")
    );
    let mut environment = cmd(fleet.bins().controller());
    environment.args(["run", "--check-config"]).env("LOCKSTEP_LISTN", "x");
    assert!(host.run(&mut environment)?.refused()?.contains("LOCKSTEP_LISTN"));

    let agent = fleet.node("web1")?.host.clone();
    let file = agent.path("agent.toml");
    fs::write(
        &file,
        "controllers = []\nlisten = \"x\"\nallow-roots = [\"srv\"]\nlog-formt = \"json\"\n",
    )?;
    let mut check = cmd(fleet.bins().agent());
    let refused = agent.run(check.args(["run", "--check-config", "--config"]).arg(&file))?;
    assert_eq!(refused.status.code(), Some(USAGE), "{refused}");
    for key in ["listen", "allow-roots", "did you mean log-format"] {
        assert!(refused.stderr.contains(key), "{key} is not in {refused}");
    }
    Ok(())
}
