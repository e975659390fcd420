//! How fast deliveries may go, and that they go on meanwhile.

use std::fs;

use lockstep_model::rate::Rate;
use lockstep_model::sync::DeliveryState;
use lockstep_model::task::Outcome;

use crate::fleet::{self, Fleet, eventually};

/// By it the file below would take more than two minutes, and nobody here waits for so long.
const SLOW: u64 = 64 << 10;
const BIG: usize = 8 << 20;
/// As many passes as a node makes at once.
const PASSES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_under_a_transfer() {
    let mut fleet = Fleet::filled(&["web1", "web2"]).await;
    // One target is slow by its own limit, and the other is not.
    let slow = Rate::new(SLOW);
    let mut spec = fleet.spec();
    spec.receivers[0].bwlimit = slow;
    assert_eq!(fleet.master.apply_source(spec).await, Outcome::ok());
    fs::write(fleet.src("big"), vec![5; BIG]).unwrap();
    fleet.converged("web2").await;
    let before = fleet.state("web1", DeliveryState::Syncing).await.sent_bytes;
    let moves = || fleet.delivery("web1").filter(|now| now.sent_bytes > before);
    let now = eventually("bytes counted while they move", moves).await;
    assert!(now.sent_bytes < BIG as u64 && !fleet.www("web1").join("big").exists());
    // As it was, for a transfer under way.
    fleet.apply().await;
    fleet.converged("web1").await;

    // All targets together.
    fleet.options.bwlimit = slow;
    fleet.apply().await;
    fs::write(fleet.src("big"), vec![6; BIG]).unwrap();
    for head in ["web1", "web2"] {
        fleet.state(head, DeliveryState::Syncing).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for head in ["web1", "web2"] {
        let same = fs::read(fleet.www(head).join("big")).is_ok_and(|big| big[0] == 5);
        assert!(same, "{head} cannot have it yet");
    }
    fleet.options.bwlimit = None;
    fleet.apply().await;
    fleet.converged("web1").await;
    fleet.converged("web2").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_node_sends_counts_in_its_own_limit() {
    let mut fleet = Fleet::new().await;
    fleet.master.lanes().limit(Some(SLOW));
    for head in ["web1", "web2"] {
        fleet.add_head(head).await;
    }
    let half: Vec<u8> = (0..SLOW * 3 / 2).map(|n| (n * n / 7 % 251) as u8).collect();
    fs::write(fleet.src("half"), half).unwrap();
    let began = tokio::time::Instant::now();
    fleet.apply().await;
    fleet.converged("web1").await;
    fleet.converged("web2").await;
    // Three seconds' worth, of which the first may go at once.
    assert!(began.elapsed().as_secs() >= 2, "{:?}", began.elapsed());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_slow_fills_keep_nobody_waiting() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("big"), vec![5; BIG]).unwrap();
    let slow: Vec<String> = (1..=PASSES).map(|n| format!("slow{n}")).collect();
    for head in &slow {
        fleet.add_head(head).await;
    }
    let mut spec = fleet.spec();
    spec.receivers.iter_mut().for_each(|receiver| receiver.bwlimit = Rate::new(Rate::MIN));
    assert_eq!(fleet.master.apply_source(spec.clone()).await, Outcome::ok());
    for head in &slow {
        let moves = || fleet.delivery(head).filter(|delivery| delivery.sent_bytes > 0);
        let delivery = eventually("each of them to have begun", moves).await;
        assert_eq!(delivery.state, DeliveryState::Filling);
    }
    fleet.add_head("web1").await;
    spec.receivers.push(fleet::peer("web1").into());
    assert_eq!(fleet.master.apply_source(spec).await, Outcome::ok());
    fleet.converged("web1").await;
    for head in &slow {
        assert!(!fleet.www(head).join("big").exists(), "{head} is slow");
    }
    fleet.end().await;
}
