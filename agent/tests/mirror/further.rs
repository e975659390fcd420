//! Trees that several upstreams fill, each a directory of its own: real daemons, and what each of
//! them may and may not do to the others' files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lockstep_model::mirror::Allow;
use lockstep_model::task::MirrorPull;

use super::fleet::{Daemon, Scene, differences};

/// A daemon of its own with an image.
fn images(dir: &Path) -> Daemon {
    let daemon = Daemon::start(dir, "");
    fs::write(dir.join("up/40.img"), "forty").unwrap();
    daemon
}

/// Work in a directory after which the next run has nothing to do for it.
fn keeping_time<T>(dir: &Path, work: impl FnOnce() -> T) -> T {
    let time = fs::metadata(dir).unwrap().modified().unwrap();
    let result = work();
    fs::File::open(dir).unwrap().set_modified(time).unwrap();
    result
}

fn same(scene: &Scene, images: &Path, below: &str) {
    let tree = scene.master.tree();
    assert_eq!(differences(&images.join("up"), &tree.join(below)), "");
    // All but that directory is the first upstream's.
    let aside = scene.dir.path().join("aside");
    let root = tree.canonicalize().unwrap();
    let top = root.join(below.split('/').next().unwrap());
    let others = keeping_time(&root, || {
        fs::rename(&top, &aside).unwrap();
        let others = differences(&scene.up(""), &tree);
        fs::rename(&aside, &top).unwrap();
        others
    });
    // The time of the directory that it is in was just changed.
    assert!(others.is_empty() || others == ".d..t...... ./\n", "{others}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_fills_its_own_directory_and_touches_no_other() {
    for publish in ["direct", "snapshot"] {
        for delete in ["after", "before", "excluded"] {
            let scene = Scene::new().await;
            let dir = scene.dir.path().join("images");
            let daemon = images(&dir);
            let further = format!("iso=rsync://127.0.0.1:{}/m", daemon.port);
            let values =
                [("further-upstream", &*further), ("publish", publish), ("delete", delete)];
            // What the first one has by that name is never brought.
            scene.write(&[("iso", "a file of the first upstream")]);
            let pulled = scene.master.pull(scene.spec(1, &values)).await;
            keeping_time(&scene.up(""), || fs::remove_file(scene.up("iso")).unwrap());
            same(&scene, &dir, "iso");
            assert!(pulled.changed, "{pulled:?}");
            // dists, Release, a, d, d/b, d/e, d/e/c, l; and the image.
            assert_eq!((pulled.entries, pulled.files), (9, 5), "{pulled:?}");

            let again = scene.master.pull(scene.spec(2, &values)).await;
            assert_eq!((again.changed, again.entries), (false, 9), "{again:?}");
            // Either of them has something new, or less.
            fs::write(dir.join("up/41.img"), "forty-one").unwrap();
            fs::remove_file(dir.join("up/40.img")).unwrap();
            assert!(scene.master.pull(scene.spec(3, &values)).await.changed);
            same(&scene, &dir, "iso");
            scene.write(&[("news", "news")]);
            fs::remove_file(scene.up("d/b")).unwrap();
            let pulled = scene.master.pull(scene.spec(4, &values)).await;
            assert_eq!((pulled.changed, pulled.deleted), (true, 1), "{pulled:?}");
            same(&scene, &dir, "iso");
            scene.master.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_one_upstream_is_named_and_is_the_runs() {
    let scene = Scene::new().await;
    let dir = scene.dir.path().join("images");
    let daemon = images(&dir);
    let further = format!("images/iso=rsync://127.0.0.1:{}/m", daemon.port);
    let values = [("further-upstream", &*further)];
    scene.master.pull(scene.spec(1, &values)).await;
    same(&scene, &dir, "images/iso");
    // Empty all at once.
    fs::remove_file(dir.join("up/40.img")).unwrap();
    let (why, _) = scene.master.fail(scene.spec(2, &values)).await;
    assert!(why.starts_with("images/iso: ") && why.contains("--allow empty"), "{why}");
    assert!(scene.master.tree().join("images/iso/40.img").exists());
    let allow = Allow { empty: true, delete: true, ..Allow::default() };
    scene.master.pull(MirrorPull { allow, ..scene.spec(3, &values) }).await;
    assert!(!scene.master.tree().join("images/iso/40.img").exists());
    // Away.
    drop(daemon);
    scene.write(&[("news", "news")]);
    let (why, pulled) = scene.master.fail(scene.spec(4, &values)).await;
    assert!(why.starts_with("images/iso: ") && why.contains("Connection refused"), "{why}");
    assert!(!pulled.permanent, "{pulled:?}");
    // What the first one brought is told of with the next complete run.
    let allow = Allow { delete: true, ..Allow::default() };
    let pulled = scene.master.pull(MirrorPull { allow, ..scene.spec(5, &[]) }).await;
    assert!(pulled.changed, "{pulled:?}");
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symlink_of_one_upstream_leads_no_other_out_of_the_tree() {
    for publish in ["direct", "snapshot"] {
        let scene = Scene::new().await;
        let dir = scene.dir.path().join("images");
        let daemon = images(&dir);
        let outside = scene.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, scene.up("images")).unwrap();
        // There before anybody fills it.
        scene.master.pull(scene.spec(1, &[("publish", publish)])).await;
        let further = format!("images/iso=rsync://127.0.0.1:{}/m", daemon.port);
        let values = [("further-upstream", &*further), ("publish", publish)];
        let (why, _) = scene.master.fail(scene.spec(2, &values)).await;
        assert!(why.contains("is not a directory"), "{why}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        scene.master.end().await;
    }
}
