//! The sum of a whole tree, and of each directory in it as far as memory allows. The sum does not
//! depend on an order, so a directory of any size is read without keeping its names. A walk goes
//! on in slices, so that its caller can stop, pace and tell of it.

use std::collections::HashMap;

use rustix::io::{Errno, Result};

use super::below::{Root, Rules};
use super::entry::Kind;

/// Most directories whose sums are kept, about 50 bytes each. Above it the deepest are forgotten:
/// those are then compared entry by entry.
const KEPT_MAX: usize = 2_000_000;

/// The sum of a directory that could not be read: it equals another such one only.
const UNREADABLE: u128 = u128::MAX;

/// What was walked over.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Walked {
    pub entries: u64,
    /// Directories that could not be read.
    pub unreadable: u64,
}

/// The sums of directories by their paths' hashes.
pub struct Sums {
    by_path: HashMap<u64, (u16, u128)>,
    deepest: u16,
    max: usize,
}

impl Sums {
    fn new(max: usize) -> Self {
        Self { by_path: HashMap::new(), deepest: u16::MAX, max }
    }

    fn keep(&mut self, path: u64, depth: u16, sum: u128) {
        if depth > self.deepest {
            return;
        }
        self.by_path.insert(path, (depth, sum));
        while self.by_path.len() > self.max && self.deepest > 0 {
            let depths = self.by_path.values().map(|(depth, _)| *depth);
            self.deepest = depths.max().unwrap_or(0).saturating_sub(1);
            self.by_path.retain(|_, (depth, _)| *depth <= self.deepest);
        }
    }

    /// None when it was not there at the walk, or was forgotten.
    pub fn get(&self, rules: &Rules, path: &[u8]) -> Option<u128> {
        self.by_path.get(&rules.key.path(path)).map(|(_, sum)| *sum)
    }
}

/// A directory on the way down: what is done of it, and the sub-directories to come.
struct Level {
    path_len: usize,
    sum: u128,
    subdirs: Vec<Box<[u8]>>,
}

pub struct Walk {
    rules: Rules,
    levels: Vec<Level>,
    path: Vec<u8>,
    sums: Sums,
    walked: Walked,
    started: bool,
    root_sum: Option<u128>,
}

impl Walk {
    pub fn new(rules: Rules) -> Self {
        Self::keeping(rules, KEPT_MAX)
    }

    fn keeping(rules: Rules, max: usize) -> Self {
        Self {
            rules,
            levels: Vec::new(),
            path: Vec::new(),
            sums: Sums::new(max),
            walked: Walked::default(),
            started: false,
            root_sum: None,
        }
    }

    pub fn walked(&self) -> Walked {
        self.walked
    }

    /// Goes on for about `entries` entries, by whole directories. Whether the walk is over. The
    /// error is the root's: it cannot be read.
    pub fn advance(&mut self, root: &Root, entries: u64) -> Result<bool> {
        if !self.started {
            self.started = true;
            let own = self.rules.key.entry(b"", &root.own_entry(&self.rules)?);
            self.enter(root)?;
            self.add(own);
        }
        let until = self.walked.entries.saturating_add(entries);
        while self.walked.entries < until {
            let Some(level) = self.levels.last_mut() else { return Ok(true) };
            self.path.truncate(level.path_len);
            match level.subdirs.pop() {
                Some(name) => {
                    if !self.path.is_empty() {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(&name);
                    match self.enter(root) {
                        Ok(()) => {}
                        // It went away, or is something else by now.
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.leave_with(0),
                        Err(_) => {
                            self.walked.unreadable += 1;
                            self.leave_with(UNREADABLE);
                        }
                    }
                }
                None => {
                    let sum = level.sum;
                    self.levels.pop();
                    self.leave_with(sum);
                }
            }
        }
        Ok(self.levels.is_empty())
    }

    /// The sum of the whole tree, once the walk is over.
    pub fn finish(self) -> (u128, Sums) {
        (self.root_sum.unwrap_or(UNREADABLE), self.sums)
    }

    fn enter(&mut self, root: &Root) -> Result<()> {
        let mut level = Level { path_len: self.path.len(), sum: 0, subdirs: Vec::new() };
        let key = &self.rules.key;
        let entries = &mut self.walked.entries;
        let visit = |name: &[u8], entry| {
            *entries += 1;
            level.sum = level.sum.wrapping_add(key.entry(name, &entry));
            if entry.kind == Kind::Dir {
                level.subdirs.push(name.into());
            }
        };
        root.scan(&self.rules, &self.path, |_| true, visit)?;
        self.levels.push(level);
        Ok(())
    }

    /// `path` is the directory that is done, and the last level the one above it.
    fn leave_with(&mut self, sum: u128) {
        let depth = u16::try_from(self.levels.len()).unwrap_or(u16::MAX);
        self.sums.keep(self.rules.key.path(&self.path), depth, sum);
        if self.levels.is_empty() {
            self.root_sum = Some(sum);
            return;
        }
        let name = self.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let share = self.rules.key.tree(name, sum);
        self.add(share);
    }

    fn add(&mut self, share: u128) {
        if let Some(level) = self.levels.last_mut() {
            level.sum = level.sum.wrapping_add(share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Keep, Key};
    use super::*;
    use std::fs;
    use std::sync::Arc;

    fn walk(dir: &std::path::Path, max: usize) -> (u128, Sums, Rules) {
        let rules = Rules {
            key: Key::new(&[7; 32]),
            keep: Keep::ARCHIVE,
            excluded: Arc::new(|_, _| false),
        };
        let root = Root::open(dir).unwrap();
        let mut walk = Walk::keeping(rules.clone(), max);
        while !walk.advance(&root, 2).unwrap() {}
        let (sum, sums) = walk.finish();
        (sum, sums, rules)
    }

    #[test]
    fn a_change_anywhere_changes_all_sums_above_it_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "a/d", "e/f"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            fs::write(dir.path().join(path).join("file"), path).unwrap();
        }
        let (before, sums_before, rules) = walk(dir.path(), 100);
        fs::write(dir.path().join("a/b/c/file"), "changed").unwrap();
        let (after, sums_after, _) = walk(dir.path(), 100);
        assert_ne!(before, after);
        for (path, same) in
            [("a", false), ("a/b", false), ("a/b/c", false), ("a/d", true), ("e", true)]
        {
            let sums = [&sums_before, &sums_after].map(|s| s.get(&rules, path.as_bytes()).unwrap());
            assert_eq!(sums[0] == sums[1], same, "{path}");
        }
    }

    #[test]
    fn what_is_too_much_is_forgotten_from_below() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..9 {
            fs::create_dir_all(dir.path().join(format!("a/b{at}/c"))).unwrap();
        }
        let (whole, _, _) = walk(dir.path(), 100);
        let (sum, sums, rules) = walk(dir.path(), 4);
        assert_eq!(sum, whole);
        assert!(sums.get(&rules, b"a").is_some() && sums.get(&rules, b"a/b1/c").is_none());
        assert!(sums.by_path.len() <= 4);
    }
}
