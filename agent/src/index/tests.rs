//! The index against a model of a tree: whatever is renamed, the moves it tells lead a copy there,
//! and what it knows afterwards is what there is.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::absorb::{Absorbed, Move};
use super::look::split;
use super::*;
use crate::journal::{Changed, RelPath};

/// A tree as paths with what is there; a directory's content stands below it.
type Tree = BTreeMap<Vec<u8>, Seen>;

fn seen(kind: Kind, ino: u64) -> Seen {
    Seen { kind, ino, tag: 7, sure: true, size: ino * 10, mtime_ns: ino as i64 }
}

fn root() -> Seen {
    seen(Kind::Directory, 1)
}

fn index_of(tree: &Tree) -> Index {
    let mut index = Index::new(&root());
    for (path, seen) in tree {
        let (dir, name) = split(path);
        let parent = index.find(dir).unwrap();
        index.insert(parent, name, seen).unwrap();
    }
    index
}

fn listed(index: &Index) -> BTreeMap<String, u64> {
    index.below(ROOT).into_iter().map(|id| (text(&index.path(id)), index.seen(id).ino)).collect()
}

fn inodes(tree: &Tree) -> BTreeMap<String, u64> {
    tree.iter().map(|(path, seen)| (text(path), seen.ino)).collect()
}

fn text(path: &[u8]) -> String {
    String::from_utf8(path.to_vec()).unwrap()
}

fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Takes a name out of a tree with all below it.
fn lift(tree: &mut Tree, path: &[u8]) -> Tree {
    tree.extract_if(.., |p, _| is_at_or_below(p, path)).collect()
}

fn put(tree: &mut Tree, lifted: Tree, from: &[u8], to: &[u8]) {
    tree.extend(lifted.into_iter().map(|(p, seen)| ([to, &p[from.len()..]].concat(), seen)));
}

/// What the target's agent does with a move; false when it refuses.
fn apply(tree: &mut Tree, a: &Move) -> bool {
    let (from, to) = (&a.from[..], &a.to[..]);
    let fits = |found: &&Seen| {
        found.kind == a.kind
            && (a.kind == Kind::Directory || (found.size, found.mtime_ns) == (a.size, a.mtime_ns))
    };
    let there = tree.get(to).map(|there| there.kind);
    let nested = is_at_or_below(to, from) || is_at_or_below(from, to);
    if tree.get(from).filter(fits).is_none() || nested || (there.is_some() && there != a.over) {
        return false;
    }
    let (moving, away) = (lift(tree, from), lift(tree, to));
    put(tree, moving, from, to);
    put(tree, away, to, from);
    true
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Touch(usize),
    MakeDir(usize, usize),
    Remove(usize),
    Rename(usize, usize, usize),
    Link(usize, usize, usize),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A source, and what lsyncd says of it.
#[derive(Clone, Default)]
struct World {
    tree: Tree,
    touched: Vec<Vec<u8>>,
    /// Where directories were deleted.
    whole: Vec<Vec<u8>>,
    /// Files that got another name since the last batch. A change under such a name, when the name
    /// goes again before anybody looks, is told of no name that is left: only a comparison finds it.
    linked: BTreeSet<u64>,
    last_ino: u64,
}

impl World {
    fn pick(&self, n: usize) -> Option<Vec<u8>> {
        self.tree.keys().nth(n % self.tree.len().max(1)).cloned()
    }

    /// A name in some directory.
    fn place(&self, dir: usize, name: usize) -> Vec<u8> {
        let is_dir = |(_, seen): &(&Vec<u8>, &Seen)| seen.kind == Kind::Directory;
        let mut dirs: Vec<&[u8]> = vec![b""];
        dirs.extend(self.tree.iter().filter(is_dir).map(|(path, _)| &path[..]));
        walk::join(dirs[dir % dirs.len()], NAMES[name % NAMES.len()].as_bytes())
    }

    fn touch_all(&mut self, path: &[u8]) {
        let below = self.tree.keys().filter(|p| is_at_or_below(p, path)).cloned();
        self.touched.extend(below.collect::<Vec<_>>());
        self.touched.push(path.to_vec());
    }

    fn fresh(&mut self, kind: Kind) -> Seen {
        self.last_ino += 1;
        seen(kind, self.last_ino + 1)
    }

    fn is_dir(&self, path: &[u8]) -> bool {
        self.tree.get(path).is_some_and(|seen| seen.kind == Kind::Directory)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Write(dir, name) => {
                let path = self.place(dir, name);
                if !self.is_dir(&path) {
                    let fresh = self.fresh(Kind::File);
                    self.tree.insert(path.clone(), fresh);
                    self.touched.push(path);
                }
            }
            Step::Touch(n) => {
                let Some(path) = self.pick(n).filter(|path| !self.is_dir(path)) else { return };
                let ino = self.tree[&path].ino;
                if self.linked.contains(&ino) {
                    return;
                }
                // All its names, of which one is told.
                for seen in self.tree.values_mut().filter(|seen| seen.ino == ino) {
                    seen.size += 1;
                    seen.mtime_ns += 1;
                }
                self.touched.push(path);
            }
            Step::MakeDir(dir, name) => {
                let path = self.place(dir, name);
                if !self.tree.contains_key(&path) {
                    let fresh = self.fresh(Kind::Directory);
                    self.tree.insert(path.clone(), fresh);
                    // That it was deleted before is told no more.
                    self.whole.retain(|deleted| *deleted != path);
                    self.touched.push(path);
                }
            }
            Step::Remove(n) => {
                let Some(path) = self.pick(n) else { return };
                let lifted = lift(&mut self.tree, &path);
                self.touched.push(path.clone());
                if lifted[&path].kind == Kind::Directory {
                    self.whole.push(path);
                }
            }
            Step::Rename(n, dir, name) => {
                let Some(from) = self.pick(n) else { return };
                let to = self.place(dir, name);
                let full = self.is_dir(&to)
                    && self.tree.keys().any(|p| is_at_or_below(p, &to) && *p != to);
                let fits = self.is_dir(&from) == self.is_dir(&to) || !self.tree.contains_key(&to);
                if is_at_or_below(&to, &from) || full || !fits {
                    return;
                }
                let moving = lift(&mut self.tree, &from);
                put(&mut self.tree, moving, &from, &to);
                if self.is_dir(&to) {
                    self.whole.push(from.clone());
                }
                self.touched.push(from);
                self.touch_all(&to);
            }
            Step::Link(n, dir, name) => {
                let Some(path) = self.pick(n).filter(|path| !self.is_dir(path)) else { return };
                let to = self.place(dir, name);
                if !self.tree.contains_key(&to) {
                    self.linked.insert(self.tree[&path].ino);
                    self.tree.insert(to.clone(), self.tree[&path]);
                    self.touched.push(to);
                }
            }
        }
    }

    /// Of what is told beside the names, directories are noted as deleted ones are.
    fn absorb(&mut self, index: &mut Index, by_file: bool) -> (Vec<Vec<u8>>, Vec<Move>) {
        self.linked.clear();
        let touched: Vec<RelPath> = self.touched.drain(..).map(|path| path.into()).collect();
        let Absorbed { moves, beside, room } =
            index.absorb(&touched, by_file, |path| self.tree.get(path).copied());
        assert!(room);
        let mut names: Vec<Vec<u8>> = touched.iter().map(|path| path.to_vec()).collect();
        for Changed { path, subtree } in beside {
            if subtree { &mut self.whole } else { &mut names }.push(path.to_vec());
        }
        (names, moves)
    }
}

/// What a delivery does with names, and with whole directories.
fn deliver(target: &mut Tree, source: &Tree, names: &[Vec<u8>], whole: &[Vec<u8>]) {
    for name in names.iter().chain(whole) {
        // A name below what is gone stands for that.
        let ends = (0..name.len()).filter(|at| name[*at] == b'/').chain([name.len()]);
        for end in ends {
            let part = &name[..end];
            match (source.get(part), target.get(part)) {
                (None, _) => drop(lift(target, part)),
                (Some(new), Some(old)) if new.kind == old.kind => {
                    target.insert(part.to_vec(), *new);
                }
                (Some(new), _) => {
                    lift(target, part);
                    target.insert(part.to_vec(), *new);
                }
            }
        }
    }
    for directory in whole {
        if source.get(directory).is_some_and(|seen| seen.kind == Kind::Directory) {
            lift(target, directory);
            let within = source.iter().filter(|(p, _)| is_at_or_below(p, directory));
            target.extend(within.map(|(p, seen)| (p.clone(), *seen)));
        }
    }
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0usize..40;
    let step = prop_oneof![
        2 => (n(), n()).prop_map(|(d, m)| Step::Write(d, m)),
        1 => n().prop_map(Step::Touch),
        2 => (n(), n()).prop_map(|(d, m)| Step::MakeDir(d, m)),
        1 => n().prop_map(Step::Remove),
        6 => (n(), n(), n()).prop_map(|(f, d, m)| Step::Rename(f, d, m)),
        1 => (n(), n(), n()).prop_map(|(f, d, m)| Step::Link(f, d, m)),
    ];
    proptest::collection::vec(step, 1..14)
}

fn started(steps: &[Step]) -> World {
    let mut world = World::default();
    for name in NAMES {
        world.take(&Step::MakeDir(0, 0));
        let dir = name.as_bytes().to_vec();
        let fresh = world.fresh(Kind::Directory);
        world.tree.insert(dir.clone(), fresh);
        for inner in NAMES {
            let fresh = world.fresh(Kind::File);
            world.tree.insert(walk::join(&dir, inner.as_bytes()), fresh);
        }
    }
    steps.iter().for_each(|step| world.take(step));
    world.touched.clear();
    world.whole.clear();
    world.linked.clear();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_follows_every_batch(
        before in any_steps(), batches in proptest::collection::vec(any_steps(), 1..4),
        by_file: bool,
    ) {
        let mut world = started(&before);
        let mut index = index_of(&world.tree);
        let mut target = world.tree.clone();
        for steps in batches {
            steps.iter().for_each(|step| world.take(step));
            let (mut names, moves) = world.absorb(&mut index, by_file);
            let mut whole: Vec<Vec<u8>> = std::mem::take(&mut world.whole);
            for a in &moves {
                // Below a directory that was left, nothing may be wrong either.
                apply(&mut target, a);
                let paths = [a.from.to_vec(), a.to.to_vec()];
                if a.has_directory() { &mut whole } else { &mut names }.extend(paths);
            }
            names.sort();
            deliver(&mut target, &world.tree, &names, &whole);
            prop_assert_eq!(inodes(&target), inodes(&world.tree), "moves {:?}", lines(&moves));
            prop_assert_eq!(&target, &world.tree);
            // A second look forgets most of what has left; the rest does no harm.
            world.absorb(&mut index, by_file);
            let known = listed(&index);
            for (path, ino) in inodes(&world.tree) {
                prop_assert_eq!(known.get(&path), Some(&ino), "{}", path);
            }
            prop_assert_eq!(index.counts().entries, known.len() as u64);
            let seen = known.keys().filter_map(|path| index.get(path.as_bytes()));
            prop_assert_eq!(index.counts().bytes, seen.map(Seen::bytes).sum::<u64>());
        }
    }

    /// Files that only change their names among fixed directories are never sent.
    #[test]
    fn no_renamed_file_is_sent(renames in proptest::collection::vec((0usize..40, 0usize..8, 0usize..8), 1..20)) {
        let mut world = started(&[]);
        let mut index = index_of(&world.tree);
        let mut target = world.tree.clone();
        for (n, dir, name) in renames {
            let Some(from) = world.pick(n).filter(|path| !world.is_dir(path)) else { continue };
            let number = world.tree.keys().position(|path| *path == from).unwrap();
            if !world.is_dir(&world.place(dir, name)) {
                world.take(&Step::Rename(number, dir, name));
            }
        }
        let (_, moves) = world.absorb(&mut index, false);
        for a in &moves {
            prop_assert!(apply(&mut target, a), "{:?}", a);
        }
        for (path, seen) in &world.tree {
            prop_assert_eq!(target.get(path), Some(seen), "{:?}", path.escape_ascii());
        }
    }
}

fn told(before: &[(&str, u64)], after: &[(&str, u64)]) -> Vec<String> {
    let tree = |entries: &[(&str, u64)]| -> Tree {
        let kind = |path: &str| if path.ends_with('/') { Kind::Directory } else { Kind::File };
        let path = |path: &str| path.trim_end_matches('/').as_bytes().to_vec();
        entries.iter().map(|(p, ino)| (path(p), seen(kind(p), *ino))).collect()
    };
    let (before, after) = (tree(before), tree(after));
    let touched: Vec<RelPath> =
        before.keys().chain(after.keys()).map(|path| path[..].into()).collect();
    let absorbed = index_of(&before).absorb(&touched, false, |path| after.get(path).copied());
    lines(&absorbed.moves)
}

fn lines(moves: &[Move]) -> Vec<String> {
    moves
        .iter()
        .map(|a| {
            format!(
                "{} {} {}",
                text(&a.from),
                if a.over.is_some() { "<>" } else { "->" },
                text(&a.to)
            )
        })
        .collect()
}

#[test]
fn moves_are_told_in_an_order_that_works() {
    type Case<'a> = (&'a str, &'a [(&'a str, u64)], &'a [(&'a str, u64)], &'a [&'a str]);
    let cases: [Case; 9] = [
        ("a rename", &[("a", 5)], &[("b", 5)], &["a -> b"]),
        ("another link", &[("a", 5)], &[("a", 5), ("b", 5)], &[]),
        ("a number used again", &[("a", 5)], &[("b", 6)], &[]),
        (
            "a rotation",
            &[("l", 5), ("l1", 6), ("l2", 7)],
            &[("l", 8), ("l1", 5), ("l2", 6), ("l3", 7)],
            &["l2 -> l3", "l1 -> l2", "l -> l1"],
        ),
        ("a swap", &[("a", 5), ("b", 6)], &[("a", 6), ("b", 5)], &["b <> a"]),
        ("a save", &[("a", 5), ("t", 6)], &[("a", 6)], &["t <> a"]),
        ("a directory", &[("d/", 5), ("d/x", 6)], &[("e/", 5), ("e/x", 6)], &["d -> e"]),
        (
            "a directory and what is in it",
            &[("d/", 5), ("d/x", 6)],
            &[("e/", 5), ("e/y", 6)],
            &["d -> e", "e/x -> e/y"],
        ),
        (
            "a release",
            &[("live/", 5), ("live/f", 6), ("new/", 7), ("new/f", 8)],
            &[("live/", 7), ("live/f", 8), ("old/", 5), ("old/f", 6)],
            &["live -> old", "new -> live"],
        ),
    ];
    for (what, before, after, expected) in cases {
        assert_eq!(told(before, after), expected, "{what}");
    }
}

#[test]
fn a_file_changed_under_a_name_that_is_gone_is_told_under_the_others() {
    let mut world = World::default();
    let file = world.fresh(Kind::File);
    for name in ["a", "b", "c"] {
        world.tree.insert(name.into(), file);
    }
    let mut index = index_of(&world.tree);
    world.tree.remove(&b"b"[..]);
    world.touched.push(b"b".to_vec());
    let (mut names, _) = world.absorb(&mut index, false);
    names.sort();
    assert_eq!(names, [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
}

#[test]
fn without_a_time_of_birth_only_what_is_unchanged_is_the_same() {
    let old = Seen { sure: false, ..seen(Kind::File, 5) };
    assert!(old.is(&old));
    assert!(!Seen { size: 1, ..old }.is(&old) && !Seen { mtime_ns: 1, ..old }.is(&old));
    assert!(seen(Kind::File, 5).is(&Seen { size: 1, ..seen(Kind::File, 5) }));
    assert!(!seen(Kind::Directory, 5).is(&seen(Kind::File, 5)));
}

/// What the index costs: `cargo nextest run -p lockstep-agent --release --run-ignored only index`.
#[test]
#[ignore = "a measurement"]
fn two_hundred_thousand_files() {
    let dir = tempfile::tempdir().unwrap();
    for d in 0..1000 {
        let path = dir.path().join(format!("directory-{d:04}"));
        std::fs::create_dir(&path).unwrap();
        for f in 0..200 {
            std::fs::write(path.join(format!("picture-of-{f:05}.jpg")), "").unwrap();
        }
    }
    #[allow(clippy::disallowed_methods)]
    let start = std::time::Instant::now();
    let looker = look::Looker::open(dir.path()).unwrap();
    let index = Index::read(&looker).unwrap().unwrap();
    let took = start.elapsed();
    let each = index.footprint() / index.len();
    println!("{} names, {:?}, {each} bytes each", index.len(), took);
    assert_eq!(index.counts(), Counts { directories: 1000, entries: 201_000, bytes: 0 });
    assert!(each < 120, "{each}");
}
