//! Bad input from people: every wrong argument and every wrong setting is named, the exit code tells,
//! and nothing is half made.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net, Output, cmd, until};

const SOON: Duration = Duration::from_secs(30);

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
        (&["explain", "cluster/main"], REFUSED, "subject"),
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
