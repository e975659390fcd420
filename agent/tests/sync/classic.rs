//! engine=classic: an lsyncd per target, with our wrapper as its rsync. What plain lsyncd gets wrong
//! goes right here too, and targets come, go and fail each by itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use lockstep_agent::journal::Reader;
use lockstep_agent::{classic, dispatch};
use lockstep_model::Millis;
use lockstep_model::sync::options::{DeleteLimit, Engine};
use lockstep_model::sync::{DeliveryState, SyncReport};
use lockstep_model::task::{OutcomeKind, SyncVerify, TaskSpec};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, SYNC, eventually, is_ok, kill};

/// With something in the source and these heads filled, each by an lsyncd of its own.
async fn classic(heads: &[&str]) -> Fleet {
    let mut fleet = Fleet::new().await;
    fleet.options.engine = Engine::Classic;
    fleet.fill(heads).await;
    fleet.watching().await;
    fleet
}

fn unit_dir(fleet: &Fleet, head: &str) -> PathBuf {
    fleet.dir.path().join("master1/sync").join(SYNC).join("classic").join(head)
}

/// The lsyncd of each head that has one.
fn lsyncds(fleet: &Fleet) -> BTreeMap<String, i32> {
    let pid = |head: &String| {
        let config = unit_dir(fleet, head).join("lsyncd.lua");
        fleet.children(config.to_str().unwrap()).first().copied()
    };
    fleet.heads.keys().filter_map(|head| Some((head.clone(), pid(head)?))).collect()
}

/// Those of targets, and all.
async fn lsyncds_become(fleet: &Fleet, wanted: (usize, usize)) {
    let count = || (lsyncds(fleet).len(), fleet.children("/usr/bin/lsyncd").len());
    eventually("an lsyncd each, or one", || (count() == wanted).then_some(())).await;
}

fn is_filled(fleet: &Fleet, head: &str) -> bool {
    let reports = fleet.heads[head].reports().subscribe();
    let report = reports.borrow().get(&SYNC.parse().unwrap()).cloned();
    matches!(report, Some(SyncReport::Target(report)) if report.filled)
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_come_go_and_fail_each_with_an_lsyncd_of_its_own() {
    let mut fleet = classic(&["web1", "web2"]).await;
    assert!(is_filled(&fleet, "web1") && is_filled(&fleet, "web2"));
    let before = lsyncds(&fleet);
    assert_eq!(before.len(), 2);
    fs::create_dir(fleet.src("dir")).unwrap();
    fs::write(fleet.src("dir/x [*]\n"), "x").unwrap();
    fs::rename(fleet.src("first"), fleet.src("renamed")).unwrap();
    fleet.converged("web1").await;
    fleet.converged("web2").await;
    fs::remove_dir_all(fleet.src("dir")).unwrap();
    fleet.converged("web1").await;
    fleet.converged("web2").await;

    // One is down, and its lsyncd waits.
    fs::remove_file(fleet.dir.path().join("peers/web2")).unwrap();
    fs::write(fleet.src("second"), "2").unwrap();
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    let failing = fleet.state("web2", DeliveryState::Failing).await;
    assert!(failing.last_error.contains("unreachable"), "{}", failing.last_error);
    fs::write(fleet.src("third"), "3").unwrap();
    fleet.converged("web1").await;
    let web2 = fleet.heads.remove("web2").unwrap();
    fleet.listen("web2", &web2);
    fleet.heads.insert("web2".into(), web2);
    fleet.converged("web2").await;
    fleet.state("web2", DeliveryState::Idle).await;
    assert_eq!(lsyncds(&fleet), before);

    fleet.add_head("web3").await;
    fleet.apply().await;
    fleet.converged("web3").await;
    fleet.state("web3", DeliveryState::Idle).await;
    let three = lsyncds(&fleet);
    assert_eq!((three["web1"], three["web2"], three.len()), (before["web1"], before["web2"], 3));

    kill(three["web1"]);
    let is_gone = || (!lsyncds(&fleet).values().any(|pid| *pid == three["web1"])).then_some(());
    eventually("its end to be seen", is_gone).await;
    fs::write(fleet.src("unseen"), "while nobody watches for web1").unwrap();
    for head in ["web1", "web2", "web3"] {
        fleet.converged(head).await;
    }
    let again = || lsyncds(&fleet).get("web1").copied();
    assert_ne!(eventually("an lsyncd", again).await, three["web1"]);

    fleet.targets.retain(|head| head != "web2");
    fleet.apply().await;
    let now = lsyncds(&fleet);
    assert_eq!((now.get("web2"), now["web3"]), (None, three["web3"]));
    assert!(!unit_dir(&fleet, "web2").exists());
    fs::write(fleet.src("fourth"), "4").unwrap();
    fleet.converged("web1").await;
    fleet.converged("web3").await;
    assert!(!fleet.www("web2").join("fourth").exists());

    let journal = fleet.dir.path().join("master1/sync").join(SYNC).join(dispatch::JOURNAL);
    assert!(
        Reader::after(&journal, 0).read().unwrap().is_empty(),
        "a journal is none of classic's"
    );
    let (progress, _lines) = mpsc::channel(8);
    let (sync, cancel) = (SYNC.parse().unwrap(), CancellationToken::new());
    let barrier = fleet.master.barrier(&sync, None, None, progress, cancel).await;
    assert!(barrier.message.contains("engine=classic"), "{barrier:?}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_looks_lost_and_removals_above_the_limit_are_held() {
    let mut fleet = classic(&["web1"]).await;
    let away = fleet.dir.path().join("away");
    fs::rename(fleet.src("first"), &away).unwrap();
    let held = fleet.state("web1", DeliveryState::Held).await;
    assert!(held.last_error.contains("is empty"), "{}", held.last_error);
    assert!(fleet.www("web1").join("first").exists());
    fs::rename(&away, fleet.src("first")).unwrap();
    fleet.state("web1", DeliveryState::Idle).await;

    let limit = DeleteLimit { count: Some(10), percent: None, window: Millis(600_000) };
    fleet.options.delete_limit = Some(limit);
    fleet.apply().await;
    fs::create_dir(fleet.src("d")).unwrap();
    for i in 0..20 {
        fs::write(fleet.src(&format!("d/f{i}")), "x").unwrap();
    }
    fleet.converged("web1").await;
    let lsyncd = lsyncds(&fleet)["web1"];
    // In one step, so that no batch takes a part of it.
    fs::rename(fleet.src("d"), fleet.dir.path().join("d-away")).unwrap();
    let held = fleet.state("web1", DeliveryState::Held).await;
    assert!(held.last_error.starts_with("21 entries would be removed"), "{}", held.last_error);
    fs::write(fleet.src("later"), "everything else goes on").unwrap();
    eventually("later", || fleet.www("web1").join("later").exists().then_some(())).await;
    assert!(fleet.www("web1").join("d/f19").exists());
    let (sync, web1) = (SYNC.parse().unwrap(), "web1".parse().unwrap());
    assert!(is_ok(&fleet.master.unhold(&sync, &web1).await));
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!(lsyncds(&fleet)["web1"], lsyncd);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_fail_are_tried_again_and_hold_nobody_up() {
    let fleet = classic(&["web1"]).await;
    fs::create_dir(fleet.src("d")).unwrap();
    fleet.converged("web1").await;
    let d = fleet.www("web1").join("d");
    let chattr = |flag: &str| {
        let status = std::process::Command::new("chattr").arg(flag).arg(&d).status();
        assert!(status.unwrap().success(), "the file system of the tests has no immutable flag");
    };
    chattr("+i");
    fs::write(fleet.src("d/in the way"), "1").unwrap();
    let failing = fleet.state("web1", DeliveryState::Failing).await;
    fs::write(fleet.src("other"), "2").unwrap();
    let other = fleet.www("web1").join("other");
    eventually("other", || other.exists().then_some(())).await;
    chattr("-i");
    assert!(failing.last_error.contains("exit code 23"), "{}", failing.last_error);
    // No event tells lsyncd, which plainly would have forgotten it.
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_wrapper_loses_nothing_and_a_strange_call_is_refused() {
    let fleet = classic(&["web1"]).await;
    let link = unit_dir(&fleet, "web1").join(classic::NAME);
    let real = fs::read_link(&link).unwrap();
    let died = fleet.dir.path().join("died");
    let replace_by = |text: &str| {
        let script = fleet.dir.path().join("script");
        fs::write(&script, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(&script, &link).unwrap();
    };
    let restore = || {
        fs::remove_file(&link).unwrap();
        symlink(&real, &link).unwrap();
    };
    // lsyncd takes it for success and forgets what it told.
    replace_by(&format!("cat >/dev/null\n: >{}\nkill -9 $$", died.display()));
    fs::write(fleet.src("lost"), "by lsyncd").unwrap();
    eventually("the wrapper to die", || died.exists().then_some(())).await;
    restore();
    fleet.converged("web1").await;

    let (name, real) = (link.display(), real.display());
    replace_by(&format!("exec -a {name} {real} --copy-dest=/etc \"$@\""));
    fs::write(fleet.src("strange"), "1").unwrap();
    let refused = || {
        let problem = fleet.report()?.problem;
        problem.contains("--copy-dest=/etc is not in the configuration").then_some(problem)
    };
    let problem = eventually("the call to be refused", refused).await;
    assert!(problem.starts_with("web1: "), "{problem}");
    restore();
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_compared_and_repaired_and_engines_may_be_changed() {
    let mut fleet = classic(&["web1", "web2"]).await;
    fs::write(fleet.www("web1").join("first"), "tampered with").unwrap();
    fs::write(fleet.src("just written"), "no drift").unwrap();
    let (progress, mut lines) = mpsc::channel(64);
    let order = TaskSpec::SyncVerify(SyncVerify {
        sync: SYNC.parse().unwrap(),
        target: "web1".parse().unwrap(),
        content: false,
        repair: true,
        paths: vec![],
    });
    let outcome = fleet.master.run(order, progress, CancellationToken::new()).await;
    assert_eq!(outcome.kind, OutcomeKind::Ok, "{}", outcome.message);
    let mut told = Vec::new();
    while let Ok(line) = lines.try_recv() {
        told.extend((!line.starts_with("compared ")).then_some(line));
    }
    assert!(matches!(&told[..], [one] if one.contains("first")), "{told:?}");
    fleet.converged("web1").await;

    fleet.options.engine = Engine::Journal;
    fleet.apply().await;
    lsyncds_become(&fleet, (0, 1)).await;
    fs::write(fleet.src("by journal"), "1").unwrap();
    fleet.converged("web1").await;
    fleet.options.engine = Engine::Classic;
    fleet.apply().await;
    lsyncds_become(&fleet, (2, 2)).await;
    fs::write(fleet.src("by lsyncds"), "1").unwrap();
    for head in ["web1", "web2"] {
        fleet.converged(head).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_written_under_a_name_that_is_gone_arrives_under_its_others() {
    let fleet = classic(&["web1", "web2"]).await;
    fs::hard_link(fleet.src("first"), fleet.src("other")).unwrap();
    for head in ["web1", "web2"] {
        fleet.converged(head).await;
        fleet.state(head, DeliveryState::Idle).await;
    }
    fs::write(fleet.src("other"), "written under it").unwrap();
    fs::remove_file(fleet.src("other")).unwrap();
    for head in ["web1", "web2"] {
        fleet.converged(head).await;
    }
    fleet.end().await;
}
