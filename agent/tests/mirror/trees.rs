//! What readers see of a tree, and what becomes of it when it is moved, published otherwise or given
//! up.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_agent::runner::Output;
use lockstep_model::MirrorName;
use lockstep_model::mirror::{Allow, HopKind};
use lockstep_model::path::DirPath;
use lockstep_model::task::{MirrorPlace, MirrorPull, MirrorRelease, OutcomeKind, PullFrom, Stage};

use super::fleet::{Node, Scene, mirror, peer, principal};

const SNAPSHOT: [(&str, &str); 2] = [("publish", "snapshot"), ("snapshots", "2")];

fn listed(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_snapshots_see_one_complete_tree_or_the_next() {
    let scene = Scene::new().await;
    let master = &scene.master;
    // Both change together upstream, and nobody may see one without the other.
    // Of another size each time: a second may be all that is between two of them.
    let set = |n: usize| scene.write(&[("a", &"x".repeat(n)), ("d/b", &"x".repeat(n))]);
    set(1);
    master.pull(scene.spec(1, &[])).await;
    assert!(master.tree().symlink_metadata().unwrap().is_dir());
    let (tree, over) = (master.tree(), Arc::new(AtomicBool::new(false)));
    let reading = std::thread::spawn({
        let over = over.clone();
        move || {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                // One opened directory is one generation, whatever its name leads to by then.
                let Ok(dir) = fs::File::open(&tree) else { panic!("the tree is not there") };
                let top = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
                let pair = (fs::read(top.join("a")), fs::read(top.join("d/b")));
                if let (Ok(a), Ok(b)) = pair {
                    assert_eq!(a, b);
                    seen += 1;
                }
            }
            seen
        }
    });
    for n in 2..=6 {
        set(n as usize);
        let pulled = master.pull(scene.spec(n, &SNAPSHOT)).await;
        assert!(pulled.changed, "{pulled:?}");
        scene.assert_same(&master.tree());
    }
    over.store(true, Ordering::Relaxed);
    assert!(reading.join().unwrap() > 0);
    assert_eq!(listed(&master.dest()), [".fedora.5", ".fedora.6", "fedora"]);
    // Nothing new: no new snapshot.
    let same = master.pull(scene.spec(7, &SNAPSHOT)).await;
    assert!(!same.changed, "{same:?}");
    assert_eq!(listed(&master.dest()), [".fedora.5", ".fedora.6", "fedora"]);
    // What is the same is there once.
    use std::os::unix::fs::MetadataExt;
    let inode = |dir: &str| fs::metadata(master.dest().join(dir).join("d/e/c")).unwrap().ino();
    assert_eq!(inode(".fedora.5"), inode(".fedora.6"));
    // An upstream that is empty or has lost much is refused here too.
    let limit = [SNAPSHOT[0], ("delete-limit", "1")];
    fs::remove_dir_all(scene.up("d")).unwrap();
    let (why, _) = master.fail(scene.spec(8, &limit)).await;
    assert!(why.contains("--allow delete"), "{why}");
    assert!(master.tree().join("d/e/c").exists());
    let allow = Allow { delete: true, ..Allow::default() };
    assert!(master.pull(MirrorPull { allow, ..scene.spec(9, &limit) }).await.changed);
    scene.assert_same(&master.tree());
    // And back.
    scene.write(&[("a", "plain")]);
    master.pull(scene.spec(10, &[])).await;
    assert_eq!(listed(&master.dest()), ["fedora"]);
    assert!(master.tree().symlink_metadata().unwrap().is_dir());
    scene.assert_same(&master.tree());
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_may_have_snapshots_of_a_master_that_has_them_too() {
    let scene = Scene::new().await;
    let web1 = Node::start(scene.dir.path(), "web1").await;
    scene.master.listen_to("web1", principal("web1", 1));
    let place = scene.master.place(HopKind::Upstream, &["web1"]);
    scene.master.assign(place).await;
    for n in 1..=4 {
        scene.write(&[("a", &"x".repeat(n as usize))]);
        scene.master.pull(scene.spec(n, &SNAPSHOT)).await;
        let from = PullFrom::Agent(peer("master1"));
        web1.pull(web1.spec(n, from, &SNAPSHOT)).await;
        scene.assert_same(&web1.tree());
    }
    assert_eq!(listed(&web1.dest()), [".fedora.3", ".fedora.4", "fedora"]);
    web1.end().await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_bring_content_first_and_indices_and_removals_second() {
    let scene = Scene::new().await;
    let web1 = Node::start(scene.dir.path(), "web1").await;
    scene.master.listen_to("web1", principal("web1", 1));
    scene.master.assign(scene.master.place(HopKind::Upstream, &["web1"])).await;
    let two = [("two-stage", "yes")];
    scene.master.pull(scene.spec(1, &two)).await;
    let from = || PullFrom::Agent(peer("master1"));
    web1.pull(web1.spec(1, from(), &two)).await;
    scene.write(&[("dists/Release", "r2"), ("pool/new", "n")]);
    fs::remove_file(scene.up("d/b")).unwrap();
    let pulled = scene.master.pull(scene.spec(2, &two)).await;
    assert_eq!((pulled.deleted, pulled.changed), (1, true), "{pulled:?}");
    scene.assert_same(&scene.master.tree());
    for publish in ["direct", "snapshot"] {
        let values = [two[0], ("publish", publish)];
        web1.pull(MirrorPull { stage: Stage::First, ..web1.spec(2, from(), &values) }).await;
        let read = |name: &str| fs::read_to_string(web1.tree().join(name)).unwrap_or_default();
        let first = [read("dists/Release"), read("pool/new"), read("d/b")];
        let expected = if publish == "direct" { ["r", "n", "22"] } else { ["r", "", "22"] };
        assert_eq!(first, expected);
        web1.pull(MirrorPull { stage: Stage::Second, ..web1.spec(2, from(), &values) }).await;
        scene.assert_same(&web1.tree());
        // Once more, from the beginning.
        scene.write(&[("dists/Release", "r")]);
        fs::remove_dir_all(scene.up("pool")).unwrap();
        scene.write(&[("d/b", "22")]);
        scene.master.pull(scene.spec(3, &two)).await;
        web1.pull(web1.spec(3, from(), &values)).await;
        scene.assert_same(&web1.tree());
        scene.write(&[("dists/Release", "r2"), ("pool/new", "n")]);
        fs::remove_file(scene.up("d/b")).unwrap();
        scene.master.pull(scene.spec(4, &two)).await;
    }
    web1.end().await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_moved_and_given_up() {
    for values in [&[][..], &SNAPSHOT] {
        let scene = Scene::new().await;
        let master = &scene.master;
        master.pull(scene.spec(1, values)).await;
        scene.write(&[("a", "22")]);
        master.pull(scene.spec(2, values)).await;
        let at = |name: &str| master.dest().join(name).to_str().unwrap().to_owned();
        let place = MirrorPlace {
            tree: at("new").parse().unwrap(),
            moved_from: Some(at("fedora").parse().unwrap()),
            ..master.place(HopKind::Upstream, &[])
        };
        // Repeating it is harmless.
        for _ in 0..2 {
            master.assign(place.clone()).await;
            assert!(master.report().filled);
            scene.assert_same(Path::new(&at("new")));
            assert!(!PathBuf::from(at("fedora")).exists());
        }
        let moved = MirrorPull { tree: place.tree.clone(), ..scene.spec(3, values) };
        assert!(!master.pull(moved).await.changed);
        // Another file system.
        let far = tempfile::tempdir_in("/dev/shm").unwrap();
        let to = far.path().join("data/new");
        let place = MirrorPlace {
            tree: to.to_str().unwrap().parse().unwrap(),
            moved_from: Some(place.tree.clone()),
            ..place.clone()
        };
        master.assign(place.clone()).await;
        scene.assert_same(&to);
        assert_eq!(listed(&master.dest()), Vec::<String>::new());
        let moved = MirrorPull { tree: place.tree.clone(), ..scene.spec(4, values) };
        assert!(!master.pull(moved).await.changed);

        // Only its own tree goes, and nothing that a link leads to.
        let outside = scene.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "k").unwrap();
        std::os::unix::fs::symlink(&outside, to.join("link")).unwrap();
        let other = outside.to_str().unwrap().parse().unwrap();
        let release = |delete| MirrorRelease { mirror: mirror(), delete: Some(delete) };
        let kept = master.mirrors.release(release(other), &Output::default()).await;
        assert!(kept.kind == OutcomeKind::Ok && kept.message.contains("kept"), "{kept:?}");
        master.assign(MirrorPlace { moved_from: None, ..place.clone() }).await;
        let gone = master.mirrors.release(release(place.tree), &Output::default()).await;
        assert!(gone.kind == OutcomeKind::Ok && gone.message.contains("removed"), "{gone:?}");
        assert_eq!(listed(to.parent().unwrap()), Vec::<String>::new());
        assert!(outside.join("kept").exists());
        assert!(!master.state().exists());
        assert!(master.mirrors.reports().subscribe().borrow().is_empty());
        scene.master.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_another_name_takes_the_tree_over_as_it_is() {
    for name in ["fedora", "linux"] {
        let scene = Scene::new().await;
        let master = &scene.master;
        master.pull(scene.spec(5, &[])).await;
        let heir: MirrorName = "linux".parse().unwrap();
        let tree: DirPath = master.dest().join(name).to_str().unwrap().parse().unwrap();
        let was = master.place(HopKind::Upstream, &[]);
        let place = MirrorPlace {
            mirror: heir.clone(),
            tree: tree.clone(),
            moved_from: Some(was.tree.clone()),
            ..was
        };
        for _ in 0..2 {
            master.assign(place.clone()).await;
            let reports = master.mirrors.reports().subscribe().borrow().clone();
            assert!(reports[&heir].filled && reports.len() == 1, "{reports:?}");
        }
        let spec = MirrorPull { mirror: heir, tree: tree.clone(), ..scene.spec(6, &[]) };
        assert!(!master.pull(spec).await.changed);
        // Who had it has nothing left to remove.
        let release = MirrorRelease { mirror: mirror(), delete: Some(tree.clone()) };
        let released = master.mirrors.release(release, &Output::default()).await;
        assert!(released.message.contains("kept"), "{released:?}");
        scene.assert_same(Path::new(tree.as_str()));
        scene.master.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_fills_a_tree_and_says_so() {
    let scene = Scene::new().await;
    let master = &scene.master;
    let here = |number| master.spec(number, PullFrom::Here, &[]);
    let outcome = master.run(here(1)).await;
    assert_eq!(outcome.kind, OutcomeKind::Failed, "there is no tree");
    fs::create_dir_all(master.tree().join("d")).unwrap();
    fs::remove_dir(master.tree().join("d")).unwrap();
    let (why, _) = master.fail(here(1)).await;
    assert!(why.contains("--allow empty"), "{why}");
    fs::write(master.tree().join("x"), "xyz").unwrap();
    let first = master.pull(here(2)).await;
    assert_eq!((first.changed, first.entries, first.tree_bytes), (true, 1, 3));
    assert!(!master.pull(here(3)).await.changed);
    fs::rename(master.tree().join("x"), master.tree().join("y")).unwrap();
    assert!(master.pull(here(4)).await.changed);
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_leaves_its_trace_and_keeps_it() {
    let scene = Scene::new().await;
    let web1 = Node::start(scene.dir.path(), "web1").await;
    scene.master.listen_to("web1", principal("web1", 1));
    scene.master.assign(scene.master.place(HopKind::Upstream, &["web1"])).await;
    let trace = [("trace", "project/trace")];
    for values in [vec![trace[0]], vec![trace[0], SNAPSHOT[0]]] {
        let from = || PullFrom::Agent(peer("master1"));
        for number in [1, 2] {
            scene.master.pull(scene.spec(number, &values)).await;
            web1.pull(web1.spec(number, from(), &values)).await;
        }
        let traces = |node: &Node| listed(&node.tree().join("project/trace"));
        assert_eq!(traces(&scene.master), ["master1"]);
        assert_eq!(traces(&web1), ["master1", "web1"]);
        let text = fs::read_to_string(web1.tree().join("project/trace/web1")).unwrap();
        assert!(text.contains("Running on host: web1") && text.contains("Run: 2"), "{text}");
        // It is no change.
        let same = scene.master.pull(scene.spec(3, &values)).await;
        assert!(!same.changed, "{same:?}\n{}", scene.master.log());
    }
    web1.end().await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_to_snapshots_that_was_cut_by_a_crash_is_ended_by_the_next_run() {
    use std::os::unix::fs::symlink;
    for publish in ["snapshot", "direct"] {
        for cut in 0..3 {
            let scene = Scene::new().await;
            let master = &scene.master;
            master.pull(scene.spec(1, &[])).await;
            let at = |name: &str| master.dest().join(name);
            let (tree, first, moving) = (master.tree(), at(".fedora.1"), at(".fedora.moving"));
            match cut {
                // The links are made.
                0 => {
                    symlink(".fedora.1", &moving).unwrap();
                    symlink(".fedora.moving", &first).unwrap();
                }
                // The tree is in between.
                1 => {
                    fs::rename(&tree, &moving).unwrap();
                    symlink(".fedora.moving", &first).unwrap();
                    symlink(".fedora.1", &tree).unwrap();
                }
                // Everything is in its place.
                _ => {
                    fs::rename(&tree, &first).unwrap();
                    symlink(".fedora.moving", &moving).unwrap();
                    symlink(".fedora.1", &tree).unwrap();
                }
            }
            scene.write(&[("news", "news")]);
            master.pull(scene.spec(2, &[("publish", publish)])).await;
            scene.assert_same(&master.tree());
            let expected = match publish {
                "direct" => vec!["fedora"],
                _ => vec![".fedora.1", ".fedora.2", "fedora"],
            };
            assert_eq!(listed(&master.dest()), expected, "{publish} {cut}");
            scene.master.end().await;
        }
    }
}
