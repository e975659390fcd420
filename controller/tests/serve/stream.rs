//! The agent's stream: who is let in, what is told, how it ends.

use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Says;
use lockstep_proto::v1::controller_message::Kind as Hears;
use lockstep_proto::v1::node_service_client::NodeServiceClient;
use lockstep_proto::v1::sync_service_client::SyncServiceClient;
use lockstep_proto::v1::task_service_client::TaskServiceClient;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

use crate::agent::{Agent, end, hello};
use crate::fleet::{Fleet, reason, until};

pub async fn create_sync(fleet: &Fleet) -> v1::Sync {
    let place = |node: &str| v1::Place { node: node.to_owned(), path: "/srv/www".to_owned() };
    let target =
        |node: &str| v1::Target { node: node.to_owned(), at: "/srv/www".to_owned(), bwlimit: 0 };
    let request = v1::CreateSyncRequest {
        name: "webroot".to_owned(),
        source: Some(place("master1")),
        targets: vec![target("web1")],
        ..Default::default()
    };
    let mut syncs = SyncServiceClient::new(fleet.admin().await);
    syncs.create_sync(request).await.unwrap().into_inner().sync.unwrap()
}

pub async fn get_sync(fleet: &Fleet) -> v1::Sync {
    let mut syncs = SyncServiceClient::new(fleet.admin().await);
    let request = v1::GetSyncRequest { name: "webroot".to_owned() };
    syncs.get_sync(request).await.unwrap().into_inner().sync.unwrap()
}

pub async fn get_node(fleet: &Fleet, name: &str) -> v1::Node {
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let request = v1::GetNodeRequest { node: name.to_owned() };
    nodes.get_node(request).await.unwrap().into_inner().node.unwrap()
}

#[tokio::test]
async fn an_agent_is_welcomed_and_told_its_tasks_until_it_has_done_them() {
    let fleet = Fleet::start().await;
    let (master1, web1) = (fleet.join("master1").await, fleet.join("web1").await);
    let mut source = Agent::connect(&fleet, &master1, 1).await;
    let mut target = Agent::connect(&fleet, &web1, 1).await;
    assert_eq!(source.welcome.version, lockstep_controller::VERSION);
    assert_eq!(source.welcome.trust_bundle.as_ref().unwrap().roots.len(), 1);
    assert!(source.welcome.incarnation != 0 && source.welcome.heartbeat_ms > 0);

    let sync = create_sync(&fleet).await;
    assert!(!sync.source_applied && !sync.targets[0].applied);
    let (for_source, for_target) = (source.offer().await, target.offer().await);
    let Some(v1::task_spec::Kind::SyncSource(spec)) = for_source.spec.unwrap().kind else {
        panic!("not a source's task");
    };
    assert_eq!(spec.receivers[0].node, "web1");
    let Some(v1::receiver::Route::Agent(peer)) = &spec.receivers[0].route else { panic!() };
    assert_eq!(peer.addresses, ["127.0.0.1:7402"]);
    assert_eq!(peer.key_sha256, web1.identity.current().key_hash.0);

    source.end(&for_source.id, v1::OutcomeKind::Ok).await;
    let sync = get_sync(&fleet).await;
    assert!(sync.source_applied && !sync.targets[0].applied);
    target.end(&for_target.id, v1::OutcomeKind::Ok).await;
    assert!(get_sync(&fleet).await.targets[0].applied);
    // Said again, after a lost acknowledgement, it is acknowledged again.
    target.end(&for_target.id, v1::OutcomeKind::Ok).await;
    // A task of another node is not ended, and the stream goes on.
    target.say(end(&for_source.id, v1::OutcomeKind::Failed)).await;
    target.end("99.9", v1::OutcomeKind::Ok).await;
    assert!(get_sync(&fleet).await.source_applied);
}

#[tokio::test]
async fn open_tasks_are_offered_again_to_every_stream_and_once_to_each() {
    let fleet = Fleet::start().await;
    let (master1, _web1) = (fleet.join("master1").await, fleet.join("web1").await);
    create_sync(&fleet).await;
    let mut first = Agent::connect(&fleet, &master1, 1).await;
    let offered = first.offer().await.id;
    drop(first);
    let mut second = Agent::connect(&fleet, &master1, 1).await;
    assert_eq!(second.offer().await.id, offered);
    // The next thing said is the answer to this, not the same offer.
    second.end(&offered, v1::OutcomeKind::Ok).await;
}

#[tokio::test]
async fn a_resync_is_asked_for_cancelled_and_tailed() {
    let fleet = Fleet::start().await;
    let (master1, _web1) = (fleet.join("master1").await, fleet.join("web1").await);
    create_sync(&fleet).await;
    let mut source = Agent::connect(&fleet, &master1, 1).await;
    let part = source.offer().await.id;
    source.end(&part, v1::OutcomeKind::Ok).await;

    let mut syncs = SyncServiceClient::new(fleet.admin().await);
    let run = Some(v1::run_sync_request::Run::Resync(v1::ResyncRun {}));
    let request = v1::RunSyncRequest { sync: "webroot".to_owned(), run, ..Default::default() };
    let asked = syncs.run_sync(request).await.unwrap().into_inner();
    let pass = source.offer().await;
    assert_eq!(asked.tasks[0].id, pass.id);
    assert_eq!(asked.tasks[0].state(), v1::TaskState::Pending);
    let running = v1::TaskUpdate { id: pass.id.clone(), state: v1::TaskState::Running.into() };
    source.say(Says::TaskUpdate(running)).await;

    let mut tasks = TaskServiceClient::new(fleet.admin().await);
    let get = v1::GetTaskRequest { id: pass.id.clone() };
    until("the task runs", || {
        let (mut tasks, get) = (tasks.clone(), get.clone());
        async move {
            let task = tasks.get_task(get).await.unwrap().into_inner().task.unwrap();
            (task.state() == v1::TaskState::Running).then_some(())
        }
    })
    .await;

    let tail = v1::TailTaskRequest { id: pass.id.clone(), follow: true };
    let mut lines = tasks.tail_task(tail.clone()).await.unwrap().into_inner();
    let Some(Hears::TailOutput(asked)) = source.hear().await else { panic!("no tail asked for") };
    assert_eq!((asked.id.as_str(), asked.follow, asked.stop), (pass.id.as_str(), true, false));
    for (line, end) in [("one", false), ("two", true)] {
        let output = v1::TaskOutput {
            tail: asked.tail,
            lines: vec![line.to_owned()],
            end,
            ..Default::default()
        };
        source.say(Says::TaskOutput(output)).await;
        assert_eq!(lines.message().await.unwrap().unwrap().lines, [line]);
    }
    assert!(lines.message().await.unwrap().is_none(), "the end");

    // A reader that leaves is noticed, and the agent told to stop.
    let lines = tasks.tail_task(tail).await.unwrap().into_inner();
    let Some(Hears::TailOutput(asked)) = source.hear().await else { panic!("no tail asked for") };
    drop(lines);
    let Some(Hears::TailOutput(stop)) = source.hear().await else { panic!("not told to stop") };
    assert_eq!((stop.tail, stop.stop), (asked.tail, true));

    let cancel = v1::CancelTaskRequest { id: pass.id.clone(), ..Default::default() };
    tasks.cancel_task(cancel).await.unwrap();
    assert!(matches!(source.hear().await, Some(Hears::CancelTask(c)) if c.id == pass.id));
    source.end(&pass.id, v1::OutcomeKind::Cancelled).await;
    let ended = tasks.get_task(get).await.unwrap().into_inner().task.unwrap();
    assert_eq!(ended.outcome.unwrap().kind(), v1::OutcomeKind::Cancelled);
}

#[tokio::test]
async fn a_ping_goes_to_the_agent_and_back() {
    let fleet = Fleet::start().await;
    let web1 = fleet.join("web1").await;
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let ping = v1::PingNodeRequest { node: "web1".to_owned() };
    assert_eq!(reason(nodes.ping_node(ping.clone()).await), "node_not_connected");
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    let answering = tokio::spawn(async move {
        let Some(Hears::Ping(v1::Ping { nonce })) = agent.hear().await else { panic!("no ping") };
        agent.say(Says::Pong(v1::Pong { nonce: nonce + 1 })).await; // of nobody's
        agent.say(Says::Pong(v1::Pong { nonce })).await;
        agent
    });
    let pong = nodes.ping_node(ping).await.unwrap().into_inner();
    assert!(pong.round_trip_us > 0);
    drop(answering.await.unwrap());
    let unknown = v1::PingNodeRequest { node: "web9".to_owned() };
    assert_eq!(reason(nodes.ping_node(unknown).await), "not_found");
}

#[tokio::test]
async fn an_expelled_node_is_told_and_cut_off_for_good() {
    let fleet = Fleet::start().await;
    let web1 = fleet.join("web1").await;
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let expel = v1::ExpelNodeRequest { node: "web1".to_owned(), ..Default::default() };
    nodes.expel_node(expel).await.unwrap();
    assert_eq!(agent.goodbye().await, "expelled");
    agent.wait_end().await;
    let back = Agent::try_connect(fleet.channel(&web1).await, Says::Hello(hello(2))).await;
    let refused = back.err().unwrap();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "node_expelled"));

    // The name is free again after it was removed, for another key.
    nodes
        .remove_node(v1::RemoveNodeRequest { node: "web1".to_owned(), ..Default::default() })
        .await
        .unwrap();
    let anew = fleet.join("web1").await;
    Agent::connect(&fleet, &anew, 1).await;
    let back = Agent::try_connect(fleet.channel(&web1).await, Says::Hello(hello(2))).await;
    assert_eq!(back.err().unwrap().reason, "key_replaced");
}

#[tokio::test]
async fn a_second_agent_is_refused_while_the_first_answers() {
    let fleet = Fleet::start().await;
    let web1 = fleet.join("web1").await;
    let mut first = Agent::connect(&fleet, &web1, 1).await;
    let channel = fleet.channel(&web1).await;
    let second = tokio::spawn(Agent::try_connect(channel, Says::Hello(hello(2))));
    let Some(Hears::Ping(v1::Ping { nonce })) = first.hear().await else { panic!("not asked") };
    first.say(Says::Pong(v1::Pong { nonce })).await;
    let refused = second.await.unwrap().err().unwrap();
    assert_eq!(refused.code, Code::AlreadyExists);
    assert_eq!(refused.reason, "node_already_connected");

    // One that does not answer gives way, and so does one that the same agent left behind.
    let mut other = Agent::connect(&fleet, &web1, 2).await;
    assert_eq!(first.goodbye().await, "replaced");
    let _again = Agent::connect(&fleet, &web1, 2).await;
    assert_eq!(other.goodbye().await, "replaced");
}

#[tokio::test]
async fn silence_ends_a_stream_and_the_node_is_not_healthy_any_more() {
    let fleet = Fleet::with(&[("heartbeat", "400ms")]).await;
    let web1 = fleet.join("web1").await;
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    // Longer than silence would be borne, it is still there.
    for _ in 0..25 {
        agent.beat().await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await; // the pace of its heart
    }
    assert_eq!(get_node(&fleet, "web1").await.health(), v1::NodeHealth::Healthy);
    let node = until("the stream is given up", || async {
        let node = get_node(&fleet, "web1").await;
        (node.health() == v1::NodeHealth::Unavailable).then_some(node)
    })
    .await;
    assert!(node.health_reason.contains("heartbeat"), "{}", node.health_reason);
    agent.wait_end().await;
}

#[tokio::test]
async fn first_words_that_will_not_do_are_refused_by_name() {
    let fleet = Fleet::start().await;
    let web1 = fleet.join("web1").await;
    let refused = |first: Says| {
        let fleet = &fleet;
        let web1 = &web1;
        async move {
            let result = Agent::try_connect(fleet.channel(web1).await, first).await;
            result.err().map(|r| (r.code, r.reason)).unwrap()
        }
    };
    let version = |v: &str| Says::Hello(v1::Hello { version: v.to_owned(), ..hello(1) });
    let skew = refused(version("0.99.0")).await;
    assert_eq!(skew, (Code::FailedPrecondition, "version_skew".to_owned()));
    let invalid = (Code::InvalidArgument, "invalid".to_owned());
    assert_eq!(refused(version("newest")).await, invalid);
    let address = v1::Hello { addresses: vec!["web 1".to_owned()], ..hello(1) };
    assert_eq!(refused(Says::Hello(address)).await, invalid);
    let no_hello = (Code::InvalidArgument, "no_hello".to_owned());
    assert_eq!(refused(Says::Heartbeat(v1::Heartbeat::default())).await, no_hello);
    assert_eq!(refused(Says::TaskEnd(v1::TaskEnd::default())).await, no_hello);

    let admin = fleet.admin().await;
    let user = Agent::try_connect(admin, Says::Hello(hello(1))).await.err().unwrap();
    assert_eq!((user.code, user.reason.as_str()), (Code::PermissionDenied, "not_allowed"));
}

#[tokio::test]
async fn a_message_that_makes_no_sense_is_ignored() {
    let fleet = Fleet::start().await;
    let web1 = fleet.join("web1").await;
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    agent.say_raw(v1::AgentMessage { kind: None }).await;
    agent.say(end("not a task", v1::OutcomeKind::Ok)).await;
    agent.say(end("1.0", v1::OutcomeKind::Unspecified)).await;
    agent.say(Says::Hello(hello(9))).await;
    agent.say(Says::SyncReport(v1::SyncReport { sync: "../x".to_owned(), role: None })).await;
    agent.say(Says::TaskOutput(v1::TaskOutput { tail: 7, ..Default::default() })).await;
    agent.say(Says::Pong(v1::Pong { nonce: 7 })).await;
    let warned = v1::NodeReport {
        version: lockstep_controller::VERSION.to_owned(),
        warnings: vec!["rsync\nis\u{1b}[31m missing".to_owned()],
        ..Default::default()
    };
    agent.say(Says::NodeReport(warned)).await;
    agent.end("1.0", v1::OutcomeKind::Ok).await; // of a task that is forgotten
    let node = until("the report arrives", || async {
        let node = get_node(&fleet, "web1").await;
        (node.health() == v1::NodeHealth::Warning).then_some(node)
    })
    .await;
    assert_eq!(node.health_reason, "rsync is [31m missing");
}

#[tokio::test]
async fn an_oversized_or_unreadable_message_ends_its_own_stream_only() {
    let fleet = Fleet::start().await;
    let (web1, web2) = (fleet.join("web1").await, fleet.join("web2").await);
    let mut quiet = Agent::connect(&fleet, &web2, 1).await;
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    let lines = vec!["x".repeat(1000); 5000];
    agent.say(Says::TaskOutput(v1::TaskOutput { tail: 1, lines, ..Default::default() })).await;
    agent.wait_end().await;
    let node = until("the stream is given up", || async {
        let node = get_node(&fleet, "web1").await;
        (node.health() == v1::NodeHealth::Unavailable).then_some(node)
    })
    .await;
    assert!(!node.health_reason.is_empty());

    let codec = tonic_prost::ProstCodec::<v1::TrustBundle, v1::ControllerMessage>::default();
    let mut client = tonic::client::Grpc::new(fleet.channel(&web1).await);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/lockstep.v1.AgentService/Connect");
    let garbage = v1::TrustBundle { roots: vec![vec![0xff; 9]] };
    let messages = tonic::Request::new(tokio_stream::once(garbage));
    assert_eq!(reason(client.streaming(messages, path, codec).await), "no_hello");

    Agent::connect(&fleet, &web1, 1).await;
    quiet.end("1.0", v1::OutcomeKind::Ok).await;
}
