//! What every backend promises, run on each of them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lockstep_model::identity::{Role, User};
use lockstep_model::record::{Actor, Change, Key, Record, TXN_WRITES_MAX, Txn, Versioned, Write};
use lockstep_model::sync::{Place, Sync, SyncOptions};
use lockstep_model::{Revision, Timestamp};

use super::memory::MemoryStore;
use super::sled::SledStore;
use super::{CHANGES_MAX, ChangesError, CommitError, Snapshot, Store};

pub fn user(name: &str, at: u64) -> Record {
    Record::User(User {
        name: name.parse().unwrap(),
        role: Role::Viewer,
        disabled: false,
        key_hash: None,
        created_at: Timestamp(at),
    })
}

/// A record of about `bytes`, up to some 256 KiB.
pub fn large(name: &str, at: u64, bytes: usize) -> Record {
    let pattern = |n: usize| format!("- {n:04}{}", "x".repeat(994)).parse().unwrap();
    Record::Sync(Sync {
        name: name.parse().unwrap(),
        source: Place { node: "master1".parse().unwrap(), path: "/srv/www".parse().unwrap() },
        targets: Vec::new(),
        selected: None,
        options: SyncOptions {
            filters: (0..bytes / 1000).map(pattern).collect(),
            ..SyncOptions::default()
        },
        paused: false,
        generation: 0,
        comments: Vec::new(),
        created_at: Timestamp(at),
    })
}

pub fn txn(base: Revision, writes: Vec<Write>) -> Txn {
    Txn {
        base,
        raise_to: Revision::ZERO,
        at: Timestamp(7),
        actor: Actor::Offline,
        cause: "test".into(),
        writes,
    }
}

pub async fn commit(store: &dyn Store, writes: Vec<Write>) -> Change {
    let base = store.snapshot().await.unwrap().revision;
    store.commit(txn(base, writes)).await.unwrap()
}

/// Every entry of the log after `after`, page by page.
pub async fn log(store: &dyn Store, after: Revision) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    loop {
        let from = all.last().map_or(after, |change| change.revision);
        let page = store.changes(from).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub fn fold(mut snapshot: Snapshot, changes: &[Change]) -> Snapshot {
    changes.iter().for_each(|change| snapshot.apply(change));
    snapshot
}

/// A whole directory into one that is there.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

async fn is_empty_at_first(store: Arc<dyn Store>) {
    assert_eq!(store.snapshot().await.unwrap(), Snapshot::default());
    assert_eq!(store.changes(Revision::ZERO).await.unwrap(), []);
}

async fn keeps_what_was_committed_in_order(store: Arc<dyn Store>) {
    let first = commit(&*store, vec![Write::Put(user("anna", 1))]).await;
    let second =
        commit(&*store, vec![Write::Put(user("anna", 2)), Write::Put(user("ben", 3))]).await;
    assert_eq!((first.revision, second.revision), (Revision(1), Revision(2)));

    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.revision, Revision(2));
    let anna = &snapshot.records[&user("anna", 2).key()];
    assert_eq!(*anna, Versioned { revision: Revision(2), value: user("anna", 2) });
    assert_eq!(snapshot.records.len(), 2);
    assert_eq!(store.changes(Revision(0)).await.unwrap(), [first, second.clone()]);
    assert_eq!(store.changes(Revision(1)).await.unwrap(), [second]);
    for nothing_newer in [2, 3, u64::MAX] {
        assert_eq!(store.changes(Revision(nothing_newer)).await.unwrap(), []);
    }
}

async fn refuses_another_base_and_writes_nothing(store: Arc<dyn Store>) {
    commit(&*store, vec![Write::Put(user("anna", 1))]).await;
    let before = store.snapshot().await.unwrap();
    for base in [0, 2, u64::MAX] {
        let refused = store.commit(txn(Revision(base), vec![Write::Put(user("eve", 1))])).await;
        assert!(matches!(refused, Err(CommitError::Conflict { at: Revision(1) })), "{refused:?}");
    }
    assert_eq!(store.snapshot().await.unwrap(), before);
    assert_eq!(store.changes(Revision(1)).await.unwrap(), []);
}

async fn lets_one_of_two_writers_win(store: Arc<dyn Store>) {
    let racers = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            store.commit(txn(Revision(0), vec![Write::Put(user(&format!("u{n}"), n))])).await
        })
    });
    let mut won = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(change) => won.push(change),
            Err(refused) => assert!(matches!(refused, CommitError::Conflict { at: Revision(1) })),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(store.snapshot().await.unwrap(), fold(Snapshot::default(), &won));
}

async fn deletes(store: Arc<dyn Store>) {
    let (anna, eve) = (user("anna", 1).key(), user("eve", 1).key());
    commit(&*store, vec![Write::Put(user("anna", 1)), Write::Put(large("webroot", 1, 20_000))])
        .await;
    commit(&*store, vec![Write::Delete(anna.clone()), Write::Delete(eve)]).await;
    let left: Vec<Key> = store.snapshot().await.unwrap().records.into_keys().collect();
    assert_eq!(left, [large("webroot", 1, 0).key()]);
    commit(&*store, vec![Write::Delete(large("webroot", 1, 0).key())]).await;
    assert!(store.snapshot().await.unwrap().records.is_empty());
    commit(&*store, vec![Write::Put(user("anna", 9))]).await;
    assert_eq!(store.snapshot().await.unwrap().records[&anna].revision, Revision(4));
}

async fn keeps_values_of_any_length(store: Arc<dyn Store>) {
    for bytes in [200_000, 1_000, 5_000, 0, 256_000, 4_000] {
        commit(&*store, vec![Write::Put(large("webroot", 1, bytes))]).await;
        let snapshot = store.snapshot().await.unwrap();
        assert_eq!(snapshot.records.len(), 1);
        assert_eq!(
            snapshot.records.into_values().next().unwrap().value,
            large("webroot", 1, bytes)
        );
    }
    assert_eq!(
        fold(Snapshot::default(), &log(&*store, Revision(0)).await),
        store.snapshot().await.unwrap()
    );
}

async fn refuses_what_is_too_large(store: Arc<dyn Store>) {
    let many = (0..=TXN_WRITES_MAX).map(|n| Write::Put(user(&format!("u{n}"), 1))).collect();
    let heavy = (0..20).map(|n| Write::Put(large(&format!("s{n}"), 1, 256_000))).collect();
    for (writes, why) in [(many, "97 writes"), (heavy, "bytes")] {
        let refused = store.commit(txn(Revision(0), writes)).await.unwrap_err();
        assert!(matches!(refused, CommitError::TooLarge { .. }), "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
    assert_eq!(store.snapshot().await.unwrap(), Snapshot::default());
    let most = (0..TXN_WRITES_MAX).map(|n| Write::Put(user(&format!("u{n}"), 1))).collect();
    store.commit(txn(Revision(0), most)).await.unwrap();
}

async fn raises_the_revision(store: Arc<dyn Store>) {
    commit(&*store, vec![Write::Put(user("anna", 1))]).await;
    let jump =
        Txn { raise_to: Revision(5000), ..txn(Revision(1), vec![Write::Put(user("ben", 1))]) };
    let jumped = store.commit(jump).await.unwrap();
    assert_eq!(jumped.revision, Revision(5001));
    let next = commit(&*store, Vec::new()).await;
    assert_eq!(next.revision, Revision(5002));
    assert_eq!(store.changes(Revision(1)).await.unwrap(), [jumped, next]);
}

async fn pages_the_log(store: Arc<dyn Store>) {
    for _ in 0..CHANGES_MAX + 1 {
        let base = store.snapshot().await.unwrap().revision;
        store.commit(txn(base, Vec::new())).await.unwrap();
    }
    assert_eq!(store.changes(Revision(0)).await.unwrap().len(), CHANGES_MAX);
    let revisions: Vec<u64> =
        log(&*store, Revision(0)).await.iter().map(|c| c.revision.0).collect();
    assert_eq!(revisions, (1..=CHANGES_MAX as u64 + 1).collect::<Vec<_>>());
}

async fn compacts_the_log_and_keeps_the_records(store: Arc<dyn Store>) {
    for n in 0..10 {
        commit(&*store, vec![Write::Put(user(&format!("u{n}"), n))]).await;
    }
    let before = store.snapshot().await.unwrap();
    store.compact(Revision(4)).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap(), before);
    let refused = store.changes(Revision(3)).await.unwrap_err();
    assert!(matches!(refused, ChangesError::Compacted { oldest: Revision(4) }), "{refused}");
    let kept: Vec<u64> = log(&*store, Revision(4)).await.iter().map(|c| c.revision.0).collect();
    assert_eq!(kept, [5, 6, 7, 8, 9, 10]);

    // Beyond the end is the end, so that the next entry is not lost.
    store.compact(Revision(99)).await.unwrap();
    assert_eq!(store.changes(Revision(10)).await.unwrap(), []);
    commit(&*store, Vec::new()).await;
    assert_eq!(store.changes(Revision(10)).await.unwrap().len(), 1);
}

macro_rules! on_every_backend {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(std::sync::Arc::new(super::MemoryStore::new())).await;
            })*
        }
        mod sled {
            $(#[tokio::test]
            async fn $case() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::SledStore::create(dir.path()).unwrap();
                super::$case(std::sync::Arc::new(store)).await;
            })*
        }
    };
}

on_every_backend!(
    is_empty_at_first,
    keeps_what_was_committed_in_order,
    refuses_another_base_and_writes_nothing,
    lets_one_of_two_writers_win,
    deletes,
    keeps_values_of_any_length,
    refuses_what_is_too_large,
    raises_the_revision,
    pages_the_log,
    compacts_the_log_and_keeps_the_records,
);
