//! The roads that a tree takes besides an open rsync daemon and the agents: ssh, an HTTP proxy, the
//! master's own daemon; and lines that break on the way.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lockstep_tests::sshd::{self, new_key, secret};
use lockstep_tests::{Fleet, Host, Proc, cmd, until, upstream};

use super::{SOON, set_agent, world};

/// A secrets directory of the node's own: all hosts share one /etc.
fn secrets(fleet: &mut Fleet, node: &str) -> Result<PathBuf> {
    let dir = fleet.node(node)?.host.path("secrets");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    set_agent(fleet, node, &format!("secrets-dir = \"{}\"\n", dir.display()))?;
    Ok(dir)
}

#[test]
fn an_upstream_behind_ssh_has_a_known_host_and_a_named_key() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1", "ftp1"])?;
    let secrets = secrets(&mut fleet, "master1")?;
    let public = new_key(&fleet.node("master1")?.host, &secrets.join("deploy"))?;
    let dir = up.host.dir().display();
    let only = format!("restrict,command=\"/usr/bin/rrsync -ro {dir}\" {public}");
    let _sshd = sshd::start(&up.host, &only)?;
    let url = format!("ssh://root@{}/pub?key=deploy", up.host.ip());
    fleet.create_mirror("fedora", &["master1", "ftp1"], &["--upstream", &url])?.ok()?;
    let unknown = fleet.pull("fedora", &[])?;
    ensure!(
        unknown.status.code() == Some(1) && unknown.stderr.contains("known_hosts"),
        "{unknown}"
    );
    ensure!(fleet.heads("fedora")?[0].attempts == 1, "trying again does not help");

    let host_key = fs::read_to_string(up.host.path("hostkey.pub"))?;
    secret(&secrets.join("known_hosts"), &format!("{} {host_key}", up.host.ip()))?;
    upstream::fill(&up.tree().join("more"), 20, 1000)?;
    fleet.pull("fedora", &[])?.ok()?;
    for node in ["master1", "ftp1"] {
        fleet.check_mirrored("fedora", node, &up.tree())?;
    }
    ensure!(up.pulls() == 0, "its daemon was asked");
    Ok(())
}

/// An HTTP proxy that prints whom it connects.
fn proxy(host: &Host) -> Result<Proc> {
    let script = format!(
        "
import socket, threading
def pump(a, b):
    try:
        while d := a.recv(65536):
            b.sendall(d)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def serve(c):
    head = b''
    while b'\\r\\n\\r\\n' not in head:
        head += c.recv(1)
    verb, at = head.decode().split()[:2]
    print(verb, at, flush=True)
    name, port = at.rsplit(':', 1)
    up = socket.create_connection((name, int(port)))
    c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')
    threading.Thread(target=pump, args=(c, up), daemon=True).start()
    pump(up, c)
s = socket.socket()
s.bind(('{}', 3128))
s.listen(8)
print('listens', flush=True)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
",
        host.ip()
    );
    let proc = host.spawn(cmd("python3").args(["-c", &script]))?;
    until(SOON, "the proxy listens", || proc.stdout().contains("listens"));
    Ok(proc)
}

#[test]
fn an_upstream_is_reached_through_a_proxy_and_replicas_are_not() -> Result<()> {
    let (net, fleet, up) = world(&["master1", "ftp1"])?;
    let between = net.host("proxy")?;
    let mut proxy = proxy(&between)?;
    // There is no other way.
    net.cut(&fleet.node("master1")?.host, &up.host)?;
    let (url, at) = (up.url(), format!("{}:3128", between.ip()));
    let more = ["--upstream", &url, "--proxy", &at, "--attempts", "1", "--connect-timeout", "30s"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.check_mirrored("fedora", "ftp1", &up.tree())?;
    let asked = format!("CONNECT {}:873", up.host.ip());
    let said = proxy.stdout();
    ensure!(said.lines().skip(1).all(|line| line == asked) && said.contains(&asked), "{said}");

    proxy.kill()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1) && failed.stderr.contains("master1"), "{failed}");
    ensure!(fleet.mirror("fedora")?.generation == 1);
    Ok(())
}

#[test]
fn replicas_pull_from_the_masters_own_daemon() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1", "ftp1"])?;
    let secrets = secrets(&mut fleet, "ftp1")?;
    let master = fleet.node("master1")?.host.clone();
    let dir = master.dir().display();
    secret(&master.path("users"), "mirror:right\n")?;
    let config = format!(
        "use chroot = no\nuid = 0\ngid = 0\naddress = {}\nlog file = {dir}/rsyncd.log\n[ftp]\n\
         path = {dir}/ftp\nauth users = mirror\nsecrets file = {dir}/users\n",
        master.ip()
    );
    fs::write(master.path("rsyncd.conf"), config)?;
    let mut option = OsString::from("--config=");
    option.push(master.path("rsyncd.conf"));
    let _daemon = master.spawn(cmd("rsync").args(["--daemon", "--no-detach"]).arg(option))?;

    secret(&secrets.join("master1"), "wrong\n")?;
    let (url, from) =
        (up.url(), format!("rsync://mirror@{}/ftp/fedora?password=master1", master.ip()));
    let more = ["--upstream", &url, "--replicas-from", &from];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(
        failed.stderr.contains("failed on ftp1") && failed.stderr.contains("password"),
        "{failed}"
    );
    fleet.check_mirrored("fedora", "master1", &up.tree())?;

    secret(&secrets.join("master1"), "right\n")?;
    fleet.pull("fedora", &["--only", "ftp1"])?.ok()?;
    fleet.check_mirrored("fedora", "ftp1", &up.tree())?;
    let log = fs::read_to_string(master.path("rsyncd.log"))?;
    ensure!(log.contains("rsync on ftp/fedora/ from mirror@"), "{log}");
    Ok(())
}

#[test]
fn an_upstream_is_asked_over_the_family_that_is_set() -> Result<()> {
    let (_net, fleet, up) = world(&["master1"])?;
    let (dir, address) = (up.host.dir().display(), up.host.ip6());
    let config =
        format!("use chroot = no\naddress = {address}\nport = 874\n[six]\npath = {dir}/pub\n");
    fs::write(up.host.path("six.conf"), config)?;
    let mut option = OsString::from("--config=");
    option.push(up.host.path("six.conf"));
    let _daemon = up.host.spawn(cmd("rsync").args(["--daemon", "--no-detach"]).arg(option))?;
    until(SOON, "it listens", || {
        let connected = || std::net::TcpStream::connect((address, 874)).is_ok();
        up.host.enter(connected).unwrap_or(false)
    });
    let url = format!("rsync://[{address}]:874/six");
    let more = ["--upstream", &url, "--address-family", "6", "--attempts", "1"];
    fleet.create_mirror("fedora", &["master1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.check_mirrored("fedora", "master1", &up.tree())?;
    fleet.ctl(&["mirror", "update", "fedora", "--address-family", "4"])?.ok()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "an address of the other family was used: {failed}");
    Ok(())
}

#[test]
fn files_that_go_away_meanwhile_are_no_failure() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    upstream::fill(&up.tree().join("big"), 30, 100_000)?;
    let url = up.url();
    let more = ["--upstream", &url, "--bwlimit", "1M", "--attempts", "1"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    fleet.ctl(&["mirror", "sync", "fedora"])?.ok()?;
    let tree = fleet.mirrored("master1", "fedora")?;
    until(SOON, "it is under way", || tree.join("big/file-00001").exists());
    up.remove("big/file-00029")?;
    fleet.wait_generation("fedora", &["ftp1"], 1);
    let head = &fleet.heads("fedora")?[0];
    ensure!(head.pulled.as_ref().is_some_and(|pulled| pulled.exit_code == Some(24)), "{head:?}");
    fleet.check_mirrored("fedora", "ftp1", &tree)?;
    ensure!(!tree.join("big/file-00029").exists() && tree.join("big/file-00028").exists());
    Ok(())
}

#[test]
fn an_upstream_that_does_not_answer_is_tried_again_and_named() -> Result<()> {
    let (_net, fleet, up) = world(&["master1"])?;
    let url = up.url();
    let more = ["--upstream", &url, "--connect-timeout", "1s", "--attempts", "2"];
    fleet.create_mirror("fedora", &["master1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    up.host.isolate()?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1), "{failed}");
    let head = &fleet.heads("fedora")?[0];
    ensure!(head.attempts == 2, "{head:?}");
    ensure!(head.pulled.as_ref().is_some_and(|pulled| pulled.exit_code == Some(35)), "{head:?}");
    up.host.rejoin()?;
    up.write("back", "back")?;
    fleet.pull("fedora", &[])?.ok()?;
    fleet.check_mirrored("fedora", "master1", &up.tree())
}

#[test]
fn a_tree_of_several_upstreams_is_one_generation_for_its_replicas() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    up.write("linux/README", "linux")?;
    up.write("images/40.img", "forty")?;
    let (linux, images) = (format!("{}/linux", up.url()), format!("iso={}/images", up.url()));
    let more = ["--upstream", &linux, "--further-upstream", &images];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let read = |node: &str, name: &str| -> Result<String> {
        Ok(fs::read_to_string(fleet.mirrored(node, "fedora")?.join(name)).unwrap_or_default())
    };
    for node in ["master1", "ftp1"] {
        ensure!(read(node, "README")? == "linux" && read(node, "iso/40.img")? == "forty", "{node}");
    }
    // What the log of a run shows.
    let log = fleet.ctl(&["mirror", "logs", "fedora/1"])?.ok()?;
    ensure!(log.contains("/pub/linux/") && log.contains("/pub/images/"), "{log}");

    up.remove("images")?;
    up.write("linux/news", "news")?;
    let failed = fleet.pull("fedora", &[])?;
    ensure!(failed.status.code() == Some(1) && failed.stderr.contains("iso: "), "{failed}");
    ensure!(fleet.mirror("fedora")?.generation == 1);
    ensure!(read("ftp1", "iso/40.img")? == "forty" && read("ftp1", "news")?.is_empty());
    up.write("images/41.img", "forty-one")?;
    fleet.pull("fedora", &[])?.ok()?;
    ensure!(read("ftp1", "iso/41.img")? == "forty-one" && read("ftp1", "news")? == "news");
    ensure!(fleet.mirror("fedora")?.generation == 2);
    Ok(())
}
