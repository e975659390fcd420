//! What goes between the cluster engine and the controller.

use lockstep_model::Millis;
use lockstep_model::cluster::{Answer, MemberReport, MemberState, Term};

use super::*;
use crate::link::clusters::tests::report;

fn told(said: Option<Said>) -> Option<(String, String)> {
    match said {
        Some(Said::ClusterUpdate(v1::ClusterUpdate { cluster, report })) => {
            assert_eq!(cluster, "main");
            report.map(|report| (report.state, report.problem))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn members_are_reported_on_each_stream_and_a_part_that_ended_is_told() {
    let mut controller = Controller::start(ca()).await;
    let agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let mut session = controller.welcomed().await;
    session.keep_beating();
    let cluster = "main".parse().unwrap();
    let members = &agent.clusters.members;
    members.publish(&cluster, report(MemberState::Standby));
    assert_eq!(told(session.next().await), Some(("standby".into(), String::new())));
    // Only what flows: it waits, and the problem that follows brings it along.
    let mut moved = report(MemberState::Standby);
    moved.lsn = None;
    members.publish(&cluster, moved.clone());
    members.publish(&cluster, MemberReport { problem: "hung".into(), ..moved });
    let mut last = told(session.next().await);
    if last == Some(("standby".into(), String::new())) {
        last = told(session.next().await);
    }
    assert_eq!(last, Some(("standby".into(), "hung".into())));

    controller.cut();
    let mut session = controller.welcomed().await;
    session.keep_beating();
    assert_eq!(told(session.next().await), Some(("standby".into(), "hung".into())));
    members.withdraw(&cluster);
    assert_eq!(told(session.next().await), None);
}

#[tokio::test]
async fn a_thousand_positions_are_a_few_messages() {
    let mut controller = Controller::start(ca()).await;
    let agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let mut session = controller.welcomed().await;
    session.keep_beating();
    let cluster = "main".parse().unwrap();
    for n in 1..=1000 {
        let mut moved = report(MemberState::Standby);
        moved.lsn = Some(lockstep_model::cluster::Lsn(n));
        agent.clusters.members.publish(&cluster, moved);
        tokio::task::yield_now().await;
    }
    let mut count = 1;
    loop {
        let Some(Said::ClusterUpdate(update)) = session.next().await else { panic!("a report") };
        if update.report.is_some_and(|report| report.lsn == "0/3E8") {
            break;
        }
        count += 1;
    }
    assert!(count < 20, "{count} of 1000 reports went out");
}

#[tokio::test]
async fn renewals_go_up_and_grants_come_down_with_the_time_they_were_asked_at() {
    let mut controller = Controller::start(ca()).await;
    let mut agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let renewal = |sent| Renewal {
        cluster: "main".parse().unwrap(),
        term: Term(7),
        sent_ms: sent,
        away: Some(Millis(9)),
    };
    // Nobody hears it, and nobody shall later.
    agent.clusters.renewals.send(renewal(1)).await.unwrap();
    let mut session = controller.welcomed().await;
    session.keep_beating();
    // From then on it is heard.
    agent.clusters.members.publish(&"main".parse().unwrap(), report(MemberState::Primary));
    assert_eq!(told(session.next().await).unwrap().0, "primary");
    agent.clusters.renewals.send(renewal(20_000)).await.unwrap();
    let Some(Said::LeaseRenewal(asked)) = session.next().await else { panic!("a renewal") };
    let expected =
        v1::LeaseRenewal { cluster: "main".into(), term: 7, sent_ms: 20_000, away_ms: 9 };
    assert_eq!(asked, expected);
    for (answer, expected) in [
        (v1::lease_grant::Answer::LengthMs(5000), Answer::For(Millis(5000))),
        (v1::lease_grant::Answer::WithoutEnd(true), Answer::WithoutEnd),
        (v1::lease_grant::Answer::Refused("no".into()), Answer::Refused("no".into())),
    ] {
        let v1::LeaseRenewal { cluster, term, sent_ms, .. } = asked.clone();
        // One that nobody understands is no grant, and ends nothing.
        let nothing = v1::LeaseGrant { cluster: cluster.clone(), term, sent_ms, answer: None };
        session.say(Say::LeaseGrant(nothing)).await;
        let grant = v1::LeaseGrant { cluster, term, sent_ms, answer: Some(answer) };
        session.say(Say::LeaseGrant(grant)).await;
        let granted = timeout(PATIENCE, agent.clusters.granted.recv()).await.unwrap().unwrap();
        let Renewal { cluster, term, sent_ms, .. } = renewal(20_000);
        assert_eq!(granted, Grant { cluster, term, sent_ms, answer: expected });
    }
}

#[tokio::test]
async fn passwords_of_a_member_are_kept_before_its_place_is_taken_up_and_not_in_the_ledger() {
    let mut controller = Controller::start(ca()).await;
    let agent = Agent::start(&controller.ca, &[&controller.address]).await;
    let mut session = controller.welcomed().await;
    session.keep_beating();
    let place = v1::ClusterPlace {
        cluster: "main".into(),
        term: 1,
        goal: Some(v1::cluster_place::Goal::Stopped(v1::StoppedGoal {})),
        ..Default::default()
    };
    let kind = v1::task_spec::Kind::ClusterPlace(place);
    let Say::OfferTask(offered) = offer("5.0", kind) else { unreachable!() };
    let offered = v1::OfferTask {
        password: "super-secret".into(),
        replication_password: "copy-secret".into(),
        ..offered
    };
    session.say(Say::OfferTask(offered)).await;
    let (_, kind, message) = session.task_end().await;
    assert_eq!((kind, message.as_str()), (v1::OutcomeKind::Ok, ""));
    let kept = agent.clusters.secrets.take(&"main".parse().unwrap()).unwrap();
    assert_eq!(
        (kept.superuser.as_str(), kept.replication.as_str()),
        ("super-secret", "copy-secret")
    );
    for entry in std::fs::read_dir(agent.dir.path().join("ledger")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"secret"));
    }
}
