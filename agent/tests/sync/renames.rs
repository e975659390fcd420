//! Renames on the source: no content crosses the wire for them, and whatever goes wrong the copy is
//! the same as the source.
#![allow(clippy::panic)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lockstep_model::Millis;
use lockstep_model::sync::{DeletePolicy, DeliveryState};

use crate::fleet::{Fleet, eventually};

const MIB: usize = 1 << 20;

/// Not to be found again in another file's content.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| found.ino())
}

impl Fleet {
    /// Waits until the source is indexed: a renamed file keeps its inode on the target then.
    async fn indexed(&self, head: &str) {
        let www = self.www(head);
        fs::write(self.src("probe-0"), "probe").unwrap();
        for round in 0..40 {
            let [old, new] = [round, round + 1].map(|n| format!("probe-{n}"));
            self.converged(head).await;
            let before = ino(&www.join(&old));
            fs::rename(self.src(&old), self.src(&new)).unwrap();
            self.converged(head).await;
            if ino(&www.join(&new)) == before {
                return;
            }
        }
        panic!("no rename was ever carried over as one");
    }

    async fn sent(&self, head: &str) -> u64 {
        self.state(head, DeliveryState::Idle).await.sent_bytes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_or_directory_is_not_sent_again() {
    let fleet = Fleet::filled(&["web1"]).await;
    fs::create_dir_all(fleet.src("d/sub/deep")).unwrap();
    fs::write(fleet.src("big"), noise(64 * MIB, 1)).unwrap();
    for n in 0..100 {
        fs::write(fleet.src(&format!("d/sub/deep/{n}")), noise(MIB / 8, n)).unwrap();
    }
    fleet.indexed("web1").await;
    let www = fleet.www("web1");
    let before = fleet.sent("web1").await;
    assert!(before > 64 * MIB as u64, "{before}");

    let big = ino(&www.join("big"));
    fs::rename(fleet.src("big"), fleet.src("d/huge")).unwrap();
    fleet.converged("web1").await;
    assert_eq!(ino(&www.join("d/huge")), big);
    let file = fleet.sent("web1").await - before;

    let deep = ino(&www.join("d/sub/deep/7"));
    fs::create_dir(fleet.src("new")).unwrap();
    fs::rename(fleet.src("d"), fleet.src("new/e")).unwrap();
    fleet.converged("web1").await;
    assert_eq!(ino(&www.join("new/e/sub/deep/7")), deep);
    let directory = fleet.sent("web1").await - before - file;
    println!("sent for a file {file} bytes, for a directory of 102 files {directory}");
    assert!(file < 4 << 10 && directory < 32 << 10, "{file} {directory}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_missed_the_steps_before_gets_them_in_order() {
    let fleet = Fleet::filled(&["web1", "web2"]).await;
    fs::write(fleet.src("a"), noise(8 * MIB, 1)).unwrap();
    fleet.indexed("web1").await;
    fleet.converged("web2").await;
    let before = fleet.sent("web2").await;
    let old = ino(&fleet.www("web2").join("a"));
    let door = fleet.dir.path().join("peers/web2");
    fs::rename(&door, fleet.dir.path().join("away")).unwrap();
    for step in [["a", "b"], ["b", "c"]] {
        let [from, to] = step.map(|name| fleet.src(name));
        fs::rename(from, to).unwrap();
        fleet.converged("web1").await;
    }
    fleet.state("web2", DeliveryState::Failing).await;
    fs::rename(fleet.dir.path().join("away"), &door).unwrap();
    fleet.converged("web2").await;
    assert_eq!(ino(&fleet.www("web2").join("c")), old);
    assert!(fleet.sent("web2").await - before < MIB as u64);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pattern_of_renames_converges() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    // All in one batch: what moves between two looks of ours is sent as content.
    fleet.options.delay = Millis(1000);
    fleet.apply().await;
    let fleet = fleet;
    let src = |name: &str| fleet.src(name);
    let write = |name: &str, seed| fs::write(src(name), noise(MIB / 4, seed)).unwrap();
    let rename = |from: &str, to: &str| fs::rename(src(from), src(to)).unwrap();
    for dir in ["live/in", "next/in", "x", "y"] {
        fs::create_dir_all(src(dir)).unwrap();
    }
    let names =
        ["log", "log.1", "log.2", "s1", "s2", "page", "live/in/f", "next/in/f", "x/1", "y/2", "h"];
    for (seed, name) in (1..).zip(names) {
        write(name, seed);
    }
    fs::hard_link(src("h"), src("h2")).unwrap();
    fleet.indexed("web1").await;
    let www = fleet.www("web1");
    let at = |name: &str| ino(&www.join(name));
    let before = fleet.sent("web1").await;
    let was = ["log", "log.1", "log.2", "s1", "s2", "live/in/f", "next/in/f", "x/1", "h"].map(at);

    // lsyncd hears of all of it at once, however long it takes.
    let lsyncd = rustix::process::Pid::from_raw(fleet.lsyncd().await).unwrap();
    let signal = |signal| rustix::process::kill_process(lsyncd, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    // A log that rotates, two that change places, an editor's save, a release that goes live.
    rename("log.2", "log.3");
    rename("log.1", "log.2");
    rename("log", "log.1");
    fs::write(src("log"), "new").unwrap();
    rename("s1", "s.tmp");
    rename("s2", "s1");
    rename("s.tmp", "s2");
    fs::write(src(".page.swp"), "saved").unwrap();
    rename(".page.swp", "page");
    rename("live", "old");
    rename("next", "live");
    // One directory moves and what is in it too; one name comes back as something else.
    rename("x/1", "x/one");
    rename("x", "y/x");
    fs::create_dir(src("x")).unwrap();
    fs::write(src("x/1"), "another").unwrap();
    fs::remove_file(src("y/2")).unwrap();
    // Another link is no rename, and the end of one of two is.
    fs::hard_link(src("h"), src("h3")).unwrap();
    rename("h2", "h4");
    signal(rustix::process::Signal::CONT);
    fleet.converged("web1").await;
    assert_eq!(
        ["log.1", "log.2", "log.3", "s2", "s1", "old/in/f", "live/in/f", "y/x/one", "h"].map(at),
        was
    );
    let sent = fleet.sent("web1").await - before;
    println!("sent {sent} bytes for all of it");
    // The third link's copy is new content on the target.
    assert!(sent < (MIB / 2) as u64, "{sent}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_go_or_is_left_out_stays_where_it_is() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    fleet.options.filters = vec!["- *.own".parse().unwrap()];
    fleet.apply().await;
    fs::create_dir(fleet.src("d")).unwrap();
    fs::write(fleet.src("d/f"), noise(MIB, 1)).unwrap();
    fleet.indexed("web1").await;
    let www = fleet.www("web1");
    let before = ino(&www.join("d/f"));
    fs::write(www.join("d/head.own"), "of the head").unwrap();
    fs::rename(fleet.src("d"), fleet.src("e")).unwrap();
    eventually("the new name", || www.join("e/f").exists().then_some(())).await;
    assert_eq!(ino(&www.join("e/f")), before);
    assert!(www.join("d/head.own").exists());
    fleet.state("web1", DeliveryState::Idle).await;

    fleet.options.delete = DeletePolicy::Never;
    fleet.apply().await;
    fs::rename(fleet.src("e/f"), fleet.src("e/g")).unwrap();
    eventually("the newer name", || www.join("e/g").exists().then_some(())).await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!(ino(&www.join("e/f")), before);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_a_file_changes_with_one_of_them() {
    let fleet = Fleet::filled(&["web1"]).await;
    fs::create_dir(fleet.src("d")).unwrap();
    fs::write(fleet.src("a"), "before").unwrap();
    fs::hard_link(fleet.src("a"), fleet.src("d/b")).unwrap();
    fleet.indexed("web1").await;
    // lsyncd hears of this name alone.
    fs::write(fleet.src("a"), "after that").unwrap();
    fleet.converged("web1").await;
    fleet.end().await;
}
