//! Calls of people: who is let in before anything is looked at, conditions, the log.

use std::time::Duration;

use lockstep_proto::v1;
use lockstep_proto::v1::log_service_client::LogServiceClient;
use lockstep_proto::v1::node_service_client::NodeServiceClient;
use lockstep_proto::v1::status_service_client::StatusServiceClient;
use lockstep_proto::v1::sync_service_client::SyncServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use crate::fleet::{Fleet, PATIENCE, reason};

fn label(node: &str, value: &str) -> v1::LabelNodeRequest {
    let set = [("role".to_owned(), value.to_owned())].into();
    v1::LabelNodeRequest { node: node.to_owned(), set, ..Default::default() }
}

#[tokio::test]
async fn without_a_certificate_nothing_is_looked_at() {
    let fleet = Fleet::start().await;
    let token = fleet.node_token("web1").await;
    let guest = fleet.guest(&token).await;
    // The arguments are wrong, and it is not them that the answer speaks of.
    let mut syncs = SyncServiceClient::new(guest.clone());
    let nonsense = v1::CreateSyncRequest { name: "../..".to_owned(), ..Default::default() };
    let refused = syncs.create_sync(nonsense).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(reason::<()>(Err(refused)), "no_certificate");
    let mut nodes = NodeServiceClient::new(guest.clone());
    assert_eq!(reason(nodes.list_nodes(v1::ListNodesRequest::default()).await), "no_certificate");
    // So it is with bytes that are no message at all, and with methods that do not exist.
    for path in ["/lockstep.v1.NodeService/ListNodes", "/lockstep.v1.NodeService/Nothing", "/x"] {
        let status = raw_call(guest.clone(), path).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{path}");
    }
    let status = raw_call(fleet.admin().await, "/lockstep.v1.NodeService/Nothing").await;
    assert_eq!(reason::<()>(Err(status)), "unknown_method");
    let status = raw_call(fleet.admin().await, "/lockstep.v1.NodeService/ListNodes").await;
    assert_eq!(status.code(), Code::Internal, "garbage from an admin is looked at, and refused");
    let mut health = tonic_health::pb::health_client::HealthClient::new(guest);
    let ready = tonic_health::pb::HealthCheckRequest { service: String::new() };
    health.check(ready).await.expect("health is for anyone");
}

/// A call of any method with a message that the method's own type cannot be read from.
async fn raw_call(channel: Channel, path: &'static str) -> tonic::Status {
    let codec = tonic_prost::ProstCodec::<v1::TrustBundle, v1::TrustBundle>::default();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let not_utf8 = v1::TrustBundle { roots: vec![vec![0xff, 0xfe]] };
    let path = PathAndQuery::from_static(path);
    client.unary(tonic::Request::new(not_utf8), path, codec).await.unwrap_err()
}

#[tokio::test]
async fn conditions_of_a_request_are_kept() {
    let fleet = Fleet::start().await;
    fleet.join("web1").await;
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let with = |request_id: &str, if_revision, dry_run| {
        Some(v1::Mutation { request_id: request_id.to_owned(), if_revision, dry_run })
    };
    let ask = |mutation, value| v1::LabelNodeRequest { mutation, ..label("web1", value) };

    let tried = nodes.label_node(ask(with("", 0, true), "a")).await.unwrap().into_inner();
    assert!(tried.result.unwrap().changed && tried.node.unwrap().labels.is_empty(), "a dry run");

    let done = nodes.label_node(ask(with("r1", 0, false), "a")).await.unwrap().into_inner();
    let (result, node) = (done.result.unwrap(), done.node.unwrap());
    assert!(result.changed);
    assert_eq!(node.labels["role"], "a");
    assert!(node.revision <= result.revision);

    // The same id is the same request: answered, whatever happened since, and not repeated.
    nodes.label_node(label("web1", "b")).await.unwrap();
    let again = nodes.label_node(ask(with("r1", 0, false), "a")).await.unwrap().into_inner();
    assert!(!again.result.unwrap().changed);
    assert_eq!(again.node.unwrap().labels["role"], "b");
    let drain = v1::DrainNodeRequest { mutation: with("r1", 0, false), node: "web1".to_owned() };
    assert_eq!(reason(nodes.drain_node(drain).await), "request_id_reused");
    let bad = nodes.label_node(ask(with("a b", 0, false), "c")).await;
    assert_eq!(reason(bad), "invalid");

    let stale = nodes.label_node(ask(with("", node.revision, false), "c")).await;
    assert_eq!(reason(stale), "changed_meanwhile");
    let get = v1::GetNodeRequest { node: "web1".to_owned() };
    let now = nodes.get_node(get).await.unwrap().into_inner().node.unwrap();
    nodes.label_node(ask(with("", now.revision, false), "c")).await.unwrap();
}

#[tokio::test]
async fn the_log_is_listed_and_watched_without_a_gap() {
    let fleet = Fleet::start().await;
    fleet.join("web1").await;
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let mut log = LogServiceClient::new(fleet.admin().await);
    let from_start = v1::WatchLogRequest { after: Some(0), scope: String::new() };
    let mut all = log.watch_log(from_start).await.unwrap().into_inner();
    let scoped = v1::WatchLogRequest { after: None, scope: "node/web1".to_owned() };
    let mut scoped = log.watch_log(scoped).await.unwrap().into_inner();
    for value in ["a", "b", "c"] {
        nodes.label_node(label("web1", value)).await.unwrap();
    }
    let newest = log.list_entries(v1::ListEntriesRequest::default()).await.unwrap().into_inner();
    let revisions: Vec<u64> = newest.entries.iter().map(|entry| entry.revision).collect();
    let want: Vec<u64> = (1..=newest.revision).rev().collect();
    assert_eq!(revisions, want, "newest first, none missing");
    let mut next = async || {
        let entry = timeout(PATIENCE, all.message()).await.unwrap().unwrap().unwrap();
        entry.entry.unwrap()
    };
    for revision in 1..=newest.revision {
        assert_eq!(next().await.revision, revision);
    }
    for value in ["a", "b", "c"] {
        let entry = timeout(PATIENCE, scoped.message()).await.unwrap().unwrap().unwrap();
        let entry = entry.entry.unwrap();
        assert_eq!(entry.actor, "user/admin");
        assert_eq!(entry.cause, "NodeService/LabelNode");
        assert_eq!(entry.writes.len(), 1);
        assert!(entry.writes[0].summary.contains(&format!("role={value}")), "{entry:?}");
    }
    let page = v1::ListEntriesRequest { before: 3, limit: 1, ..Default::default() };
    let page = log.list_entries(page).await.unwrap().into_inner();
    assert_eq!(page.entries.iter().map(|e| e.revision).collect::<Vec<_>>(), [2]);
    // No secret and no hash of one is in it.
    let text = format!("{:?}", newest.entries);
    assert!(text.contains("token/") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn the_status_says_who_asks() {
    let fleet = Fleet::start().await;
    fleet.join("web1").await;
    let mut status = StatusServiceClient::new(fleet.admin().await);
    let status = status.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.fleet.as_str(), status.caller.as_str()), ("test", "user/admin"));
    assert_eq!((status.caller_role.as_str(), status.nodes), ("admin", 1));
    assert_eq!(status.nodes_connected, 0);
}

#[tokio::test]
async fn noise_on_the_port_disturbs_nobody() {
    let fleet = Fleet::start().await;
    fleet.join("web1").await;
    let address = fleet.address().to_string();
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(TcpStream::connect(&address).await.unwrap()); // never speak
    }
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 0, 0, 0], &[0; 512]] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(noise).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        // Closed, with an alert at most.
        let _ = timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() < 100, "{answer:?}");
    }
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    let many = vec!["x".repeat(1000); 5000];
    let long = v1::LabelNodeRequest { node: "web1".to_owned(), remove: many, ..Default::default() };
    let refused = nodes.label_node(long).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
}
