//! What a target gets next. Pure: journal entries, the cursor and facts about the source come in,
//! a decision comes out. Nothing here is ever deleted because of a source that looks lost.

use std::collections::{BTreeMap, HashMap};

use lockstep_model::Timestamp;
use lockstep_model::sync::DeletePolicy;

use crate::cursor::Cursor;
use crate::journal::{Change, Entry, RelPath};
use crate::rsync::exclude::Excludes;

/// Most paths that wait for one target; above it a pass is cheaper and bounded.
pub const PENDING_MAX: usize = 20_000;

/// What a target does not have yet, beyond its cursor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pending {
    /// Path and whether all that is there may differ, whatever it looks like.
    paths: BTreeMap<RelPath, bool>,
    full: bool,
    /// Last sequence taken in.
    upto: u64,
    /// When the oldest of it was told.
    oldest_at: Option<Timestamp>,
}

impl Pending {
    pub fn after(acked: u64) -> Self {
        Self { upto: acked, ..Self::default() }
    }

    /// `now` stands in for the time of an entry that has none.
    pub fn absorb(&mut self, entry: &Entry, now: Timestamp) {
        if entry.seq <= self.upto {
            return;
        }
        self.upto = entry.seq;
        let at = if entry.at == Timestamp::default() { now } else { entry.at };
        self.mend(&entry.change, at);
    }

    /// Takes in what has no entry in the journal: only this target differs.
    pub fn mend(&mut self, change: &Change, at: Timestamp) {
        self.oldest_at = Some(self.oldest_at.map_or(at, |oldest| oldest.min(at)));
        match change {
            Change::Full => self.need_full(),
            Change::Batch(changed) => {
                for changed in changed {
                    self.add(changed.path.clone(), changed.subtree);
                }
            }
        }
    }

    fn add(&mut self, path: RelPath, subtree: bool) {
        if self.full {
            return;
        }
        *self.paths.entry(path).or_default() |= subtree;
        if self.paths.len() > PENDING_MAX {
            self.need_full();
        }
    }

    /// Anything may have changed; single paths do not matter any more.
    pub fn need_full(&mut self) {
        self.full = true;
        self.paths.clear();
    }

    /// Adds a path whatever their number; whoever took the rest bounds them.
    pub fn include(&mut self, path: RelPath, subtree: bool) {
        if !self.full {
            *self.paths.entry(path).or_default() |= subtree;
        }
    }

    /// Takes everything out, for a delivery.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::after(self.upto))
    }

    /// As `take`, for a batch: None when anything may have changed, and then it stays.
    pub fn take_batch(&mut self) -> Option<Self> {
        (!self.full).then(|| self.take())
    }

    /// Puts back what a delivery did not bring over.
    pub fn put_back(&mut self, older: Self) {
        self.upto = self.upto.max(older.upto);
        self.oldest_at = [self.oldest_at, older.oldest_at].into_iter().flatten().min();
        if older.full {
            self.need_full();
        }
        for (path, subtree) in older.paths {
            self.add(path, subtree);
        }
    }

    pub fn upto(&self) -> u64 {
        self.upto
    }

    pub fn oldest_at(&self) -> Option<Timestamp> {
        self.oldest_at
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn paths(&self) -> impl Iterator<Item = (&RelPath, bool)> {
        self.paths.iter().map(|(path, subtree)| (path, *subtree))
    }

    pub fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    pub fn has(&self, path: &[u8]) -> bool {
        self.paths.contains_key(path)
    }

    pub fn count(&self) -> usize {
        self.paths.len()
    }

    /// Moves these paths into one of their own; nobody has acknowledged anything by it.
    pub fn split_off(&mut self, moves: impl Fn(&[u8]) -> bool) -> Self {
        let (moved, stay) = std::mem::take(&mut self.paths).into_iter().partition(|p| moves(&p.0));
        self.paths = stay;
        Self { paths: moved, full: false, upto: 0, oldest_at: self.oldest_at }
    }
}

/// What the source directory looks like right now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    Missing,
    NotADirectory,
    Unreadable(String),
    Empty,
    /// The file is not there that tells that all is there.
    Unmarked {
        sentinel: String,
    },
    /// `device` names the file system, the same after a reboot; 0 when it has no name.
    Present {
        device: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    pub source: Source,
    /// The file system the source was on when it was last delivered.
    pub known_device: Option<u64>,
    /// The pause after a failed pass is over.
    pub pass_due: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    Pass {
        delete: bool,
    },
    Batch {
        delete: bool,
    },
    /// Only the acknowledgement is due.
    Ack,
    Nothing,
    Held {
        why: String,
    },
}

pub fn next_delivery(
    cursor: &Cursor,
    pending: &Pending,
    policy: DeletePolicy,
    facts: &Facts,
) -> Delivery {
    let pass = cursor.full || !cursor.filled || pending.full;
    let delivery = if pass && facts.pass_due {
        // A target's own files are safe until it is filled: it may have been added by mistake.
        Delivery::Pass { delete: cursor.filled && policy.in_full_pass() }
    } else if cursor.filled && pending.has_paths() {
        Delivery::Batch { delete: policy.in_batches() }
    } else if !pass && pending.upto > cursor.acked {
        Delivery::Ack
    } else {
        return Delivery::Nothing;
    };
    let deletes =
        matches!(delivery, Delivery::Pass { delete: true } | Delivery::Batch { delete: true });
    match held(facts, deletes) {
        Some(why) => Delivery::Held { why },
        None => delivery,
    }
}

/// Why a source as it is now must not be delivered, or not with removals.
pub fn held(facts: &Facts, deletes: bool) -> Option<String> {
    let why = match &facts.source {
        Source::Missing => "the source directory is missing",
        Source::NotADirectory => "the source is not a directory",
        Source::Unreadable(error) => {
            return Some(format!("the source directory cannot be read: {error}"));
        }
        Source::Empty if deletes => "the source directory is empty: is its disk mounted?",
        Source::Unmarked { sentinel } if deletes => {
            return Some(format!(
                "{sentinel} is missing in the source: is its disk mounted? nothing is deleted on \
                 targets"
            ));
        }
        Source::Present { device } if deletes => match facts.known_device {
            Some(known) if known != *device => {
                "the source directory is on another file system than before: mount the right \
                 one, or accept this one with a resync"
            }
            _ => return None,
        },
        Source::Empty | Source::Unmarked { .. } | Source::Present { .. } => return None,
    };
    Some(format!("{why}; nothing is deleted on targets"))
}

/// What is at a path of the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    Nothing,
    Directory,
    /// A link to a directory, where links are followed: it changes with all below it.
    Linked,
    Other,
}

/// The names for rsync's standard input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lists {
    /// Exactly these, which are there.
    pub names: Vec<RelPath>,
    /// These are not.
    pub gone: Vec<RelPath>,
    /// One of those that are gone may have been a directory with something in it.
    pub deep: bool,
    /// These directories with all below them.
    pub subtrees: Vec<RelPath>,
    /// These, which are no directories, also where they look the same.
    pub contents: Vec<RelPath>,
}

/// Turns pending paths into what rsync can be told: a name below a directory that is gone stands
/// for that directory, since rsync skips what has no parent; and nothing is listed through a
/// symlink, which could lead out of the source, unless links are followed.
pub fn resolve(
    pending: &Pending,
    excludes: &Excludes,
    mut look: impl FnMut(&[u8]) -> Look,
) -> Lists {
    let mut seen: HashMap<RelPath, Look> = HashMap::new();
    let mut names: BTreeMap<RelPath, (Look, bool)> = BTreeMap::new();
    let mut deep = false;
    for (path, subtree) in pending.paths() {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let mut found = Look::Directory;
        let mut name = path.clone();
        for end in ends.chain([path.len()]) {
            let part = &path[..end];
            found = match seen.get(part) {
                Some(found) => *found,
                None => {
                    let found = look(part);
                    seen.insert(part.into(), found);
                    found
                }
            };
            if !matches!(found, Look::Directory | Look::Linked) {
                name = part.into();
                break;
            }
        }
        // What is gone may have been a directory; a pattern for directories must cover it too.
        if excludes.cover(&name, found != Look::Other) {
            continue;
        }
        let is_itself = name == *path;
        deep |= found == Look::Nothing && (subtree || !is_itself);
        let entry = names.entry(name).or_insert((found, false));
        // A name stands for itself or for what is below it, never for both.
        entry.1 |= match found {
            Look::Linked => true,
            Look::Directory => subtree,
            Look::Other => subtree && is_itself,
            Look::Nothing => false,
        };
    }
    let mut lists = Lists { deep, ..Lists::default() };
    for (name, (found, subtree)) in names {
        if found == Look::Nothing {
            lists.gone.push(name);
            continue;
        }
        if subtree && found == Look::Other {
            lists.contents.push(name);
            continue;
        }
        if subtree && !lists.subtrees.last().is_some_and(|outer| is_within(&name, outer)) {
            lists.subtrees.push(name.clone());
        }
        lists.names.push(name);
    }
    lists
}

fn is_within(inner: &[u8], outer: &[u8]) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests;
