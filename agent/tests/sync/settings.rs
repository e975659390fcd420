//! What changed settings do to copies that are there, and settings that decide what comes when.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use lockstep_model::rate::Rate;
use lockstep_model::setting::Settings;
use lockstep_model::sync::options::Initial;
use lockstep_model::sync::{DeliveryState, SyncOptions};
use lockstep_model::task::SyncSource;

use crate::fleet::{Fleet, eventually, is_ok};

const SLOW: u64 = 64 << 10;
const BIG: usize = 8 << 20;

async fn change(fleet: &mut Fleet, values: &[(&str, &str)]) {
    fleet.options.set(values.iter().copied()).unwrap();
    for head in fleet.targets.clone() {
        fleet.assign(&head).await;
    }
    fleet.apply().await;
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_there_follow_what_they_are_to_look_like() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    fleet.watching().await;
    let (first, copy) = (fleet.src("first"), fleet.www("web1").join("first"));
    fs::set_permissions(&first, fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(&first, fleet.src("second")).unwrap();
    fs::write(fleet.src("note.tmp"), "1").unwrap();
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;

    change(&mut fleet, &[("chmod", "F604"), ("hard-links", "yes")]).await;
    let second = fleet.www("web1").join("second");
    let is_linked = || fs::metadata(&second).is_ok_and(|found| found.nlink() == 2).then_some(());
    eventually("links", is_linked).await;
    eventually("its mode", || (mode(&copy) == 0o604).then_some(())).await;
    // How it is sent is no matter of a copy: no pass.
    fleet.state("web1", DeliveryState::Idle).await;
    let before = fleet.report().unwrap().head;
    change(&mut fleet, &[("compress", "yes"), ("checksum", "yes")]).await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!(fleet.report().unwrap().head, before);

    // What is left out from now on stays as it is; what is not any more comes.
    change(&mut fleet, &[("filter", "- *.tmp")]).await;
    fs::write(fleet.src("note.tmp"), "2").unwrap();
    fs::write(fleet.src("later.tmp"), "2").unwrap();
    fs::write(fleet.src("last"), "3").unwrap();
    eventually("the last", || fleet.www("web1").join("last").exists().then_some(())).await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!(fs::read(fleet.www("web1").join("note.tmp")).unwrap(), b"1");
    assert!(!fleet.www("web1").join("later.tmp").exists());
    change(&mut fleet, &[("filter", ""), ("chmod", "none")]).await;
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_as_the_settings_say() {
    const ODD: u32 = 4321;
    let mut fleet = Fleet::new().await;
    let values = [
        ("sparse", "yes"),
        ("compress", "yes"),
        ("checksum", "yes"),
        ("whole-file", "yes"),
        ("partial", "yes"),
        ("chown", "4321:4321"),
    ];
    fleet.options.set(values).unwrap();
    let mut holes = vec![0; 4 << 20];
    holes.push(1);
    fs::write(fleet.src("holes"), &holes).unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    let copy = fleet.www("web1").join("holes");
    assert_eq!(fs::read(&copy).unwrap(), holes);
    let found = fs::metadata(&copy).unwrap();
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
    assert_eq!((found.uid(), found.gid()), (ODD, ODD));
    // Sparse and in place exclude each other in old versions of rsync.
    let values = [("sparse", "no"), ("partial", "no"), ("inplace", "yes"), ("chown", "none")];
    change(&mut fleet, &values).await;
    fleet.converged("web1").await;
    fs::write(fleet.src("holes"), "short").unwrap();
    fleet.converged("web1").await;
    assert_eq!(fs::metadata(&copy).unwrap().ino(), found.ino(), "it was written anew");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_filled_by_other_means_is_taken_as_complete() {
    let mut fleet = Fleet::new().await;
    fleet.options.initial = Initial::Skip;
    fs::write(fleet.src("first"), "first").unwrap();
    fleet.add_head("web1").await;
    fs::create_dir(fleet.www("web1")).unwrap();
    fs::write(fleet.www("web1").join("own"), "1").unwrap();
    fleet.apply().await;
    fleet.watching().await;
    eventually("it counts as filled", || fleet.said("web1").filled.then_some(())).await;
    fleet.state("web1", DeliveryState::Idle).await;
    fs::write(fleet.src("later"), "1").unwrap();
    eventually("a change", || fleet.www("web1").join("later").exists().then_some(())).await;
    assert!(!fleet.www("web1").join("first").exists() && fleet.www("web1").join("own").exists());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_priority_goes_first_and_no_more_at_once_than_is_allowed() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    fleet.options.priority = vec!["*.html".parse().unwrap()];
    fleet.options.transfers = Some(1);
    fleet.options.bwlimit = Rate::new(SLOW);
    for head in ["web1", "web2"] {
        fleet.add_head(head).await;
    }
    fleet.apply().await;
    for head in ["web1", "web2"] {
        fleet.state(head, DeliveryState::Idle).await;
    }
    // All of it waits for one delivery.
    let pause = |paused| fleet.master.apply_source(SyncSource { paused, ..fleet.spec() });
    assert!(is_ok(&pause(true).await));
    fs::write(fleet.src("big"), vec![5; BIG]).unwrap();
    fs::write(fleet.src("index.html"), "<html>").unwrap();
    for head in ["web1", "web2"] {
        let both = || fleet.delivery(head).filter(|d| d.waiting_paths >= Some(2));
        eventually("both to wait", both).await;
    }
    assert!(is_ok(&pause(false).await));
    let pages = || {
        let running = fleet.children("--numeric-ids").len();
        assert!(running <= 1, "{running} at once");
        let there = |head: &&str| fleet.www(head).join("index.html").exists();
        ["web1", "web2"].iter().any(there).then_some(())
    };
    eventually("the page", pages).await;
    for _ in 0..50 {
        pages();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for head in ["web1", "web2"] {
        assert!(!fleet.www(head).join("big").exists(), "{head} has all");
    }
    let options = SyncOptions { bwlimit: None, ..fleet.options.clone() };
    assert!(is_ok(&fleet.master.apply_source(SyncSource { options, ..fleet.spec() }).await));
    for head in ["web1", "web2"] {
        fleet.converged(head).await;
    }
    fleet.end().await;
}
