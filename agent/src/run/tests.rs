//! The whole agent in one process, against a scripted controller.

use std::net::SocketAddr;
use std::path::Path;

use lockstep_model::HostPort;
use lockstep_model::identity::Subject;
use lockstep_proto::v1;
use lockstep_proto::v1::controller_message::Kind as Say;
use lockstep_transport::identity::disk;
use lockstep_transport::telemetry;
use lockstep_transport::test_ca::{Dates, TestCa};

use super::*;
use crate::scripted::{Controller, PATIENCE};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn config(data_dir: &Path, controller: &HostPort) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        controllers: vec![controller.clone()],
        listen: Some(ANY),
        advertise: Vec::new(),
        health_listen: ANY,
        rsync: None,
        lsyncd: None,
        allow_roots: Vec::new(),
        hook_dir: data_dir.join("hooks"),
        secrets_dir: data_dir.join("secrets"),
        rsyncd_dir: None,
        bandwidth_limit: None,
        watchdog: None,
        mirror_pulls: 1,
        telemetry: telemetry::Options::default(),
    }
}

async fn until(board: &HealthBoard, name: &str, verdict: Verdict, words: &str) {
    let reached = async {
        while !board.get(name).is_some_and(|a| a.verdict == verdict && a.reason.contains(words)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{name} is not {verdict:?} {words:?} but {:?}", board.list());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_force_works_without_a_controller() {
    let mut controller = Controller::start(Arc::new(TestCa::new("prod"))).await;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("agent");
    let node = Subject::Node("web1".parse().unwrap());
    disk::save(&data_dir.join(identity::DIR), &controller.ca.identity(node, Dates::GOOD)).unwrap();
    std::fs::create_dir_all(data_dir.join("ledger")).unwrap();
    std::fs::write(data_dir.join("ledger/sync+old"), "garbage").unwrap();

    let agent = Agent::start(config(&data_dir, &controller.address)).await.unwrap();
    let second = Agent::start(config(&data_dir, &controller.address)).await;
    assert!(matches!(second, Err(RunError::Lock(LockError::Taken { .. }))));

    let mut session = controller.welcomed().await;
    session.keep_beating();
    let [address] = session.hello.addresses.as_slice() else { panic!("{:?}", session.hello) };
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");
    until(&agent.board, "node", Verdict::Serving, "connected").await;
    let warnings = session.warnings().await;
    assert!(warnings.iter().any(|line| line.contains("sync+old")), "{warnings:?}");

    let path = dir.path().join("www").display().to_string();
    let target =
        v1::SyncTarget { sync: "webroot".into(), path, serve: true, ..v1::SyncTarget::default() };
    session
        .say(Say::OfferTask(v1::OfferTask {
            id: "5.0".into(),
            spec: Some(v1::TaskSpec { kind: Some(v1::task_spec::Kind::SyncTarget(target)) }),
            ..v1::OfferTask::default()
        }))
        .await;
    assert_eq!(session.task_end().await, ("5.0".into(), v1::OutcomeKind::Ok, String::new()));
    until(&agent.board, "sync/webroot", Verdict::NotServing, "first complete copy").await;
    agent.stop().await;

    let gone = controller.address.clone();
    drop(controller);
    let agent = Agent::start(config(&data_dir, &gone)).await.unwrap();
    until(&agent.board, "sync/webroot", Verdict::NotServing, "first complete copy").await;
    until(&agent.board, "node", Verdict::Serving, "works without the controller").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_machine_that_never_joined_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = "127.0.0.1:1".parse().unwrap();
    let Err(error) = Agent::start(config(dir.path(), &nobody)).await else { panic!("started") };
    assert!(error.to_string().contains("run lockstep-agent join first"), "{error}");
}
