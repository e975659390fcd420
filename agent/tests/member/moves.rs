//! Two members: a copy, a quorum, a crash with a standby that takes over, and the way back.

use lockstep_model::cluster::{
    ClusterPlace, CrashPlan, Goal, MemberReport, MemberState, Origin, Primary, Quorum, Term,
};

use crate::bed::{Bed, Node, eventually_ok, node, primary, with_id};

fn standby_of(upstream: &str) -> Goal {
    Goal::Standby { upstream: Some(node(upstream)) }
}

fn follows(report: &MemberReport, upstream: &str) -> bool {
    report.state == MemberState::Standby
        && report.upstream.as_ref().is_some_and(|stream| stream.from == node(upstream))
}

/// The first primary, and a standby that streams from it.
async fn pair(bed: &Bed) -> (Node, Node, ClusterPlace, ClusterPlace) {
    let (db1, db2) = (bed.node("db1").await, bed.node("db2").await);
    bed.decide(1, Some(&db1));
    let goal = Goal::Primary(primary(Origin::Initdb, CrashPlan::Restart));
    db1.take(&bed.place(&db1, 1, goal.clone())).await;
    let made = db1.until_primary(1).await;
    db1.write(1).await;
    let first = with_id(bed.place(&db1, 1, goal), &made);
    db1.take(&first).await;
    let second = with_id(bed.place(&db2, 1, standby_of("db1")), &made);
    db2.take(&second).await;
    db2.until("a stream", |report| follows(report, "db1")).await;
    let report = db2.report().unwrap();
    assert_eq!((report.copy, report.system_id), (1, made.system_id));
    assert_eq!(db2.rows().await, ["1"]);
    (db1, db2, first, second)
}

fn with_quorum(place: &ClusterPlace, of: &[&str], crash: CrashPlan) -> ClusterPlace {
    let quorum = Quorum { k: 1, of: of.iter().map(|name| node(name)).collect() };
    let goal = Goal::Primary(Primary { quorum, ..primary(Origin::Existing, crash) });
    ClusterPlace { goal, ..place.clone() }
}

#[tokio::test]
async fn a_standby_takes_over_after_a_crash_and_the_old_primary_follows_it() {
    let bed = Bed::new(&["db1", "db2"], &[]);
    let (db1, db2, first, _) = pair(&bed).await;
    let synced = with_quorum(&first, &["db2"], CrashPlan::Release);
    db1.take(&synced).await;
    let wanted = Quorum { k: 1, of: [node("db2")].into() };
    db1.until("the quorum", |report| report.quorum.as_ref() == Some(&wanted)).await;
    db1.write(2).await;

    db1.kill_postmaster();
    let dead = db1.until("a release", |r| r.released.is_some() && r.holds.is_none()).await;
    assert_eq!(dead.released.as_ref().unwrap().term, Term(1));

    // Sealed: it receives nothing, and its position has every acknowledged commit.
    let seal = with_id(bed.place(&db2, 2, Goal::Sealed { salvage: None }), &dead);
    db2.take(&ClusterPlace { promotable: vec![node("db2")], ..seal }).await;
    let sealed = db2.until("a seal", |r| r.state == MemberState::Sealed && r.term == Term(2)).await;
    assert!(sealed.upstream.is_none() && sealed.lsn.is_some());
    // Its guard is there before it is asked for, and ends nothing.
    eventually_ok("a guard", async || db2.guard().await == Some(None)).await;
    bed.decide(2, Some(&db2));
    let at_least = sealed.lsn.unwrap();
    let goal = Primary { at_least, ..primary(Origin::Existing, CrashPlan::Restart) };
    let promoted = with_id(bed.place(&db2, 2, Goal::Primary(goal)), &sealed);
    db2.take(&promoted).await;
    let leads = db2.until_primary(2).await;
    assert_eq!(leads.lineage.timeline(), 2);
    assert_eq!(db2.rows().await, ["1", "2"]);
    db2.write(3).await;

    // Until the new history is told, the old primary is not started at all.
    let early = with_id(bed.place(&db1, 2, standby_of("db2")), &sealed);
    db1.take(&early).await;
    let leads = db2.until("a checkpoint", |report| report.rewindable).await;
    assert!(db1.instance().await.pids().is_empty());
    let back = with_id(bed.place(&db1, 2, standby_of("db2")), &leads);
    db1.take(&back).await;
    db1.until("the way back", |report| follows(report, "db2")).await;
    let rows = db2.sql("SELECT pg_current_wal_lsn()").await.unwrap()[0].parse().unwrap();
    db1.until("all rows", |report| report.replayed >= Some(rows)).await;
    assert_eq!(db1.rows().await, ["1", "2", "3"]);
    db1.clean_up().await;
    db2.clean_up().await;
}

#[tokio::test]
async fn a_planned_move_loses_nothing_and_needs_no_rewind() {
    let bed = Bed::new(&["db1", "db2"], &[]);
    let (db1, db2, first, second) = pair(&bed).await;
    let goal = Primary { prepare: true, ..primary(Origin::Existing, CrashPlan::Restart) };
    db1.take(&ClusterPlace { goal: Goal::Primary(goal), ..first.clone() }).await;
    db1.until("a checkpoint", |report| report.prepared).await;
    db1.take(&ClusterPlace { goal: Goal::HandOver, ..first }).await;
    let stopped = db1.until("a release", |r| r.released.as_ref().is_some_and(|r| r.clean)).await;
    let end = stopped.released.as_ref().unwrap().end.unwrap();
    db2.until("the last record", |report| report.lsn >= Some(end)).await;
    bed.decide(2, Some(&db2));
    let goal = Primary { at_least: end, ..primary(Origin::Existing, CrashPlan::Restart) };
    db2.take(&ClusterPlace { term: Term(2), goal: Goal::Primary(goal), ..second }).await;
    let leads = db2.until_primary(2).await;
    db1.take(&with_id(bed.place(&db1, 2, standby_of("db2")), &leads)).await;
    // It streams a moment before it is asked which history it streams.
    let back = |report: &MemberReport| follows(report, "db2") && report.lineage.timeline() == 2;
    db1.until("the way back", back).await;
    db1.clean_up().await;
    db2.clean_up().await;
}

#[tokio::test]
async fn peers_carry_a_primary_over_the_loss_of_the_controller() {
    let bed = Bed::new(&["db1", "db2"], &[]);
    let (db1, db2, mut first, _) = pair(&bed).await;
    first.promotable = vec![node("db1"), node("db2")];
    db1.take(&first).await;
    let before = db1.postmaster();
    bed.decide(1, None);
    let silent = std::time::Instant::now();
    let long = 2 * std::time::Duration::from(crate::bed::LEASE);
    crate::bed::eventually("twice a lease", || silent.elapsed() > long).await;
    assert_eq!(db1.report().unwrap().state, MemberState::Primary);
    assert_eq!(db1.postmaster(), before);
    // It promised: a later term waits for the promise's end, and ends the promises.
    let report = db2.report().unwrap();
    let seal = with_id(bed.place(&db2, 2, Goal::Sealed { salvage: None }), &report);
    let asked = std::time::Instant::now();
    db2.take(&seal).await;
    assert!(asked.elapsed() > std::time::Duration::from_millis(500), "{:?}", asked.elapsed());
    crate::bed::eventually("the old primary's end", || db1.sql_is_down()).await;
    db1.clean_up().await;
    db2.clean_up().await;
}

#[tokio::test]
async fn a_primary_that_was_started_again_shows_nothing_that_its_standby_lacks() {
    let bed = Bed::new(&["db1", "db2"], &[("hba", "local all app trust")]);
    let (db1, db2, first, second) = pair(&bed).await;
    let synced = with_quorum(&first, &["db2"], CrashPlan::Restart);
    db1.take(&synced).await;
    let wanted = Quorum { k: 1, of: [node("db2")].into() };
    db1.until("the quorum", |report| report.quorum.as_ref() == Some(&wanted)).await;
    db1.sql("CREATE ROLE app LOGIN; GRANT SELECT ON rows TO app").await.unwrap();
    const ROWS: &str = "SELECT id FROM rows ORDER BY id";
    assert_eq!(db1.sql_as("app", ROWS).await, Ok(vec!["1".to_owned()]));
    db2.take(&ClusterPlace { goal: Goal::Stopped, ..second.clone() }).await;
    db2.until("its stop", |report| report.state == MemberState::Stopped).await;

    // Committed, and acknowledged to nobody: the crash makes it visible.
    let waits = async {
        const WAITS: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        crate::bed::eventually_ok("a commit that waits", async || {
            !db1.sql(WAITS).await.unwrap().is_empty()
        })
        .await;
        assert_eq!(db1.sql_as("app", ROWS).await, Ok(vec!["1".to_owned()]));
        db1.kill_postmaster();
    };
    let (written, ()) = tokio::join!(db1.sql("INSERT INTO rows VALUES (2)"), waits);
    assert!(written.is_err(), "{written:?}");
    let is_closed =
        |r: &MemberReport| r.warnings.iter().any(|warning| warning.contains("lets nobody in"));
    db1.until("its return", |r| r.state == MemberState::Primary && is_closed(r)).await;
    assert_eq!(db1.rows().await, ["1", "2"]);
    let refused = db1.sql_as("app", ROWS).await.unwrap_err();
    assert!(refused.contains("pg_hba.conf rejects"), "{refused}");
    assert_eq!(db1.engine.writes_until(&"main".parse().unwrap()).0, 0);
    // Another run of the agent does not open it either.
    let db1 = db1.end_agent().await;
    drop(db1);
    let db1 = bed.node("db1").await;
    db1.resume(&synced).await;
    db1.until("another look", |r| r.holds == Some(Term(1)) && is_closed(r)).await;
    assert!(db1.sql_as("app", ROWS).await.is_err());

    db2.take(&second).await;
    db1.until("its opening", |report| !is_closed(report)).await;
    crate::bed::eventually_ok("everybody", async || db1.sql_as("app", ROWS).await.is_ok()).await;
    assert_eq!(db2.rows().await, ["1", "2"]);
    assert!(db1.engine.writes_until(&"main".parse().unwrap()).0 > 0);
    db1.clean_up().await;
    db2.clean_up().await;
}

/// A program whose command line has both words.
fn process(words: [&str; 2]) -> Option<rustix::process::Pid> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let fits = words.iter().all(|word| line.contains(word)) && !line.contains("launch");
        fits.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    pids.filter_map(rustix::process::Pid::from_raw).next()
}

#[tokio::test]
async fn a_copy_tells_how_far_it_is_and_is_broken_off_by_another_goal() {
    let bed = Bed::new(&["db1", "db2"], &[]);
    let (db1, db2) = (bed.node("db1").await, bed.node("db2").await);
    bed.decide(1, Some(&db1));
    let goal = Goal::Primary(primary(Origin::Initdb, CrashPlan::Restart));
    db1.take(&bed.place(&db1, 1, goal.clone())).await;
    let made = db1.until_primary(1).await;
    db1.take(&with_id(bed.place(&db1, 1, goal), &made)).await;
    let follow = with_id(bed.place(&db2, 1, standby_of("db1")), &made);
    db2.take(&follow).await;
    let dir = db2.dir.display().to_string();
    let mut copying = None;
    crate::bed::eventually("pg_basebackup", || {
        copying = process(["pg_basebackup", &dir]);
        copying.is_some()
    })
    .await;
    let copying = copying.unwrap();
    rustix::process::kill_process(copying, rustix::process::Signal::STOP).unwrap();
    // Nothing gets on, and how long it takes is told all the same.
    let took = |report: &MemberReport| report.progress.as_ref().map(|progress| progress.for_ms);
    let first = db2.until("progress", |report| took(report).is_some()).await;
    assert_eq!(first.state, MemberState::Copying);
    db2.until("more of it", |report| took(report) > took(&first)).await;

    // Asked for anew: the one under way ends, and its successor gets through.
    let anew = ClusterPlace { copy: 2, ..follow };
    db2.take(&anew).await;
    crate::bed::eventually("its end", || rustix::process::test_kill_process(copying).is_err())
        .await;
    let done = db2.until("a stream", |report| follows(report, "db1")).await;
    assert_eq!((done.copy, took(&done)), (2, None));
    db1.clean_up().await;
    db2.clean_up().await;
}
