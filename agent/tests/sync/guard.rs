//! What keeps a source from wiping its targets: limits on removals, source and target that are not
//! what they were, and names that fail without holding others up.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lockstep_model::Millis;
use lockstep_model::sync::options::DeleteLimit;
use lockstep_model::sync::{DeletePolicy, DeliveryState};
use lockstep_model::task::Outcome;
use tokio_util::sync::CancellationToken;

use crate::faults::Tmpfs;
use crate::fleet::{self, Fleet, SYNC, eventually, is_ok};

const LIMIT: DeleteLimit = DeleteLimit { count: Some(10), percent: None, window: Millis(600_000) };

async fn limited() -> Fleet {
    let mut fleet = Fleet::new().await;
    fleet.options.delete_limit = Some(LIMIT);
    fs::create_dir_all(fleet.src("d/e")).unwrap();
    fs::write(fleet.src("first"), "first").unwrap();
    for i in 0..20 {
        fs::write(fleet.src(&format!("d/e/f{i}")), "x").unwrap();
    }
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    fleet
}

async fn resync(fleet: &Fleet) -> Outcome {
    let (progress, _lines) = tokio::sync::mpsc::channel(8);
    let (sync, web1) = (SYNC.parse().unwrap(), "web1".parse().unwrap());
    fleet.master.resync(&sync, &web1, progress, CancellationToken::new()).await
}

async fn release(fleet: &Fleet) -> Outcome {
    fleet.master.unhold(&SYNC.parse().unwrap(), &"web1".parse().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_directory_counts_with_what_is_in_it_and_goes_after_a_release() {
    let mut fleet = limited().await;
    assert!(!is_ok(&release(&fleet).await), "nothing is held");
    // In one step, so that no batch takes a part of it.
    fs::rename(fleet.src("d"), fleet.dir.path().join("away")).unwrap();
    let held = fleet.state("web1", DeliveryState::Held).await;
    let command = "lockstepctl sync release webroot --target web1";
    assert!(held.last_error.starts_with("22 entries would be removed"), "{}", held.last_error);
    assert!(held.last_error.ends_with(command), "{}", held.last_error);
    // Everything else goes on, and the hold stays over a restart.
    fs::write(fleet.src("later"), "1").unwrap();
    eventually("later", || fleet.www("web1").join("later").exists().then_some(())).await;
    fleet.master.shut_down().await;
    fleet.master = fleet::engine(fleet.dir.path(), "master1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Held).await;
    assert!(!is_ok(&resync(&fleet).await));
    assert!(fleet.www("web1").join("d/e/f19").exists());
    assert!(is_ok(&release(&fleet).await));
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_add_up_over_batches_and_a_higher_limit_lets_them_go() {
    let mut fleet = limited().await;
    for i in 0..8 {
        fs::remove_file(fleet.src(&format!("d/e/f{i}"))).unwrap();
    }
    fleet.converged("web1").await;
    for i in 8..12 {
        fs::remove_file(fleet.src(&format!("d/e/f{i}"))).unwrap();
    }
    let held = fleet.state("web1", DeliveryState::Held).await;
    assert!(
        held.last_error.contains("within 600 s: the limit is 10 entries;"),
        "{}",
        held.last_error
    );
    assert!(fleet.www("web1").join("d/e/f11").exists());
    fleet.options.delete_limit = Some(DeleteLimit { count: Some(100), ..LIMIT });
    fleet.apply().await;
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_when_the_source_is_repaired() {
    let fleet = limited().await;
    let away = fleet.dir.path().join("away");
    fs::rename(fleet.src("d"), &away).unwrap();
    fleet.state("web1", DeliveryState::Held).await;
    fs::rename(&away, fleet.src("d")).unwrap();
    fleet.state("web1", DeliveryState::Idle).await;
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_given_by_mistake_keeps_what_it_had() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    // A directory of the target where the source has a file.
    fs::create_dir_all(fleet.www("web1").join("first/in")).unwrap();
    for i in 0..50 {
        fs::write(fleet.www("web1").join(format!("own{i}")), "x").unwrap();
    }
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    let order = resync(&fleet).await;
    assert!(order.message.contains("50 entries would be removed"), "{}", order.message);
    assert!(fleet.www("web1").join("own49").exists());
    assert!(is_ok(&release(&fleet).await));
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_had_nothing_else_is_the_syncs_own_from_the_start() {
    let mut fleet = Fleet::new().await;
    for i in 0..80 {
        fs::write(fleet.src(&format!("f{i}")), "x").unwrap();
    }
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    // Over a quarter of it, and few enough.
    for i in 0..30 {
        fs::write(fleet.www("web1").join(format!("extra{i}")), "x").unwrap();
    }
    let order = resync(&fleet).await;
    assert!(is_ok(&order), "{}", order.message);
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_its_sentinel_deletes_nothing() {
    let mut fleet = Fleet::new().await;
    fleet.options.sentinel = Some(".complete".parse().unwrap());
    for name in ["first", ".complete", "a"] {
        fs::write(fleet.src(name), "1").unwrap();
    }
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.converged("web1").await;
    fs::remove_file(fleet.src(".complete")).unwrap();
    fs::remove_file(fleet.src("a")).unwrap();
    let held = fleet.state("web1", DeliveryState::Held).await;
    assert!(held.last_error.contains(".complete is missing"), "{}", held.last_error);
    assert!(fleet.www("web1").join("a").exists());
    fs::write(fleet.src(".complete"), "1").unwrap();
    fleet.converged("web1").await;
    fleet.end().await;
}

/// rsync with root's power over modes taken away.
fn powerless_rsync(fleet: &Fleet) -> std::path::PathBuf {
    let script = fleet.dir.path().join("powerless-rsync");
    let drop = "-dac_override,-dac_read_search";
    let text =
        format!("#!/bin/sh\nexec setpriv --bounding-set={drop} --inh-caps={drop} rsync \"$@\"\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_readable_source_deletes_nothing_and_heals() {
    let mut fleet = Fleet::new().await;
    let rsync = powerless_rsync(&fleet);
    fleet.master = fleet::engine_with(fleet.dir.path(), "master1", |s| s.rsync = rsync).await;
    fs::create_dir(fleet.src("sub")).unwrap();
    fs::write(fleet.src("sub/in"), "1").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.converged("web1").await;
    fs::write(fleet.www("web1").join("extra"), "1").unwrap();
    fs::set_permissions(fleet.src("sub"), fs::Permissions::from_mode(0o000)).unwrap();
    let order = resync(&fleet).await;
    assert!(order.message.contains("Permission denied"), "{}", order.message);
    assert!(fleet.www("web1").join("extra").exists());
    assert!(fleet.www("web1").join("sub/in").exists());
    fs::set_permissions(fleet.src("sub"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(is_ok(&resync(&fleet).await));
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_fails_holds_no_other_up() {
    let fleet = {
        let mut fleet = Fleet::new().await;
        let rsync = powerless_rsync(&fleet);
        fleet.master = fleet::engine_with(fleet.dir.path(), "master1", |s| s.rsync = rsync).await;
        fs::write(fleet.src("first"), "1").unwrap();
        fleet.add_head("web1").await;
        fleet.apply().await;
        fleet.converged("web1").await;
        fleet
    };
    let acked = fleet.state("web1", DeliveryState::Idle).await.acked;
    fs::write(fleet.src("secret"), "1").unwrap();
    fs::set_permissions(fleet.src("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let failing = fleet.state("web1", DeliveryState::Failing).await;
    assert!(failing.last_error.contains("secret"), "{}", failing.last_error);
    for name in ["a", "b", "c"] {
        fs::write(fleet.src(name), "1").unwrap();
        eventually(name, || fleet.www("web1").join(name).exists().then_some(())).await;
    }
    let delivery = fleet.delivery("web1").unwrap();
    assert_eq!(delivery.acked, acked, "nothing is acknowledged that is not there");
    fs::set_permissions(fleet.src("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_directory_in_a_targets_place_is_filled_anew_and_loses_nothing() {
    let fleet = Fleet::filled(&["web1"]).await;
    let other = Tmpfs::mount(&fleet.www("web1"), "size=8m");
    fs::write(fleet.www("web1").join("somebody's"), "1").unwrap();
    fs::write(fleet.src("later"), "1").unwrap();
    eventually("the fill", || fleet.www("web1").join("first").exists().then_some(())).await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert!(fleet.www("web1").join("somebody's").exists());
    drop(other);
    fs::write(fleet.src("last"), "1").unwrap();
    fleet.converged("web1").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_takes_no_removals_that_its_policy_forbids() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    fleet.options.delete = DeletePolicy::Never;
    fleet.assign("web1").await;
    fs::write(fleet.www("web1").join("own"), "1").unwrap();
    let src = fleet.src("");
    let src = format!("{}/", src.to_str().unwrap());
    let delete = ["-r", "--delete-after", &src, "web1::webroot/"];
    assert!(!fleet.hostile_rsync(&delete).await.success());
    assert!(fleet.www("web1").join("own").exists());
    fleet.options.delete = DeletePolicy::Always;
    fleet.assign("web1").await;
    assert!(fleet.hostile_rsync(&delete).await.success());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sync_delivers_nothing_until_it_goes_on() {
    let fleet = Fleet::filled(&["web1"]).await;
    let pause = |paused| {
        let spec = lockstep_model::task::SyncSource { paused, ..fleet.spec() };
        fleet.master.apply_source(spec)
    };
    assert!(is_ok(&pause(true).await));
    fleet.state("web1", DeliveryState::Paused).await;
    fs::write(fleet.src("later"), "1").unwrap();
    eventually("a path to wait", || {
        fleet.delivery("web1").filter(|d| d.waiting_paths.is_some_and(|n| n > 0))
    })
    .await;
    assert!(!fleet.www("web1").join("later").exists());
    assert!(is_ok(&pause(false).await));
    fleet.converged("web1").await;
    fleet.end().await;
}
