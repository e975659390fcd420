//! A primary from its making over crashes, restarts of its agent and a hand-over.

use lockstep_model::cluster::report::Trouble;
use lockstep_model::cluster::{CrashPlan, Goal, Lsn, MemberReport, MemberState, Origin, Term};
use lockstep_model::task::OutcomeKind;

use crate::bed::{Bed, primary, with_id};

#[tokio::test]
async fn a_primary_is_made_and_survives_crashes_as_it_was_told() {
    let bed = Bed::new(&["db1"], &[]);
    let db1 = bed.node("db1").await;
    bed.decide(1, Some(&db1));
    let make = bed.place(&db1, 1, Goal::Primary(primary(Origin::Initdb, CrashPlan::Restart)));
    db1.take(&make).await;
    let report = db1.until_primary(1).await;
    assert_eq!((report.lineage.timeline(), report.released.clone()), (1, None));
    assert!(db1.dir.join("data/standby.signal").exists(), "no start by hand opens it writable");
    db1.write(1).await;

    // Told to start again: the same term, the same timeline, the same rows.
    let before = db1.postmaster();
    let place = with_id(make, &report);
    db1.take(&place).await;
    db1.kill_postmaster();
    db1.until("a crash", |report| report.state != MemberState::Primary).await;
    let report = db1.until_primary(1).await;
    assert_ne!(db1.postmaster(), before);
    assert_eq!(report.lineage.timeline(), 1);
    assert_eq!(db1.rows().await, ["1"]);
    assert!(db1.dir.join("data/standby.signal").exists());

    // Told to give up: attested, with the end of its log, and nothing starts it again.
    db1.write(2).await;
    let goal = Goal::Primary(primary(Origin::Existing, CrashPlan::Release));
    let place = with_id(bed.place(&db1, 1, goal), &report);
    db1.take(&place).await;
    let written: Lsn =
        db1.sql("SELECT pg_current_wal_flush_lsn()").await.unwrap()[0].parse().unwrap();
    db1.kill_postmaster();
    let report =
        db1.until("a release", |r| r.released.as_ref().is_some_and(|r| r.end.is_some())).await;
    let released = report.released.clone().unwrap();
    assert_eq!((released.term, released.clean), (Term(1), false));
    assert!(released.end.unwrap() >= written, "{released:?} {written}");
    assert_eq!((report.state, report.holds), (MemberState::Crashed, None));
    assert!(db1.instance().await.pids().is_empty());

    // A later term makes it primary again, on a timeline of its own.
    bed.decide(2, Some(&db1));
    let goal = Goal::Primary(primary(Origin::Existing, CrashPlan::Restart));
    let place = with_id(bed.place(&db1, 2, goal), &report);
    db1.take(&place).await;
    let report = db1.until_primary(2).await;
    assert_eq!(report.lineage.timeline(), 2);
    assert_eq!(db1.rows().await, ["1", "2"]);
    db1.until("a checkpoint to rewind from", |report| report.rewindable).await;

    // What is older than promised is refused, and changes nothing.
    let stale = bed.place(&db1, 1, Goal::Fenced);
    let outcome = db1.try_take(&stale).await;
    assert_eq!(outcome.kind, OutcomeKind::Failed);
    assert!(outcome.message.contains("promised term 2"), "{}", outcome.message);
    let stranger = lockstep_model::cluster::ClusterPlace {
        system_id: Some(lockstep_model::cluster::SystemId(7)),
        ..place.clone()
    };
    assert_eq!(db1.try_take(&stranger).await.kind, OutcomeKind::Failed);

    // The agent goes and comes back: postgres has not noticed.
    let before = db1.postmaster();
    let db1 = db1.end_agent().await;
    drop(db1);
    let db1 = bed.node("db1").await;
    db1.resume(&place).await;
    db1.until_primary(2).await;
    assert_eq!(db1.postmaster(), before);

    // A clean stop, attested with its end.
    let goal = Goal::HandOver;
    db1.take(&with_id(bed.place(&db1, 2, goal), &report)).await;
    let report = db1
        .until("a clean release", |r| r.released.as_ref().is_some_and(|r| r.term == Term(2)))
        .await;
    let released = report.released.clone().unwrap();
    assert!(released.clean && released.end.is_some(), "{released:?}");
    assert_eq!(report.state, MemberState::Stopped);
    assert!(db1.instance().await.pids().is_empty());
    db1.clean_up().await;
}

#[tokio::test]
async fn fenced_means_no_process_until_it_is_wanted_again() {
    let bed = Bed::new(&["db1"], &[]);
    let db1 = bed.node("db1").await;
    bed.decide(1, Some(&db1));
    let make = bed.place(&db1, 1, Goal::Primary(primary(Origin::Initdb, CrashPlan::Restart)));
    db1.take(&make).await;
    let report = db1.until_primary(1).await;
    db1.take(&with_id(bed.place(&db1, 1, Goal::Fenced), &report)).await;
    let fenced = db1.until("fenced", |report| report.state == MemberState::Fenced).await;
    assert_eq!(fenced.released.as_ref().map(|r| r.term), Some(Term(1)));
    assert!(db1.instance().await.pids().is_empty());
    bed.decide(2, Some(&db1));
    let goal = Goal::Primary(primary(Origin::Existing, CrashPlan::Restart));
    db1.take(&with_id(bed.place(&db1, 2, goal), &fenced)).await;
    db1.until_primary(2).await;
    db1.clean_up().await;
}

/// A small file system in place of a data directory.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=160m,mode=700", "tmpfs"], &at);
        Self(at)
    }

    /// To the last byte, whatever else is written meanwhile.
    fn fill(&self) {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        while ballast.write(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &std::path::Path) {
    let done = std::process::Command::new("mount").args(args).arg(at).status();
    assert!(done.unwrap().success(), "mount {args:?}");
}

#[tokio::test]
async fn a_full_disk_and_a_read_only_one_are_told_apart_from_death() {
    let bed = Bed::new(&["db1"], &[]);
    let db1 = bed.node("db1").await;
    let disk = Disk::mount(db1.dir.join("data"));
    bed.decide(1, Some(&db1));
    let make = bed.place(&db1, 1, Goal::Primary(primary(Origin::Initdb, CrashPlan::Release)));
    db1.take(&make).await;
    let report = db1.until_primary(1).await;
    let place = with_id(make, &report);
    db1.take(&place).await;
    db1.write(1).await;
    let before = db1.postmaster();
    // It writes on into files that are there.
    disk.fill();
    let is_told = |r: &MemberReport| r.warnings.iter().any(|warning| warning.contains("has only"));
    let full = db1.until("a warning", is_told).await;
    assert_eq!((full.state, full.holds), (MemberState::Primary, Some(Term(1))));
    assert_eq!(full.trouble, Trouble::None);
    assert_eq!(db1.rows().await, ["1"]);
    assert_eq!(db1.postmaster(), before);
    disk.free();

    db1.take(&with_id(bed.place(&db1, 1, Goal::Stopped), &report)).await;
    db1.until("its stop", |r| r.state == MemberState::Stopped && r.released.is_some()).await;
    disk.fill();
    db1.until("its trouble", |report| report.trouble == Trouble::DiskFull).await;
    disk.free();
    db1.until("room again", |report| report.trouble == Trouble::None).await;
    mount(&["-o", "remount,ro"], &disk.0);
    let stopped = db1.until("its trouble", |report| report.trouble == Trouble::ReadOnlyFs).await;
    assert_eq!(stopped.state, MemberState::Stopped);
    mount(&["-o", "remount,rw"], &disk.0);
    db1.until("its end", |report| report.trouble == Trouble::None).await;
    db1.clean_up().await;
}
