//! The ledger: laws over random histories, damage, and a writer that is killed.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use lockstep_model::task::{Peer, SyncSource, SyncTarget};
use lockstep_model::{KeyHash, Millis, Revision};
use proptest::prelude::*;

use super::*;

fn id(revision: u64) -> TaskId {
    TaskId { revision: Revision(revision), n: 0 }
}

fn offer(revision: u64, spec: TaskSpec) -> Offer {
    Offer {
        id: id(revision),
        attempt: 1,
        run_limit: Millis(60_000),
        traceparent: String::new(),
        spec,
    }
}

fn peer(node: &str) -> Peer {
    let addresses = vec!["10.0.0.5:7402".parse().unwrap(), "[fd00::5]:7402".parse().unwrap()];
    Peer { node: node.parse().unwrap(), key_hash: KeyHash([7; 32]), addresses }
}

fn source(sync: &str, targets: &[&str]) -> TaskSpec {
    TaskSpec::SyncSource(SyncSource {
        receivers: targets.iter().map(|t| peer(t).into()).collect(),
        ..SyncSource::new(sync.parse().unwrap(), "/srv/www".parse().unwrap())
    })
}

fn target(sync: &str, serve: bool) -> TaskSpec {
    TaskSpec::SyncTarget(SyncTarget {
        source: Some(peer("master1")),
        serve,
        ..SyncTarget::new(sync.parse().unwrap(), "/srv/www".parse().unwrap())
    })
}

fn release(sync: &str) -> TaskSpec {
    TaskSpec::SyncRelease { sync: sync.parse().unwrap() }
}

fn resync(sync: &str) -> TaskSpec {
    TaskSpec::SyncResync { sync: sync.parse().unwrap(), target: "web1".parse().unwrap() }
}

fn open(dir: &Path) -> Ledger {
    let (ledger, damages) = Ledger::open(dir).unwrap();
    assert_eq!(damages, Vec::<Damage>::new());
    ledger
}

fn failed() -> Outcome {
    Outcome::new(OutcomeKind::Failed, "no such directory")
}

#[test]
fn an_older_task_is_refused_and_a_repeated_one_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let accept = |ledger: &mut Ledger, revision, spec| {
        ledger.accept(offer(revision, spec), TaskPhase::Accepted).unwrap()
    };
    assert_eq!(accept(&mut ledger, 5, target("a", true)), Admission::New);
    for revision in [1, 4] {
        let said = accept(&mut ledger, revision, release("a"));
        assert_eq!(said, Admission::Stale { newest: id(5) });
    }
    // Other slots count for themselves.
    assert_eq!(accept(&mut ledger, 1, target("b", true)), Admission::New);
    assert_eq!(accept(&mut ledger, 2, resync("a")), Admission::New);

    let known = |phase| Admission::Known(State::Live(phase));
    assert_eq!(accept(&mut ledger, 5, target("a", true)), known(TaskPhase::Accepted));
    let slot = target("a", true).slot();
    assert!(ledger.begin(&slot, id(5)).unwrap());
    assert_eq!(accept(&mut ledger, 5, target("a", true)), known(TaskPhase::Running));
    assert!(ledger.end(&slot, id(5), failed()).unwrap());
    let mut again = open(dir.path());
    let ended = |acked| Admission::Known(State::Ended { outcome: failed(), acked });
    assert_eq!(accept(&mut again, 5, target("a", true)), ended(false));
    again.ack(id(5)).unwrap();
    again.ack(id(77)).unwrap();
    assert_eq!(accept(&mut open(dir.path()), 5, target("a", true)), ended(true));
}

#[test]
fn what_succeeded_holds_while_a_newer_task_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let slot = source("a", &[]).slot();
    let (first, second) = (source("a", &["web1"]), source("a", &["web1", "web2"]));
    let mut try_one = |revision, spec: &TaskSpec, outcome| {
        assert_eq!(
            ledger.accept(offer(revision, spec.clone()), TaskPhase::Accepted).unwrap(),
            Admission::New
        );
        ledger.begin(&slot, id(revision)).unwrap();
        let during = open(dir.path()).in_force().cloned().collect::<Vec<_>>();
        ledger.end(&slot, id(revision), outcome).unwrap();
        (during, open(dir.path()).in_force().cloned().collect::<Vec<_>>())
    };
    assert_eq!(try_one(1, &first, Outcome::ok()), (vec![], vec![first.clone()]));
    assert_eq!(try_one(2, &second, failed()), (vec![first.clone()], vec![first.clone()]));
    assert_eq!(try_one(3, &release("a"), failed()), (vec![first.clone()], vec![first.clone()]));
    assert_eq!(try_one(4, &second, Outcome::ok()), (vec![first], vec![second.clone()]));
    assert_eq!(try_one(5, &release("a"), Outcome::ok()), (vec![second], vec![]));
}

#[test]
fn a_task_that_lost_its_slot_changes_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let slot = target("a", true).slot();
    ledger.accept(offer(1, target("a", true)), TaskPhase::Accepted).unwrap();
    ledger.accept(offer(2, target("a", false)), TaskPhase::Accepted).unwrap();
    assert!(!ledger.begin(&slot, id(1)).unwrap());
    assert!(!ledger.end(&slot, id(1), Outcome::ok()).unwrap());
    assert_eq!(ledger.get(&slot).unwrap().state, State::Live(TaskPhase::Accepted));
    assert_eq!(ledger.in_force().count(), 0);
}

#[test]
fn a_damaged_file_is_named_and_counts_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    ledger.accept(offer(1, target("a", true)), TaskPhase::Accepted).unwrap();
    ledger.accept(offer(1, target("b", true)), TaskPhase::Accepted).unwrap();
    let file = dir.path().join("sync+a");
    let good = fs::read(&file).unwrap();
    for (name, bytes) in [
        ("sync+a", &good[..good.len() - 1]),
        ("sync+a", b"".as_slice()),
        ("sync+a", b"garbage".as_slice()),
        ("sync+other", &good),
        ("notes.txt", b"hello".as_slice()),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let (ledger, damages) = Ledger::open(dir.path()).unwrap();
        let [damage] = damages.as_slice() else { panic!("{name}: {damages:?}") };
        assert!(damage.contains(name), "{damage}");
        assert!(ledger.get(&target("b", true).slot()).is_some());
        match name {
            "sync+a" => fs::write(&file, &good).unwrap(),
            _ => fs::remove_file(&file).unwrap(),
        }
    }
    fs::write(dir.path().join("sync+a~"), b"half").unwrap();
    assert_eq!(open(dir.path()).entries().count(), 2, "what a crash left is no damage");
}

#[test]
fn slots_that_are_through_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    // The disk is not the point: fill the memory, then let one through the whole way.
    for n in 0..SLOTS_MAX as u64 {
        let entry = Entry {
            task: offer(n, release(&format!("s{n}"))),
            state: State::Ended { outcome: Outcome::ok(), acked: false },
            in_force: None,
        };
        ledger.entries.insert(entry.slot(), entry);
    }
    let refused = ledger.accept(offer(9999, target("new", true)), TaskPhase::Accepted);
    assert!(matches!(refused, Err(LedgerError::Full)), "{refused:?}");
    ledger.ack(id(7)).unwrap();
    ledger.ack(id(3)).unwrap();
    assert_eq!(
        ledger.accept(offer(9999, target("new", true)), TaskPhase::Accepted).unwrap(),
        Admission::New
    );
    assert!(ledger.get(&release("s3").slot()).is_none());
    assert!(ledger.get(&release("s7").slot()).is_some());
}

#[derive(Clone, Debug)]
enum Act {
    Accept(u64, u8),
    Begin,
    End(bool),
    Ack,
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u64..12, 0u8..4).prop_map(|(revision, kind)| Act::Accept(revision, kind)),
        Just(Act::Begin),
        any::<bool>().prop_map(Act::End),
        Just(Act::Ack),
        Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_number_of_a_slot_never_falls_and_the_disk_holds_what_memory_holds(
        acts in proptest::collection::vec(act(), 0..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path());
        let slot = target("a", true).slot();
        for act in acts {
            let before = ledger.get(&slot).cloned();
            let newest = before.as_ref().map(|entry| entry.task.id);
            match act {
                Act::Accept(revision, kind) => {
                    let spec = match kind {
                        0 => target("a", true),
                        1 => target("a", false),
                        2 => source("a", &["web1"]),
                        _ => release("a"),
                    };
                    let said = ledger.accept(offer(revision, spec), TaskPhase::Accepted).unwrap();
                    prop_assert_eq!(said == Admission::New, newest.is_none_or(|n| id(revision) > n));
                }
                Act::Begin => if let Some(id) = newest { ledger.begin(&slot, id).unwrap(); }
                Act::End(ok) => if let Some(id) = newest {
                    let outcome = if ok { Outcome::ok() } else { failed() };
                    ledger.end(&slot, id, outcome).unwrap();
                }
                Act::Ack => if let Some(id) = newest { ledger.ack(id).unwrap(); }
                Act::Reopen => ledger = open(dir.path()),
            }
            let after = ledger.get(&slot).cloned();
            prop_assert!(after.as_ref().map(|entry| entry.task.id) >= newest);
            prop_assert_eq!(open(dir.path()).get(&slot).cloned(), after);
        }
    }
}

const WRITER_DIR: &str = "LOCKSTEP_TEST_LEDGER_WRITER";

/// Not a test by itself: the child of the next one. Says each number after it is durable.
#[test]
fn writer_child() {
    let Some(dir) = std::env::var_os(WRITER_DIR) else { return };
    let mut ledger = open(Path::new(&dir));
    let slot = source("a", &[]).slot();
    let first = ledger.get(&slot).map_or(1, |entry| entry.task.id.revision.0 + 1);
    for revision in first.. {
        let targets = vec!["web1"; (revision % 50) as usize];
        ledger.accept(offer(revision, source("a", &targets)), TaskPhase::Accepted).unwrap();
        println!("accepted {revision}");
        ledger.end(&slot, id(revision), Outcome::ok()).unwrap();
        println!("ended {revision}");
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // kills a child of its own
fn nothing_that_was_acknowledged_is_lost_to_kill_9() {
    const KILLS: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let slot = source("a", &[]).slot();
    let mut all = 0;
    for kill in 0..KILLS {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::writer_child", "--nocapture"])
            .env(WRITER_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another moment each time: after so many lines.
        let mut said = Vec::new();
        let mut read = |line: io::Result<String>| {
            let line = line.unwrap_or_default();
            let mut words = line.split(' ');
            if let (Some(word @ ("accepted" | "ended")), Some(Ok(n))) =
                (words.next(), words.next().map(str::parse::<u64>))
            {
                said.push((word == "ended", n));
            }
        };
        lines.by_ref().take(8 + kill * 3).for_each(&mut read);
        child.kill().unwrap();
        lines.for_each(&mut read);
        child.wait().unwrap();
        let (ended, last) = *said.last().expect("the writer said something");
        let ledger = open(dir.path());
        let entry = ledger.get(&slot).unwrap();
        assert!(entry.task.id >= id(last), "{:?} is older than {last}", entry.task.id);
        if ended && entry.task.id == id(last) {
            assert_eq!(entry.state, State::Ended { outcome: Outcome::ok(), acked: false });
            assert_eq!(entry.in_force.as_ref(), Some(&entry.task.spec));
        }
        all += said.len();
    }
    assert!(all > 8 * KILLS / 2, "the writer wrote: {all}");
}
