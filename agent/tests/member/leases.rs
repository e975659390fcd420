//! What becomes of a primary whose lease is not renewed.

use std::sync::Arc;
use std::time::Instant;

use lockstep_model::cluster::{ClusterPlace, CrashPlan, Goal, MemberReport, MemberState, Origin};

use crate::bed::{Bed, LEASE, Node, eventually, primary, with_id};

/// db1, primary in term 1 with a lease; whoever else may be promoted cannot be asked for a promise.
async fn primary_of(bed: &Bed, promotable: &[&str]) -> (Node, ClusterPlace, Arc<MemberReport>) {
    let db1 = bed.node("db1").await;
    bed.decide(1, Some(&db1));
    let mut make = bed.place(&db1, 1, Goal::Primary(primary(Origin::Initdb, CrashPlan::Restart)));
    make.promotable = promotable.iter().map(|name| name.parse().unwrap()).collect();
    db1.take(&make).await;
    let report = db1.until_primary(1).await;
    (db1, make, report)
}

#[tokio::test]
async fn without_grants_it_is_gone_by_the_end_of_its_lease_and_back_with_the_next() {
    let bed = Bed::new(&["db1", "db2"], &[]);
    let (db1, _, report) = primary_of(&bed, &["db1", "db2"]).await;
    bed.decide(1, None);
    let silent = Instant::now();
    db1.until("the lease's end", |report| report.holds.is_none()).await;
    eventually("no process", || db1.sql_is_down()).await;
    assert!(silent.elapsed() < std::time::Duration::from(LEASE), "{:?}", silent.elapsed());
    assert!(db1.instance().await.pids().is_empty());
    bed.decide(1, Some(&db1));
    db1.until_primary(1).await;
    drop(report);
    db1.clean_up().await;
}

#[tokio::test]
async fn alone_it_lives_on_without_the_controller() {
    let bed = Bed::new(&["db1"], &[]);
    let (db1, make, report) = primary_of(&bed, &["db1"]).await;
    let before = db1.postmaster();
    bed.decide(1, None);
    let silent = Instant::now();
    eventually("twice a lease", || silent.elapsed() > 2 * std::time::Duration::from(LEASE)).await;
    assert_eq!(db1.report().unwrap().state, MemberState::Primary);
    assert_eq!(db1.postmaster(), before);
    // The agent alone is gone, and nobody pushes the guard's deadline: what it leaves is ended.
    let place = with_id(make, &report);
    let db1 = db1.end_agent().await;
    eventually("the guard", || db1.sql_is_down()).await;
    let db1 = bed.node("db1").await;
    db1.resume(&place).await;
    db1.until_primary(1).await;
    db1.clean_up().await;
}

#[tokio::test]
async fn an_agent_that_is_stopped_leaves_its_primary_a_longer_lease() {
    let bed = Bed::new(&["db1", "db2"], &[]);
    let (db1, make, report) = primary_of(&bed, &["db1", "db2"]).await;
    let before = db1.postmaster();
    db1.engine.leave(LEASE.into()).await;
    bed.decide(1, None);
    let place = with_id(make, &report);
    let db1 = db1.end_agent().await;
    let gone = Instant::now();
    eventually("twice a lease", || gone.elapsed() > 2 * std::time::Duration::from(LEASE)).await;
    db1.write(1).await;
    // The next run serves on under what the one before was granted, and then renews it.
    let db1 = bed.node("db1").await;
    db1.resume(&place).await;
    db1.until_primary(1).await;
    db1.write(2).await;
    bed.decide(1, Some(&db1));
    eventually("another lease", || gone.elapsed() > 4 * std::time::Duration::from(LEASE)).await;
    assert_eq!(db1.postmaster(), before);
    assert_eq!(db1.rows().await, ["1", "2"]);
    db1.clean_up().await;
}
