//! Takes in that names were touched, and tells which of them moved and what changed with them. The
//! moves, applied in order to a copy of what the index knew, bring every moved file to its place;
//! nothing is overwritten, what is in the way changes places with what comes.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::look::split;
use super::{Index, Kind, LINKS_MAX, ROOT, Seen};
use crate::deliver::PENDING_MAX;
use crate::journal::{Changed, RelPath};

/// Most times that names wait for others to get out of their way.
const ROUNDS_MAX: usize = 64;
/// Most moves told of one batch; those beyond it are not told.
pub const MOVES_MAX: usize = 20_000;
/// Most names of one file that change with one of them.
const NAMES_MAX: usize = 4096;
/// Most of what changed beside the names of a batch: so much is a pass for every target.
const BESIDE_MAX: usize = PENDING_MAX + 1;

/// A rename: what was at `from` is at `to`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    pub from: RelPath,
    pub to: RelPath,
    pub kind: Kind,
    /// As the copy has it; of a directory without meaning.
    pub size: u64,
    pub mtime_ns: i64,
    /// What is at `to` goes to `from`.
    pub over: Option<Kind>,
}

impl Move {
    /// Whether whole trees change their places: what is in them has to be compared afterwards.
    pub fn has_directory(&self) -> bool {
        self.kind == Kind::Directory || self.over == Some(Kind::Directory)
    }
}

/// What the names of a batch mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Absorbed {
    pub moves: Vec<Move>,
    /// What changed although its name was not told, or not as what it is: other names of a file,
    /// and directories in place of something else, whose contents went without a word.
    pub beside: Vec<Changed>,
    /// False when there is no room for what is new: the index is of no use then.
    pub room: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Only where nothing is displaced that has a place of its own.
    Patient,
    /// What is in the way changes places with what comes.
    Exchanging,
    /// What is in the way is forgotten.
    Forcing,
}

/// The index and what is found on disk for one batch.
struct Round<'a, L> {
    index: &'a mut Index,
    look: L,
    seen: HashMap<RelPath, Option<Seen>>,
    /// Files that have yet to get to their places.
    wanted: HashSet<(u64, u32)>,
    moves: Vec<Move>,
    /// What may have no place any more.
    loose: Vec<u32>,
    by_file: bool,
    full: bool,
}

impl Index {
    /// `look` tells what is at a path now; the empty path is the root and does not matter. With `by_file` a moved directory is told as the moves of
    /// all files in it.
    pub fn absorb<'a>(
        &mut self,
        touched: impl IntoIterator<Item = &'a RelPath>,
        by_file: bool,
        look: impl FnMut(&[u8]) -> Option<Seen>,
    ) -> Absorbed {
        let before = std::mem::take(&mut self.leaving);
        let mut round = Round {
            index: self,
            look,
            seen: HashMap::new(),
            wanted: HashSet::new(),
            moves: Vec::new(),
            loose: Vec::new(),
            by_file,
            full: false,
        };
        // Parents before what is in them.
        let names = touched.into_iter().filter(|path| !path.is_empty());
        let found: BTreeMap<RelPath, Option<Seen>> =
            names.map(|path| (path.clone(), round.look(path))).collect();
        let mut beside = round.index.replaced(&found);
        // A file may have been changed under a name that it has no more.
        let known = found.keys().filter_map(|path| round.index.get(path).copied());
        let files = known.chain(found.values().flatten().copied()).chain(round.index.left(&found));
        let files: Vec<Seen> = files.collect();
        // Before and after directories moved, and what is in them with them.
        let missing = || found.iter().filter(|(_, seen)| seen.is_none()).map(|(path, _)| path);
        round.loose = missing().filter_map(|path| round.index.find(path)).collect();
        let arrived = found.iter().filter_map(|(path, seen)| Some((path.clone(), (*seen)?)));
        round.settle_all(arrived.collect());
        for path in before {
            round.forget_if_gone(&path);
        }
        let come = missing().filter_map(|path| round.index.find(path)).collect::<Vec<_>>();
        round.loose.extend(come);
        let leaving = round.leaving();
        let (moves, room) = (std::mem::take(&mut round.moves), !round.full);
        self.leaving = leaving;
        let others = self.names(&files).filter(|path| !found.contains_key(path)).take(BESIDE_MAX);
        beside.extend(others.map(|path| Changed { path, subtree: false }));
        Absorbed { moves, beside, room }
    }

    /// Directories where something else was before: who missed the step between has more in them.
    fn replaced(&self, found: &BTreeMap<RelPath, Option<Seen>>) -> Vec<Changed> {
        let is_replaced = |path: &[u8], seen: &Seen| {
            seen.kind == Kind::Directory && self.get(path).is_some_and(|was| !was.is(seen))
        };
        let replaced = found
            .iter()
            .filter(|(path, seen)| seen.as_ref().is_some_and(|seen| is_replaced(path, seen)));
        replaced.map(|(path, _)| Changed { path: path.clone(), subtree: true }).collect()
    }

    /// Files with other names in directories that are not where they were: each may have been changed
    /// under a name that it had only in between.
    fn left(&self, found: &BTreeMap<RelPath, Option<Seen>>) -> Vec<Seen> {
        let has_left = |path: &[u8]| {
            let was = self.get(path).filter(|was| was.kind == Kind::Directory);
            let now = found.get(path).map(Option::as_ref);
            was.zip(now).is_some_and(|(was, now)| now.is_none_or(|now| !was.is(now)))
        };
        // Of nested ones the outermost has all.
        let outer = found.keys().filter(|path| has_left(path) && !has_left(split(path).0));
        let below = outer.filter_map(|path| self.find(path)).flat_map(|id| self.below(id));
        let files = below.map(|id| *self.seen(id)).filter(|seen| seen.kind != Kind::Directory);
        files.filter(|seen| self.links(seen, 2).len() > 1).collect()
    }

    /// All names of these.
    fn names(&self, files: &[Seen]) -> impl Iterator<Item = RelPath> {
        let files = files.iter().filter(|seen| seen.kind != Kind::Directory);
        files.flat_map(|seen| self.links(seen, NAMES_MAX)).map(|id| self.path(id).into())
    }
}

impl<L: FnMut(&[u8]) -> Option<Seen>> Round<'_, L> {
    fn look(&mut self, path: &[u8]) -> Option<Seen> {
        if let Some(seen) = self.seen.get(path) {
            return *seen;
        }
        let seen = (self.look)(path);
        self.seen.insert(path.into(), seen);
        seen
    }

    fn settle_all(&mut self, mut left: Vec<(RelPath, Seen)>) {
        self.wanted = left.iter().map(|(_, seen)| seen.identity()).collect();
        let mut manner = Manner::Patient;
        for _ in 0..ROUNDS_MAX {
            let before = left.len();
            left.retain(|(path, seen)| !self.settle(path, seen, manner));
            if left.is_empty() {
                return;
            }
            if left.len() == before {
                manner = match manner {
                    Manner::Patient => Manner::Exchanging,
                    Manner::Exchanging => Manner::Forcing,
                    // Made and gone again, or below what changes right now.
                    Manner::Forcing => return,
                };
            } else if manner == Manner::Exchanging {
                manner = Manner::Patient;
            }
        }
        left.retain(|(path, seen)| !self.settle(path, seen, Manner::Forcing));
    }

    /// Whether the index now has at `path` what was seen there.
    fn settle(&mut self, path: &RelPath, seen: &Seen, manner: Manner) -> bool {
        let (dir, name) = split(path);
        let Some(parent) = self.index.find(dir).filter(|id| self.is_settled(*id, dir)) else {
            return false;
        };
        let here = self.index.child(parent, name);
        if let Some(id) = here
            && self.index.seen(id).is(seen)
        {
            self.index.refresh(id, seen);
            self.wanted.remove(&seen.identity());
            return true;
        }
        let wanted = here.is_some_and(|id| self.wanted.contains(&self.index.seen(id).identity()));
        if let Some(id) = self.departed(seen).filter(|id| !self.index.is_within(parent, *id)) {
            let free = here.is_none();
            let apart = here.is_none_or(|here| !self.index.is_within(id, here));
            if free || (apart && (!wanted || manner != Manner::Patient)) {
                self.carry(id, parent, path, here);
                self.index.refresh(id, seen);
                self.wanted.remove(&seen.identity());
                return true;
            }
        }
        if let Some(id) = here {
            let is_leaf = self.index.seen(id).kind != Kind::Directory;
            if manner != Manner::Forcing && (wanted || !is_leaf) {
                return false;
            }
            self.index.remove(id);
        }
        self.full |= self.index.insert(parent, name, seen).is_none();
        self.wanted.remove(&seen.identity());
        true
    }

    fn is_settled(&mut self, id: u32, path: &[u8]) -> bool {
        id == ROOT || self.look(path).is_some_and(|seen| self.index.seen(id).is(&seen))
    }

    /// A name of this file that is its name no more.
    fn departed(&mut self, seen: &Seen) -> Option<u32> {
        if seen.kind == Kind::Other {
            return None;
        }
        self.index.links(seen, LINKS_MAX).into_iter().find(|id| {
            let was = *self.index.seen(*id);
            let path = self.index.path(*id);
            was.is(seen) && *id != ROOT && self.look(&path).is_none_or(|now| !now.is(seen))
        })
    }

    fn carry(&mut self, id: u32, parent: u32, to: &RelPath, here: Option<u32>) {
        let Seen { kind, size, mtime_ns, .. } = *self.index.seen(id);
        let from: RelPath = self.index.path(id).into();
        let over = here.map(|here| self.index.seen(here).kind);
        if kind != Kind::Directory || !self.by_file {
            self.moves.push(Move { from, to: to.clone(), kind, size, mtime_ns, over });
        } else if here.is_none() {
            let below = self.index.below(id);
            let moved = below.into_iter().filter(|id| self.index.seen(*id).kind == Kind::File);
            let moved: Vec<Move> = moved
                .take(MOVES_MAX)
                .map(|id| {
                    let path = self.index.path(id);
                    let to = [&to[..], &path[from.len()..]].concat().into();
                    let Seen { kind, size, mtime_ns, .. } = *self.index.seen(id);
                    Move { from: path.into(), to, kind, size, mtime_ns, over: None }
                })
                .collect();
            self.moves.extend(moved);
        }
        self.moves.truncate(MOVES_MAX);
        match here {
            Some(here) => {
                self.index.exchange(id, here);
                self.loose.push(here);
            }
            None => self.index.relocate(id, parent, split(to).1),
        }
    }

    /// Where the index still has what is there no more.
    fn leaving(&mut self) -> Vec<Box<[u8]>> {
        let mut leaving = Vec::new();
        for id in std::mem::take(&mut self.loose) {
            if id != ROOT && self.index.is_used(id) {
                let path = self.index.path(id);
                if self.look(&path).is_none() {
                    leaving.push(path.into());
                }
            }
        }
        leaving
    }

    fn forget_if_gone(&mut self, path: &[u8]) {
        if let Some(id) = self.index.find(path)
            && id != ROOT
            && self.look(path).is_none()
        {
            self.index.remove(id);
        }
    }
}
