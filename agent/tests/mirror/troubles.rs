//! Upstreams that are not in order, and what becomes of the tree: nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lockstep_model::mirror::{Allow, HopKind, Pulled};
use lockstep_model::task::{MirrorPull, OutcomeKind, PullFrom};
use tokio_util::sync::CancellationToken;

use super::fleet::{Daemon, Node, Scene, eventually};

/// Answers each connection by `talk`.
fn upstream(talk: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> PullFrom {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            std::thread::spawn(move || talk(stream));
        }
    });
    PullFrom::Remote(format!("rsync://127.0.0.1:{port}/m").parse().unwrap())
}

/// Until the other side has gone.
fn swallow(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

struct Held {
    why: String,
    pulled: Pulled,
}

/// The tree is complete, and a pull from there leaves it as it is.
async fn held(scene: &Scene, from: PullFrom, values: &[(&str, &str)]) -> Held {
    let master = &scene.master;
    master.pull(scene.spec(1, &[])).await;
    let (why, pulled) = master.fail(master.spec(2, from, values)).await;
    scene.assert_same(&master.tree());
    assert_eq!(master.children(), Vec::<i32>::new());
    assert!(!pulled.changed, "{pulled:?}");
    assert!(master.report().filled && master.report().problem == why, "{:?}", master.report());
    // And the next one is as ever.
    assert!(!master.pull(scene.spec(3, &[])).await.changed);
    assert_eq!(master.report().problem, "");
    Held { why, pulled }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_silent_trickles_or_closes_costs_no_file() {
    let scene = Scene::new().await;
    let quick = [("io-timeout", "1s"), ("connect-timeout", "1s")];
    let silent = held(&scene, upstream(swallow), &quick).await;
    assert!(matches!(silent.pulled.exit_code, Some(30 | 35)), "{:?} {}", silent.pulled, silent.why);
    assert!(!silent.pulled.permanent);

    // One byte at a time keeps the idle timeout away; the whole try has its own.
    let trickle = upstream(|mut stream| {
        let text = b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n";
        for byte in text.iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let slow = held(&scene, trickle, &[("run-timeout", "2s")]).await;
    assert!(slow.why.contains("run-timeout"), "{}", slow.why);

    let closes = held(&scene, upstream(drop), &[]).await;
    assert!(matches!(closes.pulled.exit_code, Some(5 | 10 | 12)), "{:?}", closes.pulled);
    assert!(!closes.pulled.permanent, "{}", closes.why);

    let garbage = upstream(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n<html>\n");
        swallow(stream);
    });
    let garbage = held(&scene, garbage, &quick).await;
    assert!(garbage.pulled.exit_code.is_some_and(|code| code != 0), "{:?}", garbage.pulled);

    let nobody = PullFrom::Remote("rsync://127.0.0.1:1/m".parse().unwrap());
    let nobody = held(&scene, nobody, &[]).await;
    assert_eq!(nobody.pulled.exit_code, Some(10), "{}", nobody.why);
    scene.master.end().await;
}

/// Passes everything on until so many bytes came from the upstream, and then closes.
fn cut_after(port: u16, bytes: u64) -> PullFrom {
    upstream(move |client| {
        let up = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut asks, mut to_up) = (client.try_clone().unwrap(), up.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut asks, &mut to_up);
        });
        let _ = std::io::copy(&mut (&up).take(bytes), &mut &client);
        let _ = up.shutdown(std::net::Shutdown::Both);
        let _ = client.shutdown(std::net::Shutdown::Both);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_of_a_file_shows_nothing_of_it() {
    let scene = Scene::new().await;
    let master = &scene.master;
    master.pull(scene.spec(1, &[])).await;
    let noise: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(scene.up("big"), &noise).unwrap();
    let cut = async |number| {
        let from = cut_after(scene.daemon.port, 1_000_000);
        let (why, pulled) = master.fail(master.spec(number, from, &[])).await;
        assert!(!pulled.permanent && pulled.exit_code.is_some(), "{why} {pulled:?}");
        let names: Vec<_> =
            fs::read_dir(master.tree()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
    };
    cut(2).await;
    cut(3).await;
    let again = master.pull(scene.spec(4, &[])).await;
    scene.assert_same(&master.tree());
    // What came before the second cut does not come again.
    assert!(again.changed && again.received_bytes < 2_700_000, "{again:?}");

    // Of the first copy nothing comes again.
    fs::remove_dir_all(master.tree()).unwrap();
    master.assign(master.place(HopKind::Upstream, &[])).await;
    let from = cut_after(scene.daemon.port, 1_000_000);
    master.fail(master.spec(5, from, &[])).await;
    let again = master.pull(scene.spec(6, &[])).await;
    scene.assert_same(&master.tree());
    assert!(again.received_bytes < 2_700_000, "{again:?}");
    master.assign(master.place(HopKind::Upstream, &[])).await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_and_modules_are_for_a_person_and_a_full_daemon_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("users");
    fs::write(&secrets, "b:Sesam-7\n").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let more = format!(
        "auth users = b\nsecrets file = {}\nmax connections = 1\nlock file = {}/lock\n",
        secrets.display(),
        dir.path().display()
    );
    let daemon = Daemon::start(dir.path(), &more);
    fs::write(dir.path().join("up/a"), "a").unwrap();
    let master = Node::start(dir.path(), "master1").await;
    let spec = |number| MirrorPull {
        has_password: true,
        ..master.spec(number, daemon.source_for("b@"), &[])
    };
    let put = |text: &str| master.mirrors.passwords().put(&super::fleet::mirror(), text.to_owned());
    put("wrong");
    let (why, pulled) = master.fail(spec(1)).await;
    assert!(pulled.permanent && why.contains("password"), "{why}");
    // Nobody has it any more.
    let lost = master.run(spec(2)).await;
    assert_eq!((lost.kind, lost.pulled), (OutcomeKind::Interrupted, None), "{}", lost.message);
    put("Sesam-7");
    assert!(master.pull(spec(3)).await.changed);
    for (dir, _) in [(master.state(), 0), (master.dest(), 0)] {
        let left =
            std::process::Command::new("grep").args(["-r", "Sesam"]).arg(dir).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    }
    put("Sesam-7");
    let unknown =
        PullFrom::Remote(format!("rsync://b@127.0.0.1:{}/x", daemon.port).parse().unwrap());
    let (why, pulled) = master.fail(MirrorPull { from: unknown, ..spec(4) }).await;
    assert!(pulled.permanent && why.contains('x'), "{why}");
    // The one place is taken.
    let mut other = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
    other.write_all(b"@RSYNCD: 31.0\nm\n").unwrap();
    let mut text = [0; 64];
    let _ = other.read(&mut text).unwrap();
    put("Sesam-7");
    let (why, pulled) = master.fail(spec(5)).await;
    assert!(!pulled.permanent && why.contains("max connections"), "{why} {pulled:?}");
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_empty_or_has_lost_much_is_refused_until_it_is_allowed() {
    let scene = Scene::new().await;
    let master = &scene.master;
    let many: Vec<String> = (0..300).map(|n| format!("many/{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "x")).collect();
    scene.write(&many);
    master.pull(scene.spec(1, &[])).await;
    fs::remove_dir_all(scene.up("many")).unwrap();
    let limit = [("delete-limit", "100")];
    for delete in ["after", "before", "during", "delay", "delete"] {
        let values = [limit[0], ("delete", delete)];
        let (why, pulled) = master.fail(scene.spec(2, &values)).await;
        assert!(pulled.permanent && why.contains("--allow delete"), "{why}");
        assert_eq!(fs::read_dir(master.tree().join("many")).unwrap().count(), 300, "{delete}");
    }
    let allow = Allow { delete: true, ..Allow::default() };
    let gone = master.pull(MirrorPull { allow, ..scene.spec(3, &limit) }).await;
    assert_eq!((gone.changed, gone.deleted), (true, 301), "{gone:?}");
    scene.assert_same(&master.tree());

    fs::rename(scene.up(""), scene.dir.path().join("away")).unwrap();
    fs::create_dir(scene.up("")).unwrap();
    let (why, pulled) = master.fail(scene.spec(4, &[("delete-limit", "none")])).await;
    assert!(pulled.permanent && why.contains("--allow empty"), "{why}");
    assert!(master.tree().join("d/e/c").exists());
    let allow = Allow { empty: true, ..Allow::default() };
    let empty = scene.spec(5, &[("delete-limit", "none")]);
    assert!(master.pull(MirrorPull { allow, ..empty }).await.changed);
    assert_eq!(fs::read_dir(master.tree()).unwrap().count(), 0);
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_keeps_the_generation_down() {
    let scene = Scene::with("uid = nobody\ngid = nogroup\n").await;
    let master = &scene.master;
    fs::write(scene.up("secret"), "s").unwrap();
    fs::set_permissions(scene.up("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let (why, pulled) = master.fail(scene.spec(1, &[])).await;
    assert_eq!((pulled.exit_code, pulled.permanent), (Some(23), false), "{why}");
    assert!(why.contains("secret"), "{why}");
    assert!(!master.report().filled);
    fs::remove_file(scene.up("secret")).unwrap();
    // What the failed one brought is told by the one that is complete.
    assert!(master.pull(scene.spec(2, &[])).await.changed);
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_or_forgotten_leaves_no_process() {
    let scene = Scene::new().await;
    let master = &scene.master;
    fs::write(scene.up("big"), vec![7; 8 << 20]).unwrap();
    let stop = CancellationToken::new();
    let slow = master.run_until(scene.spec(1, &[("bwlimit", "200K")]), stop.clone());
    let cancel = async {
        eventually("progress", || master.report().pull.filter(|pull| pull.done_bytes > 0)).await;
        assert_eq!(master.children().len(), 1);
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(slow, cancel);
    assert_eq!(outcome.kind, OutcomeKind::Cancelled, "{outcome:?}");
    assert_eq!(master.children(), Vec::<i32>::new());
    assert!(!master.tree().join("big").exists());
    assert!(master.report().pull.is_none());
    assert!(master.pull(scene.spec(2, &[])).await.changed);
    scene.assert_same(&master.tree());
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_words_blocks_nothing_and_keeps_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let talker = dir.path().join("talker");
    // More than any pipe holds, on both of its outputs.
    let script = "#!/bin/sh\nyes '>f+++++++++ some/name' | head -n 300000 &\n\
                  yes 'rsync: a complaint' | head -n 100000 >&2\nwait\n\
                  echo 'Number of files: 3 (reg: 2, dir: 1)'\necho the end\n";
    fs::write(&talker, script).unwrap();
    fs::set_permissions(&talker, fs::Permissions::from_mode(0o755)).unwrap();
    let master = Node::start_with(dir.path(), "master1", |settings| settings.rsync = talker).await;
    let from = PullFrom::Remote("rsync://127.0.0.1/m".parse().unwrap());
    let output = lockstep_agent::runner::Output::default();
    let run = master.mirrors.pull(master.spec(1, from, &[]), Default::default(), output.clone());
    let outcome = run.await;
    assert_eq!(outcome.kind, OutcomeKind::Ok, "{outcome:?}");
    assert_eq!(outcome.pulled.unwrap().entries, 2);
    let log = fs::metadata(master.state().join("log/1")).unwrap().len();
    assert!((10 << 20..=17 << 20).contains(&log), "{log}");
    output.end();
    let mut tail = output.tail(true);
    let mut last = Vec::new();
    while let Some(lines) = tail.read().await {
        last = lines;
    }
    assert!(last.iter().any(|line| line == "the end"), "{last:?}");
    master.end().await;
}
