//! Whole pulls from a real daemon: every mode of removal, stages, snapshots, and what guards hold.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use lockstep_agent::mirror::pull::argv::Step;
use lockstep_agent::mirror::pull::course::{Next, Place, Refusal};
use lockstep_agent::mirror::pull::ending::End;
use lockstep_model::mirror::Allow;
use lockstep_model::mirror::rsync::Delete;

use super::daemon::{Daemon, Mirror, names, write};

fn upstream() -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let up = dir.path().join("up");
    write(&up, &["a", "b", "d/c", "d/e/f", "empty/", "iso/x.iso"]);
    symlink("a", up.join("l")).unwrap();
    fs::hard_link(up.join("a"), up.join("h")).unwrap();
    let daemon = Daemon::start(dir.path(), "");
    (dir, daemon)
}

fn is_done(next: &Result<Next, impl std::fmt::Debug>) -> bool {
    matches!(next, Ok(Next::Done))
}

#[test]
fn every_mode_makes_the_tree_what_the_upstream_is() {
    let (dir, daemon) = upstream();
    let up = names(&dir.path().join("up"));
    for delete in Delete::ALL {
        let mirror = Mirror::new(dir.path(), &daemon.url(""), delete);
        let _ = fs::remove_dir_all(mirror.tree());
        let first = mirror.pull(Place::First);
        assert!(is_done(&first.next), "{delete}: {:?}", first.next);
        assert_eq!(names(&mirror.tree()), up, "{delete}");
        assert_eq!(first.pulled.entries, up.len() as u64, "{delete}");
        assert!(first.pulled.changed && first.pulled.tree_bytes > 0, "{delete}");

        let again = mirror.pull(Place::Tree);
        assert!(is_done(&again.next) && !again.pulled.changed, "{delete}: {:?}", again.pulled);

        // A name that is gone, a tree that is, and a directory in the way of a file.
        write(&mirror.tree(), &["gone/1", "gone/2", "gone/sub/3", "extra", "bare/"]);
        fs::remove_file(mirror.tree().join("b")).unwrap();
        write(&mirror.tree(), &["b/in/y"]);
        let last = mirror.pull(Place::Tree);
        if delete == Delete::None {
            // Nobody may remove what is in the way.
            let ended = last.next.unwrap_err();
            assert!(
                ended.why.starts_with("b/in has something in it") || ended.why.starts_with("b has"),
                "{ended:?}"
            );
            assert!(names(&mirror.tree()).contains(&"gone/sub/3".to_owned()));
            continue;
        }
        assert!(is_done(&last.next), "{delete}: {:?} {:?}", last.next, last.steps);
        assert_eq!(names(&mirror.tree()), up, "{delete} {:?}", last.steps);
        // The directory in the way counts as replaced, what was in it as removed.
        assert_eq!(last.pulled.deleted, 9, "{delete} {:?}", last.steps);
        assert!(last.pulled.changed);
    }
}

#[test]
fn an_up_to_date_tree_costs_one_run_and_removals_one_more() {
    let (dir, daemon) = upstream();
    let mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    mirror.pull(Place::First);
    assert_eq!(mirror.pull(Place::Tree).steps, [Step::Content]);
    write(&mirror.tree(), &["gone/1", "gone/2"]);
    // Of `gone` only what is in it is counted.
    assert_eq!(mirror.pull(Place::Tree).steps, [Step::Content, Step::Removing { most: 4 }]);
}

#[test]
fn a_guard_holds_before_anything_is_removed() {
    let (dir, daemon) = upstream();
    let up = dir.path().join("up");
    for delete in [Delete::After, Delete::Excluded, Delete::Before, Delete::During] {
        let mut mirror = Mirror::new(dir.path(), &daemon.url(""), delete);
        write(&up, &["new"]);
        let extra: Vec<String> = (0..150).map(|n| format!("old/{n}")).collect();
        write(&mirror.tree(), &extra.iter().map(String::as_str).collect::<Vec<_>>());
        let held = mirror.pull(Place::Tree);
        let Ok(Next::Refused(Refusal::Removals { entries: 150 | 151, .. })) = held.next else {
            panic!("{delete}: {:?}", held.next);
        };
        assert_eq!(fs::read_dir(mirror.tree().join("old")).unwrap().count(), 150, "{delete}");
        mirror.guards.allow = Allow { delete: true, ..Allow::default() };
        let let_go = mirror.pull(Place::Tree);
        assert!(is_done(&let_go.next), "{delete}");
        assert_eq!((let_go.pulled.deleted, names(&mirror.tree())), (151, names(&up)), "{delete}");
    }
}

#[test]
fn an_empty_upstream_leaves_the_tree_alone() {
    let (dir, daemon) = upstream();
    let up = dir.path().join("up");
    for delete in Delete::ALL {
        let mut mirror = Mirror::new(dir.path(), &daemon.url(""), delete);
        mirror.guards.limit = None;
        write(&mirror.tree(), &["a", "d/c"]);
        fs::rename(&up, dir.path().join("away")).unwrap();
        fs::create_dir(&up).unwrap();
        let held = mirror.pull(Place::Tree);
        assert!(
            matches!(held.next, Ok(Next::Refused(Refusal::Empty))),
            "{delete}: {:?}",
            held.next
        );
        assert_eq!(names(&mirror.tree()), ["a", "d", "d/c"], "{delete}");
        fs::remove_dir(&up).unwrap();
        fs::rename(dir.path().join("away"), &up).unwrap();
    }
}

#[test]
fn the_first_stage_brings_content_and_the_second_the_rest() {
    let (dir, daemon) = upstream();
    let up = dir.path().join("up");
    write(&up, &["dists/Packages.gz", "dists/main/Release", "pool/p.deb"]);
    let mut mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    mirror.late = ["Packages*", "Release*"].iter().map(|p| p.parse().unwrap()).collect();
    // Neither an include of the mirror's own nor what is in the way changes that.
    mirror.hop.options = "--include=Packages*".parse().unwrap();
    write(&mirror.tree(), &["pool/old.deb", "b/in/y"]);
    let first = mirror.pull(Place::First);
    assert!(is_done(&first.next), "{:?}", first.next);
    let tree = names(&mirror.tree());
    let has = |name: &str| tree.contains(&name.to_owned());
    assert!(has("pool/p.deb") && has("pool/old.deb") && has("b/in/y"), "{tree:?}");
    assert!(!has("dists/Packages.gz") && !has("dists/main/Release"), "{tree:?}");
    mirror.late.clear();
    let second = mirror.pull(Place::Tree);
    assert!(is_done(&second.next), "{:?}", second.next);
    assert_eq!(names(&mirror.tree()), names(&up));
    assert_eq!(second.pulled.created, 3, "two indices, and what another thing was in the way of");
}

#[test]
fn what_is_the_nodes_own_stays_whatever_the_upstream_and_the_mode() {
    let (dir, daemon) = upstream();
    write(&dir.path().join("up"), &["trace/me", "trace/up", "x.tmp"]);
    for delete in Delete::ALL {
        let mut mirror = Mirror::new(dir.path(), &daemon.url(""), delete);
        mirror.own = vec!["/trace/me".parse().unwrap()];
        mirror.filters = vec!["- *.tmp".parse().unwrap()];
        mirror.hop.options = "--include=/trace/me --exclude='*.iso'".parse().unwrap();
        let _ = fs::remove_dir_all(mirror.tree());
        write(&mirror.tree(), &["trace/me", "keep.tmp"]);
        fs::write(mirror.tree().join("trace/me"), "mine").unwrap();
        let told = mirror.pull(Place::First);
        assert!(is_done(&told.next), "{delete}: {:?}", told.next);
        assert_eq!(fs::read(mirror.tree().join("trace/me")).unwrap(), b"mine", "{delete}");
        let tree = names(&mirror.tree());
        let has = |name: &str| tree.contains(&name.to_owned());
        assert!(has("trace/up") && !has("x.tmp") && !has("iso/x.iso"), "{delete} {tree:?}");
        assert_eq!(has("keep.tmp"), delete != Delete::Excluded, "{delete}");
    }
}

#[test]
fn a_snapshot_links_what_is_the_same_and_leaves_the_old_one_as_it_is() {
    let (dir, daemon) = upstream();
    let up = dir.path().join("up");
    let mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    mirror.pull(Place::First);
    let (old, new) = (mirror.tree(), dir.path().join("new"));
    let (_, same) = mirror.step(Step::Count, &old, &[]);
    assert!(!same.changed && same.stats.deleted == 0);
    fs::remove_file(up.join("b")).unwrap();
    fs::write(up.join("d/c"), "other").unwrap();
    let (_, counted) = mirror.step(Step::Count, &old, &[]);
    assert!(counted.changed && counted.stats.deleted == 1 && counted.stats.brought_bytes == 5);
    assert_eq!(fs::read(old.join("d/c")).unwrap(), b"d/c", "a dry run changes nothing");
    let (ended, _) = mirror.step(Step::Content, &new, &[&old]);
    assert_eq!(ended.end, End::Complete, "{ended:?}");
    assert_eq!(names(&new), names(&up));
    let inode = |path: std::path::PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(old.join("a")), inode(new.join("a")));
    assert_eq!(fs::read(old.join("d/c")).unwrap(), b"d/c");
    assert!(old.join("b").exists());
}
