//! How pulls from a real daemon fail, and what is made of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;

use lockstep_agent::mirror::pull::course::Place;
use lockstep_agent::mirror::pull::ending::{End, Ended, Retry};
use lockstep_model::Millis;
use lockstep_model::mirror::rsync::Delete;

use super::daemon::{Daemon, Mirror, chmod, names, wait_until, write};

fn failed(mirror: &Mirror) -> Ended {
    let told = mirror.pull(Place::Tree);
    told.next.expect_err("it fails")
}

fn check(ended: &Ended, code: u8, retry: Retry, why: &str) {
    assert_eq!((ended.code, ended.end), (Some(code), End::Failed(retry)), "{ended:?}");
    assert!(ended.why.contains(why), "{ended:?}");
}

fn with_password(dir: &Path, mirror: &mut Mirror, password: &str) {
    let file = dir.join("password");
    fs::write(&file, password).unwrap();
    chmod(&file, 0o600);
    mirror.password = Some(file);
}

#[test]
fn a_password_is_taken_or_the_daemon_says_no_for_good() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("up"), &["a"]);
    let secrets = dir.path().join("secrets");
    fs::write(&secrets, "ann:right\n").unwrap();
    chmod(&secrets, 0o600);
    let more = format!("auth users = ann\nsecrets file = {}\n", secrets.display());
    let daemon = Daemon::start(dir.path(), &more);
    let mut mirror = Mirror::new(dir.path(), &daemon.url("ann@"), Delete::After);
    check(&failed(&mirror), 5, Retry::Never, "wants a user and a password");
    with_password(dir.path(), &mut mirror, "wrong\n");
    check(&failed(&mirror), 5, Retry::Never, "does not take user ann with the mirror's password");
    with_password(dir.path(), &mut mirror, "right\n");
    assert!(mirror.pull(Place::Tree).next.is_ok());
    assert_eq!(names(&mirror.tree()), ["a"]);
}

#[test]
fn what_the_daemon_has_not_is_said() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("up"), &["a"]);
    let daemon = Daemon::start(dir.path(), "");
    let other = daemon.url("").replace("/m", "/other");
    let mirror = Mirror::new(dir.path(), &other, Delete::After);
    check(&failed(&mirror), 5, Retry::Never, "has no module other");
    let mirror = Mirror::new(dir.path(), &format!("{}/no/such", daemon.url("")), Delete::After);
    check(&failed(&mirror), 23, Retry::Never, "has no directory m/no/such");
    let mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    fs::rename(dir.path().join("up"), dir.path().join("away")).unwrap();
    check(&failed(&mirror), 5, Retry::Later, "cannot enter the directory of module m");
}

#[test]
fn a_daemon_that_is_away_busy_or_silent_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("up"), &["a"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut mirror = Mirror::new(dir.path(), &format!("rsync://127.0.0.1:{port}/m"), Delete::After);
    mirror.io_timeout = Millis::from_secs(1);
    check(&failed(&mirror), 30, Retry::Soon, "");
    drop(silent);
    check(&failed(&mirror), 10, Retry::Soon, "Connection refused");
    let lock = dir.path().join("lock");
    let daemon = Daemon::start(
        dir.path(),
        &format!("max connections = -1\nlock file = {}\n", lock.display()),
    );
    let mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    check(&failed(&mirror), 5, Retry::Later, "");
    let url = daemon.url("");
    drop(daemon);
    wait_until("the daemon is gone", || {
        let mirror = Mirror::new(dir.path(), &url, Delete::After);
        failed(&mirror).code == Some(10)
    });
}

/// Whoever connects gets a number of the daemon's bytes, and then the end.
fn cut_after(bytes: usize, port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let daemon = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut asks, mut told) = (client.try_clone().unwrap(), daemon.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut asks, &mut told));
            let _ = std::io::copy(&mut (&daemon).take(bytes as u64), &mut &client);
            let _ = client.shutdown(Shutdown::Both);
            let _ = daemon.shutdown(Shutdown::Both);
        }
    });
    at
}

#[test]
fn a_connection_that_breaks_leaves_what_came_and_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let up = dir.path().join("up");
    write(&up, &["a", "b"]);
    fs::write(up.join("c"), vec![7; 1 << 20]).unwrap();
    let daemon = Daemon::start(dir.path(), "");
    let port = daemon.url("").rsplit(':').next().unwrap().trim_end_matches("/m").parse().unwrap();
    // In the greeting, in the list, and in the middle of a file.
    for (bytes, codes) in
        [(0, &[5u8, 10, 12][..]), (10, &[5, 10, 12]), (120, &[5, 10, 12]), (300_000, &[12])]
    {
        let url = format!("rsync://127.0.0.1:{}/m", cut_after(bytes, port));
        let mut mirror = Mirror::new(dir.path(), &url, Delete::After);
        mirror.hop.options = "--partial-dir=.partial".parse().unwrap();
        write(&mirror.tree(), &["gone"]);
        let ended = failed(&mirror);
        let Ended { end: End::Failed(retry), code: Some(code), .. } = ended else {
            panic!("{bytes}: {ended:?}");
        };
        assert!(codes.contains(&code) && retry != Retry::Never, "{bytes}: {ended:?}");
        assert!(names(&mirror.tree()).contains(&"gone".to_owned()), "{bytes}");
    }
    let mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    assert!(mirror.pull(Place::Tree).next.is_ok());
    assert_eq!(names(&mirror.tree()), names(&up));
}

#[test]
fn garbage_is_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.write_all(&b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(100));
        }
    });
    let url = format!("rsync://127.0.0.1:{port}/m");
    let mirror = Mirror::new(dir.path(), &url, Delete::After);
    write(&mirror.tree(), &["gone"]);
    let ended = failed(&mirror);
    assert!(matches!(ended.end, End::Failed(Retry::Later | Retry::Soon)), "{ended:?}");
    assert_eq!(names(&mirror.tree()), ["gone"]);
}

#[test]
fn a_daemon_that_lets_nobody_in_says_so() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("up"), &["a"]);
    let daemon = Daemon::start(dir.path(), "hosts deny = *\n");
    let mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    check(&failed(&mirror), 5, Retry::Never, "does not let this node in");
}

/// Removals wait too: what cannot be read would look as if it were gone.
#[test]
fn what_the_other_side_cannot_read_makes_it_partial_and_removes_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let up = dir.path().join("up");
    write(&up, &["a", "secret/x", "open/y"]);
    chmod(&up.join("secret"), 0o700);
    for path in [dir.path(), &up] {
        chmod(path, 0o755);
    }
    let daemon = Daemon::start(dir.path(), "uid = 65534\ngid = 65534\n");
    let mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    write(&mirror.tree(), &["gone", "secret/x"]);
    check(&failed(&mirror), 23, Retry::Later, "Permission denied");
    let tree = names(&mirror.tree());
    assert_eq!(tree, ["a", "gone", "open", "open/y", "secret", "secret/x"]);
}
