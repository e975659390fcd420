//! Syncs that follow symlinks: what these point to arrives when it changes, wherever it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lockstep_agent::journal::{Change, Reader};
use lockstep_model::sync::options::{Engine, Symlinks};

use crate::fleet::{Fleet, SYNC, eventually};

/// Puts another link in a link's place in one step.
fn point(link: &Path, to: &str) {
    let fresh = link.with_extension("new");
    symlink(to, &fresh).unwrap();
    fs::rename(fresh, link).unwrap();
}

async fn arrives(path: PathBuf, content: &str) {
    let what = format!("{} to be {content:?}", path.display());
    eventually(&what, || fs::read_to_string(&path).is_ok_and(|t| t == content).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_links_point_to_is_watched() {
    follow(Engine::Journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_links_point_to_is_watched_beside_an_lsyncd_per_target() {
    follow(Engine::Classic).await;
}

async fn follow(engine: Engine) {
    let mut fleet = Fleet::new().await;
    fleet.options.engine = engine;
    fleet.options.transfer.symlinks = Symlinks::Follow;
    let dir = fleet.dir.path().to_owned();
    let out = |name: &str| dir.join("out").join(name);
    let www = |name: &str| dir.join("web1-www").join(name);
    for dir in ["one/sub", "two", "late"] {
        fs::create_dir_all(out(dir)).unwrap();
    }
    for (name, text) in [("one/sub/a", "1"), ("two/b", "2"), ("file", "3"), ("late/c", "4")] {
        fs::write(out(name), text).unwrap();
    }
    symlink("one", out("now")).unwrap();
    symlink("../out/now", fleet.src("app")).unwrap();
    symlink(out("file"), fleet.src("file")).unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.watching().await;
    arrives(www("app/sub/a"), "1").await;
    arrives(www("file"), "3").await;
    let fulls = || {
        let journal = dir.join("master1/sync").join(SYNC).join("journal");
        let entries = Reader::after(&journal, 0).read().unwrap();
        entries.iter().filter(|entry| entry.change == Change::Full).count()
    };
    let before = fulls();

    // No later pass is needed for any of these.
    fs::write(out("one/sub/a"), "11").unwrap();
    arrives(www("app/sub/a"), "11").await;
    fs::write(out("fresh"), "33").unwrap();
    fs::rename(out("fresh"), out("file")).unwrap();
    arrives(www("file"), "33").await;
    fs::create_dir_all(out("one/x/y")).unwrap();
    fs::write(out("one/x/y/z"), "5").unwrap();
    arrives(www("app/x/y/z"), "5").await;
    fs::write(out("one/x/y/z"), "55").unwrap();
    arrives(www("app/x/y/z"), "55").await;
    fs::remove_dir_all(out("one/x")).unwrap();
    eventually("it to be gone", || (!www("app/x").exists()).then_some(())).await;
    // The link that a link of the source leads through.
    point(&out("now"), "two");
    arrives(www("app/b"), "2").await;
    eventually("the old one to be gone", || (!www("app/sub").exists()).then_some(())).await;
    fs::write(out("two/b"), "22").unwrap();
    arrives(www("app/b"), "22").await;
    // A link that comes later, and something that comes to it.
    symlink(out("late"), fleet.src("late")).unwrap();
    arrives(www("late/c"), "4").await;
    fs::write(out("late/c"), "44").unwrap();
    arrives(www("late/c"), "44").await;
    fs::remove_file(fleet.src("late")).unwrap();
    eventually("the copy to be gone", || (!www("late").exists()).then_some(())).await;
    assert!(out("late/c").exists());
    assert_eq!(fulls(), before);

    // Kept as links again: nothing outside of the source is of interest.
    fleet.options.transfer.symlinks = Symlinks::Keep;
    fleet.assign("web1").await;
    fleet.apply().await;
    eventually("a link", || www("file").is_symlink().then_some(())).await;
    fleet.end().await;
}
