//! Who is let in, what survives a new assignment, and what confines a receiver.

use super::*;
use futures_util::FutureExt;
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::{KeyHash, Timestamp};

fn principal(subject: Subject, key: u8) -> Principal {
    Principal { subject, key_hash: KeyHash([key; 32]) }
}

fn spec(source: Option<u8>) -> SyncTarget {
    let peer = |key| Peer {
        node: "master1".parse().unwrap(),
        key_hash: KeyHash([key; 32]),
        addresses: vec![],
    };
    SyncTarget {
        source: source.map(peer),
        ..SyncTarget::new("webroot".parse().unwrap(), "/srv/www".parse().unwrap())
    }
}

#[test]
fn only_the_source_of_the_assignment_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let targets = Targets::new(Reports::default());
    targets.assign(&spec(Some(1)), dir.path());
    let sync = "webroot".parse().unwrap();
    let master = || Subject::Node("master1".parse().unwrap());
    assert!(targets.admit(&sync, &principal(master(), 1)).is_ok());
    let refused = [
        (sync.clone(), principal(master(), 2)),
        (sync.clone(), principal(Subject::Node("web1".parse().unwrap()), 1)),
        (sync.clone(), principal(Subject::User("master1".parse().unwrap()), 1)),
        ("other".parse().unwrap(), principal(master(), 1)),
    ];
    for (sync, caller) in refused {
        assert!(targets.admit(&sync, &caller).is_err(), "{caller:?}");
    }
    targets.assign(&spec(None), dir.path());
    assert!(targets.admit(&sync, &principal(master(), 1)).is_err());
}

#[tokio::test]
async fn a_relay_knows_whether_it_was_told_all_that_was_brought_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let targets = Targets::new(Reports::default());
    let sync: SyncName = "webroot".parse().unwrap();
    let is_told = || targets.delivery_told(&sync).now_or_never().is_some();
    assert!(is_told(), "at the source");
    targets.assign(&spec(Some(1)), dir.path());
    assert!(!is_told(), "nobody knows what an agent before this one was told");
    let master = principal(Subject::Node("master1".parse().unwrap()), 1);
    let target = targets.admit(&sync, &master).unwrap().target;
    let mark = |filled, lag| Mark { filled, changed: true, acked: 0, at: Timestamp(1), lag };
    target.note(mark(false, Some(Millis(5)))).await.unwrap();
    assert!(!is_told(), "it tells its lag while it delivers");
    target.note(mark(false, None)).await.unwrap();
    assert!(is_told());
    drop(target.take_turn().await.unwrap());
    assert!(!is_told(), "a delivery has ended and is not told yet");
    target.note_told();
    assert!(is_told());
}

#[test]
fn a_changed_assignment_ends_transfers_and_an_equal_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let targets = Targets::new(Reports::default());
    targets.assign(&spec(Some(1)), dir.path());
    let master = principal(Subject::Node("master1".parse().unwrap()), 1);
    let sync = "webroot".parse().unwrap();
    let admission = targets.admit(&sync, &master).unwrap();
    targets.assign(&SyncTarget { serve: false, ..spec(Some(1)) }, dir.path());
    assert!(!admission.withdrawn.is_cancelled());
    targets.assign(&spec(Some(2)), dir.path());
    assert!(admission.withdrawn.is_cancelled());
    let other = principal(Subject::Node("master1".parse().unwrap()), 2);
    let admission = targets.admit(&sync, &other).unwrap();
    targets.withdraw(&sync);
    assert!(admission.withdrawn.is_cancelled());
}

#[tokio::test]
async fn a_fill_is_kept_for_its_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let named =
        |name: &str| -> DirPath { dir.path().join(name).to_str().unwrap().parse().unwrap() };
    let (path, other) = (named("copy"), named("other"));
    fs::create_dir(path.as_str()).unwrap();
    fs::create_dir(other.as_str()).unwrap();
    let targets = Targets::new(Reports::default());
    let spec = SyncTarget { path: path.clone(), ..spec(Some(1)) };
    targets.assign(&spec, dir.path());
    let master = principal(Subject::Node("master1".parse().unwrap()), 1);
    let target = targets.admit(&spec.sync, &master).unwrap().target;
    let mark = Mark {
        filled: false,
        changed: false,
        acked: 1,
        at: lockstep_model::Timestamp(1),
        lag: None,
    };
    target.note(mark).await.unwrap();
    assert!(!target.is_filled());
    target.note(Mark { filled: true, ..mark }).await.unwrap();
    assert!(target.is_filled() && record::is_filled(dir.path(), &path));
    assert!(!record::is_filled(dir.path(), &other));
    // Another directory of the same name, as below a disk that is not mounted.
    fs::rename(path.as_str(), dir.path().join("away")).unwrap();
    fs::rename(other.as_str(), path.as_str()).unwrap();
    assert!(!record::is_filled(dir.path(), &path));
    target.notice_loss().await.unwrap();
    assert!(!target.is_filled());
}

#[tokio::test]
async fn who_starts_again_is_as_far_behind_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let sync: SyncName = "webroot".parse().unwrap();
    let options = SyncOptions { max_lag: Some(Millis(60_000)), ..SyncOptions::default() };
    let spec = |key| SyncTarget { options: options.clone(), ..spec(Some(key)) };
    let start = || {
        let reports = Reports::default();
        let targets = Targets::new(reports.clone());
        targets.assign(&spec(1), dir.path());
        let sync = sync.clone();
        let behind = move || match &reports.subscribe().borrow()[&sync] {
            SyncReport::Target(report) => report.behind,
            SyncReport::Source(_) => unreachable!(),
        };
        (targets, behind)
    };
    let tell = async |targets: &Targets, lag: u64| {
        let caller = principal(Subject::Node("master1".parse().unwrap()), 1);
        let target = targets.admit(&"webroot".parse().unwrap(), &caller).unwrap().target;
        let (at, lag) = (Timestamp(1), Some(Millis(lag)));
        target.note(Mark { filled: false, changed: false, acked: 1, at, lag }).await.unwrap();
    };
    let (targets, is_behind) = start();
    assert!(!is_behind(), "nobody has told it so");
    tell(&targets, 61_000).await;
    assert!(is_behind());
    let (targets, is_behind) = start();
    assert!(is_behind());
    targets.assign(&spec(2), dir.path());
    assert!(is_behind(), "another feeds it now");
    targets.assign(&spec(1), dir.path());
    tell(&targets, 0).await;
    assert!(!is_behind());
    assert!(!start().1());
}

#[tokio::test]
async fn a_copy_that_is_gone_is_not_complete() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let targets = Targets::new(Reports::default());
    let path: DirPath = copy.to_str().unwrap().parse().unwrap();
    let spec = SyncTarget { path: path.clone(), ..spec(Some(1)) };
    targets.assign(&spec, dir.path());
    let master = principal(Subject::Node("master1".parse().unwrap()), 1);
    let target = targets.admit(&spec.sync, &master).unwrap().target;
    let mark = Mark {
        filled: true,
        changed: false,
        acked: 1,
        at: lockstep_model::Timestamp(1),
        lag: None,
    };
    target.note(mark).await.unwrap();
    target.notice_loss().await.unwrap();
    assert!(target.is_filled());
    fs::remove_dir(&copy).unwrap();
    target.notice_loss().await.unwrap();
    assert!(!target.is_filled() && !record::is_filled(dir.path(), &path));
    target.notice_loss().await.unwrap();
}

#[test]
fn the_configuration_confines() {
    let sync = "webroot".parse().unwrap();
    let text = config(&sync, &"/srv/www \\".parse().unwrap(), "!delete", true).unwrap();
    assert!(text.contains("\npath = /srv/www \\/.\n"));
    assert!(text.contains("refuse options = * !delete\n"));
    assert!(text.contains("write only = yes") && text.contains("use chroot = yes"));
    assert!(config(&sync, &"/srv/%HOME%".parse().unwrap(), "", true).is_err());
}
