//! What load balancers are told, and what a real HAProxy makes of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::copies::IN_STEP_WITHIN;
use lockstep_tests::{Fleet, Host, Net, cmd, http, try_until, until};

use super::{SOON, fill_new};

/// How long something must stay as it is.
const STEADY: Duration = Duration::from_secs(3);

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
    let config = include_str!("../../../deploy/haproxy/haproxy.cfg")
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
