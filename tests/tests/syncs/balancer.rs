//! What load balancers are told, and what a real HAProxy makes of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::copies::IN_STEP_WITHIN;
use lockstep_tests::{Fleet, Host, Net, Proc, cmd, http, try_until, until};

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

/// A web server on a host: the files of a directory after its own name, or 404.
fn serve(host: &Host, dir: &Path) -> Result<()> {
    let listener = host.enter(|| TcpListener::bind(host.at(80)))??;
    let (dir, head) = (dir.to_owned(), host.name().to_owned());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
            let answer = match fs::read_to_string(dir.join(name)) {
                Ok(text) => format!("HTTP/1.0 200 OK\r\n\r\n{head} {text}"),
                Err(_) => "HTTP/1.0 404 Not Found\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    Ok(())
}

/// HAProxy with the configuration that we ship, in front of these heads of the sync `www`.
fn balance(balancer: &Host, fleet: &Fleet, heads: &[&str]) -> Result<Proc> {
    let mut config = include_str!("../../../deploy/haproxy/haproxy.cfg")
        .replace("/sync/webroot", "/sync/www")
        // On a busy machine nobody is down for an answer that is late.
        .replace("timeout check 2s", "timeout check 20s")
        .replace("192.0.2.1:", &format!("{}:", fleet.controller.host.ip()));
    let shipped = "    server web1 192.0.2.11:80\n    server web2 192.0.2.12:80\n";
    let mut servers = String::new();
    for head in heads {
        writeln!(servers, "    server {head} {}:80", fleet.node(head)?.host.ip())?;
    }
    config = config.replace(shipped, &servers);
    assert!(!config.contains("192.0.2"));
    fs::write(balancer.path("haproxy.cfg"), config)?;
    balancer.spawn(cmd("haproxy").arg("-db").arg("-f").arg(balancer.path("haproxy.cfg")))
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
        serve(host, &fleet.www(node)?)?;
    }
    let _haproxy = balance(&balancer, &fleet, &["web1", "web2"])?;
    let ask = || http::get(&balancer, balancer.at(80), "/index.html");

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
        assert_eq!((reply.status, reply.body.as_str()), (200, "web1 hello"));
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
    until(SOON, "the rest goes on", || ask().is_ok_and(|reply| reply.body == "web2 hello"));
    Ok(())
}

#[test]
fn a_head_that_lags_is_taken_out_only_where_a_limit_was_given() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    let (balancer, heads) = (net.host("balancer")?, ["web1", "web2"]);
    for head in heads {
        serve(&fleet.node(head)?.host, &fleet.www(head)?)?;
    }
    let _haproxy = balance(&balancer, &fleet, &heads)?;
    fleet.sync_www("master1", &heads)?;
    fleet.ctl(&["sync", "update", "www", "--max-lag", "3s", "--wait"])?.ok()?;
    let status = |node: &str| fleet.node(node).map_or(0, |node| node.status("/sync/www"));
    let asked =
        || -> Result<String> { Ok(http::get(&balancer, balancer.at(80), "/index.html")?.body) };
    let both = || {
        let all: Vec<String> = (0..4).filter_map(|_| asked().ok()).collect();
        heads.iter().all(|head| all.iter().any(|body| body.starts_with(head)))
    };
    until(SOON, "both are asked", both);

    let web2 = fleet.node("web2")?.host.clone();
    web2.rate(Some(200_000))?;
    fs::write(fleet.www("master1")?.join("large"), vec![7; 16 << 20])?;
    until(SOON, "it is behind", || status("web2") == 503);
    let told = fleet.node("web2")?.health("/sync/www")?;
    assert!(told.body.contains("max-lag"), "{told:?}");
    until(SOON, "a person is told", || -> Result<()> {
        let shown = fleet.ctl(&["sync", "show", "www"])?.ok()?;
        ensure!(shown.contains("web2 lags more than max-lag 3s"), "{shown}");
        Ok(())
    });
    until(SOON, "only the other one is asked", || {
        (0..4).all(|_| asked().is_ok_and(|body| body.starts_with("web1")))
    });
    web2.rate(None)?;
    until(IN_STEP_WITHIN, "it has caught up", || status("web2") == 200);
    until(SOON, "both are asked again", both);

    // The limit is about what the source tells: with nobody to tell it, all stay.
    fs::write(fleet.www("master1")?.join("large"), vec![8; 16 << 20])?;
    fleet.node("master1")?.host.power_off()?;
    let steady =
        try_until(STEADY * 2, "a head stops", || heads.iter().any(|head| status(head) != 200));
    ensure!(steady.is_err(), "a head that is full stopped serving");
    Ok(())
}

const PAGES: usize = 40;
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// What somebody saw who never stops asking for pages.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// How many pages each head gave.
    pages: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

/// Asks through the balancer until `stop` is set.
fn read_on(balancer: &Host, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let at = balancer.at(80);
    balancer.enter(|| {
        for page in (0..PAGES).cycle().map(|n| format!("page-{n}")) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let reply = http::fetch(at, &format!("/{page}"));
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &reply {
                Ok(reply) if reply.status == 200 && reply.body.contains(&page) => {
                    let head = reply.body.split(' ').next().unwrap_or_default();
                    *seen.pages.entry(head.to_owned()).or_default() += 1;
                }
                other => seen.wrong.push(format!("{page}: {other:?}")),
            }
            drop(seen);
            try_until(PAUSE, "the next request", || false).ok();
        }
    })
}

#[test]
fn under_load_no_request_meets_a_head_without_the_content() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2", "web3"])?;
    let (balancer, heads) = (net.host("balancer")?, ["web1", "web2", "web3"]);
    for head in heads {
        serve(&fleet.node(head)?.host, &fleet.www(head)?)?;
    }
    let _haproxy = balance(&balancer, &fleet, &heads)?;
    let www = fleet.www("master1")?;
    fs::create_dir_all(&www)?;
    for n in 0..PAGES {
        fs::write(www.join(format!("page-{n}")), format!("page-{n} ").repeat(6_000))?;
    }
    fleet.sync_www("master1", &["web1", "web2"])?;
    let (seen, stop) = (Mutex::new(Seen::default()), AtomicBool::new(false));
    let look = || seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let gave = |head: &str, since: &Seen| {
        let count = |seen: &Seen| seen.pages.get(head).copied().unwrap_or_default();
        count(&look()) > count(since)
    };
    let serve_now = |heads: &[&str]| {
        let since = look();
        until(SOON, "all of them are asked", || heads.iter().all(|head| gave(head, &since)));
    };
    until(SOON, "both heads are up", || {
        (0..4).all(|_| {
            http::get(&balancer, balancer.at(80), "/page-0").is_ok_and(|r| r.status == 200)
        })
    });

    thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| read_on(&balancer, &seen, &stop));
        let under_load = || -> Result<()> {
            serve_now(&["web1", "web2"]);
            // A fill of ten seconds: whoever is let in before its end meets missing pages.
            let third = fleet.node("web3")?.host.clone();
            third.rate(Some(2_000_000))?;
            let place = fleet.place("web3")?;
            fleet.ctl(&["sync", "add-target", "www", &place])?.ok()?;
            let copy = fleet.www("web3")?;
            until(SOON, "it is half filled", || copy.join("page-2").exists());
            assert!(!copy.join("page-9").exists(), "it is not full yet");
            assert!(!gave("web3", &Seen::default()));
            until(IN_STEP_WITHIN, "it is asked as well", || gave("web3", &Seen::default()));
            fleet.check_in_step("master1", "web3")?;
            third.rate(None)?;

            // The source goes, in the middle of a change.
            fs::write(www.join("new"), vec![b'n'; 8 << 20])?;
            fleet.node("master1")?.host.power_off()?;
            let steady = try_until(STEADY, "a head stops", || {
                heads
                    .iter()
                    .any(|head| fleet.node(head).map_or(0, |n| n.status("/sync/www")) != 200)
            });
            ensure!(steady.is_err(), "a head that is full stopped serving");
            fleet.controller.host.power_off()?;
            serve_now(&heads);
            Ok(())
        };
        let result = under_load();
        stop.store(true, Ordering::Relaxed);
        reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        result
    })?;
    let Seen { pages, wrong } = look();
    assert!(
        wrong.is_empty(),
        "{} of {pages:?}, such as {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(3)]
    );
    assert!(pages.len() == heads.len() && pages.values().sum::<usize>() > 150, "{pages:?}");
    Ok(())
}
