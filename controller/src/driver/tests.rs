//! The loop over a store whose disk does what a test says.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockstep_model::identity::{Role, TokenFor};
use lockstep_model::record::Actor;
use lockstep_model::request::Request;
use lockstep_model::{KeyHash, TokenId};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{ChangesError, Snapshot};

/// A store whose disk does what a test says: it waits for leave, and fails for one user's sake.
struct SlowStore {
    inner: MemoryStore,
    leave: Semaphore,
}

impl Store for SlowStore {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.inner.snapshot()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Change, CommitError>> {
        async move {
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
    let store = Arc::new(SlowStore { inner: MemoryStore::new(), leave: Semaphore::new(commits) });
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

#[tokio::test]
async fn tasks_are_children_of_the_span_that_asked_for_them() {
    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let Bench { driver, .. } = bench(99).await;
    let node = |name: &str| name.parse::<NodeName>().unwrap();
    for (i, name) in ["master1", "web1"].into_iter().enumerate() {
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
    let create = Request::CreateSync {
        name: "webroot".parse().unwrap(),
        source: "master1:/srv/www".parse().unwrap(),
        targets: vec!["web1:/srv/www".parse().unwrap()],
        selected: None,
        paused: false,
        options: Default::default(),
    };
    let ask = Ask::new(Actor::Offline, "test", create);
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
