//! Renames on a real file system, also for a peer that lies and beside a user who swaps directories
//! for links.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.at("root")).unwrap();
        fs::create_dir(place.at("outside")).unwrap();
        fs::write(place.at("outside/secret"), "secret").unwrap();
        place
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn root(&self, name: &str) -> std::path::PathBuf {
        self.at("root").join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.root(name).parent().unwrap()).unwrap();
        fs::write(self.root(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root(name)).ok()
    }

    fn applier(&self) -> Applier {
        Applier::open(&self.at("root")).unwrap()
    }

    /// As a source says it that has the same file at `from`.
    fn file(&self, from: &str, to: &str) -> Move {
        let found = fs::symlink_metadata(self.root(from)).ok();
        let mtime = found.as_ref().map_or(0, |f| f.mtime() * 1_000_000_000 + f.mtime_nsec());
        Move {
            from: from.as_bytes().into(),
            to: to.as_bytes().into(),
            kind: Kind::File,
            size: found.map_or(0, |f| f.size()),
            mtime_ns: mtime,
            over: None,
        }
    }
}

fn directory(from: &str, to: &str) -> Move {
    let (from, to) = (from.as_bytes().into(), to.as_bytes().into());
    Move { from, to, kind: Kind::Directory, size: 0, mtime_ns: 0, over: None }
}

#[test]
fn what_is_as_expected_moves() {
    let place = Place::new();
    place.write("a", "a");
    place.write("d/in/f", "f");
    let mut applier = place.applier();
    assert_eq!(applier.apply(&place.file("a", "new/deep/b")), Verdict::Applied);
    assert_eq!(place.read("new/deep/b").as_deref(), Some("a"));
    let made = fs::metadata(place.root("new/deep")).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o700);
    assert_eq!(applier.apply(&directory("d", "new/e")), Verdict::Applied);
    assert_eq!(place.read("new/e/in/f").as_deref(), Some("f"));
    assert!(!place.root("a").exists() && !place.root("d").exists());
}

#[test]
fn what_is_in_the_way_changes_places_or_stays() {
    let place = Place::new();
    for name in ["a", "b", "d/x"] {
        place.write(name, name);
    }
    symlink("a", place.root("link")).unwrap();
    let mut applier = place.applier();
    let over = |a: Move, kind| Move { over: Some(kind), ..a };
    assert_eq!(applier.apply(&place.file("a", "b")), Verdict::Occupied);
    assert_eq!(applier.apply(&over(place.file("a", "d"), Kind::File)), Verdict::Occupied);
    assert_eq!(applier.apply(&over(place.file("a", "link"), Kind::File)), Verdict::Occupied);
    assert_eq!(applier.apply(&over(place.file("a", "b"), Kind::File)), Verdict::Applied);
    assert_eq!(place.read("a").as_deref(), Some("b"));
    assert_eq!(place.read("b").as_deref(), Some("a"));
    // What was expected to be in the way is not: just as well.
    assert_eq!(applier.apply(&over(place.file("a", "c"), Kind::File)), Verdict::Applied);
}

#[test]
fn what_is_not_as_expected_stays() {
    let place = Place::new();
    place.write("a", "a");
    place.write("d/x", "x");
    symlink("a", place.root("link")).unwrap();
    let mut applier = place.applier();
    let a = place.file("a", "b");
    assert_eq!(applier.apply(&Move { size: 2, ..a.clone() }), Verdict::Different);
    assert_eq!(applier.apply(&Move { mtime_ns: a.mtime_ns + 1, ..a.clone() }), Verdict::Different);
    assert_eq!(applier.apply(&Move { kind: Kind::Other, ..a.clone() }), Verdict::Different);
    assert_eq!(applier.apply(&place.file("link", "b")), Verdict::Different);
    assert_eq!(applier.apply(&place.file("d", "b")), Verdict::Different);
    assert_eq!(applier.apply(&place.file("gone", "b")), Verdict::Missing);
    assert_eq!(applier.apply(&place.file("gone/a", "b")), Verdict::Missing);
    assert_eq!(applier.apply(&a), Verdict::Applied);
    // Nothing is built upon a directory that did not move.
    assert_eq!(applier.apply(&directory("d", "d/x/y")), Verdict::Failed);
    assert_eq!(applier.apply(&place.file("b", "c")), Verdict::Left);
}

#[test]
fn no_name_leads_outside() {
    let place = Place::new();
    place.write("a", "a");
    symlink("../outside", place.root("out")).unwrap();
    symlink(place.at("outside"), place.root("abs")).unwrap();
    symlink(".", place.root("self")).unwrap();
    let absolute = place.at("outside/x").to_str().unwrap().to_owned();
    let bad = ["../outside/x", "out/x", "abs/x", "self/x", "", ".", "..", "x/../y", "a\0b", "x//y"];
    for to in bad.into_iter().chain([absolute.as_str()]) {
        assert_eq!(place.applier().apply(&place.file("a", to)), Verdict::Failed, "{to:?}");
    }
    for from in ["out/secret", "abs/secret", "../outside/secret"] {
        let hint = place.file(from, "got");
        assert_eq!(place.applier().apply(&hint), Verdict::Failed, "{from:?}");
    }
    assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 1);
    assert_eq!(place.read("a").as_deref(), Some("a"));
}

/// A local user turns a directory into a link and back, all the time.
#[test]
fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    let place = Place::new();
    let done = AtomicBool::new(false);
    place.write("a", "a");
    fs::create_dir(place.root("d")).unwrap();
    symlink(place.at("outside"), place.at("trap")).unwrap();
    let (mut in_d, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (from, to) in [("root/d", "aside"), ("trap", "root/d")] {
                    let _ = fs::rename(place.at(from), place.at(to));
                }
                for (from, to) in [("root/d", "trap"), ("aside", "root/d")] {
                    let _ = fs::rename(place.at(from), place.at(to));
                }
            }
        });
        let mut applier = place.applier();
        for _ in 0..20_000 {
            match applier.apply(&place.file("a", "d/a")) {
                Verdict::Applied => {
                    in_d += 1;
                    // It is in the directory, wherever that is now.
                    let found = ["root/d/a", "aside/a"].map(|name| place.at(name));
                    while !found.iter().any(|from| fs::rename(from, place.root("a")).is_ok()) {}
                }
                _ => refused += 1,
            }
            // A name that was missing for a moment was made anew, and then is in the other's way.
            assert!(!place.at("outside/a").exists());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(in_d > 0 && refused > 0, "{in_d} {refused}");
    assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 1);
}
