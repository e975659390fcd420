//! Who has everything, in a tree: a barrier, and what waits for all, know of those behind relays too.

use std::fs;

use lockstep_agent::sync::SyncEngine;
use lockstep_model::sync::hook::HookPlace;
use lockstep_model::sync::{DeletePolicy, Hook};
use lockstep_model::task::Outcome;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::events::write_hook;
use crate::fleet::{PATIENCE, SYNC, eventually, is_ok};
use crate::relay::Tree;

const CHAIN: [(&str, &str); 4] = [("w1", "m"), ("w2", "w1"), ("w3", "w2"), ("w4", "m")];

struct Barrier(JoinHandle<Outcome>, mpsc::Receiver<String>);

impl Barrier {
    fn of(source: &SyncEngine, at_least: Option<u32>) -> Self {
        let (progress, lines) = mpsc::channel(64);
        let source = source.clone();
        let wait = async move {
            let sync = SYNC.parse().unwrap();
            source.barrier(&sync, at_least, None, progress, Default::default()).await
        };
        Self(tokio::spawn(wait), lines)
    }

    async fn says(&mut self, what: &str) {
        let said = async {
            loop {
                let line = self.1.recv().await.unwrap();
                if line == what {
                    return;
                }
                eprintln!("not yet {what:?}: {line}");
            }
        };
        tokio::time::timeout(PATIENCE, said).await.unwrap();
    }

    async fn ends_well(self) {
        let outcome = tokio::time::timeout(PATIENCE, self.0).await.unwrap().unwrap();
        assert!(is_ok(&outcome), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_waited_for_and_each_counts() {
    let mut tree = Tree::new(&["w1", "w2", "w3", "w4"], None).await;
    write_hook(tree.dir.path(), "all");
    let hook = Hook { at: HookPlace::Source, ..Hook::new("all".parse().unwrap()) };
    tree.options.hooks = vec![hook];
    tree.shape(&CHAIN).await;
    tree.same(&["w1", "w2", "w3", "w4"]).await;
    Barrier::of(&tree.engines["m"], None).ends_well().await;
    let told = tree.dir.path().join("told");
    let runs = || fs::read_to_string(&told).unwrap_or_default().lines().count();
    eventually("the hook of the fill", || (runs() > 0).then_some(())).await;

    // Whatever else of the fill is told has been told.
    let mut before = 0;
    while runs() != before {
        before = runs();
        Barrier::of(&tree.engines["m"], None).ends_well().await;
    }
    tree.cut("w2", "w3");
    fs::write(tree.www("m").join("news"), "news").unwrap();
    Barrier::of(&tree.engines["m"], Some(3)).ends_well().await;
    let mut all = Barrier::of(&tree.engines["m"], None);
    all.says("3 of 4 have everything; not yet: w3").await;
    assert_eq!(runs(), before, "the last of them has not got it");
    tree.heal("w2", "w3");
    all.ends_well().await;
    assert!(tree.www("w3").join("news").exists());
    eventually("the hook of the change", || (runs() > before).then_some(())).await;

    // What is known of them is known again after restarts of those who told it.
    for node in ["w1", "m", "w2"] {
        fs::write(tree.www("m").join("news"), node).unwrap();
        tree.same(&["w3"]).await;
        tree.restart(node).await;
        tree.shape(&CHAIN).await;
        Barrier::of(&tree.engines["m"], None).ends_well().await;
    }

    // Nobody feeds it for a while, and then another.
    tree.cut("w2", "w3");
    fs::write(tree.www("m").join("news"), "more of them").unwrap();
    tree.same(&["w2", "w4"]).await;
    let mut all = Barrier::of(&tree.engines["m"], None);
    all.says("3 of 4 have everything; not yet: w3").await;
    tree.shape(&[("w1", "m"), ("w2", "w1"), ("w4", "m"), ("w3", "w4")]).await;
    all.ends_well().await;
    tree.same(&["w3"]).await;
    tree.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_stays_until_it_is_everywhere() {
    let mut tree = Tree::new(&["w1", "w2"], None).await;
    tree.options.delete = DeletePolicy::Never;
    tree.options.remove_source_files = true;
    let edges = [("w1", "m"), ("w2", "w1")];
    tree.shape(&edges).await;
    let first = tree.www("m").join("first");
    eventually("all to have it", || (!first.exists()).then_some(())).await;
    assert!(tree.www("w2").join("first").exists());

    tree.cut("w1", "w2");
    let second = tree.www("m").join("second");
    fs::write(&second, "2").unwrap();
    let at_relay = tree.www("w1").join("second");
    eventually("the relay to have it", || at_relay.exists().then_some(())).await;
    // What may go has gone before the second "now" is found.
    for _ in 0..2 {
        Barrier::of(&tree.engines["m"], Some(1)).ends_well().await;
    }
    assert!(second.exists(), "one of them has not got it");
    tree.heal("w1", "w2");
    eventually("all to have it", || (!second.exists()).then_some(())).await;
    assert!(tree.www("w2").join("second").exists());
    tree.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_nobody_follows_counts_too() {
    let mut tree = Tree::new(&["w1", "w2"], None).await;
    write_hook(tree.dir.path(), "all");
    let hook = Hook { at: HookPlace::Source, ..Hook::new("all".parse().unwrap()) };
    tree.options.hooks = vec![hook];
    tree.options.once = true;
    tree.shape(&[("w1", "m"), ("w2", "w1")]).await;
    let told = tree.dir.path().join("told");
    eventually("the hook of the fill", || told.exists().then_some(())).await;
    tree.same(&["w1", "w2"]).await;
    tree.end().await;
}
