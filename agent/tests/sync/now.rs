//! "Everything up to now": where it is in the journal, who has it, and that asking leaves no trace.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lockstep_agent::dispatch;
use lockstep_agent::journal::{Change, Reader};
use lockstep_model::Millis;
use lockstep_model::sync::DeliveryState;
use lockstep_model::task::{Outcome, OutcomeKind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, SYNC, differences, eventually, is_ok, kill};

async fn barrier(fleet: &Fleet, at_least: Option<u32>) -> Outcome {
    let (progress, _lines) = mpsc::channel(16);
    let sync = SYNC.parse().unwrap();
    fleet.master.barrier(&sync, at_least, None, progress, CancellationToken::new()).await
}

fn own_names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".lockstep-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn now_includes_what_lsyncd_has_not_told_yet() {
    let mut fleet = Fleet::new().await;
    fleet.options.delay = Millis(3000);
    fs::write(fleet.src("first"), "1").unwrap();
    fs::write(fleet.src(".lockstep-now-left"), "of an agent that was killed").unwrap();
    for head in ["web1", "web2"] {
        fleet.add_head(head).await;
    }
    fleet.apply().await;
    for head in ["web1", "web2"] {
        fleet.state(head, DeliveryState::Idle).await;
    }
    fleet.watching().await;
    fs::write(fleet.src("second"), "2").unwrap();
    let outcome = barrier(&fleet, None).await;
    assert!(is_ok(&outcome) && outcome.message.is_empty(), "{}", outcome.message);
    for head in ["web1", "web2"] {
        assert!(fleet.www(head).join("second").exists(), "{head} did not have it");
        // The canary changed the time of the source's top, which goes over as well.
        assert_eq!(differences(&fleet.src(""), &fleet.www(head)), "");
        assert!(own_names(&fleet.www(head)).is_empty());
    }
    assert!(own_names(&fleet.src("")).is_empty());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_names_who_is_missing_and_can_be_cancelled() {
    let fleet = Fleet::filled(&["web1", "web2"]).await;
    fleet.watching().await;
    // Nobody is at home at web2.
    fs::remove_file(fleet.dir.path().join("peers/web2")).unwrap();
    fs::write(fleet.src("second"), "2").unwrap();
    let some = barrier(&fleet, Some(1)).await;
    assert!(is_ok(&some), "{}", some.message);
    assert!(fleet.www("web1").join("second").exists());
    assert_eq!(barrier(&fleet, Some(3)).await.kind, OutcomeKind::Failed);

    let (progress, mut lines) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let sync = SYNC.parse().unwrap();
    let all = fleet.master.barrier(&sync, None, None, progress, cancel.clone());
    let (outcome, ()) = tokio::join!(all, async {
        let mut said = String::new();
        while !said.contains("1 of 2 have everything; not yet: web2") {
            said = lines.recv().await.unwrap();
        }
        cancel.cancel();
    });
    assert_eq!(outcome.kind, OutcomeKind::Cancelled);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_lsyncd_answers_too() {
    let fleet = Fleet::filled(&["web1"]).await;
    kill(fleet.lsyncd().await);
    fs::write(fleet.src("while it was dead"), "2").unwrap();
    let outcome = barrier(&fleet, None).await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert!(fleet.www("web1").join("while it was dead").exists());
    fleet.end().await;
}

/// Every file that was written before a canary was made is told at or before the canary, and not
/// before it was written, while lsyncd is busy with thousands of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_canary_is_behind_everything_before_it() {
    let mut fleet = Fleet::new().await;
    fleet.options.delay = Millis(1000);
    fs::write(fleet.src("first"), "1").unwrap();
    fleet.apply().await;
    fleet.watching().await;
    let journal = fleet.dir.path().join("master1/sync").join(SYNC).join(dispatch::JOURNAL);

    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (stop, count, src) = (stop.clone(), count.clone(), fleet.src(""));
            std::thread::spawn(move || {
                let mut written = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // A new directory for every tenth: lsyncd learns of it late.
                    let name = format!("w{writer}-{}/{n}", n / 10);
                    fs::create_dir_all(src.join(&name).parent().unwrap()).unwrap();
                    fs::write(src.join(&name), "x").unwrap();
                    written.push((name, std::time::Instant::now()));
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(500));
                }
                written
            })
        })
        .collect();
    let mut asked: Vec<(_, tokio::task::JoinHandle<_>)> = Vec::new();
    for n in 1..=8 {
        // Enough is written before each, and the last is asked when the first has its answer.
        let begun = count.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let is_time = || {
            let answered = n < 8 || asked.first().is_some_and(|(_, answer)| answer.is_finished());
            (answered && count.load(Ordering::Relaxed) >= begun + 50).then_some(())
        };
        eventually("enough to be written", is_time).await;
        let at = std::time::Instant::now();
        let master = fleet.master.clone();
        let answer = async move { master.now(&SYNC.parse().unwrap()).await };
        asked.push((at, tokio::spawn(answer)));
    }
    stop.store(true, Ordering::Relaxed);
    let written: Vec<_> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    let mut places = Vec::new();
    for (at, answer) in asked {
        let seq = tokio::time::timeout(crate::fleet::PATIENCE, answer).await.unwrap().unwrap();
        places.push((at, seq.unwrap()));
    }
    let told = told(&journal);
    let mut checked = 0;
    for (at, seq) in &places {
        for (name, written) in &written {
            if written < at {
                checked += 1;
                let first = told.get(name.as_bytes()).copied();
                assert!(
                    first.is_some_and(|first| first <= *seq),
                    "{name} was told in {first:?}, after the canary in {seq}"
                );
            }
        }
    }
    assert!(checked > 1000, "only {checked} were checked");
    assert!(places.iter().any(|(_, seq)| *seq < places[7].1), "all canaries were in one entry");
    fleet.end().await;
}

/// The first entry of each path.
fn told(journal: &Path) -> HashMap<Vec<u8>, u64> {
    let mut reader = Reader::after(journal, 0);
    let mut told = HashMap::new();
    loop {
        let entries = reader.read().unwrap();
        if entries.is_empty() {
            return told;
        }
        for entry in entries {
            let Change::Batch(changed) = entry.change else { continue };
            for changed in changed {
                told.entry(changed.path.to_vec()).or_insert(entry.seq);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_written_is_waited_for() {
    let fleet = Fleet::filled(&["web1"]).await;
    fleet.watching().await;
    let src = fleet.src("");
    fs::write(src.join("second"), "2").unwrap();
    let status = std::process::Command::new("chattr").arg("+i").arg(&src).status();
    assert!(status.unwrap().success(), "the file system of the tests has no immutable flag");
    let outcome = barrier(&fleet, None).await;
    let cleared = std::process::Command::new("chattr").arg("-i").arg(&src).status().unwrap();
    assert!(cleared.success());
    assert!(is_ok(&outcome) && outcome.message.contains("cannot be written"), "{outcome:?}");
    assert!(fleet.www("web1").join("second").exists());
    eventually("nothing of ours", || own_names(&src).is_empty().then_some(())).await;
    fleet.end().await;
}
