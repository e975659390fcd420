//! A directory kept in step, as its users see it: every kind of change, targets that come and go,
//! and what load balancers are told meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::copies::IN_STEP_WITHIN;
use lockstep_tests::tree::hard_names;
use lockstep_tests::{Fleet, Host, Net, cmd, http, try_until, until};

const SOON: Duration = Duration::from_secs(30);
/// How long something must stay as it is.
const STEADY: Duration = Duration::from_secs(3);

/// A tree with every kind of entry that a web root may have, and some it should not.
fn fill(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("assets/css/deep/deeper"))?;
    fs::create_dir_all(dir.join("empty"))?;
    fs::write(dir.join("assets/css/site.css"), "body {}\n")?;
    fs::write(dir.join("assets/css/deep/deeper/file"), vec![1; 300_000])?;
    fs::write(dir.join("empty file"), "")?;
    symlink("assets/css", dir.join("css"))?;
    symlink("/nowhere/at all", dir.join("broken"))?;
    fs::write(dir.join("run.sh"), "#!/bin/sh\n")?;
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o4750))?;
    fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o2771))?;
    fs::create_dir(dir.join("hard"))?;
    for name in hard_names() {
        fs::write(dir.join("hard").join(&name), name.as_encoded_bytes())?;
        fs::create_dir_all(dir.join("hard dirs").join(&name))?;
        fs::write(dir.join("hard dirs").join(&name).join(&name), "inner")?;
    }
    let old = std::time::UNIX_EPOCH + Duration::from_secs(86_400 * 365);
    fs::File::open(dir.join("assets/css/site.css"))?.set_modified(old)?;
    Ok(())
}

fn delivery(sync: &v1::Sync, node: &str) -> Result<v1::Delivery> {
    let of = |t: &&v1::SyncTargetStatus| t.place.as_ref().is_some_and(|place| place.node == node);
    let target = sync.targets.iter().find(of).with_context(|| format!("no target {node}"))?;
    target.delivery.clone().with_context(|| format!("no word on {node}"))
}

/// The lsyncd of a host.
fn lsyncd(host: &Host) -> Result<u32> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let found: Vec<u32> = host.pids()?.into_iter().filter(|p| name(p).trim() == "lsyncd").collect();
    let [pid] = found.as_slice() else { anyhow::bail!("not one lsyncd but {found:?}") };
    Ok(*pid)
}

#[test]
fn every_change_follows() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    let www = fleet.www("master1")?;
    fs::create_dir_all(&www)?;
    fill(&www)?;
    // What a target holds already survives the first fill, and goes with the next pass.
    fs::create_dir_all(fleet.www("web2")?.join("assets"))?;
    let stale = fleet.www("web2")?.join("assets/stale");
    fs::write(&stale, "stale")?;
    let sync = fleet.sync_www("master1", &["web1", "web2"])?;
    assert!(sync.targets.iter().all(|t| t.report.as_ref().is_some_and(|r| r.filled)));
    fleet.check_in_step("master1", "web1")?;
    assert!(fs::exists(&stale)?);
    fleet.ctl(&["sync", "resync", "www", "--target", "web2", "--wait"])?.ok()?;
    fleet.check_in_step("master1", "web2")?;

    type Change = (&'static str, fn(&Path) -> std::io::Result<()>);
    let changes: &[Change] = &[
        ("a new file", |www| fs::write(www.join("new"), "new")),
        ("a changed file", |www| fs::write(www.join("index.html"), "<h1>second</h1>")),
        ("a changed mode", |www| {
            fs::set_permissions(www.join("index.html"), fs::Permissions::from_mode(0o600))
        }),
        ("a removed file", |www| fs::remove_file(www.join("empty file"))),
        ("a removed tree", |www| fs::remove_dir_all(www.join("hard dirs"))),
        ("a renamed file", |www| fs::rename(www.join("new"), www.join("newer"))),
        ("a renamed directory", |www| fs::rename(www.join("assets"), www.join("static"))),
        ("a new link", |www| symlink("index.html", www.join("home"))),
        ("a file that becomes a directory", |www| {
            fs::remove_file(www.join("newer"))?;
            fs::create_dir(www.join("newer"))?;
            fs::write(www.join("newer/inside"), "inside")
        }),
        ("a directory that becomes a file", |www| {
            fs::remove_dir_all(www.join("newer"))?;
            fs::write(www.join("newer"), "flat")
        }),
        ("a file in a file's place", |www| {
            fs::write(www.join("tmp"), "atomic")?;
            fs::rename(www.join("tmp"), www.join("index.html"))
        }),
        ("a new tree in one go", |www| {
            (0..20).try_for_each(|n| {
                fs::create_dir_all(www.join(format!("t/{n}/a/b")))?;
                fs::write(www.join(format!("t/{n}/a/b/c")), n.to_string())
            })
        }),
        ("hard names changed", |www| {
            hard_names().iter().try_for_each(|name| fs::write(www.join("hard").join(name), "again"))
        }),
        ("hard names removed", |www| {
            hard_names().iter().try_for_each(|name| fs::remove_file(www.join("hard").join(name)))
        }),
        ("a moved-out tree", |www| fs::rename(www.join("t"), www.with_file_name("t"))),
        ("a moved-in tree", |www| fs::rename(www.with_file_name("t"), www.join("t2"))),
    ];
    for (what, change) in changes {
        change(&www).with_context(|| what.to_string())?;
        for target in ["web1", "web2"] {
            let result = try_until(IN_STEP_WITHIN, what, || fleet.check_in_step("master1", target));
            ensure!(result.is_ok(), "{target}: {result:?}");
        }
    }
    assert!(!fs::exists(www.join("hacked"))? && !fs::exists(fleet.www("web1")?.join("hacked"))?);
    Ok(())
}

#[test]
fn targets_come_and_go_and_nobody_else_notices() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fill_new(&fleet)?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;
    let watcher = lsyncd(&fleet.node("master1")?.host)?;
    let before = delivery(&fleet.show_www()?, "web1")?;

    fleet.add_node("web3")?;
    let place = fleet.place("web3")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web3"]);
    let after = delivery(&fleet.show_www()?, "web1")?;
    assert_eq!(after.sent_bytes, before.sent_bytes, "nothing was sent to the others");
    assert_eq!(lsyncd(&fleet.node("master1")?.host)?, watcher, "lsyncd was left alone");

    fleet.ctl(&["sync", "remove-target", "www", "web2", "--wait"])?.ok()?;
    fleet.wait_arrives("master1", &["web1", "web3"], "after")?;
    assert!(fs::exists(fleet.www("web2")?.join("index.html"))?, "its files stay");
    assert!(!fs::exists(fleet.www("web2")?.join("after"))?, "and nothing is sent any more");
    assert_eq!(lsyncd(&fleet.node("master1")?.host)?, watcher);
    assert_eq!(fleet.node("web2")?.status("/sync/www"), 404);

    let asked = fleet.ctl(&["sync", "delete", "www"])?.refused()?;
    assert!(asked.contains("--yes"), "{asked}");
    fleet.ctl(&["sync", "delete", "www", "--yes", "--wait"])?.ok()?;
    assert!(lsyncd(&fleet.node("master1")?.host).is_err(), "no watcher without a sync");
    assert!(fs::exists(fleet.www("web1")?.join("after"))?);
    assert!(fs::exists(fleet.www("master1")?.join("after"))?);
    let tasks: v1::ListTasksResponse = fleet.ask(&["task", "list", "--live"])?;
    assert!(tasks.tasks.is_empty(), "{tasks:?}");
    assert_eq!(fleet.ctl(&["explain"])?.ok()?.trim(), "nothing waits");
    Ok(())
}

fn fill_new(fleet: &Fleet) -> Result<()> {
    fs::create_dir_all(fleet.www("master1")?)?;
    fill(&fleet.www("master1")?)
}

#[test]
fn a_resync_and_its_cancel_are_tasks_to_follow() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fill_new(&fleet)?;
    fleet.sync_www("master1", &["web1"])?;
    fleet.wait_in_step("master1", &["web1"]);
    // What somebody does to a copy behind our back is undone by a pass.
    fs::write(fleet.www("web1")?.join("intruder"), "intruder")?;
    fs::remove_file(fleet.www("web1")?.join("run.sh"))?;
    let asked: v1::ResyncSyncResponse = fleet.ask(&["sync", "resync", "www"])?;
    let [task] = asked.tasks.as_slice() else { anyhow::bail!("{asked:?}") };
    fleet.ctl(&["task", "logs", &task.id, "--follow"])?.ok()?;
    fleet.check_in_step("master1", "web1")?;
    let shown: v1::Task = fleet.ask(&["task", "show", &task.id])?;
    assert_eq!(shown.outcome.map(|o| o.kind()), Some(v1::OutcomeKind::Ok));

    let web1 = fleet.node("web1")?.host.clone();
    web1.rate(Some(1_000_000))?;
    fs::write(fleet.www("master1")?.join("large"), vec![9; 32 << 20])?;
    let asked: v1::ResyncSyncResponse = fleet.ask(&["sync", "resync", "www"])?;
    let [task] = asked.tasks.as_slice() else { anyhow::bail!("{asked:?}") };
    let cancelled: v1::Task = fleet.ask(&["task", "cancel", &task.id, "--wait"])?;
    assert_eq!(cancelled.outcome.map(|o| o.kind()), Some(v1::OutcomeKind::Cancelled));
    let again = fleet.ctl(&["task", "cancel", &task.id])?;
    assert!(again.stderr.contains("ended already"), "{again}");
    web1.rate(None)?;
    fleet.wait_in_step("master1", &["web1"]);
    Ok(())
}

#[test]
fn a_head_serves_once_it_is_full_and_then_until_somebody_drains_it() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    let (master, web) = (fleet.node("master1")?.host.clone(), fleet.node("web1")?.host.clone());
    assert_eq!(fleet.node("web1")?.status("/sync/www"), 404, "no target of anything");

    net.cut(&master, &web)?;
    fill_new(&fleet)?;
    let create = fleet.create_www("master1", &["web1"])?;
    fleet.ctl(&create.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
    let told = until(SOON, "the head knows of its part", || {
        fleet.node("web1").and_then(|n| n.health("/sync/www")).ok().filter(|r| r.status == 503)
    });
    assert!(told.body.contains("first complete copy"), "{told:?}");
    net.heal(&master, &web)?;
    let status = |fleet: &Fleet| fleet.node("web1").map_or(0, |node| node.status("/sync/www"));
    until(IN_STEP_WITHIN, "it serves", || status(&fleet) == 200);
    fleet.check_in_step("master1", "web1")?;

    for (verb, expected) in [("drain", 503), ("resume", 200), ("disable", 503), ("enable", 200)] {
        fleet.ctl(&["node", verb, "web1"])?.ok()?;
        until(SOON, &format!("{expected} after {verb}"), || status(&fleet) == expected);
    }

    // Neither the controller's nor the source's end changes the answer.
    fleet.controller.host.power_off()?;
    master.power_off()?;
    let steady = try_until(STEADY, "it stops serving", || status(&fleet) != 200);
    ensure!(steady.is_err(), "a head that is full stopped serving");
    fleet.restart_agent("web1")?;
    until(SOON, "it serves after a restart alone", || status(&fleet) == 200);
    Ok(())
}

/// Answers each request with a file's content, or 404.
fn serve_file(host: &Host, file: &Path) -> Result<()> {
    let listener = host.enter(|| TcpListener::bind(host.at(80)))??;
    let file = file.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 1024]);
            let answer = match fs::read_to_string(&file) {
                Ok(text) => format!("HTTP/1.0 200 OK\r\n\r\n{text}"),
                Err(_) => "HTTP/1.0 404 Not Found\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    Ok(())
}

#[test]
fn haproxy_sends_nobody_to_a_head_that_is_not_full() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    let balancer = net.host("balancer")?;
    let (master, web1, web2) = (
        fleet.node("master1")?.host.clone(),
        fleet.node("web1")?.host.clone(),
        fleet.node("web2")?.host.clone(),
    );
    for (host, node) in [(&web1, "web1"), (&web2, "web2")] {
        serve_file(host, &fleet.www(node)?.join("index.html"))?;
    }
    let config = include_str!("../../deploy/haproxy/haproxy.cfg")
        .replace("/sync/webroot", "/sync/www")
        .replace("192.0.2.11:", &format!("{}:", web1.ip()))
        .replace("192.0.2.12:", &format!("{}:", web2.ip()))
        .replace("192.0.2.1:", &format!("{}:", fleet.controller.host.ip()));
    assert!(!config.contains("192.0.2"));
    fs::write(balancer.path("haproxy.cfg"), config)?;
    let _haproxy =
        balancer.spawn(cmd("haproxy").arg("-db").arg("-f").arg(balancer.path("haproxy.cfg")))?;
    let ask = || http::get(&balancer, balancer.at(80), "/");

    until(SOON, "haproxy finds no head", || ask().is_ok_and(|reply| reply.status == 503));
    net.cut(&master, &web2)?;
    fs::create_dir_all(fleet.www("master1")?)?;
    fs::write(fleet.www("master1")?.join("index.html"), "hello")?;
    let create = fleet.create_www("master1", &["web1", "web2"])?;
    fleet.ctl(&create.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
    until(IN_STEP_WITHIN, "the first head serves", || ask().is_ok_and(|reply| reply.status == 200));
    // The second one is asked for nothing: it would say 404.
    for _ in 0..20 {
        let reply = ask()?;
        assert_eq!((reply.status, reply.body.as_str()), (200, "hello"));
    }
    net.heal(&master, &web2)?;
    until(IN_STEP_WITHIN, "the second head is full", || {
        fleet.node("web2").is_ok_and(|node| node.status("/sync/www") == 200)
    });
    fleet.ctl(&["node", "drain", "web1"])?.ok()?;
    fs::remove_file(fleet.www("web1")?.join("index.html"))?;
    until(SOON, "only the second one is asked", || {
        (0..4).all(|_| ask().is_ok_and(|reply| reply.status == 200))
    });
    // The controller is reached through it as well, TLS passed through.
    let mut ctl = fleet.ctl_command();
    let token = fleet.ctl(&["user", "add", "anna", "--role", "viewer"])?.ok()?;
    let at = balancer.at(7400).to_string();
    ctl.args(["login", "--name", "balanced", "--controller", &at, "--token", "-"]);
    fleet.controller.host.run_with(&mut ctl, &token)?.ok()?;
    let listed = fleet.ctl(&["--context", "balanced", "node", "list"])?.ok()?;
    assert!(listed.contains("draining"), "{listed}");
    fleet.node_mut("web1")?.daemon.kill()?;
    until(SOON, "the rest goes on", || ask().is_ok_and(|reply| reply.body == "hello"));
    Ok(())
}
