//! A target that feeds another: what arrives at the first arrives at the second, and a copy that is
//! lost is not handed on.

use std::fs;
use std::path::Path;

use lockstep_agent::sync::SyncEngine;
use lockstep_model::KeyHash;
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::sync::{DeliveryState, SyncOptions, SyncReport};
use lockstep_model::task::{Receiver, SyncSource, SyncTarget};
use lockstep_model::{Millis, NodeName};
use tokio::net::UnixListener;

use crate::fleet::{SYNC, children, differences, engine, eventually, is_ok, peer};

fn listen(dir: &Path, node: &str, engine: &SyncEngine, caller: &str) {
    let listener = UnixListener::bind(dir.join("peers").join(node)).unwrap();
    let subject = Subject::Node(caller.parse::<NodeName>().unwrap());
    let (engine, caller) = (engine.clone(), Principal { subject, key_hash: KeyHash([1; 32]) });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (engine, caller) = (engine.clone(), caller.clone());
            tokio::spawn(async move { engine.serve(stream, &caller).await });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_at_a_relay_arrives_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (src, www1, www2) = (dir.join("src"), dir.join("web1-www"), dir.join("web2-www"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(dir.join("peers")).unwrap();
    fs::write(src.join("first"), "1").unwrap();
    let options = SyncOptions { delay: Millis(0), ..SyncOptions::default() };
    let path = |path: &Path| path.to_str().unwrap().parse().unwrap();

    let (master, web1, web2) =
        (engine(dir, "master1").await, engine(dir, "web1").await, engine(dir, "web2").await);
    listen(dir, "web1", &web1, "master1");
    listen(dir, "web2", &web2, "web1");
    let leaf = SyncTarget {
        source: Some(peer("web1")),
        options: options.clone(),
        ..SyncTarget::new(SYNC.parse().unwrap(), path(&www2))
    };
    assert!(is_ok(&web2.apply_target(leaf).await));
    let relay = SyncTarget {
        source: Some(peer("master1")),
        options: options.clone(),
        receivers: vec![peer("web2").into()],
        ..SyncTarget::new(SYNC.parse().unwrap(), path(&www1))
    };
    assert!(is_ok(&web1.apply_target(relay.clone()).await));
    let source = SyncSource {
        receivers: vec![Receiver { is_relay: true, ..peer("web1").into() }],
        options,
        ..SyncSource::new(SYNC.parse().unwrap(), path(&src))
    };
    assert!(is_ok(&master.apply_source(source).await));

    let same = || differences(&src, &www2).is_empty().then_some(());
    eventually("the leaf to be like the source", same).await;
    assert!(children(&dir.join("web1"), "lsyncd").is_empty(), "a relay watches nothing");
    fs::create_dir_all(src.join("d/e")).unwrap();
    fs::write(src.join("d/e/second"), "2").unwrap();
    eventually("a change to arrive at the leaf", same).await;
    fs::remove_file(src.join("first")).unwrap();
    fs::rename(src.join("d"), src.join("renamed")).unwrap();
    eventually("removals to arrive at the leaf", same).await;
    let idle = || {
        let reports = web1.reports().subscribe();
        let report = reports.borrow().get(&SYNC.parse().unwrap()).cloned();
        let Some(SyncReport::Target(report)) = report else { return None };
        let relay = report.relay.filter(|_| report.filled)?;
        relay.deliveries.first().filter(|d| d.state == DeliveryState::Idle).map(|_| ())
    };
    eventually("the relay to say that the leaf is idle", idle).await;

    // The relay loses what it has: the leaf keeps it, and hears of news when the relay is whole.
    fs::remove_dir_all(&www1).unwrap();
    fs::write(src.join("third"), "3").unwrap();
    let whole = || {
        assert!(www2.join("renamed/e/second").exists(), "the loss was handed on");
        same()
    };
    eventually("the news to arrive", whole).await;

    // Without anybody behind it, it is an ordinary target again.
    assert!(is_ok(&web1.apply_target(SyncTarget { receivers: vec![], ..relay }).await));
    let ordinary = || {
        let reports = web1.reports().subscribe();
        let report = reports.borrow().get(&SYNC.parse().unwrap()).cloned();
        matches!(report, Some(SyncReport::Target(report)) if report.relay.is_none()).then_some(())
    };
    eventually("the relay to be none", ordinary).await;
    for engine in [&master, &web1, &web2] {
        engine.shut_down().await;
    }
}
