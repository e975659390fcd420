//! The conversation about moves, with a peer that tells the truth and with one that sends anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tokio::io::duplex;

use super::*;
use crate::journal::entry::tests::any_change;
use crate::journal::{Change, RelPath};

fn any_path() -> impl Strategy<Value = RelPath> {
    any_change().prop_filter_map("a path", |change| match change {
        Change::Batch(paths) => paths.first().map(|changed| changed.path.clone()),
        Change::Full => None,
    })
}

fn any_move() -> impl Strategy<Value = Move> {
    let kind = prop_oneof![Just(Kind::File), Just(Kind::Directory)];
    let any_kind = prop_oneof![Just(Kind::File), Just(Kind::Directory), Just(Kind::Other)];
    let over = proptest::option::of(any_kind);
    (any_path(), any_path(), kind, over, any::<u64>(), any::<i64>()).prop_map(
        |(from, to, kind, over, size, mtime_ns)| Move { from, to, kind, size, mtime_ns, over },
    )
}

/// Names that a hostile peer would try, and some that are there.
fn hostile_path() -> impl Strategy<Value = RelPath> {
    let part = prop_oneof![
        4 => prop_oneof![Just("a"), Just("d"), Just("x"), Just("out"), Just("new")],
        1 => prop_oneof![Just(".."), Just("."), Just(""), Just("a\0b"), Just("outside")],
    ];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/").as_bytes().into())
}

/// All files below, by their content: here each has its own.
fn contents(dir: &Path) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(fs::read(&path).unwrap());
        }
    }
    found
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[tokio::test]
async fn what_is_told_is_done_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let count = 2 * BLOCK_MAX / 200;
    let mut moves = Vec::new();
    for n in 0..count {
        // Every other is there.
        let (from, to) = (format!("{n:0>80}"), format!("{n:x>80}"));
        let kind = Kind::Directory;
        if n == 0 {
            fs::create_dir(dir.path().join(&from)).unwrap();
        }
        let path = |s: String| s.into_bytes().into();
        let (size, mtime_ns) = (n as u64, 0);
        moves.push(Move { from: path(from), to: path(to), kind, size, mtime_ns, over: None });
    }
    let (mut near, mut far) = duplex(64 << 10);
    let root = dir.path().to_owned();
    let served = tokio::spawn(async move { serve(&mut far, root).await });
    let told = tell(&mut near, &moves).await.unwrap();
    assert_eq!((told.applied, told.skipped), (1, count - 1));
    assert!(told.sent_bytes as usize > BLOCK_MAX, "more than one block");
    let served = served.await.unwrap().unwrap();
    assert_eq!((served.applied, served.skipped), (1, count - 1));
}

proptest! {
    #[test]
    fn a_hint_is_read_as_written(moves in proptest::collection::vec(any_move(), 0..20)) {
        let blocks = blocks(&moves);
        let mut read = Vec::new();
        for (block, count) in &blocks {
            let hints = decode(block).unwrap();
            prop_assert_eq!(hints.len(), *count);
            prop_assert!(decode(&block[..block.len() - 1]).is_err());
            read.extend(hints);
        }
        prop_assert_eq!(read, moves);
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_hostile_peer_loses_nothing_and_reaches_nothing(
        hints in proptest::collection::vec((hostile_path(), hostile_path(), any::<bool>(), 0u8..4), 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("d/x")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("out")).unwrap();
        for name in ["root/a", "root/d/a", "root/d/x/a", "outside/a"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let before = contents(&root);
        let mut applier = Applier::open(&root).unwrap();
        for (from, to, is_dir, over) in hints {
            let kind = if is_dir { Kind::Directory } else { Kind::File };
            let over = [None, Some(Kind::File), Some(Kind::Directory), Some(Kind::Other)][usize::from(over)];
            // It may know sizes and times.
            let path = root.join(String::from_utf8(from.to_vec()).unwrap());
            let found = fs::symlink_metadata(path).ok();
            use std::os::unix::fs::MetadataExt;
            let size = found.as_ref().map_or(0, MetadataExt::size);
            let mtime_ns = found.map_or(0, |f| f.mtime() * 1_000_000_000 + f.mtime_nsec());
            let hint = Move { from, to, kind, size, mtime_ns, over };
            let mut block = Vec::new();
            encode(&mut block, &hint);
            // A bad name does not even get so far.
            let is_good = is_rel_path(&hint.from) && is_rel_path(&hint.to);
            prop_assert_eq!(decode(&block).is_ok(), is_good);
            applier.apply(&hint);
        }
        prop_assert_eq!(contents(&root), before);
        let outside = fs::read_dir(dir.path().join("outside")).unwrap().count();
        prop_assert_eq!((outside, fs::read_dir(dir.path()).unwrap().count()), (1, 2));
    }

    #[test]
    fn any_bytes_on_the_stream_end_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let (mut near, mut far) = duplex(64 << 10);
            near.write_all(&bytes).await.unwrap();
            near.shutdown().await.unwrap();
            let _ = serve(&mut far, dir.path().to_owned()).await;
        });
    }
}
