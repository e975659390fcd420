//! Who may read a tree through the data port, what they may ask for, and how that ends.

use std::fs;

use lockstep_agent::data::ask;
use lockstep_agent::data::header::{Answer, Request};
use lockstep_model::identity::Subject;
use lockstep_model::mirror::HopKind;
use lockstep_model::task::{OutcomeKind, PullFrom};
use tokio::net::UnixStream;

use super::fleet::{Node, Scene, differences, eventually, mirror, peer, principal};

async fn scene() -> (Scene, Node) {
    let scene = Scene::new().await;
    let web1 = Node::start(scene.dir.path(), "web1").await;
    scene.master.listen_to("web1", principal("web1", 1));
    web1.assign(web1.place(HopKind::Replica, &[])).await;
    (scene, web1)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_readers_of_the_moment_get_in_and_only_to_a_complete_tree() {
    let (scene, web1) = scene().await;
    let master = &scene.master;
    let call = async |caller| {
        master.listen_to("caller", caller);
        let path = scene.dir.path().join("peers/caller-master1");
        let mut stream = UnixStream::connect(path).await.unwrap();
        ask(&mut stream, Request::Pull(mirror())).await.unwrap()
    };
    let refused = |answer: &Answer| matches!(answer, Answer::Refused(_));
    assert!(refused(&call(principal("web1", 1)).await), "it is no reader");
    master.assign(master.place(HopKind::Upstream, &["web1"])).await;
    assert_eq!(call(principal("web1", 1)).await, Answer::Unfilled);
    master.pull(scene.spec(1, &[])).await;
    assert_eq!(call(principal("web1", 1)).await, Answer::Go);
    assert!(refused(&call(principal("web1", 2)).await), "another key");
    assert!(refused(&call(principal("web2", 1)).await), "another node");
    let user = Subject::User("web1".parse().unwrap());
    let user = lockstep_model::identity::Principal { subject: user, ..principal("web1", 1) };
    assert!(refused(&call(user).await), "a user");
    // A tree that is gone is complete no more.
    fs::remove_dir_all(master.tree()).unwrap();
    master.assign(master.place(HopKind::Upstream, &["web1"])).await;
    assert_eq!(call(principal("web1", 1)).await, Answer::Unfilled);
    web1.end().await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_reader_any_more_is_cut_off_in_the_middle() {
    let (scene, web1) = scene().await;
    let master = &scene.master;
    fs::write(scene.up("big"), vec![7; 8 << 20]).unwrap();
    master.assign(master.place(HopKind::Upstream, &["web1"])).await;
    master.pull(scene.spec(1, &[])).await;
    let slow = [("replica-bwlimit", "300K")];
    let pull = web1.run(web1.spec(1, PullFrom::Agent(peer("master1")), &slow));
    let cut = async {
        eventually("progress", || web1.report().pull.filter(|pull| pull.done_bytes > 0)).await;
        // Others that come and go leave it alone.
        master.assign(master.place(HopKind::Upstream, &["web1", "web2"])).await;
        assert_eq!(master.children().len(), 1);
        master.assign(master.place(HopKind::Upstream, &["web2"])).await;
        eventually("the end of the sender", || master.children().is_empty().then_some(())).await;
    };
    let (outcome, ()) = tokio::join!(pull, cut);
    assert_eq!(outcome.kind, OutcomeKind::Failed, "{outcome:?}");
    assert!(!outcome.pulled.unwrap().permanent, "{}", outcome.message);
    assert!(!web1.report().filled);
    web1.end().await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrors_own_options_pass_and_the_tree_cannot_be_left_or_written() {
    let (scene, web1) = scene().await;
    let master = &scene.master;
    master.pull(scene.spec(1, &[])).await;
    for (defaults, delete) in [
        ("-avH", "after"),
        ("-avHS --numeric-ids", "delete"),
        ("-rltz", "before"),
        ("-avHAX --checksum", "during"),
        ("-av --delay-updates", "delay"),
        ("-avH --inplace", "del"),
        ("-av --fuzzy --exclude=*.iso", "excluded"),
        ("-av --chmod=D755,F644", "none"),
        ("-av --safe-links --whole-file --size-only", "after"),
        ("-aOJv --no-owner --no-group --omit-link-times --modify-window=1", "after"),
        ("-avHx --partial-dir=.part --block-size=1000", "after"),
    ] {
        let values = [("rsync-defaults", defaults), ("delete", delete)];
        let place = master.place(HopKind::Upstream, &["web1"]);
        let options = super::fleet::options(&values);
        master.assign(lockstep_model::task::MirrorPlace { options, ..place }).await;
        let _ = fs::remove_dir_all(web1.tree());
        let pulled = web1.run(web1.spec(1, PullFrom::Agent(peer("master1")), &values)).await;
        assert_eq!(pulled.kind, OutcomeKind::Ok, "{defaults}: {}\n{}", pulled.message, web1.log());
        assert!(web1.tree().join("d/e/c").exists());
    }
    // What somebody could do with the right to read and an rsync of their own.
    master.assign(master.place(HopKind::Upstream, &["web1"])).await;
    let lane = web1.syncs.lanes().open(
        &mirror(),
        &peer("master1"),
        &lockstep_agent::data::limit::Limiter::new(None),
        &lockstep_agent::data::limit::Limiter::new(None),
    );
    fs::write(scene.dir.path().join("outside"), "secret").unwrap();
    let link = master.tree().join("out");
    std::os::unix::fs::symlink(scene.dir.path().join("outside"), &link).unwrap();
    let got = scene.dir.path().join("got");
    let hostile = async |args: &[&str]| {
        let _ = fs::remove_dir_all(&got);
        fs::create_dir(&got).unwrap();
        let shell = format!(
            "'{}' '--data-dir' '{}' 'rsh' '--mirror' 'fedora'",
            super::fleet::courier().display(),
            scene.dir.path().join("web1").display(),
        );
        let mut rsync = tokio::process::Command::new("rsync");
        let rsync = rsync.args(["--timeout=10", "-e", &shell]).args(args);
        let done = rsync.output().await.unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let to = got.to_str().unwrap();
    let (well, said) = hostile(&["-a", "master1::fedora/", to]).await;
    assert!(well, "{said}");
    assert_eq!(differences(&master.tree(), &got), "");
    let mine = scene.dir.path().join("up/a");
    let mine = mine.to_str().unwrap();
    for args in [
        &["-a", "master1::fedora/../", to][..],
        &["-aL", "master1::fedora/", to],
        &["-a", "--copy-unsafe-links", "master1::fedora/", to],
        &["-a", "master1::other/", to],
        &["-a", mine, "master1::fedora/"],
        &["-a", "--remove-source-files", "master1::fedora/", to],
        &["-a", "--files-from=:/d/b", "master1::fedora/", to],
        &["-a", "-M--log-file=/tmp/x", "master1::fedora/", to],
    ] {
        let (_, said) = hostile(args).await;
        let brought = fs::symlink_metadata(got.join("out")).is_ok_and(|found| found.is_file());
        assert!(!brought, "{args:?} {said}");
        assert!(!got.join("outside").exists() && !got.join("up").exists(), "{args:?}");
        assert!(master.tree().join("a").exists(), "{args:?}");
    }
    assert!(fs::read_dir(master.tree()).unwrap().count() == 5);
    drop(lane);
    let (well, _) = hostile(&["-a", "master1::fedora/", to]).await;
    assert!(!well, "no pull is under way");
    web1.end().await;
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_lends_counts_in_its_own_limit() {
    const RATE: u64 = 200 << 10;
    let scene = Scene::new().await;
    let web1 = Node::start_limited(scene.dir.path(), "web1", Some(RATE), |_| ()).await;
    let web2 = Node::start(scene.dir.path(), "web2").await;
    // Of nothing that could be packed.
    let bytes: Vec<u8> = (0..3 * RATE).map(|n| (n * n / 7 % 251) as u8).collect();
    fs::write(scene.up("big"), bytes).unwrap();
    web1.assign(web1.place(HopKind::Upstream, &["web2"])).await;
    web1.pull(web1.spec(1, scene.daemon.source(), &[])).await;
    web1.listen_to("web2", principal("web2", 1));
    web2.assign(web2.place(HopKind::Replica, &[])).await;
    let began = std::time::Instant::now();
    web2.pull(web2.spec(1, PullFrom::Agent(peer("web1")), &[])).await;
    assert!(began.elapsed() >= std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(differences(&web1.tree(), &web2.tree()), "");
    web1.end().await;
    web2.end().await;
    scene.master.end().await;
}
