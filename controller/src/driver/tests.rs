//! The loop over a store whose disk does what a test says.

mod leases;
mod places;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockstep_model::identity::{Role, TokenFor};
use lockstep_model::record::Actor;
use lockstep_model::request::Request;
use lockstep_model::task::{Outcome, OutcomeKind};
use lockstep_model::{KeyHash, TaskId, TokenId};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{ChangesError, Snapshot};

/// A store whose disk does what a test says: it waits for leave, and fails for one user's sake.
struct SlowStore {
    inner: MemoryStore,
    leave: Semaphore,
    /// Commits that wait for leave, or did.
    waiting: AtomicUsize,
}

impl Store for SlowStore {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.inner.snapshot()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Change, CommitError>> {
        async move {
            self.waiting
                .fetch_add(usize::from(self.leave.available_permits() == 0), Ordering::Relaxed);
            self.leave.acquire().await.unwrap().forget();
            let problem = "as the test wants it".to_owned();
            match txn.writes.first().map(|write| write.key().to_string()).as_deref() {
                Some("user/unknown") => Err(CommitError::Unknown { problem }),
                Some("user/large") => Err(CommitError::TooLarge { problem }),
                _ => self.inner.commit(txn).await,
            }
        }
        .boxed()
    }

    fn changes(&self, after: Revision) -> BoxFuture<'_, Result<Vec<Change>, ChangesError>> {
        self.inner.changes(after)
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.compact(upto)
    }
}

struct Bench {
    store: Arc<SlowStore>,
    driver: DriverHandle,
    looping: JoinHandle<Result<(), Fatal>>,
}

async fn bench(commits: usize) -> Bench {
    let store = Arc::new(SlowStore {
        inner: MemoryStore::new(),
        leave: Semaphore::new(commits),
        waiting: AtomicUsize::new(0),
    });
    let (looping, driver) = Driver::load(store.clone(), Connections::default()).await.unwrap();
    Bench { store, driver, looping: tokio::spawn(looping.run()) }
}

fn add(name: &str) -> Ask {
    let request = Request::AddUser { name: name.parse().unwrap(), role: Role::Viewer };
    Ask::new(Actor::Offline, "test", request)
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_ends_the_loop() {
    let Bench { driver, looping, .. } = bench(9).await;
    driver.ask(add("anna")).await.unwrap();
    let refused = driver.ask(add("unknown")).await.unwrap_err();
    assert_eq!(refused.reason, "stopping");
    assert!(matches!(looping.await.unwrap(), Err(Fatal::Unknown(_))));
    assert!(driver.ask(add("bert")).await.is_err(), "nothing goes on from memory");
}

#[tokio::test]
async fn what_the_store_refuses_is_refused_and_the_loop_goes_on() {
    let Bench { driver, looping, .. } = bench(9).await;
    assert_eq!(driver.ask(add("large")).await.unwrap_err().reason, "too_large");
    let done = driver.ask(add("anna")).await.unwrap();
    assert_eq!((done.changed, done.revision), (true, Revision(1)));
    driver.stop().await;
    looping.await.unwrap().unwrap();
    driver.read(|world| assert_eq!(world.users().len(), 1));
}

#[tokio::test]
async fn somebody_else_s_commit_ends_the_loop() {
    let Bench { store, driver, looping } = bench(9).await;
    driver.ask(add("anna")).await.unwrap();
    let base = driver.read(World::revision);
    let (actor, cause) = (Actor::Offline, "other".to_owned());
    let (raise_to, at, writes) = (Revision::ZERO, Timestamp(0), Vec::new());
    store.inner.commit(Txn { base, raise_to, at, actor, cause, writes }).await.unwrap();
    assert!(driver.ask(add("bert")).await.is_err());
    assert!(matches!(looping.await.unwrap(), Err(Fatal::Overtaken(_))));
}

#[tokio::test]
async fn nothing_is_seen_before_it_is_stored_and_a_full_queue_refuses() {
    let Bench { store, driver, looping } = bench(0).await;
    let mut watch = driver.subscribe();
    let first = tokio::spawn({
        let driver = driver.clone();
        async move { driver.ask(add("anna")).await }
    });
    // More than fit behind the one that hangs; all of them are the same request.
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..EVENTS_MAX + BATCH_MAX + 1 {
        let driver = driver.clone();
        waiting.spawn(async move { driver.ask(add("anna")).await });
    }
    let busy = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(busy.unwrap_err().reason, "busy");
    driver.read(|world| assert!(world.users().is_empty()));
    assert!(watch.try_recv().is_err());
    assert!(!first.is_finished());

    store.leave.add_permits(1);
    let done = first.await.unwrap().unwrap();
    assert!(driver.read(|world| world.users().len() == 1));
    assert_eq!(watch.recv().await.unwrap().revision, Revision(1));
    assert_eq!(done.revision, Revision(1));
    while let Some(answer) = waiting.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.is_err() || answer.is_ok_and(|done| !done.changed));
    }
    driver.stop().await;
    let ended = timeout(Duration::from_secs(10), looping).await.expect("the loop stops");
    ended.unwrap().unwrap();
}

async fn join(driver: &DriverHandle, names: &[&str]) {
    for (i, name) in names.iter().enumerate() {
        let (token, secret_sha256) = (name.parse::<TokenId>().unwrap(), [7; 32]);
        let grants = TokenFor::Node { name: node(name), labels: Default::default() };
        let ttl = Millis::from_secs(60);
        let create = Request::CreateToken { id: token.clone(), secret_sha256, grants, ttl };
        let key_hash = KeyHash([u8::try_from(i).unwrap(); 32]);
        let enroll = Request::Enroll { token, secret_sha256, key_hash };
        for request in [create, enroll] {
            driver.ask(Ask::new(Actor::Offline, "test", request)).await.unwrap();
        }
    }
}

fn create_sync(name: &str) -> Ask {
    let request = Request::CreateSync {
        name: name.parse().unwrap(),
        source: format!("master1:/srv/{name}").parse().unwrap(),
        targets: vec![format!("web1:/srv/{name}").parse().unwrap()],
        selected: None,
        paused: false,
        options: Default::default(),
    };
    Ask::new(Actor::Offline, "test", request)
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

#[tokio::test]
async fn tasks_are_children_of_the_span_that_asked_for_them() {
    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let Bench { driver, .. } = bench(99).await;
    join(&driver, &["master1", "web1"]).await;
    let ask = create_sync("webroot");
    driver.ask(Ask { traceparent: Some(TRACEPARENT.to_owned()), ..ask }).await.unwrap();
    // Seen by the one who asked, since the answer comes after planning.
    driver.read(|world| {
        let tasks: Vec<_> = world.tasks().map(|task| &task.value).collect();
        assert!(!tasks.is_empty());
        for task in tasks {
            assert_eq!(task.traceparent.as_deref(), Some(TRACEPARENT), "{task:?}");
        }
    });
    driver
        .ask(Ask::new(
            Actor::Offline,
            "test",
            Request::DeleteSync { sync: "webroot".parse().unwrap() },
        ))
        .await
        .unwrap();
    driver.read(|world| {
        let released = world.live_tasks_of(&node("web1")).next().unwrap();
        assert_eq!(released.value.traceparent, None, "of a request without a span");
    });
}

#[tokio::test]
async fn ends_that_wait_together_are_one_transaction_for_each_node() {
    let Bench { store, driver, .. } = bench(99).await;
    join(&driver, &["master1", "web1"]).await;
    for name in ["a", "b", "c"] {
        driver.ask(create_sync(name)).await.unwrap();
    }
    let before = driver.read(World::revision);
    store.leave.forget_permits(usize::MAX);
    let first = tokio::spawn({
        let driver = driver.clone();
        async move { driver.ask(add("anna")).await }
    });
    // The loop has taken it, and waits for the disk.
    while store.waiting.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let end = |of: &str, id| {
        let outcome = Outcome::new(OutcomeKind::Ok, String::new());
        let actor = Actor::Subject(Subject::Node(node(of)));
        Ask::new(actor, "end", Request::EndTask { node: node(of), id, outcome })
    };
    let live = |of: &str| -> Vec<TaskId> {
        driver.read(|world| world.live_tasks_of(&node(of)).map(|task| task.value.id).collect())
    };
    let (of_master, of_web) = (live("master1"), live("web1"));
    assert!(of_master.len() == 3 && !of_web.is_empty());
    let mut waiting = Vec::new();
    for id in of_master.iter().chain(&of_master[..1]) {
        waiting.push(driver.tell_ahead(end("master1", *id)).await.unwrap().boxed());
    }
    for id in &of_web {
        waiting.push(driver.tell_ahead(end("web1", *id)).await.unwrap().boxed());
    }
    let foreign = driver.tell_ahead(end("web1", of_master[0])).await.unwrap();
    store.leave.add_permits(99);
    first.await.unwrap().unwrap();
    let mut changed = 0;
    for answer in waiting {
        changed += usize::from(answer.await.unwrap().changed);
    }
    assert_eq!(changed, 3 + of_web.len(), "each is ended once");
    assert_eq!(foreign.await.unwrap_err().reason, "not_yours");
    let log = store.inner.changes(before).await.unwrap();
    let ends = log.iter().filter(|change| change.cause == "end");
    let ends: Vec<(String, usize)> =
        ends.map(|change| (change.actor.to_string(), change.writes.len())).collect();
    let want = [("node/master1".to_owned(), 3), ("node/web1".to_owned(), of_web.len())];
    assert_eq!(ends, want);
}
