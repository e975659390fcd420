//! The runner: slots, superseding, cancelling, outcomes until they are acknowledged.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use lockstep_model::Revision;
use lockstep_model::mirror::{Allow, HopKind, MirrorOptions};
use lockstep_model::task::{MirrorPull, PullFrom, Stage, SyncTarget};

use super::*;

const BOUND: Duration = Duration::from_secs(60);

fn id(revision: u64) -> TaskId {
    TaskId { revision: Revision(revision), n: 0 }
}

fn target(sync: &str) -> TaskSpec {
    let (sync, path) = (sync.parse().unwrap(), "/srv/www".parse().unwrap());
    TaskSpec::SyncTarget(SyncTarget::new(sync, path))
}

fn release(sync: &str) -> TaskSpec {
    TaskSpec::SyncRelease { sync: sync.parse().unwrap() }
}

fn resync(sync: &str) -> TaskSpec {
    TaskSpec::SyncResync { sync: sync.parse().unwrap(), target: "web1".parse().unwrap() }
}

fn pull(mirror: &str) -> TaskSpec {
    TaskSpec::MirrorPull(MirrorPull {
        mirror: mirror.parse().unwrap(),
        number: 1,
        generation: 1,
        tree: "/srv/ftp/tree".parse().unwrap(),
        hop: HopKind::Upstream,
        from: PullFrom::Here,
        stage: Stage::Whole,
        options: MirrorOptions::default(),
        allow: Allow::default(),
        has_password: false,
    })
}

fn offer(revision: u64, spec: TaskSpec) -> Offer {
    let (attempt, run_limit) = (1, Millis(0));
    Offer { id: id(revision), attempt, run_limit, traceparent: String::new(), spec }
}

/// Work whose name says how it goes: `ok…` and `fail…` end at once, `hold…` when stopped, and then
/// only after a while, `panic…` does.
#[derive(Default)]
struct Script {
    alive: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
}

impl Work for Arc<Script> {
    fn carry_out(
        &self,
        spec: TaskSpec,
        stop: CancellationToken,
        output: Output,
    ) -> BoxFuture<'static, Outcome> {
        let script = self.clone();
        async move {
            let slot = spec.slot().to_string();
            let name = slot.split('/').nth(1).unwrap_or_default().to_owned();
            script.begun.fetch_add(1, Ordering::SeqCst);
            let alive = 1 + script.alive.fetch_add(1, Ordering::SeqCst);
            script.most.fetch_max(alive, Ordering::SeqCst);
            output.line(&format!("at work on {name}"));
            let outcome = match name {
                _ if matches!(spec, TaskSpec::SyncRelease { .. }) => Outcome::ok(),
                name if name.starts_with("ok") => Outcome::ok(),
                name if name.starts_with("panic") => panic!("as told"),
                name if name.starts_with("hold") => {
                    stop.cancelled().await;
                    sleep(Duration::from_millis(30)).await;
                    Outcome::new(OutcomeKind::Failed, "killed")
                }
                _ => Outcome::new(OutcomeKind::Failed, "as told"),
            };
            script.alive.fetch_sub(1, Ordering::SeqCst);
            outcome
        }
        .boxed()
    }
}

async fn start(dir: &Path) -> (Runner, Arc<Script>) {
    let script = Arc::new(Script::default());
    let (ledger, damages) = Ledger::open(dir).unwrap();
    assert!(damages.is_empty(), "{damages:?}");
    (Runner::start(ledger, Arc::new(script.clone())).await, script)
}

async fn until(runner: &Runner, reached: impl FnMut(&Arc<Unsettled>) -> bool) -> Arc<Unsettled> {
    let mut unsettled = runner.unsettled();
    let waited = timeout(BOUND, unsettled.wait_for(reached));
    waited.await.expect("it happens in time").unwrap().clone()
}

async fn outcome(runner: &Runner, id: TaskId) -> Outcome {
    let ended = until(runner, |now| matches!(now.get(&id), Some(News::Ended(_)))).await;
    match &ended[&id] {
        News::Ended(outcome) => outcome.clone(),
        News::Live(_) => unreachable!(),
    }
}

#[tokio::test]
async fn a_task_is_accepted_runs_and_is_told_until_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, script) = start(dir.path()).await;
    for (revision, spec, kind) in [
        (1, target("ok1"), OutcomeKind::Ok),
        (2, target("fail"), OutcomeKind::Failed),
        (3, resync("ok2"), OutcomeKind::Ok),
        (4, target("panic"), OutcomeKind::Unknown),
    ] {
        let said = runner.offer(offer(revision, spec)).await;
        assert_eq!(said, News::Live(TaskPhase::Accepted));
        assert_eq!(outcome(&runner, id(revision)).await.kind, kind);
    }
    assert_eq!(runner.in_force().borrow().to_vec(), [target("ok1")]);
    // Offered again, it is answered and not repeated.
    let begun = script.begun.load(Ordering::SeqCst);
    assert_eq!(runner.offer(offer(1, target("ok1"))).await, News::Ended(Outcome::ok()));
    runner.ack(id(1)).await;
    until(&runner, |now| !now.contains_key(&id(1))).await;
    assert_eq!(runner.offer(offer(1, target("ok1"))).await, News::Ended(Outcome::ok()));
    assert_eq!(script.begun.load(Ordering::SeqCst), begun);
    // After a restart what was not acknowledged is still told, and nothing runs again.
    let (runner, script) = start(dir.path()).await;
    assert_eq!(runner.unsettled().borrow().keys().copied().collect::<Vec<_>>(), [2, 3, 4].map(id));
    assert_eq!(runner.in_force().borrow().to_vec(), [target("ok1")]);
    assert_eq!(script.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_newer_task_begins_when_the_older_one_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, script) = start(dir.path()).await;
    for revision in 1..=5 {
        runner.offer(offer(revision, target("hold"))).await;
    }
    until(&runner, |now| now.get(&id(5)) == Some(&News::Live(TaskPhase::Running))).await;
    let stale = runner.offer(offer(4, target("hold"))).await;
    assert!(matches!(stale, News::Ended(Outcome { kind: OutcomeKind::Superseded, .. })));
    runner.offer(offer(6, release("hold"))).await;
    outcome(&runner, id(6)).await;
    assert_eq!(script.most.load(Ordering::SeqCst), 1, "two tasks of one slot were alive at once");
    assert_eq!(runner.unsettled().borrow().len(), 1, "nobody waits for what was superseded");
}

#[tokio::test]
async fn cancelling_and_the_run_limit_end_a_task() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _script) = start(dir.path()).await;
    runner.offer(offer(1, resync("hold1"))).await;
    assert_eq!(runner.cancel(id(1)).await, None);
    let cancelled = outcome(&runner, id(1)).await;
    assert_eq!(cancelled, Outcome::new(OutcomeKind::Cancelled, "cancelled on request"));
    assert_eq!(runner.cancel(id(1)).await, Some(News::Ended(cancelled)));

    runner.offer(Offer { run_limit: Millis(40), ..offer(2, resync("hold2")) }).await;
    let limited = outcome(&runner, id(2)).await;
    assert_eq!(limited, Outcome::new(OutcomeKind::Cancelled, "run limit of 40ms reached"));

    let unknown = runner.cancel(id(9)).await.unwrap();
    assert!(matches!(unknown, News::Ended(Outcome { kind: OutcomeKind::Cancelled, .. })));
}

#[tokio::test]
async fn only_so_many_passes_run_at_once_and_short_work_does_not_wait_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, script) = start(dir.path()).await;
    let passes = PASSES_MAX as u64 + 2;
    for n in 1..=passes {
        runner.offer(offer(n, resync(&format!("hold{n}")))).await;
    }
    let running = |now: &Arc<Unsettled>| {
        now.values().filter(|news| **news == News::Live(TaskPhase::Running)).count()
    };
    until(&runner, |now| running(now) == PASSES_MAX).await;
    runner.offer(offer(99, target("ok"))).await;
    assert_eq!(outcome(&runner, id(99)).await, Outcome::ok());
    assert_eq!(running(&runner.unsettled().borrow()), PASSES_MAX);
    // One that waits is cancelled without ever having begun.
    let begun = script.begun.load(Ordering::SeqCst);
    let waiting = runner
        .unsettled()
        .borrow()
        .iter()
        .find_map(|(id, news)| (*news == News::Live(TaskPhase::Accepted)).then_some(*id));
    runner.cancel(waiting.unwrap()).await;
    assert_eq!(outcome(&runner, waiting.unwrap()).await.kind, OutcomeKind::Cancelled);
    assert_eq!(script.begun.load(Ordering::SeqCst), begun);
}

#[tokio::test]
async fn a_restart_repeats_what_may_be_repeated_and_interrupts_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _script) = start(dir.path()).await;
    runner.offer(offer(1, target("hold"))).await;
    runner.offer(offer(2, resync("hold"))).await;
    until(&runner, |now| now.values().all(|news| *news == News::Live(TaskPhase::Running))).await;
    runner.shut_down(BOUND).await;
    assert_eq!(runner.unsettled().borrow().len(), 2, "a shutdown is no outcome");

    let (runner, script) = start(dir.path()).await;
    let interrupted = outcome(&runner, id(2)).await;
    assert_eq!(interrupted.kind, OutcomeKind::Interrupted);
    let begun = async {
        while script.begun.load(Ordering::SeqCst) != 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, begun).await.expect("the other one begins again");
}

#[tokio::test]
async fn a_pull_is_under_way_once_it_is_accepted_and_waits_for_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _script) = start(dir.path()).await;
    assert_eq!(runner.offer(offer(1, pull("hold"))).await, News::Live(TaskPhase::Running));
    assert_eq!(runner.offer(offer(2, pull("hold"))).await, News::Live(TaskPhase::Accepted));
    until(&runner, |now| now.get(&id(2)) == Some(&News::Live(TaskPhase::Running))).await;
    runner.offer(offer(3, pull("ok"))).await;
    assert_eq!(outcome(&runner, id(3)).await, Outcome::ok());
    // A kill: nobody had a chance to end anything.
    let (runner, script) = start(dir.path()).await;
    assert_eq!(outcome(&runner, id(2)).await.kind, OutcomeKind::Interrupted);
    assert_eq!(outcome(&runner, id(3)).await, Outcome::ok());
    assert_eq!(script.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn output_can_be_read_during_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _script) = start(dir.path()).await;
    runner.offer(offer(1, target("hold"))).await;
    until(&runner, |now| now.get(&id(1)) == Some(&News::Live(TaskPhase::Running))).await;
    let mut following = runner.tail(id(1), true).unwrap();
    let lines = timeout(BOUND, following.read()).await.unwrap();
    assert_eq!(lines.unwrap(), ["at work on hold"]);
    runner.cancel(id(1)).await;
    assert_eq!(timeout(BOUND, following.read()).await.unwrap(), None);
    assert_eq!(runner.tail(id(1), false).unwrap().read().await.unwrap(), ["at work on hold"]);
    assert!(runner.tail(id(2), false).is_none());
    for n in 2..=OUTPUTS_MAX as u64 + 2 {
        runner.offer(offer(n, target("ok"))).await;
        outcome(&runner, id(n)).await;
    }
    assert!(runner.tail(id(1), false).is_none(), "old output is forgotten");
}

#[tokio::test]
async fn a_full_disk_refuses_a_task_and_keeps_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _script) = start(dir.path()).await;
    // A directory in the way of the file: what root sees of a disk that takes nothing.
    std::fs::create_dir(dir.path().join("sync+ok")).unwrap();
    std::fs::write(dir.path().join("sync+ok/x"), "").unwrap();
    let said = runner.offer(offer(1, target("ok"))).await;
    let News::Ended(Outcome { kind: OutcomeKind::Failed, message, .. }) = said else {
        panic!("{said:?}")
    };
    assert!(message.contains("sync+ok") && message.contains("is the disk full"), "{message}");
    assert!(runner.unsettled().borrow().is_empty());
}
