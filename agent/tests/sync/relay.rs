//! Targets that feed others: what arrives at the first arrives at the second, a copy that is lost is
//! not handed on, and whoever is fed by another loses nothing and goes back to nothing.
#![allow(clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lockstep_agent::data::greet;
use lockstep_agent::sync::SyncEngine;
use lockstep_model::KeyHash;
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::sync::options::DeleteLimit;
use lockstep_model::sync::{Delivery, DeliveryState, SyncOptions, SyncReport};
use lockstep_model::task::{SyncSource, SyncTarget};
use lockstep_model::{Millis, NodeName};
use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::fleet::{SYNC, children, differences, engine, eventually, is_ok, peer};

/// Serves what one caller asks of a node, on a socket of the two.
fn listen(dir: &Path, node: &str, engine: &SyncEngine, caller: &str) {
    let path = dir.join("peers").join(format!("{caller}-{node}"));
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(path).unwrap();
    let subject = Subject::Node(caller.parse::<NodeName>().unwrap());
    let (engine, caller) = (engine.clone(), Principal { subject, key_hash: KeyHash([1; 32]) });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (engine, caller) = (engine.clone(), caller.clone());
            tokio::spawn(async move {
                let mut stream = stream;
                if let Some(request) = greet(&mut stream, &caller).await {
                    engine.serve(stream, request, &caller).await;
                }
            });
        }
    });
}

/// The source `m` and copies that feed each other as they are told.
pub struct Tree {
    pub dir: TempDir,
    pub engines: BTreeMap<&'static str, SyncEngine>,
    pub options: SyncOptions,
}

impl Tree {
    pub async fn new(nodes: &[&'static str], limit: Option<DeleteLimit>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("peers")).unwrap();
        let options = SyncOptions {
            delay: Millis(0),
            fanout: Some(2),
            delete_limit: limit,
            ..SyncOptions::default()
        };
        let mut tree = Self { dir, engines: BTreeMap::new(), options };
        fs::create_dir(tree.www("m")).unwrap();
        fs::write(tree.www("m").join("first"), "1").unwrap();
        for node in ["m"].iter().chain(nodes) {
            tree.engines.insert(node, engine(tree.dir.path(), node).await);
        }
        tree
    }

    pub fn www(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("{node}-www"))
    }

    /// Who feeds whom from now on: each after its feeder.
    pub async fn shape(&self, edges: &[(&str, &str)]) {
        let path = |node: &str| self.www(node).to_str().unwrap().parse().unwrap();
        let fed_by = |node: &str| {
            let fed = edges.iter().filter(|(_, feeder)| *feeder == node);
            fed.map(|(fed, _)| peer(fed).into()).collect::<Vec<_>>()
        };
        for (node, feeder) in edges {
            self.heal(feeder, node);
            let spec = SyncTarget {
                source: Some(peer(feeder)),
                options: self.options.clone(),
                receivers: fed_by(node),
                ..SyncTarget::new(SYNC.parse().unwrap(), path(node))
            };
            assert!(is_ok(&self.engines[node].apply_target(spec).await));
        }
        let others = edges.iter().filter(|(_, feeder)| *feeder != "m");
        let spec = SyncSource {
            receivers: fed_by("m"),
            others: others.map(|(node, _)| node.parse().unwrap()).collect(),
            options: self.options.clone(),
            ..SyncSource::new(SYNC.parse().unwrap(), path("m"))
        };
        assert!(is_ok(&self.engines["m"].apply_source(spec).await));
    }

    pub fn cut(&self, feeder: &str, node: &str) {
        fs::remove_file(self.dir.path().join("peers").join(format!("{feeder}-{node}"))).unwrap();
    }

    pub fn heal(&self, feeder: &str, node: &str) {
        listen(self.dir.path(), node, &self.engines[node], feeder);
    }

    pub async fn same(&self, nodes: &[&str]) {
        for node in nodes {
            let what = format!("{node} to be like the source");
            let same = || differences(&self.www("m"), &self.www(node)).is_empty().then_some(());
            eventually(&what, same).await;
        }
    }

    /// What a node says of one that it feeds.
    pub fn delivery(&self, feeder: &str, node: &str) -> Option<Delivery> {
        let reports = self.engines[feeder].reports().subscribe();
        let report = reports.borrow().get(&SYNC.parse().unwrap()).cloned()?;
        let source = match report {
            SyncReport::Source(report) => report,
            SyncReport::Target(report) => report.relay?,
        };
        source.deliveries.into_iter().find(|d| d.target.as_str() == node)
    }

    pub async fn state(&self, feeder: &str, node: &str, state: DeliveryState) -> Delivery {
        let what = format!("{node} to be {}", state.as_str());
        let is = |d: &Delivery| d.state == state;
        eventually(&what, || self.delivery(feeder, node).filter(is)).await
    }

    /// Which file it is, whatever it is called; numbers of files that are gone are used again.
    fn file(&self, node: &str, name: &str) -> Option<(u64, SystemTime)> {
        let found = fs::symlink_metadata(self.www(node).join(name)).ok()?;
        Some((found.ino(), found.created().unwrap()))
    }

    /// Renames until a copy keeps the file that it has: from then on the source is indexed.
    async fn indexed(&self, nodes: &[&str]) {
        fs::write(self.www("m").join("probe-0"), "probe").unwrap();
        for round in 0..40 {
            let [old, new] = [round, round + 1].map(|n| format!("probe-{n}"));
            self.same(nodes).await;
            let before: Vec<_> = nodes.iter().map(|node| self.file(node, &old)).collect();
            fs::rename(self.www("m").join(&old), self.www("m").join(&new)).unwrap();
            self.same(nodes).await;
            if nodes.iter().map(|node| self.file(node, &new)).collect::<Vec<_>>() == before {
                fs::remove_file(self.www("m").join(new)).unwrap();
                return self.same(nodes).await;
            }
        }
        panic!("no rename was ever carried over as one");
    }

    /// Without what it has to do.
    pub async fn restart(&mut self, node: &'static str) {
        self.engines[node].shut_down().await;
        self.engines.insert(node, engine(self.dir.path(), node).await);
    }

    pub async fn end(self) {
        for engine in self.engines.values() {
            engine.shut_down().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_at_a_relay_arrives_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (src, www1, www2) = (dir.join("src"), dir.join("web1-www"), dir.join("web2-www"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(dir.join("peers")).unwrap();
    fs::write(src.join("first"), "1").unwrap();
    let options = SyncOptions { delay: Millis(0), fanout: Some(2), ..SyncOptions::default() };
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
        receivers: vec![peer("web1").into()],
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

#[tokio::test(flavor = "multi_thread")]
async fn another_feeder_brings_what_the_one_before_did_not() {
    let tree = Tree::new(&["w1", "w2", "w3"], None).await;
    let src = tree.www("m");
    tree.shape(&[("w1", "m"), ("w2", "m"), ("w3", "w1")]).await;
    tree.same(&["w1", "w2", "w3"]).await;
    tree.state("w1", "w3", DeliveryState::Idle).await;
    // There and back again: what it was told of the other time is not to be trusted.
    for (round, before, after) in [(0, "w1", "w2"), (1, "w2", "w1"), (2, "w1", "w2")] {
        fs::write(src.join(format!("old-{round}")), "old").unwrap();
        tree.same(&["w1", "w2", "w3"]).await;
        tree.cut(before, "w3");
        fs::remove_file(src.join(format!("old-{round}"))).unwrap();
        fs::write(src.join("first"), format!("round {round}")).unwrap();
        tree.same(&["w1", "w2"]).await;
        assert!(tree.www("w3").join(format!("old-{round}")).exists());
        tree.shape(&[("w1", "m"), ("w2", "m"), ("w3", after)]).await;
        tree.same(&["w3"]).await;
        tree.state(after, "w3", DeliveryState::Idle).await;
    }
    tree.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tree_nothing_stays_that_went_meanwhile() {
    let mut tree = Tree::new(&["w1", "w2"], None).await;
    let src = tree.www("m");
    fs::write(src.join("old"), "old").unwrap();
    tree.shape(&[("w1", "m"), ("w2", "w1")]).await;
    tree.same(&["w1", "w2"]).await;
    tree.state("w1", "w2", DeliveryState::Idle).await;
    tree.cut("w1", "w2");
    fs::remove_file(src.join("old")).unwrap();
    tree.same(&["w1"]).await;
    assert!(tree.www("w2").join("old").exists());
    tree.options.fanout = None;
    tree.shape(&[("w1", "m"), ("w2", "m")]).await;
    tree.same(&["w2"]).await;
    tree.state("m", "w2", DeliveryState::Idle).await;
    tree.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_behind_a_copy_does_not_feed_it() {
    let tree = Tree::new(&["w1", "w2", "w3"], None).await;
    tree.shape(&[("w1", "m"), ("w2", "m"), ("w3", "w1")]).await;
    tree.same(&["w1", "w2", "w3"]).await;
    tree.state("m", "w2", DeliveryState::Idle).await;
    tree.cut("m", "w2");
    fs::write(tree.www("m").join("first"), "first, changed").unwrap();
    fs::write(tree.www("m").join("news"), "news").unwrap();
    tree.same(&["w1", "w3"]).await;
    let before = ["first", "news"].map(|name| tree.file("w3", name));

    let edges = [("w1", "m"), ("w2", "m"), ("w3", "w2")];
    tree.shape(&edges[..1]).await;
    tree.shape(&edges).await;
    tree.cut("m", "w2");
    let refused = |d: &Delivery| d.last_error.contains("it has more than its feeder");
    let is_refused = || tree.delivery("w2", "w3").filter(refused);
    eventually("the one behind to be refused", is_refused).await;
    assert!(tree.www("w3").join("news").exists());
    tree.heal("m", "w2");
    tree.state("w2", "w3", DeliveryState::Idle).await;
    tree.same(&["w2", "w3"]).await;
    assert_eq!(["first", "news"].map(|name| tree.file("w3", name)), before, "nothing went back");
    // By the source's own journal.
    let places = || {
        let acked = |feeder, node| Some(tree.delivery(feeder, node)?.acked);
        (acked("m", "w2")? == acked("w2", "w3")?).then_some(())
    };
    eventually("the two to be equally far", places).await;
    tree.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_on_a_relay_is_held_behind_it_and_let_go_with_it() {
    let limit = DeleteLimit { count: Some(5), percent: None, window: Millis::from_secs(600) };
    let tree = Tree::new(&["w1", "w2"], Some(limit)).await;
    let src = tree.www("m");
    for n in 0..20 {
        fs::write(src.join(format!("many-{n}")), "many").unwrap();
    }
    tree.shape(&[("w1", "m"), ("w2", "w1")]).await;
    tree.same(&["w1", "w2"]).await;
    tree.state("w1", "w2", DeliveryState::Idle).await;
    for n in 0..20 {
        fs::remove_file(src.join(format!("many-{n}"))).unwrap();
    }
    tree.state("m", "w1", DeliveryState::Held).await;
    fs::write(src.join("other"), "other").unwrap();
    eventually("the rest to go on", || tree.www("w2").join("other").exists().then_some(())).await;
    let left = |node: &str| {
        let www = tree.www(node);
        (0..20).filter(|n| www.join(format!("many-{n}")).exists()).collect::<Vec<_>>()
    };
    assert!(left("w1").len() >= 15, "{:?}", left("w1"));
    // What went before the limit was reached may be on its way.
    eventually("the same to be left", || (left("w1") == left("w2")).then_some(())).await;
    assert!(left("w2").len() >= 15, "{:?}", left("w2"));
    // A pass that is held brings the rest as well, and on.
    for node in ["w1", "w2"] {
        fs::write(tree.www(node).join("other"), "changed by somebody").unwrap();
    }
    let (sync, relay) = (SYNC.parse().unwrap(), "w1".parse().unwrap());
    let (progress, _) = tokio::sync::mpsc::channel(9);
    tree.engines["m"].resync(&sync, &relay, progress, Default::default()).await;
    tree.state("m", "w1", DeliveryState::Held).await;
    let same = |node| fs::read(tree.www(node).join("other")).unwrap() == b"other";
    eventually("it to be undone", || (same("w1") && same("w2")).then_some(())).await;

    assert!(is_ok(&tree.engines["m"].unhold(&sync, &relay).await));
    tree.same(&["w1", "w2"]).await;
    tree.state("w1", "w2", DeliveryState::Idle).await;
    tree.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_renamed_is_not_sent_again_behind_a_relay() {
    let mut tree = Tree::new(&["w1", "w2"], None).await;
    let (src, edges) = (tree.www("m"), [("w1", "m"), ("w2", "w1")]);
    fs::create_dir(src.join("d0")).unwrap();
    fs::write(src.join("d0/big"), vec![7; 4 << 20]).unwrap();
    tree.shape(&edges).await;
    for round in 0..2 {
        tree.indexed(&["w1", "w2"]).await;
        let before = tree.state("w1", "w2", DeliveryState::Idle).await.sent_bytes;
        let kept = tree.file("w2", &format!("d{round}/big"));
        let [old, new] = [round, round + 1].map(|n| src.join(format!("d{n}")));
        fs::rename(old, new).unwrap();
        tree.same(&["w1", "w2"]).await;
        assert_eq!(tree.file("w2", &format!("d{}/big", round + 1)), kept);
        let sent = tree.state("w1", "w2", DeliveryState::Idle).await.sent_bytes - before;
        assert!(sent < 100_000, "{sent} bytes");
        // The relay starts again, and is told of no "full" by it.
        tree.restart("w1").await;
        tree.shape(&edges).await;
    }
    tree.end().await;
}
