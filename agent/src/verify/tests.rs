//! Comparisons of real directories over a pipe: each kind of drift, changes on their way,
//! directories that are swapped for links, and peers that send garbage.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::entry::{KEY_LEN, Keep};
use super::*;
use crate::journal::{Change, RelPath};

mod attributes;
mod oracle;

fn side(root: &Path) -> Side {
    let excluded: Filter = Arc::new(|path, _| path.ends_with(b".tmp"));
    Side { root: root.to_owned(), keep: Keep::ARCHIVE, rules: 7, excluded }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[derive(Default)]
struct Asked {
    no_extras: bool,
    content: Option<u64>,
    most: Option<usize>,
    paths: Option<Vec<RelPath>>,
    of: Option<Of>,
    slice_bytes: Option<u64>,
}

async fn compare_with(
    source: &Side,
    target: &Side,
    asked: Asked,
    settle: &(dyn Fn() + Send + Sync),
) -> Result<Findings, CompareError> {
    // Small, so that neither side may rely on the other's reading at once.
    let (here, there) = tokio::io::duplex(1024);
    let settle = || -> futures_util::future::BoxFuture<'static, Result<(), String>> {
        settle();
        Box::pin(async { Ok(()) })
    };
    let what = Compare {
        side: source,
        key: [9; KEY_LEN],
        extras: !asked.no_extras,
        content: asked.content,
        most: asked.most.unwrap_or(FINDINGS_MAX),
        of: asked.of.unwrap_or_else(|| asked.paths.map_or(Of::Tree, Of::Paths)),
        slice_bytes: asked.slice_bytes.unwrap_or(u64::MAX),
        settle: &settle,
        progress: &|_| {},
    };
    let (found, served) = tokio::join!(compare(here, &what), serve(there, target));
    served.unwrap();
    found
}

fn found(source: &Path, target: &Path, asked: Asked) -> Findings {
    runtime().block_on(compare_with(&side(source), &side(target), asked, &|| {})).unwrap()
}

fn lines(findings: &Findings) -> Vec<String> {
    findings.list.iter().map(ToString::to_string).collect()
}

fn stamp(path: &Path, secs: u64) {
    let at = rustix::fs::Timespec { tv_sec: secs as i64, tv_nsec: 5 };
    let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// All times below and of `dir` itself are the same after it, as rsync makes them.
fn stamp_all(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            stamp_all(&entry.path());
        }
        stamp(&entry.path(), 1_000_000);
    }
    stamp(dir, 1_000_000);
}

fn two() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    (dir, source, target)
}

/// Runs `make` in both, then `edit` in the target alone, and lists what is found.
fn after(make: impl Fn(&Path), edit: impl Fn(&Path), asked: Asked) -> Vec<String> {
    let (_dir, source, target) = two();
    for root in [&source, &target] {
        make(root);
        stamp_all(root);
    }
    edit(&target);
    lines(&found(&source, &target, asked))
}

/// Sets the directory's time back, as whoever tampers would not.
fn quietly(dir: &Path, edit: impl Fn()) {
    edit();
    stamp(dir, 1_000_000);
}

fn tree(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("a/b/c/file"), "one").unwrap();
    fs::write(root.join("a/top"), "two").unwrap();
    fs::write(root.join("a/x.tmp"), "left out").unwrap();
    symlink("top", root.join("a/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), rustix::fs::Mode::RWXU).unwrap();
}

#[test]
fn each_kind_of_drift_is_named() {
    type Edit = fn(&Path);
    let table: &[(Edit, &[&str])] = &[
        (|_| {}, &[]),
        (|t| fs::remove_file(t.join("a/x.tmp")).unwrap(), &["differs(mtime) a"]),
        (
            |t| quietly(&t.join("a/b/c"), || fs::remove_file(t.join("a/b/c/file")).unwrap()),
            &["missing a/b/c/file"],
        ),
        (|t| quietly(t, || fs::remove_dir_all(t.join("a")).unwrap()), &["missing a"]),
        (|t| quietly(t, || fs::create_dir_all(t.join("new/x/y")).unwrap()), &["extra new"]),
        (
            |t| fs::write(t.join("a/b/c/file"), "longer").unwrap(),
            &["differs(size,mtime) a/b/c/file"],
        ),
        (|t| stamp(&t.join("empty"), 5), &["differs(mtime) empty"]),
        (
            |t| fs::set_permissions(t.join("a"), PermissionsExt::from_mode(0o700)).unwrap(),
            &["differs(mode) a"],
        ),
        (
            |t| fs::set_permissions(t, PermissionsExt::from_mode(0o700)).unwrap(),
            &["differs(mode) ."],
        ),
        (
            |t| {
                quietly(&t.join("a"), || {
                    fs::remove_file(t.join("a/link")).unwrap();
                    symlink("b", t.join("a/link")).unwrap();
                    stamp(&t.join("a/link"), 1_000_000);
                })
            },
            &["differs(link) a/link"],
        ),
        (
            |t| {
                quietly(&t.join("a"), || {
                    fs::remove_file(t.join("a/top")).unwrap();
                    fs::create_dir(t.join("a/top")).unwrap();
                })
            },
            &["differs(type) a/top"],
        ),
        (|t| quietly(t, || fs::remove_file(t.join("fifo")).unwrap()), &["missing fifo"]),
    ];
    for (at, (edit, expected)) in table.iter().enumerate() {
        assert_eq!(after(tree, edit, Asked::default()), *expected, "row {at}");
    }
}

#[test]
fn names_of_any_bytes_are_found() {
    let names: [&[u8]; 9] = [
        b"new\nline",
        b"-rf",
        b"#a",
        b";a",
        b"*?[]\\",
        b" ",
        b"\xff\xfe",
        &[b'l'; 255],
        b"\x1b[2J",
    ];
    let make = |root: &Path| {
        for name in names {
            fs::create_dir(root.join(OsStr::from_bytes(name))).unwrap();
        }
    };
    let edit = |root: &Path| {
        for name in names {
            fs::write(root.join(OsStr::from_bytes(name)).join("x"), "").unwrap();
            stamp(&root.join(OsStr::from_bytes(name)), 1_000_000);
        }
    };
    let found = after(make, edit, Asked::default());
    let mut expected: Vec<_> =
        names.iter().map(|name| format!("extra {}/x", name.escape_ascii())).collect();
    let mut got = found.clone();
    expected.sort();
    got.sort();
    assert_eq!(got, expected);
    assert!(found.iter().all(|line| line.bytes().all(|b| (0x20..0x7f).contains(&b))));
}

#[test]
fn only_contents_tell_what_metadata_hides() {
    let edit = |t: &Path| {
        fs::write(t.join("a/b/c/file"), "eno").unwrap();
        stamp(&t.join("a/b/c/file"), 1_000_000);
    };
    assert_eq!(after(tree, edit, Asked::default()), [""; 0]);
    let asked = Asked { content: Some(1 << 30), ..Asked::default() };
    assert_eq!(after(tree, edit, asked), ["differs(content) a/b/c/file"]);
}

#[test]
fn contents_are_compared_piece_by_piece() {
    let (_dir, source, target) = two();
    for root in [&source, &target] {
        for dir in ["a", "b/c", "d"] {
            fs::create_dir_all(root.join(dir)).unwrap();
            for name in ["one", "two"] {
                fs::write(root.join(dir).join(name), "one").unwrap();
            }
        }
        stamp_all(root);
    }
    for flipped in ["a/two", "b/c/one", "d/two"] {
        fs::write(target.join(flipped), "two").unwrap();
        stamp(&target.join(flipped), 1_000_000);
    }
    let mut all = Findings { next: Some([].into()), ..Findings::default() };
    let mut pieces = 0;
    while let Some(next) = all.next.take() {
        let of = if pieces == 0 { Of::Tree } else { Of::Contents(next) };
        let asked = Asked {
            content: Some(1 << 30),
            of: Some(of),
            slice_bytes: Some(1),
            ..Asked::default()
        };
        all.append(found(&source, &target, asked));
        pieces += 1;
    }
    assert_eq!((pieces, all.contents), (3, 6), "a directory each");
    let expected = ["a/two", "b/c/one", "d/two"].map(|path| format!("differs(content) {path}"));
    assert_eq!(lines(&all), expected);

    // What was found is looked at again, and nothing else.
    for mended in ["b/c/one", "d/two"] {
        fs::write(target.join(mended), "one").unwrap();
        stamp(&target.join(mended), 1_000_000);
    }
    fs::remove_file(target.join("a/one")).unwrap();
    let of = Some(Of::Found(all.list));
    let again = found(&source, &target, Asked { content: Some(1 << 30), of, ..Asked::default() });
    assert_eq!(lines(&again), ["differs(content) a/two"]);
}

#[test]
fn single_paths_are_compared_alone_and_with_all_below() {
    let edit = |t: &Path| {
        fs::write(t.join("a/b/c/file"), "longer").unwrap();
        fs::write(t.join("a/top"), "longer").unwrap();
        fs::write(t.join("z"), "").unwrap();
    };
    let ask = |paths: &[&str]| {
        let paths = Some(paths.iter().map(|path| path.as_bytes().into()).collect());
        after(tree, edit, Asked { paths, ..Asked::default() })
    };
    assert_eq!(ask(&["a/top", "a/link", "none/there"]), ["differs(size,mtime) a/top"]);
    assert_eq!(ask(&["a/b"]), ["differs(size,mtime) a/b/c/file"]);
    assert_eq!(ask(&["z"]), ["extra z"]);
}

#[test]
fn what_only_the_target_has_may_be_its_own() {
    let edit = |t: &Path| quietly(t, || fs::create_dir(t.join("own")).unwrap());
    let asked = Asked { no_extras: true, ..Asked::default() };
    assert_eq!(after(tree, edit, asked), [""; 0]);
}

#[test]
fn a_large_directory_is_compared_by_buckets() {
    let make = |root: &Path| {
        for at in 0..5000 {
            fs::write(root.join(format!("f{at}")), "").unwrap();
        }
    };
    let edit = |t: &Path| {
        fs::remove_file(t.join("f77")).unwrap();
        fs::write(t.join("f4000"), "x").unwrap();
        fs::write(t.join("new"), "x").unwrap();
    };
    let found = after(make, edit, Asked::default());
    assert_eq!(found, ["differs(size,mtime) f4000", "missing f77", "extra new"]);
    // The other way round, the asking side's directory is the small one.
    assert_eq!(after(|_| {}, make, Asked::default()).len(), 5000);
}

#[test]
fn too_much_is_given_up_and_repaired_as_a_whole() {
    let make = |root: &Path| {
        for at in 0..400 {
            fs::create_dir(root.join(format!("d{at}"))).unwrap();
        }
    };
    let (_dir, source, target) = two();
    make(&source);
    let asked = Asked { most: Some(300), ..Asked::default() };
    let found = found(&source, &target, asked);
    assert!(found.truncated && found.list.len() == 300, "{}", found.list.len());
    assert_eq!(found.change(), Change::Full);
}

#[test]
fn a_change_on_its_way_is_no_drift() {
    let (_dir, source, target) = two();
    for root in [&source, &target] {
        tree(root);
        stamp_all(root);
    }
    fs::write(source.join("a/top"), "delivered").unwrap();
    fs::write(source.join("a/b/c/file"), "still changing").unwrap();
    fs::write(target.join("a/b/c/lost"), "drift").unwrap();
    stamp_all(&target.join("a"));
    let settle = || {
        fs::write(target.join("a/top"), "delivered").unwrap();
        let at = fs::metadata(source.join("a/top")).unwrap();
        let at = rustix::fs::Timespec { tv_sec: at.mtime(), tv_nsec: at.mtime_nsec() };
        let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
        let path = target.join("a/top");
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
        fs::write(source.join("a/b/c/file"), "still changing, longer").unwrap();
    };
    // A directory that has come meanwhile may still lack something.
    fs::create_dir_all(source.join("new/deep")).unwrap();
    fs::write(source.join("new/deep/lost"), "drift").unwrap();
    stamp_all(&source.join("new"));
    let settle = || {
        settle();
        fs::create_dir_all(target.join("new/deep")).unwrap();
        stamp_all(&target.join("new"));
    };
    let (here, there) = (side(&source), side(&target));
    let compared = compare_with(&here, &there, Asked::default(), &settle);
    assert_eq!(
        lines(&runtime().block_on(compared).unwrap()),
        ["extra a/b/c/lost", "missing new/deep/lost"]
    );
}

#[test]
fn sides_that_do_not_agree_do_not_compare() {
    let (_dir, source, target) = two();
    let other = Side { rules: 8, ..side(&target) };
    let own = side(&source);
    let compared = compare_with(&own, &other, Asked::default(), &|| {});
    let refused = runtime().block_on(compared);
    assert!(matches!(refused, Err(CompareError::Refused(_))), "{refused:?}");
    let less = Side { keep: Keep { owner: false, perms: false, ..Keep::ARCHIVE }, ..side(&target) };
    fs::set_permissions(&target, PermissionsExt::from_mode(0o700)).unwrap();
    let compared = compare_with(&own, &less, Asked::default(), &|| {});
    assert!(runtime().block_on(compared).unwrap().is_clean());
}

/// The target's agent must never tell of what is outside, whatever happens inside meanwhile.
#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let (dir, source, target) = two();
    let outside = dir.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("deep/secret"), "").unwrap();
    for root in [&source, &target] {
        fs::create_dir_all(root.join("a/deep")).unwrap();
    }
    fs::write(source.join("a/deep/public"), "").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swaps = Arc::new(AtomicU32::new(0));
    let swapper = {
        let (stop, swaps) = (stop.clone(), swaps.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(target.join("a"), dir.path().join("aside")).unwrap();
                symlink(&outside, target.join("a")).unwrap();
                std::thread::yield_now();
                fs::remove_file(target.join("a")).unwrap();
                fs::rename(dir.path().join("aside"), target.join("a")).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
            (dir, target)
        })
    };
    let target = source.with_file_name("target");
    let mut looked = 0;
    while looked < 100 || swaps.load(Ordering::Relaxed) < 100 {
        let found = found(&source, &target, Asked::default());
        let told = lines(&found);
        assert!(!told.iter().any(|line| line.contains("secret")), "{told:?}");
        looked += 1;
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
}

proptest! {
    #[test]
    fn a_peer_that_sends_garbage_gets_and_gives_an_error(
        frames in proptest::collection::vec(
            (0u8..10, proptest::collection::vec(any::<u8>(), 0..200)), 0..6),
        greeted: bool,
    ) {
        let (_dir, source, target) = two();
        tree(&source);
        let mut said = Vec::new();
        for (tag, body) in &frames {
            said.extend((body.len() as u32 + 1).to_be_bytes());
            said.push(*tag);
            said.extend(body);
        }
        runtime().block_on(async {
            use tokio::io::AsyncWriteExt;
            let (mut garbage, there) = tokio::io::duplex(1 << 20);
            if greeted {
                let hello = wire::Request::Hello {
                    version: 1, key: [0; 32], keep: Keep::ARCHIVE, rules: 7,
                };
                wire::write(&mut garbage, &hello.encode()).await.unwrap();
            }
            garbage.write_all(&said).await.unwrap();
            garbage.shutdown().await.unwrap();
            let _ = serve(there, &side(&target)).await;

            let (mut garbage, here) = tokio::io::duplex(1 << 20);
            let ready = wire::Answer::Ready { keep: Keep::ARCHIVE };
            wire::write(&mut garbage, &ready.encode()).await.unwrap();
            garbage.write_all(&said).await.unwrap();
            garbage.shutdown().await.unwrap();
            let what = Compare {
                side: &side(&source), key: [9; KEY_LEN], extras: true, content: None, most: FINDINGS_MAX,
                of: Of::Tree, slice_bytes: u64::MAX,
                settle: &|| Box::pin(async { Ok(()) }), progress: &|_| {},
            };
            compare(here, &what).await.unwrap_err();
        });
    }
}

#[test]
fn an_endless_frame_is_refused() {
    let (_dir, _source, target) = two();
    runtime().block_on(async {
        use tokio::io::AsyncWriteExt;
        let (mut garbage, there) = tokio::io::duplex(64);
        garbage.write_u32(u32::MAX).await.unwrap();
        let side = side(&target);
        let served = tokio::time::timeout(Duration::from_secs(60), serve(there, &side));
        assert!(matches!(served.await, Ok(Err(wire::WireError::Malformed(_)))));
    });
}
