//! What a sync does while nothing is broken, and what it never does.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::atomic::Ordering;

use lockstep_model::sync::{DeletePolicy, DeliveryState, EngineState};
use lockstep_model::task::OutcomeKind;
use tokio_util::sync::CancellationToken;

use crate::fleet::{self, Fleet, SYNC, children, differences, eventually, kill};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_arrives() {
    let fleet = Fleet::filled(&["web1"]).await;
    let src = |name: &str| fleet.src(name);
    let odd: [&[u8]; 9] = [
        b"new\nline",
        b"#hash",
        b";semi",
        b"-dash",
        b"st*r?[x]",
        b"b\\s\\*",
        b"\xff\xfe",
        b" blank ",
        b"%HOME%",
    ];
    fs::create_dir_all(src("d/e/f")).unwrap();
    for name in odd {
        fs::write(src("").join(OsStr::from_bytes(name)), name).unwrap();
        fs::create_dir(src("d").join(OsStr::from_bytes(name))).unwrap();
        fs::write(src("d").join(OsStr::from_bytes(name)).join("in"), name).unwrap();
    }
    symlink("first", src("link")).unwrap();
    symlink("/nowhere", src("d/dangling")).unwrap();
    fs::write(src("empty"), "").unwrap();
    fs::write(src("big"), vec![7; 3 << 20]).unwrap();
    fleet.converged("web1").await;

    // As long as before, and within one second.
    fs::write(src("first"), "other").unwrap();
    fleet.converged("web1").await;
    fs::write(src("first"), "again").unwrap();
    fs::set_permissions(src("empty"), fs::Permissions::from_mode(0o4711)).unwrap();
    chown(src("big"), Some(12345), Some(54321)).unwrap();
    fs::rename(src("d/e"), src("renamed")).unwrap();
    fs::remove_file(src("link")).unwrap();
    fs::create_dir(src("link")).unwrap();
    fs::write(src("link/in"), "now a directory").unwrap();
    for name in odd {
        fs::remove_dir_all(src("d").join(OsStr::from_bytes(name))).unwrap();
        fs::remove_file(src("").join(OsStr::from_bytes(name))).unwrap();
    }
    fleet.converged("web1").await;

    // A directory full of things gives way to a file, and a tree comes in and goes out whole.
    fs::remove_dir_all(src("link")).unwrap();
    fs::write(src("link"), "a file again").unwrap();
    let outside = fleet.dir.path().join("outside");
    fs::create_dir_all(outside.join("a/b")).unwrap();
    fs::write(outside.join("a/b/c"), "c").unwrap();
    fs::rename(&outside, src("inside")).unwrap();
    fleet.converged("web1").await;
    fs::rename(src("inside"), &outside).unwrap();
    fs::create_dir(src("inside")).unwrap();
    fs::write(src("inside/fresh"), "c").unwrap();
    fleet.converged("web1").await;
    let delivery = fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!((delivery.last_error.as_str(), delivery.lag.0), ("", 0));
    assert!(delivery.sent_bytes > 3 << 20);
    assert_eq!(delivery.acked, fleet.report().unwrap().head);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_come_and_go_while_lsyncd_and_the_others_stay() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    let lsyncd = fleet.lsyncd().await;
    let sent = fleet.delivery("web1").unwrap().sent_bytes;

    fs::create_dir(fleet.www("web2")).unwrap();
    fs::write(fleet.www("web2").join("its own"), "kept by the first fill").unwrap();
    fleet.add_head("web2").await;
    fleet.apply().await;
    fleet.state("web2", DeliveryState::Idle).await;
    assert!(fleet.www("web2").join("its own").exists());
    assert!(fleet.www("web2").join("first").exists());
    assert_eq!(fleet.delivery("web1").unwrap().sent_bytes, sent, "web1 was left alone");

    fleet.targets.retain(|head| head != "web1");
    fleet.apply().await;
    fs::write(fleet.src("later"), "later").unwrap();
    eventually("web2 to have it", || fleet.www("web2").join("later").exists().then_some(())).await;
    assert!(!fleet.www("web1").join("later").exists());
    assert!(fleet.www("web1").join("first").exists(), "what a removed target has stays");
    assert_eq!(fleet.lsyncd().await, lsyncd);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_source_deletes_nothing() {
    let fleet = Fleet::filled(&["web1"]).await;
    for name in ["a", "b"] {
        fs::write(fleet.src(name), name).unwrap();
    }
    fleet.converged("web1").await;
    for name in ["a", "b", "first"] {
        fs::remove_file(fleet.src(name)).unwrap();
    }
    let held = fleet.state("web1", DeliveryState::Held).await;
    assert!(held.last_error.contains("empty"), "{}", held.last_error);
    assert_eq!(fleet.report().unwrap().engine, EngineState::Held);
    // Also by a full pass, ordered or after a restart of lsyncd.
    let (progress, _lines) = tokio::sync::mpsc::channel(8);
    let (sync, web1) = (SYNC.parse().unwrap(), "web1".parse().unwrap());
    let order = fleet.master.resync(&sync, &web1, progress, CancellationToken::new()).await;
    assert_eq!(order.kind, OutcomeKind::Failed, "{}", order.message);
    kill(fleet.lsyncd().await);
    fleet.watching_or_held().await;
    assert!(fleet.www("web1").join("a").exists());
    fs::write(fleet.src("b"), "b is back").unwrap();
    fleet.converged("web1").await;
    assert!(!fleet.www("web1").join("a").exists());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_policies_and_excludes_hold_and_change_live() {
    let mut fleet = Fleet::new().await;
    fleet.options.delete = DeletePolicy::Never;
    fleet.options.filters = vec!["- *.tmp".parse().unwrap(), "- /cache".parse().unwrap()];
    fs::write(fleet.src("first"), "1").unwrap();
    fs::write(fleet.src("x.tmp"), "1").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    let lsyncd = fleet.lsyncd().await;

    let www = fleet.www("web1");
    fs::create_dir(www.join("cache")).unwrap();
    fs::write(www.join("cache/of the head"), "1").unwrap();
    fs::create_dir(fleet.src("cache")).unwrap();
    fs::write(fleet.src("cache/in"), "1").unwrap();
    fs::write(fleet.src("y.tmp"), "1").unwrap();
    fs::remove_file(fleet.src("first")).unwrap();
    fs::write(fleet.src("second"), "1").unwrap();
    eventually("second", || www.join("second").exists().then_some(())).await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert!(www.join("first").exists(), "never deleted");
    assert!(!www.join("x.tmp").exists() && !www.join("y.tmp").exists());
    assert!(!www.join("cache/in").exists());

    fleet.options.delete = DeletePolicy::Always;
    fleet.options.filters = vec!["- /cache".parse().unwrap()];
    fleet.assign("web1").await;
    fleet.apply().await;
    eventually("what was excluded", || www.join("x.tmp").exists().then_some(())).await;
    eventually("the delete", || (!www.join("first").exists()).then_some(())).await;
    fs::remove_dir_all(fleet.src("cache")).unwrap();
    fs::write(fleet.src("third"), "1").unwrap();
    eventually("third", || www.join("third").exists().then_some(())).await;
    assert!(www.join("cache/of the head").exists(), "excluded names are the head's own");
    assert_eq!(fleet.lsyncd().await, lsyncd, "lsyncd was not disturbed");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_repairs_drift_and_can_be_cancelled() {
    let fleet = Fleet::filled(&["web1"]).await;
    let (sync, web1) = (SYNC.parse().unwrap(), "web1".parse().unwrap());
    fs::write(fleet.www("web1").join("drift"), "made on the head").unwrap();
    fs::remove_file(fleet.www("web1").join("first")).unwrap();
    let (progress, mut lines) = tokio::sync::mpsc::channel(64);
    let order = fleet.master.resync(&sync, &web1, progress, CancellationToken::new()).await;
    assert!(fleet::is_ok(&order), "{}", order.message);
    assert_eq!(differences(&fleet.src(""), &fleet.www("web1")), "");
    assert!(lines.recv().await.unwrap().contains('%'));

    fleet.rate.store(512, Ordering::Relaxed);
    fs::write(fleet.src("big"), vec![5; 4 << 20]).unwrap();
    fs::remove_file(fleet.www("web1").join("first")).unwrap();
    let cancel = CancellationToken::new();
    let (progress, _lines) = tokio::sync::mpsc::channel(64);
    let ordered = fleet.master.resync(&sync, &web1, progress, cancel.clone());
    let cancelling = async {
        eventually("the pass", || (!fleet.children("progress2").is_empty()).then_some(())).await;
        cancel.cancel();
    };
    fleet.rate.store(64 << 10, Ordering::Relaxed);
    let (ended, ()) = tokio::join!(ordered, async {
        tokio::time::timeout(fleet::PATIENCE, cancelling).await.unwrap();
    });
    assert!(matches!(ended.kind, OutcomeKind::Cancelled | OutcomeKind::Ok), "{ended:?}");
    fleet.rate.store(0, Ordering::Relaxed);
    eventually("big", || fleet.www("web1").join("big").exists().then_some(())).await;
    let unknown = "web9".parse().unwrap();
    let (progress, _lines) = tokio::sync::mpsc::channel(1);
    let order = fleet.master.resync(&sync, &unknown, progress, CancellationToken::new()).await;
    assert_eq!(order.kind, OutcomeKind::Failed);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_source_gets_in_and_a_withdrawn_assignment_ends_transfers() {
    let fleet = Fleet::filled(&["web1"]).await;
    fleet.rate.store(64, Ordering::Relaxed);
    fs::write(fleet.src("big"), vec![5; 4 << 20]).unwrap();
    let web1 = fleet.dir.path().join("web1");
    eventually("a transfer", || children(&web1, "--daemon").first().copied()).await;
    fleet.heads["web1"].release(&SYNC.parse().unwrap()).await;
    eventually("its end", || children(&web1, "").is_empty().then_some(())).await;
    let failing = fleet.state("web1", DeliveryState::Failing).await;
    assert!(!fleet.www("web1").join("big").exists(), "{}", failing.last_error);
    fleet.rate.store(0, Ordering::Relaxed);

    let mut stranger = fleet::master_principal();
    stranger.key_hash = lockstep_model::KeyHash([9; 32]);
    *fleet.caller.lock().unwrap() = stranger;
    fleet.assign("web1").await;
    let what = "the refusal of another key";
    eventually(what, || fleet.delivery("web1").filter(|d| d.last_error.contains("another key")))
        .await;
    *fleet.caller.lock().unwrap() = fleet::master_principal();
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_confined_to_its_directory_and_direction() {
    let fleet = Fleet::filled(&["web1"]).await;
    let outside = fleet.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s").unwrap();
    symlink(&outside, fleet.www("web1").join("way out")).unwrap();
    let loot = fleet.dir.path().join("loot");
    fs::create_dir(&loot).unwrap();
    let (src, loot_dir) = (fleet.src(""), format!("{}/", loot.display()));
    let src = src.to_str().unwrap();
    let link_dest = format!("--link-dest={}", outside.display());
    let temp_dir = format!("--temp-dir={}", outside.display());
    let cases: [&[&str]; 10] = [
        &["-r", "web1::webroot/", &loot_dir],
        &["-r", "web1::other/", &loot_dir],
        &["-r", src, "web1::other/"],
        &["-r", "--remote-option=--log-file=/tmp/lockstep-pwned", src, "web1::webroot/"],
        &["-r", &link_dest, src, "web1::webroot/"],
        &["-r", &temp_dir, src, "web1::webroot/"],
        &["-r", "--backup", "--backup-dir=/tmp", src, "web1::webroot/"],
        &["-r", "--inplace", src, "web1::webroot/"],
        &["-rX", src, "web1::webroot/"],
        &["-r", "--remove-source-files", "web1::webroot/first", &loot_dir],
    ];
    for args in cases {
        let status = fleet.hostile_rsync(args).await;
        assert!(!status.success(), "{args:?}");
    }
    // These are taken, and stay inside all the same.
    fleet.hostile_rsync(&["-r", src, "web1::webroot/way out/"]).await;
    fleet.hostile_rsync(&["-r", src, "web1::webroot/../outside/"]).await;
    assert_eq!(fs::read_dir(&loot).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(!std::path::Path::new("/tmp/lockstep-pwned").exists());
    fleet.end().await;
}
