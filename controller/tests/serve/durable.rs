//! The end of a controller, expected or not, and the start after it.

use lockstep_controller::offline;
use lockstep_controller::server::CA_DIR;
use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Says;
use lockstep_proto::v1::log_service_client::LogServiceClient;
use lockstep_proto::v1::node_service_client::NodeServiceClient;
use lockstep_proto::v1::store_service_client::StoreServiceClient;

use crate::agent::{Agent, end, hello};
use crate::fleet::{Fleet, reason};
use crate::stream::{create_sync, get_node, get_sync};

#[tokio::test]
async fn nothing_is_lost_or_repeated_when_the_controller_is_killed() {
    let mut fleet = Fleet::start().await;
    let (master1, web1) = (fleet.join("master1").await, fleet.join("web1").await);
    let mut source = Agent::connect(&fleet, &master1, 1).await;
    let mut target = Agent::connect(&fleet, &web1, 1).await;
    let incarnation = source.welcome.incarnation;
    create_sync(&fleet).await;
    let (done, open) = (source.offer().await, target.offer().await);
    source.end(&done.id, v1::OutcomeKind::Ok).await;
    let records = async |fleet: &Fleet| {
        let mut sync = get_sync(fleet).await;
        // Why something waits is not a record: a controller that starts has not heard of anyone.
        sync.targets.iter_mut().for_each(|target| target.reason.clear());
        sync
    };
    let before = records(&fleet).await;

    fleet.kill();
    fleet.restart().await;
    assert_eq!(records(&fleet).await, before);
    assert_eq!(get_node(&fleet, "web1").await.health(), v1::NodeHealth::Unknown);

    let mut source = Agent::connect(&fleet, &master1, 1).await;
    let mut target = Agent::connect(&fleet, &web1, 1).await;
    assert_eq!(source.welcome.incarnation, incarnation);
    let again = target.offer().await;
    assert_eq!((again.id.as_str(), again.attempt), (open.id.as_str(), open.attempt));
    target.end(&again.id, v1::OutcomeKind::Ok).await;
    assert!(get_sync(&fleet).await.targets[0].applied);
    // The one that was done is not offered: the next word is the answer to this.
    source.end(&done.id, v1::OutcomeKind::Ok).await;
}

#[tokio::test]
async fn an_old_copy_of_the_store_is_noticed_and_adopted() {
    let fleet = Fleet::start().await;
    let (web1, web2) = (fleet.join("web1").await, fleet.join("web2").await);
    let incarnation = Agent::connect(&fleet, &web1, 1).await.welcome.incarnation;
    let told = |revision| {
        let hello = hello(1);
        Says::Hello(v1::Hello { told_incarnation: incarnation, told_revision: revision, ..hello })
    };
    let mut first = Agent::try_connect(fleet.channel(&web1).await, told(1000)).await.unwrap();
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let drain = v1::DrainNodeRequest { node: "web1".to_owned(), ..Default::default() };
    assert_eq!(reason(nodes.drain_node(drain.clone()).await), "store_behind");
    // Everyone is let in, for what they know, and nothing they say ends their stream.
    let mut second = Agent::try_connect(fleet.channel(&web2).await, told(2000)).await.unwrap();
    second.say(end("1500.0", v1::OutcomeKind::Ok)).await;

    let mut store = StoreServiceClient::new(fleet.admin().await);
    store.adopt_store(v1::AdoptStoreRequest::default()).await.unwrap();
    assert_eq!(first.goodbye().await, "adopted");
    assert_eq!(second.goodbye().await, "adopted");
    let mut second = Agent::try_connect(fleet.channel(&web2).await, told(2000)).await.unwrap();
    assert_ne!(second.welcome.incarnation, incarnation);
    assert!(second.welcome.revision > 2000);
    second.end("1500.0", v1::OutcomeKind::Ok).await;
    nodes.drain_node(drain).await.unwrap();
}

/// With the log.
async fn export(fleet: &Fleet) -> Vec<u8> {
    let mut store = StoreServiceClient::new(fleet.admin().await);
    let mut pieces =
        store.export_store(v1::ExportStoreRequest { log: true }).await.unwrap().into_inner();
    let mut copy = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        copy.extend(piece.ndjson);
    }
    copy
}

/// What is started next has the copy, in another place.
fn restore(fleet: &mut Fleet, copy: &[u8]) {
    let place = fleet.dir.path().join("elsewhere");
    let import = offline::import(&place, copy, false).unwrap();
    assert_eq!(import.log.len() as u64, import.header.revision, "the whole log");
    std::fs::create_dir(place.join(CA_DIR)).unwrap();
    for file in std::fs::read_dir(fleet.data_dir().join(CA_DIR)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), place.join(CA_DIR).join(file.file_name())).unwrap();
    }
    assert!(offline::check(&place).unwrap().damage.is_empty());
    fleet.move_to(&place);
}

#[tokio::test]
async fn an_old_copy_is_noticed_though_it_was_written_past_what_agents_were_told() {
    let mut fleet = Fleet::start().await;
    let (master1, web1) = (fleet.join("master1").await, fleet.join("web1").await);
    let copy = export(&fleet).await;
    fleet.stop().await.unwrap();
    fleet.restart().await;
    let lost = Agent::connect(&fleet, &web1, 1).await.welcome.clone();
    fleet.stop().await.unwrap();

    restore(&mut fleet, &copy);
    fleet.restart().await;
    let mut source = Agent::connect(&fleet, &master1, 1).await;
    create_sync(&fleet).await;
    let done = source.offer().await;
    source.end(&done.id, v1::OutcomeKind::Ok).await;
    assert!(!source.welcome.in_doubt);
    let knows = Says::Hello(v1::Hello {
        told_incarnation: lost.incarnation,
        told_life: lost.life,
        told_revision: lost.revision,
        ..hello(2)
    });
    let target = Agent::try_connect(fleet.channel(&web1).await, knows).await.unwrap();
    assert!(target.welcome.revision > lost.revision && target.welcome.life != lost.life);
    assert!(target.welcome.in_doubt, "{:?}", target.welcome);
    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let drain = v1::DrainNodeRequest { node: "web1".to_owned(), ..Default::default() };
    assert_eq!(reason(nodes.drain_node(drain).await), "store_behind");
}

#[tokio::test]
async fn a_controller_that_stops_says_goodbye() {
    let mut fleet = Fleet::start().await;
    let web1 = fleet.join("web1").await;
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    let mut log = LogServiceClient::new(fleet.admin().await);
    let mut watch = log.watch_log(v1::WatchLogRequest::default()).await.unwrap().into_inner();
    let stopping = tokio::spawn(async move {
        fleet.stop().await.unwrap();
        fleet
    });
    assert_eq!(agent.goodbye().await, "shutting_down");
    agent.wait_end().await;
    while let Ok(Some(_)) = watch.message().await {}
    let mut fleet = stopping.await.unwrap();
    fleet.restart().await;
    Agent::connect(&fleet, &web1, 1).await;
}

#[tokio::test]
async fn an_export_and_the_ca_restore_the_fleet_in_another_place() {
    let mut fleet = Fleet::start().await;
    let (master1, web1) = (fleet.join("master1").await, fleet.join("web1").await);
    let mut source = Agent::connect(&fleet, &master1, 1).await;
    create_sync(&fleet).await;
    let done = source.offer().await;
    source.end(&done.id, v1::OutcomeKind::Ok).await;
    let incarnation = source.welcome.incarnation;

    let copy = export(&fleet).await;
    fleet.stop().await.unwrap();

    let place = fleet.dir.path().join("torn");
    let torn = offline::import(&place, &copy[..copy.len() / 2], false);
    assert!(torn.is_err(), "half a copy");
    restore(&mut fleet, &copy);
    fleet.restart().await;

    assert!(get_sync(&fleet).await.source_applied);
    let mut target = Agent::connect(&fleet, &web1, 1).await;
    assert_eq!(target.welcome.incarnation, incarnation);
    let open = target.offer().await;
    target.end(&open.id, v1::OutcomeKind::Ok).await;
}
