//! How far a copy is behind: what its source tells it for load balancers, and what people are told of
//! the time that is left.

use std::fs;

use lockstep_model::Millis;
use lockstep_model::rate::Rate;
use lockstep_model::sync::{Delivery, DeliveryState};
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, SYNC, engine, eventually, is_ok};

const SLOW: u64 = 64 << 10;
const BIG: usize = 8 << 20;

async fn behind(fleet: &Fleet, wanted: bool) {
    let what = if wanted { "web1 to be behind" } else { "web1 to be behind no more" };
    eventually(what, || (fleet.said("web1").behind == wanted).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_behind_while_its_source_says_so() {
    let mut fleet = Fleet::new().await;
    fleet.options.max_lag = Some(Millis(3000));
    fs::write(fleet.src("first"), "first").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert!(!fleet.said("web1").behind);
    for byte in [1, 2] {
        fleet.options.bwlimit = Rate::new(SLOW);
        fleet.apply().await;
        fs::write(fleet.src("big"), vec![byte; BIG]).unwrap();
        behind(&fleet, true).await;
        assert!(fleet.said("web1").filled);
        if byte == 1 {
            fleet.options.bwlimit = None;
            fleet.apply().await;
            fleet.converged("web1").await;
            behind(&fleet, false).await;
        }
    }
    // Nobody tells anything else any more: it stands, until a person gives the limit up.
    fleet.master.shut_down().await;
    assert!(fleet.said("web1").behind);
    fleet.heads["web1"].shut_down().await;
    let again = engine(fleet.dir.path(), "web1").await;
    fleet.heads.insert("web1".to_owned(), again);
    fleet.assign("web1").await;
    assert!(fleet.said("web1").behind && fleet.said("web1").filled);
    fleet.options.max_lag = None;
    fleet.assign("web1").await;
    assert!(!fleet.said("web1").behind);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_tells_how_much_of_it_is_left() {
    const FILES: usize = 64;
    let mut fleet = Fleet::new().await;
    fleet.options.bwlimit = Rate::new(512 << 10);
    for i in 0..FILES {
        fs::write(fleet.src(&format!("f{i}")), vec![i as u8; BIG / FILES]).unwrap();
    }
    fleet.add_head("web1").await;
    fleet.apply().await;
    let told = async |state: DeliveryState| -> Delivery {
        let known = |d: &Delivery| d.state == state && d.eta.is_some();
        eventually("an estimate", || fleet.delivery("web1").filter(known)).await
    };
    let there = || fs::read_dir(fleet.www("web1")).map_or(0, Iterator::count) as u64;
    let check = |told: &Delivery, there: u64| {
        // By its rate it takes 16 s, on a busy machine more, and rsync is ahead of what has arrived.
        let (percent, left) = (u64::from(told.done_percent.unwrap()), told.eta.unwrap());
        assert!(left > Millis(1000) && left < Millis(600_000), "{left}");
        assert!(percent < 100 && percent + 5 > there * 100 / FILES as u64, "{percent} {there}");
    };
    let before = there();
    check(&told(DeliveryState::Filling).await, before);

    let mut fast = fleet.spec();
    fast.options.bwlimit = None;
    assert!(is_ok(&fleet.master.apply_source(fast).await));
    fleet.converged("web1").await;
    let idle = fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!((idle.eta, idle.done_percent), (None, None));

    // Half of it has to come again: rsync's own percentage would end at 50.
    for i in 0..FILES / 2 {
        fs::remove_file(fleet.www("web1").join(format!("f{i}"))).unwrap();
    }
    fleet.apply().await;
    let (progress, _lines) = tokio::sync::mpsc::channel(8);
    let (sync, web1) = (SYNC.parse().unwrap(), "web1".parse().unwrap());
    let cancel = CancellationToken::new();
    let resync = fleet.master.resync(&sync, &web1, progress, cancel.clone());
    tokio::join!(resync, async {
        let missing = there();
        let told = told(DeliveryState::Syncing).await;
        check(&told, (missing - FILES as u64 / 2) * 2);
        cancel.cancel();
    });
    fleet.end().await;
}
