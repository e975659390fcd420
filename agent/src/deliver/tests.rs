//! Decisions in tables, and laws of coalescing and resolving.

use std::collections::BTreeSet;

use lockstep_model::sync::Filter;
use proptest::prelude::*;

use super::*;
use crate::journal::Changed;

const FILLED: Cursor = Cursor { acked: 5, full: false, filled: true };
const HERE: Source = Source::Present { device: 7 };

fn batch(seq: u64, paths: &[(&str, bool)]) -> Entry {
    let changed = |(path, subtree): &(&str, bool)| Changed {
        path: path.as_bytes().into(),
        subtree: *subtree,
    };
    let change = Change::Batch(paths.iter().map(changed).collect());
    Entry { seq, at: Timestamp(seq * 10), change }
}

fn pending(entries: &[Entry]) -> Pending {
    let mut pending = Pending::after(5);
    for entry in entries {
        pending.absorb(entry, Timestamp(999));
    }
    pending
}

fn next(cursor: Cursor, pending: &Pending, policy: DeletePolicy, source: Source) -> Delivery {
    let facts = Facts { source, known_device: Some(7), pass_due: true };
    next_delivery(&cursor, pending, policy, &facts)
}

#[test]
fn a_new_target_gets_a_pass_without_deletes_and_then_batches() {
    let quiet = pending(&[]);
    let change = pending(&[batch(6, &[("a", false)])]);
    let full = pending(&[Entry { seq: 6, at: Timestamp(60), change: Change::Full }]);
    let fresh = Cursor::fresh(5);
    for policy in DeletePolicy::ALL {
        for source in [HERE, Source::Empty] {
            let first = next(fresh, &change, policy, source);
            assert_eq!(first, Delivery::Pass { delete: false });
        }
        let later = next(FILLED, &change, policy, HERE);
        assert_eq!(later, Delivery::Batch { delete: policy.in_batches() });
        let pass = next(FILLED, &full, policy, HERE);
        assert_eq!(pass, Delivery::Pass { delete: policy.in_full_pass() });
        assert_eq!(next(FILLED, &quiet, policy, HERE), Delivery::Nothing);
        // With nothing to do a lost source holds nothing up.
        assert_eq!(next(FILLED, &quiet, policy, Source::Missing), Delivery::Nothing);
    }
}

#[test]
fn a_batch_never_takes_away_that_anything_may_have_changed() {
    let mut changed = pending(&[batch(6, &[("a", false)])]);
    // It is full since it was decided what comes next.
    changed.need_full();
    assert_eq!(changed.take_batch(), None);
    assert!(changed.is_full());
    let mut changed = pending(&[batch(6, &[("a", false)])]);
    let taken = changed.take_batch();
    assert!(taken.is_some_and(|taken| taken.has(b"a")) && !changed.has_paths());
}

#[test]
fn a_source_that_looks_lost_deletes_nothing() {
    let change = pending(&[batch(6, &[("a", false)])]);
    let full = pending(&[Entry { seq: 6, at: Timestamp(60), change: Change::Full }]);
    let is_held = |delivery| matches!(delivery, Delivery::Held { .. });
    for what in [&change, &full] {
        for source in [Source::Missing, Source::NotADirectory, Source::Unreadable("EIO".into())] {
            for policy in DeletePolicy::ALL {
                assert!(is_held(next(FILLED, what, policy, source.clone())), "{source:?}");
            }
        }
        let unmarked = Source::Unmarked { sentinel: ".complete".into() };
        for source in [Source::Empty, unmarked, Source::Present { device: 8 }] {
            assert!(is_held(next(FILLED, what, DeletePolicy::Always, source.clone())));
            assert!(!is_held(next(FILLED, what, DeletePolicy::Never, source)));
        }
    }
    assert!(is_held(next(FILLED, &change, DeletePolicy::Running, Source::Empty)));
    assert!(!is_held(next(FILLED, &full, DeletePolicy::Running, Source::Empty)));
    assert!(!is_held(next(FILLED, &change, DeletePolicy::Startup, Source::Empty)));
}

#[test]
fn a_pass_that_waits_for_its_next_try_does_not_hold_batches_up() {
    let change = pending(&[batch(6, &[("a", false)])]);
    let facts = Facts { source: HERE, known_device: None, pass_due: false };
    let wants_pass = Cursor { full: true, ..FILLED };
    let next = |cursor| next_delivery(&cursor, &change, DeletePolicy::Always, &facts);
    assert_eq!(next(wants_pass), Delivery::Batch { delete: true });
    assert_eq!(next(Cursor::fresh(5)), Delivery::Nothing);
}

#[test]
fn only_what_may_have_been_a_directory_is_deep() {
    let look = |path: &[u8]| if path == b"d" { Look::Directory } else { Look::Nothing };
    let cases = [
        (("f", false), false),
        (("d/f", false), false),
        (("f", true), true),
        (("x/f", false), true),
        (("d", true), false),
    ];
    for (path, deep) in cases {
        let lists = resolve(&pending(&[batch(6, &[path])]), &Excludes::new(&[]), look);
        assert_eq!(lists.deep, deep, "{path:?}");
    }
}

#[test]
fn too_many_paths_become_a_pass() {
    let mut many = Pending::after(0);
    for seq in 1..=PENDING_MAX as u64 + 1 {
        assert!(!many.is_full());
        many.absorb(&batch(seq, &[(&format!("f{seq}"), false)]), Timestamp(0));
    }
    assert!(many.is_full() && many.paths().next().is_none());
    assert_eq!(many.oldest_at(), Some(Timestamp(10)));
}

fn resolve_in(
    tree: &[&str],
    paths: &[(&str, bool)],
    excludes: &[&str],
) -> (Vec<String>, Vec<String>) {
    let patterns: Vec<_> = excludes.iter().map(|p| Filter::exclude(p.parse().unwrap())).collect();
    let look = |path: &[u8]| {
        let path = std::str::from_utf8(path).unwrap();
        if tree.contains(&path) {
            Look::Other
        } else if tree
            .iter()
            .any(|t| t.trim_end_matches('/') == path || t.starts_with(&format!("{path}/")))
        {
            Look::Directory
        } else {
            Look::Nothing
        }
    };
    let lists = resolve(&pending(&[batch(6, paths)]), &Excludes::new(&patterns), look);
    let text = |paths: Vec<RelPath>| {
        paths.iter().map(|p| String::from_utf8(p.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let mut names = text(lists.names);
    names.extend(text(lists.gone).into_iter().map(|gone| format!("{gone} (gone)")));
    names.extend(text(lists.contents).into_iter().map(|name| format!("{name} (content)")));
    (names, text(lists.subtrees))
}

#[test]
fn paths_resolve_to_what_rsync_can_be_told() {
    let tree = ["a", "d/f", "d/sub/g", "link", "empty/"];
    type Case<'a> = (&'a [(&'a str, bool)], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let cases: [Case; 9] = [
        (&[("a", false), ("d", false), ("d/f", false)], &[], &["a", "d", "d/f"], &[]),
        (&[("d/gone", false)], &[], &["d/gone (gone)"], &[]),
        (&[("gone/x/y", false), ("gone/x", true), ("gone", true)], &[], &["gone (gone)"], &[]),
        (&[("link/x", true)], &[], &["link"], &[]),
        (
            &[("d", true), ("d/sub", true), ("empty", true)],
            &[],
            &["d", "d/sub", "empty"],
            &["d", "empty"],
        ),
        (&[("a", false), ("d/f", false)], &["/d"], &["a"], &[]),
        (&[("cache/gone", false), ("a", false)], &["cache/"], &["a"], &[]),
        (&[("gone", false), ("a", true)], &[], &["gone (gone)", "a (content)"], &[]),
        (&[("a", false)], &["*"], &[], &[]),
    ];
    for (paths, excludes, names, subtrees) in cases {
        let (got_names, got_subtrees) = resolve_in(&tree, paths, excludes);
        assert_eq!(got_names, names, "{paths:?}");
        assert_eq!(got_subtrees, subtrees, "{paths:?}");
    }
}

proptest! {
    #[test]
    fn what_a_failed_delivery_puts_back_is_not_lost(
        before in proptest::collection::vec(("[a-c]{1,2}", any::<bool>()), 0..6),
        after in proptest::collection::vec(("[a-c]{1,2}", any::<bool>()), 0..6),
    ) {
        let entry = |seq, paths: &[(String, bool)]| {
            batch(seq, &paths.iter().map(|(p, s)| (p.as_str(), *s)).collect::<Vec<_>>())
        };
        let (first, second) = (entry(6, &before), entry(7, &after));
        let never_taken = pending(&[first.clone(), second.clone()]);
        let mut taken = pending(&[first]);
        let in_flight = taken.take();
        taken.absorb(&second, Timestamp(0));
        taken.put_back(in_flight);
        prop_assert_eq!(taken, never_taken);
    }

    #[test]
    fn every_listed_name_has_real_directories_above_it(
        tree in proptest::collection::btree_set("[ab](/[ab]){0,2}", 0..5),
        asked in proptest::collection::vec(("[ab](/[ab]){0,3}", any::<bool>()), 1..6),
    ) {
        let tree: Vec<&str> = tree.iter().map(String::as_str).collect();
        let paths: Vec<_> = asked.iter().map(|(p, s)| (p.as_str(), *s)).collect();
        let (names, subtrees) = resolve_in(&tree, &paths, &[]);
        let dirs: BTreeSet<&str> = tree
            .iter()
            .flat_map(|t| t.match_indices('/').map(|(at, _)| &t[..at]))
            .filter(|d| !tree.contains(d))
            .collect();
        let plain = |name: &String| name.split(" (").next().unwrap_or_default().to_owned();
        let names: Vec<_> = names.iter().map(plain).collect();
        for name in names.iter().chain(&subtrees) {
            for (at, _) in name.match_indices('/') {
                prop_assert!(dirs.contains(&name[..at]), "{} in {:?}", name, tree);
            }
        }
        for (path, _) in &paths {
            let covered = names.iter().any(|n| path == n || path.starts_with(&format!("{n}/")));
            prop_assert!(covered);
        }
    }
}
