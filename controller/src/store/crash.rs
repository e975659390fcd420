//! What is left of a store whose process was killed, or whose disk filled up, in the middle of
//! committing. A child process commits and says what was acknowledged; this one kills and looks.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lockstep_model::Revision;
use lockstep_model::record::{Change, Write};

use super::conformance::{copy, fold, large, log, txn, user};
use super::sled::SledStore;
use super::{ChangesError, CommitError, Snapshot, Store, StoreError};

/// Tells the child, which is this test binary once more, where the store is.
const DIR: &str = "LOCKSTEP_TEST_CRASH_DIR";
/// Set: the child's log is never compacted, so that its store grows.
const GROW: &str = "LOCKSTEP_TEST_CRASH_GROW";
/// How many times a child is killed; more than this takes about 0.1 s each.
const KILLS: &str = "LOCKSTEP_TEST_KILLS";
const KILLS_USUAL: u64 = 200;

/// Records that every commit of the child writes together.
const WIDTH: u64 = 5;

/// The commit on top of `base`: its records carry the revision, so that half a commit shows. Some
/// are long enough to be cut into pieces, and every third deletes what the one before it made.
fn writes(base: Revision) -> Vec<Write> {
    let n = base.next().0;
    let mut writes: Vec<Write> =
        (0..WIDTH).map(|i| Write::Put(user(&format!("u{i}"), n))).collect();
    let bytes = if n.is_multiple_of(7) { 40_000 } else { n as usize % 3 * 2_500 };
    writes.push(Write::Put(large("webroot", n, bytes)));
    let odd = user("odd", 1);
    writes.push(if n.is_multiple_of(3) { Write::Delete(odd.key()) } else { Write::Put(odd) });
    writes
}

/// Not a test by itself: with `DIR` set it commits until it is killed or the store fails.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = SledStore::open(Path::new(&dir)).unwrap();
    let mut at = store.snapshot().await.unwrap().revision;
    let mut say = std::io::stdout();
    loop {
        match store.commit(txn(at, writes(at))).await {
            Ok(change) => at = change.revision,
            Err(CommitError::Unknown { problem }) => {
                let again = store.commit(txn(at, Vec::new())).await;
                assert!(matches!(again, Err(CommitError::Unknown { .. })), "{again:?}");
                writeln!(say, "failed {problem}").unwrap();
                // As a controller has to: the thread that waits for sled may wait for ever.
                std::process::exit(0);
            }
            Err(other) => panic!("{other}"),
        }
        writeln!(say, "acked {at}").unwrap();
        if at.0.is_multiple_of(50) && std::env::var_os(GROW).is_none() {
            store.compact(Revision(at.0 - 20)).await.unwrap();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the host of agents is no use here")]
fn start_child(dir: &Path, grow: bool) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .envs(grow.then_some((GROW, "1")))
        .args(["store::crash::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a child said until its end.
#[derive(Default, Debug)]
struct Said {
    acked: Option<Revision>,
    failed: Option<String>,
}

/// Takes down what the child says until it ends: by itself, or killed some time after a number of
/// lines. The first two come before it opens the store, the others are acknowledgements.
fn listen(mut child: Child, kill_after: Option<(usize, Duration)>) -> Said {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Said::default();
    let hear = |line: String, said: &mut Said| {
        if let Some(revision) = line.split_once("acked ").map(|l| l.1) {
            said.acked = Some(Revision(revision.parse().unwrap()));
        } else if let Some(problem) = line.split_once("failed ").map(|l| l.1) {
            said.failed = Some(problem.to_owned());
        }
    };
    if let Some((count, delay)) = kill_after {
        for line in lines.by_ref().take(count) {
            hear(line.unwrap(), &mut said);
        }
        std::thread::park_timeout(delay);
        child.kill().unwrap();
    }
    lines.for_each(|line| hear(line.unwrap(), &mut said));
    child.wait().unwrap();
    said
}

/// The store holds a whole number of the child's commits: all that were acknowledged, and at most
/// the one more that was under way.
async fn check(store: &SledStore, acked: Revision) -> Snapshot {
    let snapshot = store.snapshot().await.unwrap();
    let at = snapshot.revision;
    assert!(acked <= at, "acknowledged {acked}, found {at}");
    assert!(at.0 <= acked.0 + 1, "acknowledged {acked}, found {at}");
    if at == Revision::ZERO {
        assert!(snapshot.records.is_empty());
        return snapshot;
    }

    // Each commit writes every record anew, so the last one alone says what is there.
    let last = change(Revision(at.0 - 1));
    assert_eq!(snapshot, fold(Snapshot::default(), std::slice::from_ref(&last)));

    let oldest = match store.changes(Revision::ZERO).await {
        Ok(_) => Revision::ZERO,
        Err(ChangesError::Compacted { oldest }) => oldest,
        Err(other) => panic!("{other}"),
    };
    let entries = log(store, oldest).await;
    let revisions: Vec<u64> = entries.iter().map(|entry| entry.revision.0).collect();
    assert_eq!(revisions, (oldest.0 + 1..=at.0).collect::<Vec<_>>());
    assert_eq!(entries.last(), Some(&last));
    if oldest == Revision::ZERO {
        assert_eq!(fold(Snapshot::default(), &entries), snapshot);
    }
    snapshot
}

fn change(base: Revision) -> Change {
    Change::of(txn(base, writes(base)))
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_commit() {
    let dir = tempfile::tempdir().unwrap();
    drop(SledStore::create(dir.path()).unwrap());
    let kills = std::env::var(KILLS).map_or(KILLS_USUAL, |n| n.parse().unwrap());
    let (mut acked, mut in_flight) = (Revision::ZERO, 0);
    for kill in 0..kills {
        // While it opens the store, or anywhere in the first commits, compactions included.
        let count = if kill % 4 == 0 { 2 } else { 3 };
        let delay = Duration::from_micros(kill * 7919 % 60_000);
        let said = listen(start_child(dir.path(), false), Some((count, delay)));
        assert_eq!(said.failed, None);
        let base = acked;
        acked = said.acked.unwrap_or(acked).max(acked);
        let store = SledStore::open(dir.path()).unwrap();
        let found = check(&store, acked).await.revision;
        in_flight += u64::from(found > acked);
        acked = found;
        assert!(acked >= base);
    }
    assert!(acked.0 > kills, "the children must have got to commit: {acked} after {kills} kills");
    println!("{kills} kills, {acked} commits, {in_flight} found that were not acknowledged");
}

#[tokio::test]
async fn a_full_disk_is_an_unknown_outcome_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path(), "6m") else { return };
    drop(SledStore::create(dir.path()).unwrap());

    let said = listen(start_child(dir.path(), true), None);
    let problem = said.failed.expect("the disk must fill up");
    let acked = said.acked.unwrap();
    assert!(acked.0 > 10, "{acked} commits, then {problem}");

    // Still full: whether it opens or not, it says so, and it loses nothing.
    match SledStore::open(dir.path()) {
        Ok(store) => drop(check(&store, acked).await),
        Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
    }

    disk.remount("size=64m");
    let store = SledStore::open(dir.path()).unwrap();
    let at = check(&store, acked).await.revision;
    store.commit(txn(at, writes(at))).await.unwrap();
    drop(store);
}

#[tokio::test]
async fn a_read_only_disk_is_refused_by_name() {
    let (source, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(SledStore::create(source.path()).unwrap());
    let Some(disk) = Disk::mount(dir.path(), "6m") else { return };
    copy(source.path(), dir.path());
    disk.remount("ro");
    for refused in [SledStore::open(dir.path()), SledStore::create(dir.path())] {
        let error = refused.err().unwrap();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    }
    disk.remount("rw");
    drop(SledStore::open(dir.path()).unwrap());
}

/// A file system of a few megabytes, unmounted when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a disk of its own takes root to mount");
            return None;
        }
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], at);
        Some(Self(at))
    }

    fn remount(&self, option: &str) {
        run("mount", &["-o", &format!("remount,{option}")], self.0);
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        run("umount", &["--lazy"], self.0);
    }
}

#[allow(clippy::disallowed_methods, reason = "the host of agents is no use here")]
fn run(program: &str, args: &[&str], at: &Path) {
    assert!(Command::new(program).args(args).arg(at).status().unwrap().success(), "{program}");
}
