//! A sync end to end, with real lsyncd and rsync, and with what plain lsyncd gets wrong.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod fleet;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::atomic::Ordering;

use fleet::{Fleet, SYNC, children, differences, eventually, kill};
use lockstep_model::sync::{DeletePolicy, DeliveryState, EngineState};
use lockstep_model::task::OutcomeKind;
use tokio_util::sync::CancellationToken;

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
async fn a_head_that_is_down_holds_nobody_up_and_catches_up() {
    let mut fleet = Fleet::filled(&["web1", "web2"]).await;
    fs::remove_file(fleet.dir.path().join("peers/web2")).unwrap();
    fs::write(fleet.src("meanwhile"), "1").unwrap();
    fleet.converged("web1").await;
    let failing = fleet.state("web2", DeliveryState::Failing).await;
    assert!(failing.last_error.contains("unreachable"), "{}", failing.last_error);
    assert!(failing.acked < fleet.report().unwrap().head);
    let web2 = fleet.heads.remove("web2").unwrap();
    fleet.listen("web2", &web2);
    fleet.heads.insert("web2".into(), web2);
    fleet.converged("web2").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rsync_is_never_taken_for_success() {
    let fleet = Fleet::filled(&["web1"]).await;
    fleet.rate.store(2 << 10, Ordering::Relaxed);
    let noise: Vec<u8> =
        (0..4u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(fleet.src("big"), noise).unwrap();
    for _ in 0..3 {
        let rsync = eventually("an rsync", || fleet.children("files-from").first().copied()).await;
        kill(rsync);
        fleet.state("web1", DeliveryState::Failing).await;
        assert!(!fleet.www("web1").join("big").exists());
    }
    fleet.rate.store(0, Ordering::Relaxed);
    fleet.converged("web1").await;
    // The receiving side dies as well.
    fleet.rate.store(2 << 10, Ordering::Relaxed);
    fs::write(fleet.src("big2"), vec![3; 4 << 20]).unwrap();
    let web1 = fleet.dir.path().join("web1");
    kill(eventually("a receiver", || children(&web1, "--daemon").first().copied()).await);
    fleet.rate.store(0, Ordering::Relaxed);
    let big2 = fleet.www("web1").join("big2");
    eventually("big2", || fs::metadata(&big2).ok().filter(|found| found.len() == 4 << 20)).await;
    fleet.state("web1", DeliveryState::Idle).await;
    // A receiver that is killed leaves its unfinished file; a pass takes it away.
    let (sync, web1) = (SYNC.parse().unwrap(), "web1".parse().unwrap());
    let (progress, _lines) = tokio::sync::mpsc::channel(8);
    let order = fleet.master.resync(&sync, &web1, progress, CancellationToken::new()).await;
    assert!(fleet::is_ok(&order), "{}", order.message);
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_dispatcher_loses_nothing() {
    let fleet = Fleet::filled(&["web1"]).await;
    // A dispatcher that dies of SIGKILL before it has written anything: lsyncd takes that for
    // success and forgets the batch.
    let link = fleet.dir.path().join("master1/sync").join(SYNC).join("lockstep-dispatch");
    let real = fs::read_link(&link).unwrap();
    let script = fleet.dir.path().join("dies");
    let died = fleet.dir.path().join("died");
    fs::write(&script, format!("#!/bin/sh\ncat >/dev/null\n: >{}\nkill -9 $$\n", died.display()))
        .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&script, &link).unwrap();
    fs::write(fleet.src("lost"), "by lsyncd").unwrap();
    eventually("the dispatcher to die", || died.exists().then_some(())).await;
    fs::remove_file(&link).unwrap();
    symlink(real, &link).unwrap();
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_lsyncd_is_started_again() {
    let fleet = Fleet::filled(&["web1"]).await;
    let lsyncd = fleet.lsyncd().await;
    kill(lsyncd);
    eventually("its end to be seen", || fleet.children("/usr/bin/lsyncd").is_empty().then_some(()))
        .await;
    fs::write(fleet.src("unseen"), "while nobody watches").unwrap();
    fleet.converged("web1").await;
    fleet.watching().await;
    assert_ne!(fleet.lsyncd().await, lsyncd);
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
async fn a_full_disk_on_a_head_heals_by_itself() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    fs::create_dir(fleet.www("web1")).unwrap();
    let small = Tmpfs::mount(&fleet.www("web1"), "size=1m");
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    fs::write(fleet.src("big"), vec![1; 2 << 20]).unwrap();
    let failing = fleet.state("web1", DeliveryState::Failing).await;
    assert!(failing.last_error.contains("disk full"), "{}", failing.last_error);
    eventually("the head to say why", || {
        fleet.problem("web1").contains("No space left").then_some(())
    })
    .await;
    small.remount("size=8m");
    fleet.converged("web1").await;
    eventually("the head to be content", || fleet.problem("web1").is_empty().then_some(())).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_cannot_be_written_heals_by_itself() {
    let fleet = Fleet::filled(&["web1"]).await;
    fs::remove_dir_all(fleet.www("web1")).unwrap();
    fs::write(fleet.www("web1"), "a file in the way").unwrap();
    fs::write(fleet.src("later"), "later").unwrap();
    let failing = fleet.state("web1", DeliveryState::Failing).await;
    assert!(failing.last_error.contains("not a directory"), "{}", failing.last_error);
    fs::remove_file(fleet.www("web1")).unwrap();
    eventually("the file", || fleet.www("web1").join("later").exists().then_some(())).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_policies_and_excludes_hold_and_change_live() {
    let mut fleet = Fleet::new().await;
    fleet.options.delete = DeletePolicy::Never;
    fleet.options.excludes = vec!["*.tmp".parse().unwrap(), "/cache".parse().unwrap()];
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
    fleet.options.excludes = vec!["/cache".parse().unwrap()];
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
async fn an_agent_restart_goes_on_where_it_was() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    fs::remove_file(fleet.dir.path().join("peers/web1")).unwrap();
    fs::write(fleet.src("before"), "1").unwrap();
    fleet.state("web1", DeliveryState::Failing).await;
    fleet.master.shut_down().await;
    assert!(fleet.children("").is_empty());
    fs::write(fleet.src("between"), "1").unwrap();
    fleet.master = fleet::engine(fleet.dir.path(), "master1").await;
    let web1 = fleet.heads["web1"].clone();
    fleet.listen("web1", &web1);
    fleet.apply().await;
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_lost_everything_is_filled_again() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    let (sync, web1) = (SYNC.parse().unwrap(), fleet.heads["web1"].clone());
    assert!(fleet::is_ok(&web1.release(&sync).await));
    assert!(fleet.www("web1").join("first").exists(), "release leaves the files");
    fs::remove_dir_all(fleet.www("web1")).unwrap();
    fleet.heads.insert("web1".into(), web1);
    fleet.assign("web1").await;
    fs::write(fleet.src("later"), "1").unwrap();
    fleet.converged("web1").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn heavy_churn_with_kills_converges() {
    const ROUNDS: u32 = 1200;
    let fleet = Fleet::filled(&["web1", "web2"]).await;
    let elsewhere = fleet.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 0..ROUNDS {
        let dir = fleet.src(&format!("d{}/e{}", random(5), random(4)));
        let file = dir.join(format!("f{}", random(6)));
        let other = fleet.src(&format!("d{}", random(5)));
        // Each may fail, for want of what it works on.
        match random(9) {
            0..4 => {
                drop(fs::create_dir_all(&dir).and_then(|()| fs::write(&file, round.to_string())))
            }
            4 => drop(fs::remove_file(&file)),
            5 => drop(fs::remove_dir_all(&dir)),
            6 => drop(fs::rename(&dir, other.join("moved"))),
            7 => drop(fs::remove_dir_all(&dir).and_then(|()| symlink(&elsewhere, &dir))),
            _ => drop(fs::set_permissions(&file, fs::Permissions::from_mode(0o640))),
        }
        if round % 100 == 50 {
            let words = ["files-from", "/usr/bin/lsyncd", "rsync"];
            let word = words[random(3) as usize];
            fleet.children(word).into_iter().take(1).for_each(kill);
            fleet.watching().await;
        }
    }
    fleet.converged("web1").await;
    fleet.converged("web2").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_lsyncd_is_named_and_the_first_fill_still_comes() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "1").unwrap();
    fleet.add_head("web1").await;
    fleet.master = fleet::engine_with(fleet.dir.path(), "master1", |settings| {
        settings.lsyncd = "/nonexistent/lsyncd".into();
    })
    .await;
    fleet.apply().await;
    fleet.converged("web1").await;
    let report = fleet.report().unwrap();
    assert_eq!(report.engine, EngineState::Failing);
    assert_eq!(report.problem, "lsyncd is not installed: apt install lsyncd");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_of_the_kernels_queue_converges() {
    let fleet = Fleet::filled(&["web1"]).await;
    let lsyncd = fleet.lsyncd().await;
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(lsyncd).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    let queue_max = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue_max: u32 = queue_max.trim().parse().unwrap();
    signal(rustix::process::Signal::STOP);
    // A create, a modify and a close each.
    for i in 0..queue_max / 3 + 200 {
        fs::write(fleet.src(&format!("f{i}")), "x").unwrap();
    }
    signal(rustix::process::Signal::CONT);
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!(fleet.lsyncd().await, lsyncd);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_watches_are_named_and_more_of_them_heal() {
    let mut fleet = Fleet::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        fs::create_dir(fleet.src(name)).unwrap();
    }
    let limit = fleet.dir.path().join("limit");
    fs::write(&limit, "3").unwrap();
    let script = fleet.dir.path().join("limited-lsyncd");
    let text = format!(
        "#!/bin/sh\nexec unshare -U -r sh -c 'cat {} >/proc/sys/user/max_inotify_watches; \
         exec /usr/bin/lsyncd \"$@\"' lsyncd \"$@\"\n",
        limit.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    fleet.master = fleet::engine_with(fleet.dir.path(), "master1", |settings| {
        settings.lsyncd = script;
    })
    .await;
    fleet.add_head("web1").await;
    fleet.apply().await;
    eventually("the limit to be named", || {
        fleet.report().filter(|r| r.problem.contains("sysctl fs.inotify.max_user_watches="))
    })
    .await;
    fs::write(&limit, "1000").unwrap();
    fleet.watching().await;
    fs::write(fleet.src("a/later"), "1").unwrap();
    fleet.converged("web1").await;
    fleet.end().await;
}

/// A mount that goes with its guard.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(at: &std::path::Path, options: &str) -> Self {
        run("mount", &["-t", "tmpfs", "-o", options, "none", at.to_str().unwrap()]);
        Self(at.to_owned())
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let status = std::process::Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}
