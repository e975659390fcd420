//! Hashes files' contents piece by piece, no faster than it is told to, and lists the files of a
//! tree for that. It never follows a link.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::below::{Root, Rules};
use super::entry::{Entry, Kind};
use crate::journal::RelPath;

/// Most read at once, in bytes.
const PIECE_MAX: u64 = 1 << 20;
/// Slowest reading, in bytes per second: a piece then takes no longer than a second.
pub const RATE_MIN: u64 = 4096;

pub type Hash = [u8; 32];

/// A file on its way through the hash.
pub struct Reading {
    file: File,
    hasher: Sha256,
    piece: Vec<u8>,
}

pub enum Step {
    /// So many bytes were read.
    More(Reading, u64),
    Done(Hash),
}

impl Reading {
    /// `rate` is in bytes per second. None when there is no file that can be read.
    pub fn open(root: &Root, rules: &Rules, path: &[u8], rate: u64) -> Option<Self> {
        let piece = usize::try_from(rate.clamp(RATE_MIN, PIECE_MAX)).ok()?;
        let file = root.file(path).ok()?;
        Some(Self { file, hasher: rules.key.content(), piece: vec![0; piece] })
    }

    /// None when it cannot be read on.
    pub fn step(mut self) -> Option<Step> {
        match self.file.read(&mut self.piece).ok()? {
            0 => Some(Step::Done(self.hasher.finalize().into())),
            len => {
                self.hasher.update(&self.piece[..len]);
                Some(Step::More(self, len as u64))
            }
        }
    }
}

/// How long to wait after `bytes` at a rate of bytes per second.
pub fn pause(bytes: u64, rate: u64) -> Duration {
    let rate = rate.max(RATE_MIN);
    Duration::from_micros(bytes.saturating_mul(1_000_000) / rate)
}

/// The regular files of a tree, a directory at a time.
pub struct Files {
    dirs: Vec<RelPath>,
}

impl Files {
    pub fn below(dirs: Vec<RelPath>) -> Self {
        Self { dirs }
    }

    /// The files of the next directory; None when there is none. What cannot be read has none.
    pub fn next_dir(&mut self, root: &Root, rules: &Rules) -> Option<Vec<(RelPath, Entry)>> {
        let dir = self.dirs.pop()?;
        let mut files = Vec::new();
        let visit = |name: &[u8], entry: Entry| match entry.kind {
            Kind::File => files.push((join(&dir, name), entry)),
            Kind::Dir => self.dirs.push(join(&dir, name)),
            _ => {}
        };
        let _ = root.scan(rules, &dir, |_| true, visit);
        Some(files)
    }
}

pub fn join(dir: &[u8], name: &[u8]) -> RelPath {
    if dir.is_empty() { name.into() } else { [dir, b"/", name].concat().into() }
}
