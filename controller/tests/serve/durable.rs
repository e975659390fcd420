//! The end of a controller, expected or not, and the start after it.

use lockstep_proto::v1;
use lockstep_proto::v1::log_service_client::LogServiceClient;

use crate::agent::Agent;
use crate::fleet::Fleet;
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
