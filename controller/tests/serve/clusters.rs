//! Clusters as people and agents see them: who learns the passwords, who is granted a lease and how
//! fast, what is shown of what members say.

use std::fs;

use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Says;
use lockstep_proto::v1::cluster_service_client::ClusterServiceClient;
use lockstep_proto::v1::controller_message::Kind as Hears;
use lockstep_proto::v1::lease_grant::Answer;
use lockstep_proto::v1::log_service_client::LogServiceClient;
use lockstep_proto::v1::store_service_client::StoreServiceClient;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::agent::Agent;
use crate::fleet::{Fleet, Member, PATIENCE, reason, until};

const PASSWORD: &str = "correct-horse-battery";

fn main_cluster() -> v1::CreateClusterRequest {
    let standby = v1::MemberSettings { node: "db2".to_owned(), ..Default::default() };
    v1::CreateClusterRequest {
        name: "main".to_owned(),
        primary: "db1".to_owned(),
        members: vec![standby],
        superuser_password: PASSWORD.to_owned(),
        ..Default::default()
    }
}

async fn clusters(fleet: &Fleet) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(fleet.admin().await)
}

async fn get(fleet: &Fleet) -> v1::Cluster {
    let request = v1::GetClusterRequest { name: "main".to_owned() };
    clusters(fleet).await.get_cluster(request).await.unwrap().into_inner().cluster.unwrap()
}

/// A primary and a standby, whose agents took up their first parts.
struct Pair {
    nodes: [Member; 2],
    db1: Agent,
    db2: Agent,
}

impl Pair {
    async fn of(fleet: &Fleet) -> Self {
        let nodes = [fleet.join("db1").await, fleet.join("db2").await];
        let mut db1 = Agent::connect(fleet, &nodes[0], 1).await;
        let mut db2 = Agent::connect(fleet, &nodes[1], 1).await;
        clusters(fleet).await.create_cluster(main_cluster()).await.unwrap();
        for agent in [&mut db1, &mut db2] {
            let offer = place(agent).await;
            assert_eq!(offer.password, PASSWORD);
            assert!(offer.replication_password.len() >= 32);
            agent.end(&offer.id, v1::OutcomeKind::Ok).await;
        }
        Self { nodes, db1, db2 }
    }
}

/// The next part that an agent is offered.
async fn place(agent: &mut Agent) -> v1::OfferTask {
    let offer = agent.offer().await;
    let spec = offer.spec.as_ref().unwrap().kind.as_ref();
    assert!(matches!(spec, Some(v1::task_spec::Kind::ClusterPlace(_))), "{spec:?}");
    offer
}

fn report(state: &str, lsn: &str) -> v1::MemberReport {
    v1::MemberReport {
        state: state.to_owned(),
        term: 1,
        lsn: lsn.to_owned(),
        trouble: "none".to_owned(),
        copy: 1,
        ..Default::default()
    }
}

/// Of a standby that follows db1.
fn stream() -> Option<v1::WalStream> {
    let end = "0/3000000".to_owned();
    Some(v1::WalStream { from: "db1".to_owned(), age_ms: 10, end })
}

async fn say(agent: &Agent, report: v1::MemberReport) {
    let update = v1::ClusterUpdate { cluster: "main".to_owned(), report: Some(report) };
    agent.say(Says::ClusterUpdate(update)).await;
}

/// Asks for a lease, and passes over whatever else is said meanwhile.
async fn renew(agent: &mut Agent, cluster: &str, term: u64, sent_ms: u64) -> Option<Answer> {
    let renewal = v1::LeaseRenewal { cluster: cluster.to_owned(), term, sent_ms, away_ms: 0 };
    agent.say(Says::LeaseRenewal(renewal)).await;
    loop {
        match agent.hear().await {
            Some(Hears::LeaseGrant(grant)) => {
                assert_eq!((grant.cluster.as_str(), grant.term), (cluster, term));
                assert_eq!(grant.sent_ms, sent_ms, "its own clock is told back");
                return grant.answer;
            }
            Some(_) => {}
            None => panic!("an answer, not the end of the stream"),
        }
    }
}

/// A report is taken in beside the stream that brought it.
async fn renew_until_granted(agent: &mut Agent, sent_ms: u64) -> u64 {
    const TRIES_MAX: u64 = 100;
    for sent_ms in sent_ms..sent_ms + TRIES_MAX {
        if let Some(Answer::LengthMs(length)) = renew(agent, "main", 1, sent_ms).await {
            return length;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no lease was granted");
}

fn refusal(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::Refused(why)) => why,
        other => panic!("a refusal, not {other:?}"),
    }
}

#[tokio::test]
async fn passwords_are_learnt_by_members_and_by_nobody_else() {
    let mut fleet = Fleet::start().await;
    let Pair { nodes, db1, db2 } = Pair::of(&fleet).await;
    let shown = format!("{:?}", get(&fleet).await);
    assert!(shown.contains("db2") && !shown.contains(PASSWORD));
    let channel = fleet.admin().await;
    let entries = LogServiceClient::new(channel.clone())
        .list_entries(v1::ListEntriesRequest::default())
        .await
        .unwrap();
    assert!(!format!("{entries:?}").contains(PASSWORD));
    let mut export = StoreServiceClient::new(channel)
        .export_store(v1::ExportStoreRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut text = String::new();
    while let Some(part) = export.message().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&part.ndjson));
    }
    assert!(text.contains("cluster-secret") && !text.contains(PASSWORD), "{text}");

    // A key that is gone keeps no failover: members have what they were told before.
    drop((db1, db2));
    fleet.stop().await.unwrap();
    fs::remove_file(fleet.data_dir().join("secret.key")).unwrap();
    fleet.restart().await;
    let warnings = get(&fleet).await.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("secret.key")), "{warnings:?}");
    let mut db2 = Agent::connect(&fleet, &nodes[1], 2).await;
    let edit = v1::EditClusterRequest {
        name: "main".to_owned(),
        settings: vec![v1::Setting { name: "poll".to_owned(), value: "2s".to_owned() }],
        ..Default::default()
    };
    clusters(&fleet).await.edit_cluster(edit).await.unwrap();
    let offer = place(&mut db2).await;
    assert_eq!((offer.password.as_str(), offer.replication_password.as_str()), ("", ""));
    let other = v1::CreateClusterRequest { name: "other".to_owned(), ..main_cluster() };
    assert_eq!(reason(clusters(&fleet).await.create_cluster(other).await), "no_key");
}

#[tokio::test]
async fn a_lease_is_granted_to_the_holder_alone_and_never_after_an_election() {
    let mut fleet = Fleet::start().await;
    let Pair { nodes, mut db1, mut db2 } = Pair::of(&fleet).await;
    let length = match renew(&mut db1, "main", 1, 77).await {
        Some(Answer::LengthMs(length)) => length,
        other => panic!("{other:?}"),
    };
    assert_eq!(length, 5000);
    let lease = get(&fleet).await.lease.unwrap();
    assert_eq!((lease.holder.as_str(), lease.term), ("db1", 1));
    assert!(lease.left_ms.is_some_and(|left| left <= 5005));
    assert_eq!(refusal(renew(&mut db2, "main", 1, 1).await), "db1 holds the term");
    assert_eq!(refusal(renew(&mut db1, "main", 2, 2).await), "the term is 1");
    assert_eq!(refusal(renew(&mut db1, "other", 1, 3).await), "there is no cluster other");

    // The database is made, and followed.
    let lineage = vec![v1::TimelineFork { timeline: 1, begins: "0/0".to_owned() }];
    let made = |state: &str| v1::MemberReport {
        system_id: 7,
        version: "15.18".to_owned(),
        lineage: lineage.clone(),
        ..report(state, "0/3000000")
    };
    say(&db1, v1::MemberReport { holds: Some(1), rewindable: true, ..made("primary") }).await;
    until("the cluster is steady", async || {
        let state = get(&fleet).await.state.unwrap();
        (state.stage == "steady").then_some(())
    })
    .await;
    say(&db2, v1::MemberReport { upstream: stream(), ..made("standby") }).await;
    until("db2 has a copy", async || {
        let member = get(&fleet).await.members.pop().unwrap();
        (member.copied == 1).then_some(())
    })
    .await;

    // What the one before granted is not known any more; who holds it is.
    drop((db1, db2));
    fleet.kill();
    fleet.restart().await;
    assert!(get(&fleet).await.lease.is_none());
    let mut db1 = Agent::connect(&fleet, &nodes[0], 2).await;
    let db2 = Agent::connect(&fleet, &nodes[1], 2).await;
    let early = renew(&mut db1, "main", 1, 78).await;
    assert_eq!(refusal(early), "the controller has to hear the other members first");
    // One that says that it serves in the term cannot have been replaced.
    say(&db1, v1::MemberReport { holds: Some(1), rewindable: true, ..made("primary") }).await;
    let granted = renew_until_granted(&mut db1, 79).await;
    assert_eq!(granted, 5000);

    say(&db2, v1::MemberReport { upstream: stream(), ..made("standby") }).await;
    let failover =
        v1::FailoverRequest { name: "main".to_owned(), allow_loss: true, ..Default::default() };
    until("a candidate is heard of", async || {
        clusters(&fleet).await.failover(failover.clone()).await.ok()
    })
    .await;
    assert_eq!(refusal(renew(&mut db1, "main", 1, 79).await), "the term is 2");
    let history = v1::ListFailoversRequest { name: "main".to_owned(), limit: 0 };
    let history = clusters(&fleet).await.list_failovers(history).await.unwrap().into_inner();
    assert_eq!((history.failovers.len(), history.failovers[0].cause.as_str()), (1, "asked"));
    drop(db2);
}

#[tokio::test]
async fn a_cluster_is_watched() {
    let fleet = Fleet::start().await;
    let Pair { nodes: _, db1, db2 } = Pair::of(&fleet).await;
    let request = v1::WatchClusterRequest { name: "main".to_owned() };
    let mut watch = clusters(&fleet).await.watch_cluster(request).await.unwrap().into_inner();
    let mut next = async || {
        let next = timeout(PATIENCE, watch.message()).await.expect("a change").unwrap();
        next.unwrap().cluster.unwrap()
    };
    let first = next().await;
    assert_eq!(first.members.len(), 2);
    assert!(first.members.iter().all(|member| member.report.is_none() && member.connected));
    assert_eq!(first.members[0].postgres, "127.0.0.1:5432");

    let row = v1::StandbyRow {
        node: "db2".to_owned(),
        streaming: true,
        sync_state: "async".to_owned(),
        sent: "0/200".to_owned(),
        flushed: "0/180".to_owned(),
        replayed: "0/100".to_owned(),
        replay_lag_ms: Some(40),
        reply_age_ms: 1,
    };
    say(&db1, v1::MemberReport { standbys: vec![row], ..report("primary", "0/200") }).await;
    say(&db2, v1::MemberReport { replayed: "0/100".to_owned(), ..report("standby", "0/180") })
        .await;
    let both = loop {
        let now = next().await;
        if now.members.iter().all(|member| member.report.is_some()) {
            break now;
        }
    };
    let standby = &both.members[1];
    assert_eq!((standby.lag_bytes, standby.replay_lag_bytes), (Some(0x80), Some(0x100)));
    assert_eq!((standby.replay_lag_ms, standby.sync_state.as_str()), (Some(40), "async"));
    assert_eq!(both.members[0].lag_bytes, None, "the primary is behind nobody");

    // The same said again is no change; the next thing that is, is told.
    say(&db2, v1::MemberReport { replayed: "0/100".to_owned(), ..report("standby", "0/180") })
        .await;
    let problem = "the disk is full".to_owned();
    say(&db2, v1::MemberReport { problem: problem.clone(), ..report("standby", "0/180") }).await;
    let troubled = next().await;
    assert_eq!(troubled.members[1].reason, problem);
}
