//! Random trees and random edits: the findings are those of a naive reading of both trees.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::{Asked, found, stamp, stamp_all, two};

/// Path to all that is compared, by the plainest means.
fn read_naively(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn read(root: &Path, at: &Path, into: &mut BTreeMap<Vec<u8>, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let meta = fs::symlink_metadata(&path).unwrap();
            let mode = if meta.is_symlink() { 0 } else { meta.mode() };
            let size = if meta.is_file() { meta.size() } else { 0 };
            let link = fs::read_link(&path).ok();
            let text = format!("{mode} {size} {link:?} {} {}", meta.mtime(), meta.mtime_nsec());
            into.insert(name, format!("{:?} {text}", meta.file_type()));
            if meta.is_dir() {
                read(root, &path, into);
            }
        }
    }
    let mut all = BTreeMap::new();
    read(root, root, &mut all);
    all
}

/// What differs by the naive reading: the outermost of what is on one side only.
fn differ_naively(source: &Path, target: &Path) -> BTreeSet<(Vec<u8>, &'static str)> {
    let (here, there) = (read_naively(source), read_naively(target));
    let outermost = |path: &[u8], other: &BTreeMap<Vec<u8>, String>| {
        path.iter().rposition(|b| *b == b'/').is_none_or(|end| {
            other.get(&path[..end]).is_some_and(|above| above.contains("is_dir: true"))
        })
    };
    let missing = here.keys().filter(|path| !there.contains_key(*path) && outermost(path, &there));
    let extra = there.keys().filter(|path| !here.contains_key(*path) && outermost(path, &here));
    let differs = here.iter().filter(|(path, text)| there.get(*path).is_some_and(|t| t != *text));
    let missing = missing.map(|path| (path.clone(), "missing"));
    let extra = extra.map(|path| (path.clone(), "extra"));
    missing.chain(extra).chain(differs.map(|(path, _)| (path.clone(), "differs"))).collect()
}

#[derive(Clone, Debug)]
enum Edit {
    File(Vec<usize>, usize),
    Dir(Vec<usize>),
    Link(Vec<usize>, usize),
    Remove(Vec<usize>),
    Mode(Vec<usize>, u32),
    Touch(Vec<usize>, u64),
}

const NAMES: [&[u8]; 4] = [b"a", b"b\xff", b"-c", b"*"];

fn apply(root: &Path, edit: &Edit) {
    let at = |parts: &[usize]| {
        parts.iter().fold(root.to_owned(), |at, part| at.join(OsStr::from_bytes(NAMES[*part])))
    };
    // Many edits do not fit the tree; those do nothing.
    let _ = match edit {
        Edit::File(path, len) => fs::write(at(path), "x".repeat(*len)),
        Edit::Dir(path) => fs::create_dir(at(path)),
        Edit::Link(path, to) => symlink(OsStr::from_bytes(NAMES[*to]), at(path)),
        Edit::Remove(path) => fs::remove_file(at(path)).or_else(|_| fs::remove_dir_all(at(path))),
        Edit::Mode(path, mode) if !at(path).is_symlink() => {
            fs::set_permissions(at(path), PermissionsExt::from_mode(0o700 | mode))
        }
        Edit::Touch(path, secs) if at(path).symlink_metadata().is_ok() => {
            stamp(&at(path), *secs);
            Ok(())
        }
        Edit::Mode(..) | Edit::Touch(..) => Ok(()),
    };
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let path = || proptest::collection::vec(0..NAMES.len(), 1..4);
    prop_oneof![
        4 => (path(), 0usize..3).prop_map(|(path, len)| Edit::File(path, len)),
        5 => path().prop_map(Edit::Dir),
        1 => (path(), 0..NAMES.len()).prop_map(|(path, to)| Edit::Link(path, to)),
        1 => path().prop_map(Edit::Remove),
        1 => (path(), 0u32..64).prop_map(|(path, mode)| Edit::Mode(path, mode)),
        1 => (path(), 0u64..9).prop_map(|(path, secs)| Edit::Touch(path, secs)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn findings_are_what_a_naive_reading_finds(
        make in proptest::collection::vec(any_edit(), 0..40),
        edits in proptest::collection::vec(any_edit(), 0..8),
    ) {
        let (_dir, source, target) = two();
        for root in [&source, &target] {
            make.iter().for_each(|edit| apply(root, edit));
            stamp_all(root);
        }
        edits.iter().for_each(|edit| apply(&target, edit));
        let found = found(&source, &target, Asked::default());
        let got: BTreeSet<_> = found.list.iter().map(|finding| {
            let line = finding.to_string();
            let word = ["missing", "extra", "differs"].into_iter().find(|w| line.starts_with(w));
            (finding.path.to_vec(), word.unwrap_or("unreadable"))
        }).collect();
        prop_assert_eq!(got, differ_naively(&source, &target));
        prop_assert_eq!(found.source.entries, read_naively(&source).len() as u64);
    }
}
