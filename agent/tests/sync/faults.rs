//! Processes killed, disks full, limits reached: a sync heals by itself and never counts as done
//! what is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::Ordering;

use lockstep_agent::journal::{Change, Reader};
use lockstep_model::sync::{DeletePolicy, DeliveryState, EngineState};
use lockstep_model::task::SyncSource;
use tokio_util::sync::CancellationToken;

use crate::fleet::{self, Fleet, SYNC, children, eventually, is_ok, kill};

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
    // By it the file takes many times what it takes to kill somebody.
    fleet.rate.store(256, Ordering::Relaxed);
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
    fleet.rate.store(256, Ordering::Relaxed);
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

/// Bytes of what a receiver writes of `big`.
fn unfinished(fleet: &Fleet) -> Option<u64> {
    let mut entries = fs::read_dir(fleet.www("web1")).unwrap().map(|entry| entry.unwrap());
    let of_big = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".big.");
    entries.find(of_big)?.metadata().ok().map(|found| found.len())
}

/// While it has some megabytes of a file, and nobody is at home from then on.
async fn kill_receiver(fleet: &Fleet) {
    fleet.rate.store(1 << 10, Ordering::Relaxed);
    fs::write(fleet.src("big"), vec![3; 16 << 20]).unwrap();
    eventually("a large unfinished file", || unfinished(fleet).filter(|len| *len > 4 << 20)).await;
    fs::remove_file(fleet.dir.path().join("peers/web1")).unwrap();
    for pid in children(&fleet.dir.path().join("web1"), "--daemon") {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
    }
    fleet.state("web1", DeliveryState::Failing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_receiver_was_writing_goes_whatever_is_kept() {
    let mut fleet = Fleet::new().await;
    fleet.options.delete = DeletePolicy::Never;
    fleet.fill(&["web1"]).await;
    let own = fleet.www("web1").join(".own.a1B2c3");
    fs::write(&own, "somebody else's").unwrap();
    kill_receiver(&fleet).await;
    eventually("it to go", || unfinished(&fleet).is_none().then_some(())).await;
    assert!(own.exists());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_receiver_left_unseen_goes_by_itself() {
    let mut fleet = Fleet::new().await;
    // Comparisons are due once a day; one after a run that broke off is early.
    fleet.master = fleet::hasty_engine(fleet.dir.path(), "master1").await;
    fleet.fill(&["web1"]).await;
    kill_receiver(&fleet).await;
    eventually("what was seen to go", || unfinished(&fleet).is_none().then_some(())).await;
    fs::write(fleet.www("web1").join(".small.a1B2c3"), "smal").unwrap();
    fleet.rate.store(0, Ordering::Relaxed);
    fleet.listen("web1", &fleet.heads["web1"]);
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_comes_back_during_a_delivery_loses_what_it_had() {
    let fleet = Fleet::filled(&["web1"]).await;
    fs::create_dir(fleet.src("d")).unwrap();
    fs::write(fleet.src("d/old"), "1").unwrap();
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    let paused = |paused| fleet.master.apply_source(SyncSource { paused, ..fleet.spec() });
    assert!(is_ok(&paused(true).await));
    fs::remove_dir_all(fleet.src("d")).unwrap();
    let noise: Vec<u8> =
        (0..2u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(fleet.src("big"), noise).unwrap();
    let all_told = || fleet.delivery("web1").filter(|d| d.waiting_paths >= Some(3));
    eventually("the journal to know", all_told).await;
    fleet.rate.store(4 << 10, Ordering::Relaxed);
    assert!(is_ok(&paused(false).await));
    eventually("an rsync", || fleet.children("files-from").first().copied()).await;
    fs::create_dir(fleet.src("d")).unwrap();
    fs::write(fleet.src("d/new"), "2").unwrap();
    fleet.rate.store(0, Ordering::Relaxed);
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
    assert!(failing.last_error.contains("No space left"), "{}", failing.last_error);
    small.remount("size=8m");
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_only_head_did_not_take_is_not_counted_as_delivered() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    fs::create_dir(fleet.www("web1")).unwrap();
    let disk = Tmpfs::mount(&fleet.www("web1"), "size=1m");
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    disk.remount("ro");
    fs::write(fleet.src("later"), "later").unwrap();
    let failing = fleet.state("web1", DeliveryState::Failing).await;
    assert!(failing.last_error.contains("Read-only file system"), "{}", failing.last_error);
    disk.remount("rw");
    fleet.converged("web1").await;
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
async fn heavy_churn_with_kills_converges() {
    const ROUNDS: u32 = 1200;
    let mut fleet = Fleet::filled(&["web1", "web2"]).await;
    // Whole directories go all the time, and nobody is there to be asked.
    fleet.options.delete_limit = None;
    fleet.apply().await;
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
    let fulls = || {
        let journal = fleet.dir.path().join("master1/sync").join(SYNC).join("journal");
        let entries = Reader::after(&journal, 0).read().unwrap();
        entries.iter().filter(|entry| entry.change == Change::Full).count()
    };
    fleet.watching().await;
    let before = fulls();
    signal(rustix::process::Signal::STOP);
    // A create, a modify and a close each.
    for i in 0..queue_max / 3 + 200 {
        fs::write(fleet.src(&format!("f{i}")), "x").unwrap();
    }
    signal(rustix::process::Signal::CONT);
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!(fleet.lsyncd().await, lsyncd);
    assert_eq!(fulls() - before, 1, "one overflow, one full");
    let warnings = fleet.report().unwrap().warnings;
    let told = |word: &str| warnings.iter().any(|line| line.contains(word));
    assert!(told("overflowed once, at 20") && told("sysctl fs.inotify.max_queued_events="));
    fleet.end().await;
}

/// An executable in lsyncd's place.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lsyncd_that_ends_again_and_again_is_tried_ever_more_rarely() {
    let mut fleet = Fleet::new().await;
    let (program, tries) = (fleet.dir.path().join("bad-lsyncd"), fleet.dir.path().join("tries"));
    let child = fleet.dir.path().join("child");
    let text = format!(
        "echo >>{}\nsleep 1000 &\necho $! >{}\necho 'now Error: something is wrong' >&2\nexit 3",
        tries.display(),
        child.display()
    );
    script(&program, &text);
    fs::write(fleet.src("first"), "1").unwrap();
    let lsyncd = program.clone();
    fleet.master = fleet::engine_with(fleet.dir.path(), "master1", |s| s.lsyncd = lsyncd).await;
    fleet.add_head("web1").await;
    fleet.apply().await;
    let started = tokio::time::Instant::now();
    let tried = || fs::read(&tries).map_or(0, |lines| lines.len());
    let failing = || fleet.report().filter(|report| report.engine == EngineState::Failing);
    eventually("the first failure", failing).await;
    eventually("four tries", || {
        let report = fleet.report().unwrap();
        assert_eq!(report.engine, EngineState::Failing, "also while it is tried again");
        assert_eq!(report.problem, "lsyncd: something is wrong");
        (tried() == 4).then_some(())
    })
    .await;
    let took = started.elapsed().as_millis();
    assert!(took >= 3400, "0.5, 1 and 2 s lie between four tries, not {took} ms");
    // What it left behind went with it, every time.
    let left = fs::read_to_string(&child).unwrap();
    let stat = Path::new("/proc").join(left.trim()).join("stat");
    // Who adopts orphans may take its time to bury them.
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    eventually("its child to be gone", || is_gone().then_some(())).await;
    fleet.converged("web1").await;
    script(&program, "exec /usr/bin/lsyncd \"$@\"");
    fleet.watching().await;
    assert_eq!(fleet.report().unwrap().problem, "");
    fs::write(fleet.src("later"), "1").unwrap();
    fleet.converged("web1").await;
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
    let program = fleet.dir.path().join("limited-lsyncd");
    let text = format!(
        "exec unshare -U -r sh -c 'cat {} >/proc/sys/user/max_inotify_watches; \
         exec /usr/bin/lsyncd \"$@\"' lsyncd \"$@\"",
        limit.display()
    );
    script(&program, &text);
    fleet.master = fleet::engine_with(fleet.dir.path(), "master1", |settings| {
        settings.lsyncd = program;
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
pub struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    pub fn mount(at: &std::path::Path, options: &str) -> Self {
        run("mount", &["-t", "tmpfs", "-o", options, "none", at.to_str().unwrap()]);
        Self(at.to_owned())
    }

    pub fn remount(&self, options: &str) {
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
