//! The link, against a scripted controller: streams that end, hang, refuse and come back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockstep_model::cluster::{Grant, Renewal};
use lockstep_model::identity::Subject;
use lockstep_model::sync::TargetReport;
use lockstep_model::task::{Outcome, OutcomeKind, TaskSpec};
use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Said;
use lockstep_proto::v1::controller_message::Kind as Say;
use lockstep_transport::identity::disk;
use lockstep_transport::test_ca::{Dates, TestCa};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::identity::DIR;
use crate::ledger::Ledger;
use crate::pg::reports::Board;
use crate::runner::{Output, Work};
use crate::scripted::{Controller, PATIENCE, Session, welcome};

/// Work of which each pass waits to be stopped and all else succeeds.
struct Fake;

impl Work for Fake {
    fn carry_out(
        &self,
        spec: TaskSpec,
        stop: CancellationToken,
        output: Output,
    ) -> BoxFuture<'static, Outcome> {
        async move {
            output.line("at work");
            if let TaskSpec::SyncResync { .. } = spec {
                stop.cancelled().await;
                return Outcome::new(OutcomeKind::Failed, "killed");
            }
            Outcome::ok()
        }
        .boxed()
    }
}

/// An agent's link, with all that it tells in the test's hands.
struct Agent {
    dir: TempDir,
    keeper: Keeper,
    status: watch::Receiver<Status>,
    syncs: watch::Sender<SyncReports>,
    clusters: OfClusters,
    addresses: watch::Sender<Vec<NodeAddress>>,
    _report: watch::Sender<NodeReport>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// The cluster engine's end.
struct OfClusters {
    members: Board,
    renewals: mpsc::Sender<Renewal>,
    granted: mpsc::UnboundedReceiver<Grant>,
    secrets: crate::pg::secrets::Passwords,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    async fn start(ca: &TestCa, controllers: &[&HostPort]) -> Self {
        Self::start_with(ca, controllers, Dates::GOOD).await
    }

    async fn start_with(ca: &TestCa, controllers: &[&HostPort], dates: Dates) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = ca.identity(Subject::Node("web1".parse().unwrap()), dates);
        disk::save(&dir.path().join(DIR), &identity).unwrap();
        Self::run(dir, controllers).await
    }

    async fn run(dir: TempDir, controllers: &[&HostPort]) -> Self {
        let keeper = Keeper::load(&dir.path().join(DIR)).unwrap();
        let (ledger, damages) = Ledger::open(&dir.path().join("ledger")).unwrap();
        assert!(damages.is_empty());
        let runner = Runner::start(ledger, Arc::new(Fake)).await;
        let (memory, damage) = Memory::open(dir.path().join("told"));
        assert!(damage.is_none());
        let report = NodeReport { version: "0.1.0".into(), ..NodeReport::default() };
        let (report_tx, report) = watch::channel(report);
        let (syncs_tx, syncs) = watch::channel(SyncReports::default());
        let (addresses_tx, addresses) = watch::channel(vec!["10.0.0.7:7402".parse().unwrap()]);
        let (_, mirrors) = watch::channel(MirrorReports::new());
        let passwords = Passwords::default();
        let (renewals, renewed) = mpsc::channel(64);
        let (grants, granted) = mpsc::unbounded_channel();
        let members = Board::default();
        let clusters = Clusters {
            reports: members.subscribe(),
            renewals: Arc::new(tokio::sync::Mutex::new(renewed)),
            granted: Arc::new(move |grant| grants.send(grant).unwrap()),
            passwords: crate::pg::secrets::Passwords::default(),
        };
        let secrets = clusters.passwords.clone();
        let logs = Logs::new(dir.path().join("mirror"));
        let sources =
            Sources { runner, report, syncs, mirrors, passwords, logs, clusters, addresses };
        let controllers = controllers.iter().map(|c| (*c).clone()).collect();
        let link = Link::new(keeper.clone(), sources, memory, controllers, dir.path(), 42);
        let status = link.status();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(link.run(shutdown.clone()));
        let (syncs, addresses, _report) = (syncs_tx, addresses_tx, report_tx);
        let clusters = OfClusters { members, renewals, granted, secrets };
        Self { dir, keeper, status, syncs, clusters, addresses, _report, shutdown, task }
    }

    async fn until(&mut self, reached: impl FnMut(&Status) -> bool) {
        timeout(PATIENCE, self.status.wait_for(reached)).await.expect("in time").unwrap();
    }

    /// Ends as at SIGTERM; what is on disk remains.
    async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        timeout(PATIENCE, &mut self.task).await.expect("the link ends").unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

fn ca() -> Arc<TestCa> {
    Arc::new(TestCa::new("prod"))
}

fn offer(id: &str, kind: v1::task_spec::Kind) -> Say {
    Say::OfferTask(v1::OfferTask {
        id: id.into(),
        attempt: 1,
        revision: 50,
        spec: Some(v1::TaskSpec { kind: Some(kind) }),
        ..v1::OfferTask::default()
    })
}

fn target(sync: &str) -> v1::task_spec::Kind {
    v1::task_spec::Kind::SyncTarget(v1::SyncTarget {
        sync: sync.into(),
        path: "/srv/www".into(),
        serve: true,
        ..v1::SyncTarget::default()
    })
}

fn resync(sync: &str) -> v1::task_spec::Kind {
    v1::task_spec::Kind::SyncResync(v1::SyncResync { sync: sync.into(), target: "web1".into() })
}

fn update(id: &str, state: v1::TaskState) -> Said {
    Said::TaskUpdate(v1::TaskUpdate { id: id.into(), state: state.into() })
}

fn ack(id: &str) -> Say {
    Say::OutcomeAck(v1::OutcomeAck { id: id.into() })
}

async fn expect(session: &mut Session, expected: Said) {
    assert_eq!(session.next().await, Some(expected));
}

#[tokio::test]
async fn a_task_is_told_at_each_step_and_again_after_a_cut_until_it_is_acknowledged() {
    let mut controller = Controller::start(ca()).await;
    let _agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let mut session = controller.welcomed().await;
    assert_eq!(session.hello.addresses, ["10.0.0.7:7402"]);
    assert_eq!(session.hello.features, FEATURES);
    assert_eq!((session.hello.told_incarnation, session.hello.told_revision), (0, 0));
    assert!(session.hello.tasks.is_empty());

    session.say(offer("5.0", target("webroot"))).await;
    expect(&mut session, update("5.0", v1::TaskState::Accepted)).await;
    let end = session.task_end().await;
    assert_eq!(end, ("5.0".into(), v1::OutcomeKind::Ok, String::new()));
    session.say(offer("6.0", resync("webroot"))).await;
    expect(&mut session, update("6.0", v1::TaskState::Accepted)).await;
    expect(&mut session, update("6.0", v1::TaskState::Running)).await;

    controller.cut();
    let mut session = controller.welcomed().await;
    session.keep_beating();
    let running = v1::TaskState::Running.into();
    assert_eq!(session.hello.tasks, [v1::TaskUpdate { id: "6.0".into(), state: running }]);
    assert_eq!((session.hello.told_incarnation, session.hello.told_revision), (7, 50));
    assert_eq!(session.task_end().await.0, "5.0", "the outcome is told again");
    session.say(ack("5.0")).await;
    session.say(Say::CancelTask(v1::CancelTask { id: "6.0".into() })).await;
    let (id, kind, _) = session.task_end().await;
    assert_eq!((id.as_str(), kind), ("6.0", v1::OutcomeKind::Cancelled));

    controller.cut();
    let mut session = controller.welcomed().await;
    session.keep_beating();
    assert_eq!(session.task_end().await.0, "6.0", "what was acknowledged is not told again");
    session.say(ack("6.0")).await;
    session.say(Say::Ping(v1::Ping { nonce: 9 })).await;
    expect(&mut session, Said::Pong(v1::Pong { nonce: 9 })).await;
}

#[tokio::test]
async fn offers_that_cannot_be_taken_are_answered_by_name() {
    let mut controller = Controller::start(ca()).await;
    let _agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let mut session = controller.welcomed().await;
    session.keep_beating();
    session.say(offer("9.0", target("webroot"))).await;
    session.task_end().await;
    session.say(ack("9.0")).await;
    let unknown = v1::OfferTask {
        id: "10.0".into(),
        spec: Some(v1::TaskSpec::default()),
        ..v1::OfferTask::default()
    };
    for (offered, id, kind, words) in [
        (offer("8.0", target("webroot")), "8.0", v1::OutcomeKind::Superseded, "9.0 is newer"),
        (offer("9.0", target("webroot")), "9.0", v1::OutcomeKind::Ok, ""),
        (Say::OfferTask(unknown), "10.0", v1::OutcomeKind::Unsupported, "does not know this kind"),
        (offer("11.0", target("../etc")), "11.0", v1::OutcomeKind::Failed, "sync name"),
    ] {
        session.say(offered).await;
        let (told, outcome, message) = session.task_end().await;
        assert_eq!((told.as_str(), outcome), (id, kind));
        assert!(message.contains(words), "{message}");
    }
    session.say(offer("no number", target("webroot"))).await;
    session.say(Say::Ping(v1::Ping { nonce: 1 })).await;
    expect(&mut session, Said::Pong(v1::Pong { nonce: 1 })).await;
}

#[tokio::test]
async fn a_silent_controller_is_left_and_another_one_found() {
    let ca = ca();
    let mut first = Controller::start(ca.clone()).await;
    let mut second = Controller::start(ca).await;
    let mut agent = Agent::start(&first.ca, &[&first.address]).await;
    let mut session = first.session().await;
    let controllers = vec![second.address.to_string()];
    session.say(Say::Welcome(v1::Welcome { controllers, ..welcome() })).await;
    session.heartbeats(2).await;
    let began = Instant::now();
    let silent = |status: &Status| matches!(status, Status::Away { why } if why.contains("silent"));
    agent.until(silent).await;
    assert!(began.elapsed() < PATIENCE / 2);
    drop(first);
    // It was learnt, and is kept.
    let _session = second.welcomed().await;
    let dir = agent.stop().await;
    let gone = "127.0.0.1:1".parse().unwrap();
    let _agent = Agent::run(dir, &[&gone]).await;
    let session = second.welcomed().await;
    assert_eq!(session.hello.told_incarnation, 7);
}

#[tokio::test]
async fn sync_reports_are_told_latest_first_and_again_on_a_new_stream() {
    let mut controller = Controller::start(ca()).await;
    let agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let mut session = controller.welcomed().await;
    let report = |problem: &str| {
        let report = SyncReport::Target(TargetReport {
            filled: true,
            problem: problem.into(),
            ..Default::default()
        });
        SyncReports::from([("webroot".parse().unwrap(), report)])
    };
    let told = |session: Option<Said>| match session {
        Some(Said::SyncReport(v1::SyncReport { sync, role })) => {
            assert_eq!(sync, "webroot");
            role.map(|role| match role {
                v1::sync_report::Role::Target(report) => report.problem,
                v1::sync_report::Role::Source(_) => panic!("a target's report"),
            })
        }
        other => panic!("{other:?}"),
    };
    for n in 0..1000 {
        agent.syncs.send_replace(report(&format!("problem {n}")));
        tokio::task::yield_now().await;
    }
    let mut count = 1;
    while told(session.next().await) != Some("problem 999".to_owned()) {
        count += 1;
    }
    assert!(count < 20, "{count} of 1000 reports went out");
    controller.cut();
    let mut session = controller.welcomed().await;
    session.keep_beating();
    assert_eq!(told(session.next().await), Some("problem 999".to_owned()));
    agent.syncs.send_replace(SyncReports::default());
    assert_eq!(told(session.next().await), None);
    // Other addresses are told at once, on a new stream.
    agent.addresses.send_replace(vec!["lan=10.0.0.8:7402".parse().unwrap()]);
    let session = controller.welcomed().await;
    assert_eq!(session.hello.addresses, ["lan=10.0.0.8:7402"]);
}

#[tokio::test]
async fn output_is_sent_on_demand() {
    let mut controller = Controller::start(ca()).await;
    let _agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let mut session = controller.welcomed().await;
    session.keep_beating();
    session.say(offer("1.0", resync("webroot"))).await;
    expect(&mut session, update("1.0", v1::TaskState::Accepted)).await;
    expect(&mut session, update("1.0", v1::TaskState::Running)).await;
    let tail = |tail, id: &str, follow, stop| {
        Say::TailOutput(v1::TailOutput { tail, id: id.into(), follow, stop, run: String::new() })
    };
    let output = |tail, lines: &[&str], end| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Said::TaskOutput(v1::TaskOutput { tail, lines, end, missing: String::new() })
    };
    session.say(tail(1, "1.0", true, false)).await;
    expect(&mut session, output(1, &["at work"], false)).await;
    session.say(tail(2, "1.0", false, false)).await;
    expect(&mut session, output(2, &["at work"], false)).await;
    expect(&mut session, output(2, &[], true)).await;
    session.say(tail(3, "7.0", true, false)).await;
    let nothing = "… this node keeps no output of this task";
    expect(&mut session, output(3, &[nothing], true)).await;
    // A reader that was stopped hears no end; one that follows does.
    session.say(tail(4, "1.0", true, false)).await;
    expect(&mut session, output(4, &["at work"], false)).await;
    session.say(tail(4, "", false, true)).await;
    session.say(Say::CancelTask(v1::CancelTask { id: "1.0".into() })).await;
    let mut ends = Vec::new();
    while ends.len() < 2 {
        match session.next().await.unwrap() {
            Said::TaskOutput(v1::TaskOutput { tail, lines, end: true, .. }) if lines.is_empty() => {
                ends.push(format!("output {tail}"));
            }
            Said::TaskEnd(v1::TaskEnd { id, .. }) => ends.push(format!("task {id}")),
            other => panic!("{other:?}"),
        }
    }
    ends.sort();
    assert_eq!(ends, ["output 1", "task 1.0"]);
}

#[tokio::test]
async fn the_log_of_a_run_is_sent_as_far_as_it_is_kept() {
    let mut controller = Controller::start(ca()).await;
    let agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let dir = agent.dir.path().join("mirror/fedora/log");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("17"), "it began\nit ended\n").unwrap();
    let mut session = controller.welcomed().await;
    session.keep_beating();
    let tail = |tail, run: &str| {
        Say::TailOutput(v1::TailOutput { tail, run: run.into(), ..v1::TailOutput::default() })
    };
    session.say(tail(1, "fedora/17")).await;
    let lines = vec!["it began".to_owned(), "it ended".to_owned()];
    let output = v1::TaskOutput { tail: 1, ..v1::TaskOutput::default() };
    expect(&mut session, Said::TaskOutput(v1::TaskOutput { lines, ..output.clone() })).await;
    expect(&mut session, Said::TaskOutput(v1::TaskOutput { end: true, ..output })).await;
    for (number, wrong) in [(2, "fedora/18"), (3, "debian/17")] {
        session.say(tail(number, wrong)).await;
        let Some(Said::TaskOutput(said)) = session.next().await else { panic!("an answer") };
        assert!(said.end && said.lines.is_empty() && said.missing.contains("14 runs"), "{said:?}");
    }
    session.say(tail(4, "../x/1")).await;
    let Some(Said::TaskOutput(said)) = session.next().await else { panic!("an answer") };
    assert!(said.end && said.lines[0].contains("no output"), "{said:?}");
}

#[tokio::test]
async fn an_expelled_agent_stops_asking() {
    let mut controller = Controller::start(ca()).await;
    let mut agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let session = controller.welcomed().await;
    let (reason, message) = ("expelled".into(), "expelled by user/ann".into());
    session.say(Say::Goodbye(v1::Goodbye { reason, message })).await;
    agent.until(|s| *s == Status::Expelled { why: "expelled by user/ann".into() }).await;
    drop(session);
    let again = timeout(Duration::from_secs(1), controller.session()).await;
    assert!(again.is_err(), "it came back at once");
    // A restart does not make it forget; a welcome does.
    let mut agent = Agent::run(agent.stop().await, &[&controller.address]).await;
    assert!(matches!(&*agent.status.borrow(), Status::Expelled { .. }));
    let session = controller.session().await;
    let reject = lockstep_model::Reject::new(
        lockstep_model::Code::PermissionDenied,
        "node_expelled",
        "node/web1",
        "node web1 was expelled",
    );
    session.refuse(lockstep_proto::status::from_reject(&reject)).await;
    agent.until(|s| *s == Status::Expelled { why: "node web1 was expelled".into() }).await;
    let mut agent = Agent::run(agent.stop().await, &[&controller.address]).await;
    let _session = controller.welcomed().await;
    agent.until(|s| matches!(s, Status::Connected { .. })).await;
    let agent = Agent::run(agent.stop().await, &[&controller.address]).await;
    assert!(!matches!(&*agent.status.borrow(), Status::Expelled { .. }));
}

#[tokio::test]
async fn a_controller_of_another_fleet_or_none_at_all_is_named() {
    let (ours, theirs) = (ca(), ca());
    let stranger = Controller::start(theirs).await;
    let mut agent = Agent::start(&ours, &[&stranger.address]).await;
    agent.until(|s| matches!(s, Status::Away { why } if why.contains("root"))).await;
    let mut agent = Agent::start(&ours, &[&"127.0.0.1:1".parse().unwrap()]).await;
    agent.until(|s| matches!(s, Status::Away { why } if why.contains("127.0.0.1:1"))).await;
}

#[tokio::test]
async fn certificates_of_seconds_are_renewed_while_the_stream_goes_on() {
    const SHORT: Dates = Dates { from_secs: -1, to_secs: 5 };
    let mut controller = Controller::start(ca()).await;
    controller.script(|script| script.renew = Ok(SHORT));
    let agent = Agent::start_with(&controller.ca, &[&controller.address], SHORT).await;
    let first = agent.keeper.handle.current().not_after;
    let key = agent.keeper.handle.current().key_hash;
    let mut session = controller.welcomed().await;
    session.keep_beating();
    let keeper = agent.keeper.clone();
    let at = controller.address.clone();
    let keeping = tokio::spawn(async move { keeper.keep(move || vec![at.clone()], 1).await });
    let mut identities = agent.keeper.handle.subscribe();
    // Until the first certificate has run out, and one more was made after that.
    let outlived = identities.wait_for(|now| now.not_before > first);
    timeout(PATIENCE, outlived).await.expect("renewed in time").unwrap();
    session.say(Say::Ping(v1::Ping { nonce: 3 })).await;
    expect(&mut session, Said::Pong(v1::Pong { nonce: 3 })).await;
    let saved = disk::load(&agent.dir.path().join(DIR)).unwrap();
    assert!(saved.not_before > first && saved.key_hash == key);
    // A refusal says what to do and changes nothing.
    controller.script(|script| script.renew = Err(tonic::Status::permission_denied("expelled")));
    let asked = controller.script(|script| script.requests.len());
    let again = async {
        while controller.script(|script| script.requests.len()) == asked {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("it asks again");
    keeping.abort();
    agent.stop().await;
}

#[tokio::test]
async fn new_roots_are_kept_and_roots_that_would_cut_us_off_are_refused() {
    let mut controller = Controller::start(ca()).await;
    let agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let session = controller.welcomed().await;
    session.keep_beating();
    let (ours, other) = (controller.ca.root().to_vec(), ca().root().to_vec());
    let bundle = |roots: &[&Vec<u8>]| {
        Say::TrustBundle(v1::TrustBundle { roots: roots.iter().map(|r| (*r).clone()).collect() })
    };
    session.say(bundle(&[&other])).await;
    session.say(bundle(&[&ours, &other])).await;
    let mut identities = agent.keeper.handle.subscribe();
    let both = identities.wait_for(|now| now.roots().len() == 2);
    timeout(PATIENCE, both).await.expect("taken in time").unwrap();
    assert_eq!(disk::load(&agent.dir.path().join(DIR)).unwrap().roots().len(), 2);
    session.say(bundle(&[&ours])).await;
    let one = identities.wait_for(|now| now.roots().len() == 1);
    timeout(PATIENCE, one).await.expect("taken in time").unwrap();
    assert_eq!(agent.keeper.handle.current().roots()[0].to_vec(), ours);
}

mod clusters;
