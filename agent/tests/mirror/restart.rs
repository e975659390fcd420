//! Ends in the middle: of an agent, of a disk's room, of a connection's other end.

use std::fs;
use std::path::Path;
use std::process::Command;

use lockstep_model::mirror::{Allow, HopKind};
use lockstep_model::task::{MirrorPull, OutcomeKind, PullFrom};

use super::fleet::{Node, Scene, eventually, peer, principal};

/// What of this directory runs anywhere.
fn rsyncs(dir: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|p| fs::read(p.path().join("cmdline")).ok());
    let dir = format!("{}/master1-data", dir.display());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&dir)).count()
}

const AGENT_DIR: &str = "TEST_AGENT_DIR";
const AGENT_PORT: &str = "TEST_AGENT_PORT";

/// Run by the next test, to be killed: a master that pulls slowly.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_its_own() {
    let Some(dir) = std::env::var_os(AGENT_DIR) else { return };
    let port = std::env::var(AGENT_PORT).unwrap();
    let master = Node::start(Path::new(&dir), "master1").await;
    let from = PullFrom::Remote(format!("rsync://127.0.0.1:{port}/m").parse().unwrap());
    master.run(master.spec(2, from, &[("bwlimit", "300K")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_in_the_middle_leaves_no_rsync_and_the_next_run_is_complete() {
    let scene = Scene::new().await;
    scene.master.pull(scene.spec(1, &[])).await;
    fs::write(scene.up("big"), vec![7; 8 << 20]).unwrap();
    let Scene { dir, daemon, master } = scene;
    let state = master.state();
    let tmp = master.dest().join(".fedora.lockstep/tmp");
    master.end().await;
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restart::an_agent_of_its_own", "--nocapture"])
        .env(AGENT_DIR, dir.path())
        .env(AGENT_PORT, daemon.port.to_string())
        .spawn()
        .unwrap();
    let has_some = || {
        let files = fs::read_dir(&tmp).ok()?.flatten();
        files.filter_map(|file| file.metadata().ok()).find(|found| found.len() > 0)
    };
    eventually("something of the file", has_some).await;
    fs::write(state.join("password"), "left").unwrap();
    fs::write(state.join("reader-0"), "left").unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(rsyncs(dir.path()) > 0, "nobody has ended it");
    fs::write(tmp.join(".half.AbCdEf"), "half").unwrap();
    // The next agent of this data directory.
    let next = Node::start(dir.path(), "master1").await;
    eventually("the end of all rsyncs", || (rsyncs(dir.path()) == 0).then_some(())).await;
    assert!(!next.state().join("password").exists() && !next.state().join("reader-0").exists());
    next.assign(next.place(HopKind::Upstream, &[])).await;
    assert!(next.report().filled, "what was complete is");
    assert!(!next.tree().join("big").exists());
    let scene = Scene { dir, daemon, master: next };
    let pulled = scene.master.pull(scene.spec(2, &[])).await;
    assert!(pulled.changed, "{pulled:?}");
    scene.assert_same(&scene.master.tree());
    assert!(!scene.master.dest().join(".fedora.lockstep").exists());
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_in_a_run_whose_end_nobody_heard_is_told_by_the_next() {
    let scene = Scene::new().await;
    scene.master.pull(scene.spec(1, &[])).await;
    scene.write(&[("a", "new")]);
    // Complete, and the agent ends before its outcome is anywhere.
    assert!(scene.master.pull(scene.spec(2, &[])).await.changed);
    let Scene { dir, daemon, master } = scene;
    master.end().await;
    let master = Node::start(dir.path(), "master1").await;
    master.assign(master.place(HopKind::Upstream, &[])).await;
    let again = master.pull(master.spec(2, daemon.source(), &[])).await;
    assert!(again.changed && again.files == 0, "{again:?}");
    // The generation was taken: now nothing is new.
    let next = master.pull(master.spec(3, daemon.source(), &[])).await;
    assert!(!next.changed, "{next:?}");
    master.end().await;
}

struct Mount(std::path::PathBuf);

impl Mount {
    fn new(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let args = ["-t", "tmpfs", "-o", &options, "none"];
        assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_that_node_alone_and_keeps_the_last_good_tree() {
    let scene = Scene::new().await;
    let web1 = Node::start(scene.dir.path(), "web1").await;
    scene.master.listen_to("web1", principal("web1", 1));
    let mount = Mount::new(&web1.dest(), "4m");
    scene.master.assign(scene.master.place(HopKind::Upstream, &["web1"])).await;
    web1.assign(web1.place(HopKind::Replica, &[])).await;
    let from = || PullFrom::Agent(peer("master1"));
    scene.master.pull(scene.spec(1, &[])).await;
    web1.pull(web1.spec(1, from(), &[])).await;
    let noise: Vec<u8> =
        (0..8_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(scene.up("big"), &noise).unwrap();
    scene.master.pull(scene.spec(2, &[])).await;
    let (why, pulled) = web1.fail(web1.spec(2, from(), &[])).await;
    assert_eq!(pulled.exit_code, Some(11), "{why}");
    assert!(why.contains("No space left"), "{why}");
    assert!(web1.report().filled && !web1.tree().join("big").exists());
    assert!(web1.tree().join("d/e/c").exists());
    // Known before anything is brought.
    let (why, pulled) = web1.fail(web1.spec(2, from(), &[("min-free", "1G")])).await;
    assert!(why.contains("--allow space") && pulled.permanent, "{why}");
    fs::remove_file(scene.up("big")).unwrap();
    scene.master.pull(scene.spec(3, &[])).await;
    web1.pull(web1.spec(3, from(), &[])).await;
    scene.assert_same(&web1.tree());

    // A disk that is not mounted is no empty one.
    drop(mount);
    web1.assign(web1.place(HopKind::Replica, &[])).await;
    assert!(!web1.report().filled);
    let first = web1.run(web1.spec(4, from(), &[])).await;
    assert_eq!(first.kind, OutcomeKind::Failed, "{}", first.message);
    assert!(first.message.contains("is its disk mounted?"), "{}", first.message);
    assert!(!web1.tree().join("a").exists());
    let allow = Allow { space: true, ..Allow::default() };
    web1.pull(MirrorPull { allow, ..web1.spec(5, from(), &[]) }).await;
    scene.assert_same(&web1.tree());
    web1.end().await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_wait_for_their_turn_and_one_mirror_never_runs_twice() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = super::fleet::Daemon::start(dir.path(), "");
    fs::write(dir.path().join("up/a"), vec![7; 2 << 20]).unwrap();
    let master = Node::start_with(dir.path(), "master1", |settings| settings.pulls = 1).await;
    let other = |number| {
        let tree = master.dest().join("other").to_str().unwrap().parse().unwrap();
        let mirror = "other".parse().unwrap();
        MirrorPull { mirror, tree, ..master.spec(number, daemon.source(), &[]) }
    };
    let watch = async {
        eventually("a queue", || {
            let reports = master.mirrors.reports().subscribe();
            let all = reports.borrow().clone();
            let phases = all.values().filter_map(|report| report.pull).map(|pull| pull.phase);
            let mut phases: Vec<_> = phases.map(|phase| phase.to_string()).collect();
            phases.sort();
            (phases == ["content", "queued"]).then_some(())
        })
        .await;
        assert_eq!(master.children().len(), 1);
    };
    let spec = master.spec(1, daemon.source(), &[("bwlimit", "500K")]);
    // The slow one is first.
    let (one, two, ()) = tokio::join!(biased; master.run(spec), master.run(other(1)), watch);
    assert_eq!((one.kind, two.kind), (OutcomeKind::Ok, OutcomeKind::Ok));
    master.end().await;
}
