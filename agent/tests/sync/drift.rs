//! Drift: what somebody changes on a target is found, told and repaired, by order and by schedule,
//! and what is only on its way is not taken for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lockstep_agent::sync::SyncEngine;
use lockstep_model::sync::{DeletePolicy, DeliveryState};
use lockstep_model::task::{Outcome, OutcomeKind, SyncVerify, TaskSpec};
use lockstep_model::{KeyHash, Millis};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, SYNC, eventually, is_ok};

struct Asked<'a> {
    content: bool,
    repair: bool,
    paths: &'a [&'a str],
}

const SHOW: Asked<'static> = Asked { content: false, repair: false, paths: &[] };
const REPAIR: Asked<'static> = Asked { repair: true, ..SHOW };

async fn verify(master: &SyncEngine, target: &str, asked: Asked<'_>) -> (Outcome, Vec<String>) {
    let (progress, mut lines) = mpsc::channel(1024);
    let order = TaskSpec::SyncVerify(SyncVerify {
        sync: SYNC.parse().unwrap(),
        target: target.parse().unwrap(),
        content: asked.content,
        repair: asked.repair,
        paths: asked.paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
    });
    let outcome = master.run(order, progress, CancellationToken::new()).await;
    let mut told = Vec::new();
    while let Ok(line) = lines.try_recv() {
        if !line.starts_with("compared ") {
            told.push(line);
        }
    }
    (outcome, told)
}

async fn filled(heads: &[&str]) -> Fleet {
    let fleet = Fleet::filled(heads).await;
    for dir in ["a/b", "c"] {
        fs::create_dir_all(fleet.src(dir)).unwrap();
        for name in ["one", "two"] {
            fs::write(fleet.src(dir).join(name), name).unwrap();
        }
    }
    for head in heads {
        fleet.converged(head).await;
        fleet.state(head, DeliveryState::Idle).await;
    }
    fleet.watching().await;
    fleet
}

fn tamper(fleet: &Fleet, head: &str) {
    let www = fleet.www(head);
    // Nothing at the top: its entries go over with the next batch whatever that is about.
    fs::remove_dir_all(www.join("a/b")).unwrap();
    let at = fs::metadata(fleet.src("a")).unwrap().modified().unwrap();
    fs::File::open(www.join("a")).unwrap().set_modified(at).unwrap();
    fs::write(www.join("c/one"), "edited").unwrap();
    fs::set_permissions(www.join("c/two"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::create_dir(www.join("extra")).unwrap();
    fs::write(www.join("extra/file"), "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_told_and_repaired_on_its_target_alone() {
    let fleet = filled(&["web1", "web2"]).await;
    let (outcome, told) = verify(&fleet.master, "web1", SHOW).await;
    assert!(is_ok(&outcome) && outcome.message.starts_with("equal: "), "{}", outcome.message);
    assert_eq!(told, [""; 0]);

    tamper(&fleet, "web1");
    let expected =
        ["missing a/b", "differs(size,mtime) c/one", "differs(mode) c/two", "extra extra"];
    let (outcome, told) = verify(&fleet.master, "web1", SHOW).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, expected);
    assert!(outcome.message.starts_with("1 missing, 1 extra, 2 differ"), "{}", outcome.message);
    assert_eq!(fs::read(fleet.www("web1").join("c/one")).unwrap(), b"edited", "nothing is changed");
    let paths = &["c/two", "c/none", "extra/"];
    let (_, told) = verify(&fleet.master, "web1", Asked { paths, ..SHOW }).await;
    assert_eq!(told, ["differs(mode) c/two", "extra extra"]);
    let delivery = eventually("the drift to be reported", || {
        fleet.delivery("web1").filter(|delivery| delivery.drift == 4)
    });
    let before = delivery.await.verified_at.unwrap();

    let untouched = fleet.delivery("web2").unwrap().sent_bytes;
    let (outcome, told) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, expected);
    fleet.converged("web1").await;
    let (outcome, told) = verify(&fleet.master, "web1", SHOW).await;
    assert!(told.is_empty() && is_ok(&outcome), "{told:?}");
    assert!(fleet.delivery("web1").unwrap().verified_at.unwrap() > before);
    // The other one was told of the places of "now" in the journal, and got nothing.
    assert!(fleet.delivery("web2").unwrap().sent_bytes - untouched < 4096);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_compared_by_its_schedule() {
    let mut fleet = filled(&["web1"]).await;
    fleet.options.verify_every = Some(Millis::from_secs(10));
    fleet.apply().await;
    tamper(&fleet, "web1");
    let drift = || fleet.delivery("web1").filter(|delivery| delivery.drift == 4);
    let found = eventually("the drift to be found", drift).await;
    assert!(found.verified_at.is_some());
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_on_their_way_and_what_a_target_may_keep_are_no_drift() {
    let mut fleet = Fleet::new().await;
    fleet.options.delay = Millis(2000);
    fleet.options.delete = DeletePolicy::Never;
    fs::write(fleet.src("first"), "first").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    fleet.watching().await;
    fs::write(fleet.www("web1").join("own"), "kept").unwrap();
    fs::write(fleet.src("second"), "lsyncd collects for two seconds").unwrap();
    let (outcome, told) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, [""; 0]);
    assert!(fleet.www("web1").join("second").exists() && fleet.www("web1").join("own").exists());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_source_may_ask() {
    let fleet = filled(&["web1"]).await;
    let why = |outcome: Outcome| {
        assert_eq!(outcome.kind, OutcomeKind::Failed);
        outcome.message
    };
    let (outcome, _) = verify(&fleet.master, "web9", SHOW).await;
    assert!(why(outcome).contains("web9"));
    let (outcome, _) = verify(&fleet.master, "web1", Asked { paths: &["../x"], ..SHOW }).await;
    assert!(why(outcome).contains("../x"));
    let (outcome, _) = verify(&fleet.heads["web1"], "web1", SHOW).await;
    assert!(why(outcome).contains("not the source"));
    fleet.caller.lock().unwrap().key_hash = KeyHash([9; 32]);
    let (outcome, told) = verify(&fleet.master, "web1", SHOW).await;
    assert!(why(outcome).contains("another key") && told.is_empty());
    fleet.end().await;
}
