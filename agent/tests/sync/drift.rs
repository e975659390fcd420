//! Drift: what somebody changes on a target is found, told and repaired, by order and by schedule,
//! and what is only on its way is not taken for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lockstep_agent::sync::SyncEngine;
use lockstep_model::sync::{DeletePolicy, DeliveryState};
use lockstep_model::task::{Outcome, OutcomeKind, SyncVerify, TaskSpec};
use lockstep_model::{KeyHash, Millis};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, SYNC, engine, eventually, is_ok};
use crate::relay::Tree;

struct Asked<'a> {
    content: bool,
    repair: bool,
    paths: &'a [&'a str],
}

const SHOW: Asked<'static> = Asked { content: false, repair: false, paths: &[] };
const REPAIR: Asked<'static> = Asked { repair: true, ..SHOW };
const SHOW_CONTENT: Asked<'static> = Asked { content: true, ..SHOW };
const REPAIR_CONTENT: Asked<'static> = Asked { content: true, ..REPAIR };

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
    eventually("the drift to be found", drift).await;
    fleet.converged("web1").await;
    let verified = || drift().filter(|delivery| delivery.verified_at.is_some());
    eventually("it to count as repaired", verified).await;
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

/// Other content of the same size and time, which nothing but reading tells.
pub fn flip(file: &Path) {
    let at = fs::metadata(file).unwrap().modified().unwrap();
    let flipped: Vec<u8> = fs::read(file).unwrap().iter().map(|byte| byte ^ 1).collect();
    fs::write(file, flipped).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_modified(at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_only_looks_the_same_is_repaired() {
    let fleet = filled(&["web1"]).await;
    let copy = fleet.www("web1").join("a/b/one");
    flip(&copy);
    let (outcome, told) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome) && told.is_empty(), "metadata do not tell: {told:?}");
    let (outcome, told) = verify(&fleet.master, "web1", SHOW_CONTENT).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, ["differs(content) a/b/one"]);
    let verified = || fleet.delivery("web1").unwrap().verified_at.unwrap();
    let before = verified();

    let (outcome, told) = verify(&fleet.master, "web1", REPAIR_CONTENT).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, ["differs(content) a/b/one"]);
    assert_eq!(fs::read(&copy).unwrap(), b"one");
    fleet.converged("web1").await;
    eventually("it to count as verified", || (verified() > before).then_some(())).await;
    let (outcome, told) = verify(&fleet.master, "web1", SHOW_CONTENT).await;
    assert!(told.is_empty() && outcome.message.starts_with("equal: "), "{}", outcome.message);
    fleet.end().await;
}

/// Somebody on the target flips it back whenever it was repaired.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_does_not_bring_is_said() {
    let fleet = filled(&["web1"]).await;
    let (outcome, _) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    let verified = || fleet.delivery("web1").unwrap().verified_at;
    let before = verified();
    assert!(before.is_some());
    let (copy, stop) = (fleet.www("web1").join("c/one"), CancellationToken::new());
    flip(&copy);
    let vandal = tokio::spawn({
        let (copy, stop) = (copy.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                if fs::read(&copy).is_ok_and(|content| content == b"one") {
                    flip(&copy);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let (outcome, told) = verify(&fleet.master, "web1", REPAIR_CONTENT).await;
    assert_eq!(told, ["differs(content) c/one"]);
    assert_eq!(outcome.kind, OutcomeKind::Failed);
    assert!(
        outcome.message.ends_with("still there after a repair: differs(content) c/one"),
        "{}",
        outcome.message
    );
    // Also after a comparison that cannot see it.
    let (outcome, _) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(outcome.message.starts_with("equal: "), "{}", outcome.message);
    let warned = || {
        fleet
            .report()
            .filter(|report| report.warnings.iter().any(|w| w.contains("1 entries of web1")))
    };
    eventually("the source to warn", warned).await;
    assert_eq!((fleet.delivery("web1").unwrap().drift, verified()), (1, before));

    stop.cancel();
    vandal.await.unwrap();
    let (outcome, _) = verify(&fleet.master, "web1", REPAIR_CONTENT).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    let fine = || fleet.report().filter(|report| report.warnings.is_empty());
    eventually("the warning to end", fine).await;
    assert!(verified() > before);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_goes_on_where_it_was() {
    let mut fleet = filled(&["web1"]).await;
    fleet.options.scrub_every = Some(Millis::from_secs(10));
    fleet.apply().await;
    let (early, late) = (fleet.www("web1").join("a/b/one"), fleet.www("web1").join("c/one"));
    let repaired =
        |file: &Path| fs::read(file).is_ok_and(|content| content == b"one").then_some(());
    flip(&early);
    eventually("the schedule to repair", || repaired(&early)).await;

    // An agent that ended between the two.
    fleet.master.shut_down().await;
    let record = fleet.dir.path().join("master1/sync").join(SYNC).join("verified/web1");
    assert!(record.exists());
    let next: String = b"b/gone".iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&record, format!("1 1 1 0 0 0 /{next}\n")).unwrap();
    flip(&early);
    flip(&late);
    fleet.master = engine(fleet.dir.path(), "master1").await;
    fleet.apply().await;
    eventually("the rest to be repaired", || repaired(&late)).await;
    assert!(repaired(&early).is_none(), "it began again");
    eventually("the next round", || repaired(&early)).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_acls_are_repaired_where_they_are_kept() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let acl: Vec<u8> = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 1, 0, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let mut fleet = filled(&["web1"]).await;
    fleet.options.transfer.xattrs = true;
    fleet.options.transfer.acls = true;
    fleet.assign("web1").await;
    fleet.apply().await;
    let set = |path: &Path, name: &str, value: &[u8]| {
        setxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&fleet.src("c/two"), "user.kind", b"one");
    set(&fleet.src("a"), "user.kind", b"one");
    let (outcome, _) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    let www = fleet.www("web1");
    set(&www.join("c/two"), "user.kind", b"two");
    set(&www.join("a"), "user.more", b"");
    set(&www.join("c/one"), "system.posix_acl_access", &acl);
    let (outcome, told) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, ["a", "c/one", "c/two"].map(|path| format!("differs(xattrs) {path}")));
    let mut value = [0; 64];
    let len = getxattr(www.join("c/two"), "user.kind", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"one");
    for (path, name) in [("a", "user.more"), ("c/one", "system.posix_acl_access")] {
        assert!(getxattr(www.join(path), name, &mut value[..]).is_err(), "{path}");
    }
    let (outcome, told) = verify(&fleet.master, "web1", SHOW).await;
    assert!(outcome.message.starts_with("equal: ") && told.is_empty(), "{told:?}");

    // What only root sets: a program may bind low ports on the source, and not on the target.
    let ports = [[1, 0, 0, 2], [0, 4, 0, 0], [0; 4], [0; 4], [0; 4]].concat();
    set(&fleet.src("c/one"), "security.capability", &ports);
    set(&fleet.src("c/two"), "trusted.kind", b"one");
    let (outcome, _) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    let len = getxattr(www.join("c/one"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..len], ports);
    rustix::fs::removexattr(www.join("c/one"), "security.capability").unwrap();
    set(&www.join("c/two"), "trusted.kind", b"two");
    let (outcome, told) = verify(&fleet.master, "web1", REPAIR).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, ["c/one", "c/two"].map(|path| format!("differs(xattrs) {path}")));
    let len = getxattr(www.join("c/two"), "trusted.kind", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"one");
    assert!(getxattr(www.join("c/one"), "security.capability", &mut value[..]).is_ok());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_relay_a_copy_is_compared_by_whoever_feeds_it() {
    let mut tree = Tree::new(&["relay", "leaf"], None).await;
    let edges = [("relay", "m"), ("leaf", "relay")];
    // Only the source drops events, and all leave the names out of comparisons.
    tree.options.ignore = vec!["*.bak".parse().unwrap()];
    tree.shape(&edges).await;
    tree.state("relay", "leaf", DeliveryState::Idle).await;
    for name in ["one", "two"] {
        fs::write(tree.www("m").join(name), name).unwrap();
    }
    tree.same(&["relay", "leaf"]).await;
    let (source, relay) = (&tree.engines["m"], &tree.engines["relay"]);
    let (outcome, _) = verify(source, "leaf", SHOW).await;
    assert!(outcome.message.contains("leaf is no target"), "{}", outcome.message);

    flip(&tree.www("leaf").join("one"));
    fs::remove_file(tree.www("leaf").join("two")).unwrap();
    let (outcome, told) = verify(relay, "leaf", REPAIR_CONTENT).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert!(told.contains(&"differs(content) one".to_owned()), "{told:?}");
    assert!(told.contains(&"missing two".to_owned()), "{told:?}");
    tree.same(&["leaf"]).await;
    let verified = || tree.delivery("relay", "leaf")?.verified_at;
    eventually("the relay to say so", verified).await;

    // What is repaired on a relay goes on with its content.
    for node in ["relay", "leaf"] {
        flip(&tree.www(node).join("one"));
    }
    let (outcome, told) = verify(source, "relay", REPAIR_CONTENT).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(told, ["differs(content) one"]);
    tree.same(&["relay", "leaf"]).await;

    tree.options.verify_every = Some(Millis::from_secs(10));
    tree.shape(&edges).await;
    fs::write(tree.www("leaf").join("two"), "edited").unwrap();
    tree.same(&["leaf"]).await;
    tree.end().await;
}
