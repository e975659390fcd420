//! What the source tree looked like when it was last looked at: every name with what tells its file
//! from another, so that a rename is seen as one. Lean, for millions of names. It reads no disk:
//! `walk` and `look` do, and `absorb` compares. It may be stale; who uses it looks again.

pub mod absorb;
pub mod look;
pub mod walk;

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Most names that are kept; a larger tree is counted only. About 200 MB.
pub const ENTRIES_MAX: usize = 2_000_000;
/// Names of the tree with the same inode that are compared at most.
const LINKS_MAX: usize = 16;
/// Removed names are squeezed out when they take more than so many bytes and half of the room.
const SLACK_MIN: usize = 1 << 20;

const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    File,
    Directory,
    Other,
}

/// What one look at a name found, links not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    pub kind: Kind,
    pub ino: u64,
    /// Of the device and, when the file system tells it, the time of birth.
    pub tag: u32,
    /// The time of birth is in the tag: no other file ever had both numbers.
    pub sure: bool,
    pub size: u64,
    pub mtime_ns: i64,
}

impl Seen {
    /// Whether it is the same file, under whatever name.
    pub fn is(&self, other: &Self) -> bool {
        let numbers = (self.kind, self.ino, self.tag) == (other.kind, other.ino, other.tag);
        // An inode number is soon given to a new file.
        let unchanged = self.mtime_ns == other.mtime_ns
            && (self.kind == Kind::Directory || self.size == other.size);
        numbers && (self.sure || unchanged)
    }

    fn bytes(&self) -> u64 {
        if self.kind == Kind::File { self.size } else { 0 }
    }

    fn identity(&self) -> (u64, u32) {
        (self.ino, self.tag)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// The root not among them.
    pub directories: u64,
    /// Of all kinds, directories included.
    pub entries: u64,
    /// In files, each name of one counted.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
struct Node {
    /// As the file; the size of a directory is the id of its first child.
    seen: Seen,
    parent: u32,
    next: u32,
    prev: u32,
    name_at: u32,
    name_len: u8,
}

#[derive(Clone, Debug)]
pub struct Index {
    nodes: Vec<Node>,
    free: Vec<u32>,
    names: Vec<u8>,
    /// Bytes of `names` that belong to nobody.
    slack: usize,
    by_name: HashTable<u32>,
    by_identity: HashTable<u32>,
    hasher: RandomState,
    counts: Counts,
    /// Names gone since the look before; one that turns up elsewhere soon is a rename still.
    leaving: Vec<Box<[u8]>>,
}

impl Index {
    pub fn new(root: &Seen) -> Self {
        let mut seen = *root;
        seen.size = u64::from(NONE);
        let root = Node { seen, parent: ROOT, next: NONE, prev: NONE, name_at: 0, name_len: 0 };
        Self {
            nodes: vec![root],
            free: Vec::new(),
            names: Vec::new(),
            slack: 0,
            by_name: HashTable::new(),
            by_identity: HashTable::new(),
            hasher: RandomState::new(),
            counts: Counts::default(),
            leaving: Vec::new(),
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes.
    pub fn footprint(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.names.capacity()
            + self.by_name.allocation_size()
            + self.by_identity.allocation_size()
            + self.free.capacity() * 4
    }

    /// What is known of a path; the size of a directory means nothing.
    pub fn get(&self, path: &[u8]) -> Option<&Seen> {
        self.find(path).map(|id| self.seen(id))
    }

    fn is_used(&self, id: u32) -> bool {
        self.nodes[id as usize].parent != NONE
    }

    fn seen(&self, id: u32) -> &Seen {
        &self.nodes[id as usize].seen
    }

    fn name(&self, id: u32) -> &[u8] {
        let node = &self.nodes[id as usize];
        let at = node.name_at as usize;
        &self.names[at..at + usize::from(node.name_len)]
    }

    fn find(&self, path: &[u8]) -> Option<u32> {
        if path.is_empty() {
            return Some(ROOT);
        }
        path.split(|b| *b == b'/').try_fold(ROOT, |dir, name| self.child(dir, name))
    }

    fn child(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((parent, name));
        let is = |id: &u32| {
            self.nodes[*id as usize].parent == parent && self.name(*id) == name && *id != ROOT
        };
        self.by_name.find(hash, is).copied()
    }

    fn path(&self, id: u32) -> Vec<u8> {
        let mut chain: Vec<u32> = Vec::new();
        let mut at = id;
        while at != ROOT {
            chain.push(at);
            at = self.nodes[at as usize].parent;
        }
        let names: Vec<&[u8]> = chain.iter().rev().map(|id| self.name(*id)).collect();
        names.join(&b'/')
    }

    /// The names of one inode, at most so many.
    fn links(&self, seen: &Seen, most: usize) -> Vec<u32> {
        let hash = self.hasher.hash_one(seen.identity());
        let of = |id: &&u32| self.seen(**id).identity() == seen.identity();
        self.by_identity.iter_hash(hash).filter(of).take(most).copied().collect()
    }

    /// Whether `id` is `above` or below it.
    fn is_within(&self, id: u32, above: u32) -> bool {
        let mut at = id;
        while at != above && at != ROOT {
            at = self.nodes[at as usize].parent;
        }
        at == above
    }

    fn children(&self, id: u32) -> impl Iterator<Item = u32> {
        let node = &self.nodes[id as usize];
        let first = if node.seen.kind == Kind::Directory { node.seen.size as u32 } else { NONE };
        let some = |id: u32| (id != NONE).then_some(id);
        std::iter::successors(some(first), move |id| some(self.nodes[*id as usize].next))
    }

    /// All below a directory, parents first.
    fn below(&self, id: u32) -> Vec<u32> {
        let mut found: Vec<u32> = self.children(id).collect();
        let mut at = 0;
        while at < found.len() {
            found.extend(self.children(found[at]).collect::<Vec<_>>());
            at += 1;
        }
        found
    }

    /// The name is free. None when there is no room.
    fn insert(&mut self, parent: u32, name: &[u8], seen: &Seen) -> Option<u32> {
        if self.len() >= ENTRIES_MAX {
            return None;
        }
        let mut seen = *seen;
        if seen.kind == Kind::Directory {
            seen.size = u64::from(NONE);
            self.counts.directories += 1;
        }
        self.counts.entries += 1;
        self.counts.bytes += seen.bytes();
        let node = Node { seen, parent, next: NONE, prev: NONE, name_at: 0, name_len: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                grow(&mut self.nodes, 1);
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.attach(id, parent, name);
        let Self { by_identity, nodes, hasher, .. } = self;
        let hash_of = |id: &u32| hasher.hash_one(nodes[*id as usize].seen.identity());
        by_identity.insert_unique(hash_of(&id), id, hash_of);
        Some(id)
    }

    /// The same file, looked at again.
    fn refresh(&mut self, id: u32, seen: &Seen) {
        let node = &mut self.nodes[id as usize].seen;
        self.counts.bytes = self.counts.bytes - node.bytes() + seen.bytes();
        let size = if seen.kind == Kind::Directory { node.size } else { seen.size };
        *node = Seen { size, ..*seen };
    }

    /// Takes a name away with all below it.
    fn remove(&mut self, id: u32) {
        let mut gone = self.below(id);
        gone.insert(0, id);
        for id in gone.into_iter().rev() {
            self.detach(id);
            let hash = self.hasher.hash_one(self.seen(id).identity());
            if let Ok(found) = self.by_identity.find_entry(hash, |other| *other == id) {
                found.remove();
            }
            self.counts.entries -= 1;
            self.counts.bytes -= self.seen(id).bytes();
            self.counts.directories -= u64::from(self.seen(id).kind == Kind::Directory);
            self.nodes[id as usize].parent = NONE;
            self.free.push(id);
        }
    }

    fn relocate(&mut self, id: u32, parent: u32, name: &[u8]) {
        self.detach(id);
        self.attach(id, parent, name);
    }

    /// Neither is above the other.
    fn exchange(&mut self, a: u32, b: u32) {
        let place = |id: u32| (self.nodes[id as usize].parent, self.name(id).to_vec());
        let ((a_parent, a_name), (b_parent, b_name)) = (place(a), place(b));
        self.detach(a);
        self.detach(b);
        self.attach(a, b_parent, &b_name);
        self.attach(b, a_parent, &a_name);
    }

    fn detach(&mut self, id: u32) {
        let Node { parent, next, prev, name_len, .. } = self.nodes[id as usize];
        let hash = self.hasher.hash_one((parent, self.name(id)));
        if let Ok(found) = self.by_name.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        match prev {
            NONE => self.nodes[parent as usize].seen.size = u64::from(next),
            prev => self.nodes[prev as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        self.slack += usize::from(name_len);
        self.nodes[id as usize].name_len = 0;
    }

    fn attach(&mut self, id: u32, parent: u32, name: &[u8]) {
        if self.slack > SLACK_MIN && self.slack > self.names.len() / 2 {
            self.squeeze();
        }
        let first = self.nodes[parent as usize].seen.size as u32;
        let name_at = self.names.len() as u32;
        grow(&mut self.names, name.len());
        self.names.extend_from_slice(name);
        let node = &mut self.nodes[id as usize];
        // Linux knows no longer name than 255 bytes.
        (node.name_at, node.name_len) = (name_at, name.len() as u8);
        (node.parent, node.next, node.prev) = (parent, first, NONE);
        if first != NONE {
            self.nodes[first as usize].prev = id;
        }
        self.nodes[parent as usize].seen.size = u64::from(id);
        let Self { by_name, nodes, names, hasher, .. } = self;
        let hash_of = |id: &u32| {
            let node = &nodes[*id as usize];
            let at = node.name_at as usize;
            hasher.hash_one((node.parent, &names[at..at + usize::from(node.name_len)]))
        };
        by_name.insert_unique(hash_of(&id), id, hash_of);
    }

    fn squeeze(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.slack);
        for node in &mut self.nodes {
            let at = node.name_at as usize;
            let name = &self.names[at..at + usize::from(node.name_len)];
            node.name_at = names.len() as u32;
            names.extend_from_slice(name);
        }
        (self.names, self.slack) = (names, 0);
    }
}

/// By an eighth and not twofold: nothing here is short-lived.
fn grow<T>(list: &mut Vec<T>, by: usize) {
    if list.capacity() - list.len() < by {
        list.reserve_exact(by.max(list.len() / 8).max(64));
    }
}

#[cfg(test)]
mod tests;
