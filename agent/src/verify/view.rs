//! One side's own tree, read for one comparison: the same four questions are asked of both sides.
//! Disks are read on blocking threads, in slices, so that dropping a question ends it soon.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::{Errno, Result};
use tokio::task::spawn_blocking;

use super::below::{Filter, Root, Rules};
use super::content::{Files, Hash, Reading, Step, pause};
use super::entry::{Entry, KEY_LEN, Keep, Key, Kind};
use super::walk::{Sums, Walk, Walked};
use super::wire::{LISTING_MAX, Named, Part, Seen};
use crate::journal::RelPath;

/// Entries that are read before the caller is told of it.
const SLICE: u64 = 4096;

/// What one side compares.
#[derive(Clone)]
pub struct Side {
    pub root: PathBuf,
    /// What this side can keep of what the sync keeps.
    pub keep: Keep,
    /// Stands for what both sides must agree on beyond that, such as the names that are left out.
    pub rules: u128,
    pub excluded: Filter,
}

/// How far long work is.
#[derive(Default)]
pub struct Meter {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of content read.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

pub struct View {
    root: Arc<Root>,
    pub rules: Rules,
    sums: Option<Arc<Sums>>,
}

pub enum Listed {
    Entries(Vec<Named>),
    /// So many, more than [`LISTING_MAX`].
    TooMany(u64),
    /// It is no directory that can be read.
    Gone,
}

impl View {
    pub async fn open(side: &Side, key: &[u8; KEY_LEN], keep: Keep) -> Result<Self> {
        let path = side.root.clone();
        let root = spawn_blocking(move || Root::open(&path)).await.map_err(|_| Errno::IO)??;
        let rules = Rules { key: Key::new(key), keep, excluded: side.excluded.clone() };
        Ok(Self { root: Arc::new(root), rules, sums: None })
    }

    /// The sum of the whole tree.
    pub async fn walk(&mut self, meter: &Meter) -> Result<(u128, Walked)> {
        let mut walk = Walk::new(self.rules.clone());
        loop {
            let root = self.root.clone();
            let slice = spawn_blocking(move || {
                let done = walk.advance(&root, SLICE);
                (walk, done)
            });
            let done;
            (walk, done) = slice.await.map_err(|_| Errno::IO)?;
            let (done, walked) = (done?, walk.walked());
            meter.entries.store(walked.entries, Ordering::Relaxed);
            if done {
                let (sum, sums) = walk.finish();
                self.sums = Some(Arc::new(sums));
                return Ok((sum, walked));
            }
        }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root, &Rules, Option<&Sums>) -> T + Send + 'static,
    ) -> Result<T> {
        let (root, rules, sums) = (self.root.clone(), self.rules.clone(), self.sums.clone());
        let done = spawn_blocking(move || work(&root, &rules, sums.as_deref()));
        done.await.map_err(|_| Errno::IO)
    }

    /// The sums of a directory's buckets; None when it cannot be read.
    pub async fn bucket_sums(&self, dir: RelPath, bits: u8) -> Option<Vec<u128>> {
        let read = self.on_disk(move |root, rules, sums| {
            let mut all = vec![0u128; 1 << bits];
            let visit = |name: &[u8], entry: Entry| {
                let tree = tree(rules, sums, &dir, name, &entry);
                let share = rules.key.entry(name, &entry);
                let share = share.wrapping_add(tree.map_or(0, |sum| rules.key.tree(name, sum)));
                if let Some(sum) = all.get_mut(rules.key.bucket(name, bits) as usize) {
                    *sum = sum.wrapping_add(share);
                }
            };
            root.scan(rules, &dir, |_| true, visit).map(|()| all)
        });
        read.await.ok()?.ok()
    }

    pub async fn list(&self, part: Part) -> Listed {
        let read = self.on_disk(move |root, rules, sums| {
            let Part { dir, bits, buckets } = part;
            let wanted = |name: &[u8]| bits == 0 || buckets.contains(&rules.key.bucket(name, bits));
            let mut listing = Vec::new();
            let mut count = 0;
            let visit = |name: &[u8], entry: Entry| {
                count += 1;
                if listing.len() < LISTING_MAX {
                    let tree = tree(rules, sums, &dir, name, &entry);
                    listing.push(Named { name: name.into(), entry, tree });
                }
            };
            match root.scan(rules, &dir, wanted, visit) {
                Ok(()) if count > LISTING_MAX as u64 => Listed::TooMany(count),
                Ok(()) => Listed::Entries(listing),
                Err(_) => Listed::Gone,
            }
        });
        read.await.unwrap_or(Listed::Gone)
    }

    /// What is at each path now, with the hash of a file's content when a rate is given.
    pub async fn look_all(
        &self,
        paths: &[RelPath],
        content: Option<u64>,
        meter: &Meter,
    ) -> Vec<Seen> {
        let at = paths.to_vec();
        let looked = self.on_disk(move |root, rules, _| {
            let look = |path: &RelPath| match root.look(rules, path) {
                Ok(Some(entry)) => Seen::Entry(entry, None),
                Ok(None) => Seen::Nothing,
                Err(_) => Seen::Unreadable,
            };
            at.iter().map(look).collect()
        });
        let mut seen: Vec<Seen> =
            looked.await.unwrap_or_else(|_| vec![Seen::Unreadable; paths.len()]);
        for (seen, path) in seen.iter_mut().zip(paths) {
            if let (Seen::Entry(entry, hash), Some(rate)) = (seen, content)
                && entry.kind == Kind::File
            {
                *hash = self.hash(path, rate, meter).await;
            }
        }
        seen
    }

    async fn hash(&self, path: &RelPath, rate: u64, meter: &Meter) -> Option<Hash> {
        let path = path.clone();
        let opened = self.on_disk(move |root, rules, _| Reading::open(root, rules, &path, rate));
        let mut reading = opened.await.ok()??;
        loop {
            match spawn_blocking(|| reading.step()).await.ok()?? {
                Step::Done(hash) => return Some(hash),
                Step::More(rest, bytes) => {
                    meter.bytes.fetch_add(bytes, Ordering::Relaxed);
                    tokio::time::sleep(pause(bytes, rate)).await;
                    reading = rest;
                }
            }
        }
    }

    /// The regular files of the next directory.
    pub async fn next_files(&self, mut files: Files) -> Option<(Files, Vec<(RelPath, Entry)>)> {
        let read = self.on_disk(move |root, rules, _| {
            let found = files.next_dir(root, rules)?;
            Some((files, found))
        });
        read.await.ok()?
    }
}

fn tree(rules: &Rules, sums: Option<&Sums>, dir: &[u8], name: &[u8], of: &Entry) -> Option<u128> {
    let path = (of.kind == Kind::Dir).then(|| super::content::join(dir, name))?;
    sums?.get(rules, &path)
}
