//! Proves the library itself: what it promises about hosts, lines and cleanliness holds on this
//! kernel.

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lockstep_tests::wait::timed;
use lockstep_tests::{Host, Impair, Net, cmd, try_until, until};

const PORT: u16 = 7999;
const SOON: Duration = Duration::from_secs(20);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(700);

/// Both ends of one connection, each on its host.
struct Call {
    client: TcpStream,
    server: TcpStream,
}

impl Call {
    fn new(from: &Host, to: &Host, ip: IpAddr) -> Result<Self> {
        let address = SocketAddr::new(ip, PORT);
        let listener = to.enter(|| TcpListener::bind(address))??;
        let client = from.enter(|| TcpStream::connect_timeout(&address, SOON))??;
        let (server, peer) = listener.accept()?;
        assert!([from.ip(), from.ip6()].contains(&peer.ip()), "{peer}");
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        Ok(Self { client, server })
    }

    /// Sends one byte and expects it within `within`; false means silence, an error means anything
    /// louder.
    fn say(mut speaker: &TcpStream, mut hearer: &TcpStream, within: Duration) -> Result<bool> {
        speaker.write_all(b"x")?;
        hearer.set_read_timeout(Some(within))?;
        match hearer.read(&mut [0]) {
            Ok(1) => Ok(true),
            Ok(_) => anyhow::bail!("the connection was closed"),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e).context("not silence but an error"),
        }
    }

    fn up(&self, within: Duration) -> Result<bool> {
        Self::say(&self.client, &self.server, within)
    }

    fn down(&self, within: Duration) -> Result<bool> {
        Self::say(&self.server, &self.client, within)
    }
}

fn pair() -> Result<(Net, Host, Host)> {
    let net = Net::new()?;
    let (a, b) = (net.host("a")?, net.host("b")?);
    Ok((net, a, b))
}

#[test]
fn hosts_talk_in_both_families() -> Result<()> {
    let (_net, a, b) = pair()?;
    for ip in [b.ip(), b.ip6()] {
        let call = Call::new(&a, &b, ip)?;
        assert!(call.up(SOON)? && call.down(SOON)?, "{ip}");
    }
    Ok(())
}

#[test]
fn async_code_runs_on_a_host() -> Result<()> {
    let (_net, a, b) = pair()?;
    let listener = b.enter(|| TcpListener::bind(b.at6(PORT)))??;
    let connect = tokio::net::TcpStream::connect(b.at6(PORT));
    let local = a.block_on(async { connect.await?.local_addr() })??;
    assert_eq!(local.ip(), a.ip6());
    assert_eq!(listener.accept()?.1, local);
    Ok(())
}

#[test]
fn worlds_do_not_meet() -> Result<()> {
    let (one, a, b) = pair()?;
    let (_other, x, _y) = pair()?;
    assert_eq!(a.ip(), x.ip());
    assert!(one.cut(&a, &x).is_err());
    let _held = b.enter(|| TcpListener::bind(b.at(PORT)))??;
    let refused = x.enter(|| TcpStream::connect_timeout(&b.at(PORT), SOON))?;
    assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::ConnectionRefused));
    Ok(())
}

#[test]
fn a_cut_is_silent_and_healing_brings_the_connection_back() -> Result<()> {
    let (net, a, b) = pair()?;
    for ip in [b.ip(), b.ip6()] {
        let call = Call::new(&a, &b, ip)?;
        assert!(call.up(SOON)? && call.down(SOON)?);
        net.cut(&a, &b)?;
        assert!(!call.up(SILENCE)? && !call.down(SILENCE)?, "{ip}");
        let fresh = a.enter(|| TcpStream::connect_timeout(&SocketAddr::new(ip, PORT), SILENCE))?;
        assert_eq!(fresh.err().map(|e| e.kind()), Some(ErrorKind::TimedOut), "{ip}");
        net.heal(&a, &b)?;
        assert!(call.up(SOON)? && call.down(SOON)?, "{ip}");
    }
    Ok(())
}

#[test]
fn a_cut_between_two_leaves_the_third() -> Result<()> {
    let (net, a, b) = pair()?;
    let c = net.host("c")?;
    net.cut(&a, &b)?;
    assert!(Call::new(&a, &c, c.ip())?.up(SOON)?);
    assert!(Call::new(&c, &b, b.ip6())?.up(SOON)?);
    Ok(())
}

#[test]
fn a_one_way_cut_lets_the_other_way_through() -> Result<()> {
    let (net, a, b) = pair()?;
    for ip in [b.ip(), b.ip6()] {
        let call = Call::new(&a, &b, ip)?;
        net.cut_one_way(&a, &b)?;
        assert!(!call.up(SILENCE)?, "{ip}");
        assert!(call.down(SOON)?, "{ip}");
        net.heal(&a, &b)?;
        assert!(call.up(SOON)?, "{ip}");
    }
    Ok(())
}

#[test]
fn an_isolated_host_is_silent_until_it_rejoins() -> Result<()> {
    let (_net, a, b) = pair()?;
    for ip in [b.ip(), b.ip6()] {
        let call = Call::new(&a, &b, ip)?;
        b.isolate()?;
        assert!(!call.up(SILENCE)? && !call.down(SILENCE)?, "{ip}");
        b.rejoin()?;
        assert!(call.up(SOON)? && call.down(SOON)?, "{ip}");
    }
    Ok(())
}

#[test]
fn a_host_loses_every_process_with_its_power() -> Result<()> {
    let (net, a, b) = pair()?;
    net.cut_one_way(&b, &a)?;
    // The second one leaves its parent's session, as daemons do.
    let mut sleeper = b.spawn(cmd("sleep").arg("100"))?;
    b.run(cmd("setsid").args(["--fork", "sleep", "100"]))?.ok()?;
    until(SOON, "both sleep", || b.pids().map(|pids| pids.len() == 2).unwrap_or(false));
    fs::write(b.path("kept"), "kept")?;

    b.power_off()?;
    assert!(!sleeper.is_running());
    assert!(b.spawn(&mut cmd("true")).is_err());

    b.power_on()?;
    assert!(b.pids()?.is_empty());
    assert_eq!(fs::read_to_string(b.path("kept"))?, "kept");
    let cut = b.enter(|| TcpStream::connect_timeout(&a.at(PORT), SILENCE))?;
    assert_eq!(cut.err().map(|e| e.kind()), Some(ErrorKind::TimedOut), "the cut is still there");
    net.heal(&a, &b)?;
    assert!(Call::new(&a, &b, b.ip6())?.up(SOON)?);
    Ok(())
}

#[test]
fn a_power_cut_is_not_heard_and_the_next_boot_knows_no_connection() -> Result<()> {
    let (_net, a, b) = pair()?;
    let mut echo = b.spawn(cmd("rsync").args([
        "--daemon",
        "--no-detach",
        "--config=/dev/null",
        "--port=8730",
    ]))?;
    let mut client = until(SOON, "rsync answers", || {
        a.enter(|| TcpStream::connect_timeout(&b.at(8730), SOON))
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())
    });
    client.set_read_timeout(Some(SILENCE))?;
    assert!(client.read(&mut [0; 64])? > 0, "rsync greets");

    b.power_off()?;
    assert!(!echo.is_running());
    let silent = client.read(&mut [0; 64]).map_err(|e| e.kind());
    assert_eq!(silent, Err(ErrorKind::WouldBlock));

    b.power_on()?;
    client.write_all(b"x")?;
    client.set_read_timeout(Some(SOON))?;
    let reset = client.read(&mut [0; 64]).map_err(|e| e.kind());
    assert_eq!(reset, Err(ErrorKind::ConnectionReset));
    Ok(())
}

#[test]
fn a_process_ends_with_its_handle() -> Result<()> {
    let (_net, a, _b) = pair()?;
    let mut stopped = a.spawn(cmd("sleep").arg("100"))?;
    stopped.stop()?;
    assert_eq!(a.pids()?.len(), 1);
    drop(stopped);
    assert!(a.pids()?.is_empty());

    let mut failed = a.spawn(cmd("ls").arg("/nowhere"))?;
    assert!(!failed.wait_timeout(SOON)?.success());
    assert!(failed.log().contains("/nowhere"), "{}", failed.log());
    assert!(failed.term().is_err());

    let cat = a.run_with(&mut cmd("cat"), "secret")?;
    assert_eq!(cat.ok()?, "secret");

    let mut slow = a.spawn(cmd("sleep").arg("100"))?;
    assert!(slow.wait_timeout(Duration::from_millis(50)).is_err());
    slow.term()?;
    assert!(!slow.wait_timeout(SOON)?.success());
    Ok(())
}

/// Sends so many bytes and says how long they took to arrive.
fn transfer(call: &mut Call, bytes: usize) -> Result<Duration> {
    let Call { client, server } = call;
    let (done, took) = timed(|| {
        thread::scope(|scope| {
            scope.spawn(|| client.write_all(&vec![7; bytes]));
            server.set_read_timeout(Some(SOON))?;
            server.read_exact(&mut vec![0; bytes])
        })
    });
    done?;
    Ok(took)
}

#[test]
fn the_rate_of_a_host_is_about_what_was_asked_for() -> Result<()> {
    let (_net, a, b) = pair()?;
    let mut call = Call::new(&a, &b, b.ip())?;
    b.rate(Some(4_000_000))?; // 500,000 bytes take a second
    let limited = transfer(&mut call, 500_000)?;
    assert!(limited > Duration::from_millis(300), "{limited:?}");
    b.rate(None)?;
    let lifted = transfer(&mut call, 500_000)?;
    assert!(lifted < limited, "{lifted:?} {limited:?}");
    Ok(())
}

#[test]
fn an_impaired_line_delays_and_loses_but_tcp_goes_on() -> Result<()> {
    let (net, a, b) = pair()?;
    for ip in [b.ip(), b.ip6()] {
        let mut call = Call::new(&a, &b, ip)?;
        net.impair(&a, &b, Impair { delay_ms: 60, ..Impair::default() })?;
        let (heard, took) = timed(|| call.up(SOON));
        assert!(heard? && took >= Duration::from_millis(60), "{took:?}");

        let bad =
            Impair { delay_ms: 2, jitter_ms: 1, loss_percent: 3.0, reorder_percent: 10.0, seed: 7 };
        net.impair(&a, &b, bad)?;
        transfer(&mut call, 300_000)?;

        net.impair_one_way(&a, &b, Impair { loss_percent: 100.0, ..Impair::default() })?;
        assert!(!call.up(SILENCE)?, "{ip}");
        net.heal(&a, &b)?;
        assert!(call.up(SOON)?, "{ip}");
    }
    Ok(())
}

#[test]
fn a_disk_gets_full_and_read_only() -> Result<()> {
    let (_net, a, _b) = pair()?;
    let disk = a.disk("data", 1 << 20)?;
    let file = disk.path().join("file");
    fs::write(&file, "kept")?;

    disk.fill()?;
    let refused = fs::write(&file, [0; 65536]).map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::StorageFull));
    disk.free()?;
    fs::write(&file, [0; 65536])?;

    disk.read_only(true)?;
    let refused = fs::write(&file, "x").map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::ReadOnlyFilesystem));
    disk.read_only(false)?;
    fs::write(&file, "x")?;
    Ok(())
}

/// Whether any process or descriptor holds this network namespace.
fn is_held(ns: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let links = processes.flat_map(|process| {
        let fds = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        fds.map(|fd| fd.path()).chain([process.path().join("ns/net")]).collect::<Vec<_>>()
    });
    links.into_iter().any(|link| fs::read_link(link).is_ok_and(|target| target == ns))
}

/// The links of the namespace that the test was started in.
fn links() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/net/dev")?;
    Ok(text.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect())
}

#[test]
fn nothing_is_left_of_a_world_even_after_a_panic() -> Result<()> {
    let before = links()?;
    let (sender, seen) = mpsc::channel();
    let panicked = thread::spawn(move || -> Result<()> {
        let (net, a, b) = pair()?;
        net.impair(&a, &b, Impair::default())?;
        a.disk("data", 1 << 20)?;
        a.run(cmd("setsid").args(["--fork", "sleep", "100"]))?.ok()?;
        let pid = until(SOON, "it sleeps", || a.pids().ok()?.first().copied());
        let ns = fs::read_link(format!("/proc/{pid}/ns/net"))?;
        assert!(is_held(&ns) && is_alive(pid));
        sender.send((pid, ns, a.dir().to_owned()))?;
        panic!("as planned");
    });
    assert!(panicked.join().is_err());
    let (pid, ns, dir) = seen.recv()?;
    assert!(!is_alive(pid));
    assert!(!fs::exists(&dir)?);
    assert_eq!(links()?, before);
    // A world that another test makes may get the same number for a while.
    until(SOON, "nobody holds the namespace", || !is_held(&ns));
    Ok(())
}

/// Set for the copy of this test that makes the world to be killed.
const DOOMED: &str = "LOCKSTEP_TEST_DOOMED";

#[test]
fn the_next_world_sweeps_what_a_killed_one_left() -> Result<()> {
    if env::var_os(DOOMED).is_some() {
        return be_doomed();
    }
    let (_net, a, _b) = pair()?;
    let mut doomed = a.spawn(
        cmd(env::current_exe()?)
            .args(["--exact", "hosts::the_next_world_sweeps_what_a_killed_one_left", "--nocapture"])
            .env(DOOMED, "1"),
    )?;
    let (pid, dir) = until(SOON, "the doomed world stands", || {
        let text = doomed.stdout();
        let (pid, dir) = text.split_once("doomed ")?.1.lines().next()?.split_once(' ')?;
        Some((pid.parse().ok()?, dir.to_owned()))
    });
    doomed.kill()?;
    assert!(is_alive(pid) && fs::exists(&dir)?, "both outlive their world");

    let _next = Net::new()?;
    assert!(!is_alive(pid) && !fs::exists(&dir)?);
    Ok(())
}

/// A world with a daemon and a disk, that waits to be killed.
fn be_doomed() -> Result<()> {
    let (_net, a, _b) = pair()?;
    a.disk("data", 1 << 20)?;
    a.run(cmd("setsid").args(["--fork", "sleep", "100"]))?.ok()?;
    let pid = until(SOON, "it sleeps", || a.pids().ok()?.first().copied());
    writeln!(io::stdout(), "doomed {pid} {}", a.dir().display())?;
    Ok(try_until(Duration::from_secs(60), "somebody kills us", || false)?)
}

/// Whether there is such a process, other than one that ended and waits for its parent.
fn is_alive(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/ns/net")).is_ok()
}
