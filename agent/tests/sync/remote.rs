//! Targets without an agent: kept in step over plain ssh and a plain rsync daemon, and never
//! counted as done when they are not.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use lockstep_model::Millis;
use lockstep_model::sync::options::Engine;
use lockstep_model::sync::{Delivery, DeliveryState};

use crate::daemons::{Rsyncd, Sshd, receiver, secret};
use crate::drift::flip;
use crate::faults::Tmpfs;
use crate::fleet::{Fleet, eventually, within_patience};

const NOBODY: u32 = 65534;

/// What everybody can reach, as those behind sshd that are not root.
fn open_up(fleet: &Fleet) {
    fs::set_permissions(fleet.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

async fn complains(fleet: &Fleet, target: &str, part: &str) -> Delivery {
    let last = std::cell::RefCell::new(None);
    let fits = |d: &Delivery| d.state == DeliveryState::Failing && d.last_error.contains(part);
    let found = within_patience(|| {
        last.replace(fleet.delivery(target));
        last.borrow().clone().filter(fits)
    });
    match found.await {
        Some(found) => found,
        None => panic!("waited in vain for {target} to say {part}: {:#?}", last.borrow()),
    }
}

/// Fills, changes, renames and removes, and finds the copy equal each time.
async fn keeps_in_step(fleet: &Fleet, target: &str) {
    fleet.converged(target).await;
    fs::write(fleet.src("first"), "changed").unwrap();
    fs::create_dir_all(fleet.src("dir/below")).unwrap();
    fs::write(fleet.src("dir/below/with blank and \n"), "1").unwrap();
    symlink("../first", fleet.src("dir/link")).unwrap();
    fleet.converged(target).await;
    fs::rename(fleet.src("dir"), fleet.src("moved")).unwrap();
    fs::remove_file(fleet.src("first")).unwrap();
    fleet.converged(target).await;
    fs::remove_dir_all(fleet.src("moved")).unwrap();
    fs::write(fleet.src("last"), "1").unwrap();
    fleet.converged(target).await;
    let idle = fleet.state(target, DeliveryState::Idle).await;
    assert!(idle.sent_bytes > 0 && idle.last_error.is_empty(), "{idle:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_sshd_alone_is_kept_in_step() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    let dir = fleet.dir.path();
    let sshd = Sshd::start(dir, &format!("/usr/bin/rrsync -wo {}", dir.display()));
    // rrsync's directory stands in front.
    fleet.remotes.push(receiver("web9", &sshd.url("/web9-www")));
    fleet.add_head("web1").await;
    fleet.apply().await;
    keeps_in_step(&fleet, "web9").await;
    fleet.converged("web1").await;

    // A batch alone would have made a copy with one file in it.
    fs::remove_dir_all(fleet.www("web9")).unwrap();
    fs::write(fleet.src("after"), "1").unwrap();
    fleet.converged("web9").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_without_an_agent_have_an_lsyncd_each_with_engine_classic() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    fleet.options.engine = Engine::Classic;
    let sshd = Sshd::start(fleet.dir.path(), "sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"");
    fs::create_dir(fleet.www("web8")).unwrap();
    let daemon = Rsyncd::start(fleet.dir.path(), &fleet.www("web8"));
    secret(fleet.dir.path(), "web8", "right\n");
    fleet.remotes = vec![
        receiver("web8", &daemon.url("www", "web8")),
        receiver("web9", &sshd.url(fleet.www("web9").to_str().unwrap())),
    ];
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.watching().await;
    for target in ["web8", "web9"] {
        keeps_in_step(&fleet, target).await;
        fs::write(fleet.src("first"), "again").unwrap();
    }
    fleet.converged("web1").await;

    // Its trouble is nobody else's, and goes over by itself.
    secret(fleet.dir.path(), "web8", "wrong\n");
    fs::write(fleet.src("news"), "1").unwrap();
    complains(&fleet, "web8", "does not take user b with the password in").await;
    fleet.converged("web9").await;
    secret(fleet.dir.path(), "web8", "right\n");
    fleet.converged("web8").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_an_rsync_daemon_alone_is_kept_in_step() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    fs::create_dir(fleet.www("web9")).unwrap();
    let daemon = Rsyncd::start(fleet.dir.path(), &fleet.www("web9"));
    secret(fleet.dir.path(), "web9", "wrong\n");
    fleet.add_head("web1").await;
    fleet.remotes = vec![
        receiver("web9", &daemon.url("www", "web9")),
        receiver("none", &daemon.url("nope", "web9")),
        receiver("fixed", &daemon.url("fixed", "web9")),
    ];
    fleet.apply().await;
    complains(&fleet, "web9", "does not take user b with the password in").await;
    complains(&fleet, "none", "has no module nope").await;
    complains(&fleet, "fixed", "module fixed is read only").await;
    fleet.converged("web1").await;

    secret(fleet.dir.path(), "web9", "right\n");
    keeps_in_step(&fleet, "web9").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_known_host_and_a_private_key_are_used() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    let dir = fleet.dir.path().to_owned();
    let mut sshd = Sshd::start(&dir, "sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"");
    let known = sshd.host_line();
    secret(&dir, "known_hosts", "");
    fleet.remotes.push(receiver("web9", &sshd.url(fleet.www("web9").to_str().unwrap())));
    fleet.apply().await;
    complains(&fleet, "web9", "is not known: ssh-keyscan -p").await;
    assert!(!fleet.www("web9").exists());
    secret(&dir, "known_hosts", &known);
    fleet.converged("web9").await;
    fleet.state("web9", DeliveryState::Idle).await;

    sshd.change_host_key();
    fs::write(fleet.src("later"), "1").unwrap();
    let failing = complains(&fleet, "web9", "shows another host key").await;
    assert!(
        failing.acked < fleet.report().unwrap().head && !fleet.www("web9").join("later").exists()
    );
    secret(&dir, "known_hosts", &sshd.host_line());
    fleet.converged("web9").await;

    let key = dir.join("secrets/deploy");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(fleet.src("latest"), "1").unwrap();
    complains(&fleet, "web9", "can be read by others: chmod 600").await;
    assert!(!fleet.www("web9").join("latest").exists());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fleet.converged("web9").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_may_not_write_waits_and_the_rest_arrives() {
    let mut fleet = Fleet::new().await;
    open_up(&fleet);
    for name in ["mine", "theirs"] {
        fs::create_dir(fleet.src(name)).unwrap();
        fs::write(fleet.src(name).join("first"), "first").unwrap();
    }
    let www = fleet.www("web9");
    fs::create_dir(&www).unwrap();
    chown(&www, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody =
        "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"";
    let sshd = Sshd::start(fleet.dir.path(), as_nobody);
    fleet.remotes.push(receiver("web9", &sshd.url(www.to_str().unwrap())));
    fleet.apply().await;
    fleet.state("web9", DeliveryState::Idle).await;
    assert_eq!(fs::metadata(www.join("mine/first")).unwrap().uid(), NOBODY);

    let theirs = www.join("theirs");
    chown(&theirs, Some(0), Some(0)).unwrap();
    fs::write(fleet.src("theirs/second"), "2").unwrap();
    fs::write(fleet.src("mine/second"), "2").unwrap();
    let failing = complains(&fleet, "web9", "theirs").await;
    assert!(failing.acked < fleet.report().unwrap().head, "{failing:?}");
    eventually("the rest", || fs::read(www.join("mine/second")).ok()).await;
    // What came later does not wait for it.
    fs::write(fleet.src("mine/third"), "3").unwrap();
    eventually("what came later", || fs::read(www.join("mine/third")).ok()).await;
    let two = |d: &Delivery| d.state == DeliveryState::Failing && d.waiting_paths == Some(2);
    let failing =
        eventually("theirs and theirs/second alone to wait", || fleet.delivery("web9").filter(two));
    assert!(failing.await.acked < fleet.report().unwrap().head);

    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    eventually("what waited", || fs::read(theirs.join("second")).ok()).await;
    let idle = fleet.state("web9", DeliveryState::Idle).await;
    assert_eq!(idle.acked, fleet.report().unwrap().head);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_never_a_success() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    let dir = fleet.dir.path();
    let sshd = Sshd::start(dir, "sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"");
    let mut disks = Vec::new();
    for target in ["web8", "web9"] {
        fs::create_dir(fleet.www(target)).unwrap();
        disks.push(Tmpfs::mount(&fleet.www(target), "size=256k"));
    }
    let daemon = Rsyncd::start(dir, &fleet.www("web9"));
    secret(dir, "web9", "right\n");
    fleet.remotes.push(receiver("web8", &sshd.url(fleet.www("web8").to_str().unwrap())));
    fleet.remotes.push(receiver("web9", &daemon.url("www", "web9")));
    fleet.apply().await;
    for target in ["web8", "web9"] {
        fleet.state(target, DeliveryState::Idle).await;
    }
    fs::write(fleet.src("big"), vec![7; 1 << 20]).unwrap();
    for target in ["web8", "web9"] {
        let failing = complains(&fleet, target, "No space left on device").await;
        assert!(failing.acked < fleet.report().unwrap().head, "{failing:?}");
    }
    disks.iter().for_each(|disk| disk.remount("size=8m"));
    for target in ["web8", "web9"] {
        fleet.converged(target).await;
        fleet.state(target, DeliveryState::Idle).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_alone_compares_a_copy_when_its_time_has_come() {
    let mut fleet = Fleet::new().await;
    fs::write(fleet.src("first"), "first").unwrap();
    fs::write(fleet.src("second"), "second").unwrap();
    let sshd = Sshd::start(fleet.dir.path(), "sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"");
    let www = fleet.www("web9");
    fleet.remotes.push(receiver("web9", &sshd.url(www.to_str().unwrap())));
    fleet.options.verify_every = Some(Millis::from_secs(2));
    fleet.apply().await;
    fleet.state("web9", DeliveryState::Idle).await;
    fs::write(www.join("first"), "by somebody").unwrap();
    fs::remove_file(www.join("second")).unwrap();
    fs::write(www.join("intruder"), "by somebody").unwrap();
    let found = |d: &Delivery| d.verified_at.is_some() && d.drift > 0;
    eventually("it to be told", || fleet.delivery("web9").filter(found)).await;
    fleet.converged("web9").await;

    // As long and as old.
    flip(&www.join("first"));
    fleet.options.verify_every = None;
    fleet.options.scrub_every = Some(Millis::from_secs(2));
    fleet.apply().await;
    fleet.converged("web9").await;
    let equal = |d: &Delivery| d.verified_at.is_some() && d.drift == 0;
    eventually("it to be told", || fleet.delivery("web9").filter(equal)).await;
    fleet.end().await;
}
