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

/// The regular files of a tree, a directory at a time: first the files of one in the order of their
/// names, then those of the directories in it. So a path says where to go on.
pub struct Files {
    /// The last is next.
    dirs: Vec<RelPath>,
    /// Up to this path all are passed over; empty: none.
    after: RelPath,
}

impl Files {
    pub fn below(dirs: Vec<RelPath>, after: RelPath) -> Self {
        Self { dirs, after }
    }

    /// The files of the next directory; None when there is none. What cannot be read has none.
    pub fn next_dir(&mut self, root: &Root, rules: &Rules) -> Option<Vec<(RelPath, Entry)>> {
        let dir = self.dirs.pop()?;
        let rest = below(&dir, &self.after);
        let (mut files, mut dirs) = (Vec::new(), Vec::new());
        let visit = |name: &[u8], entry: Entry| match entry.kind {
            Kind::File if is_left(name, false, rest) => files.push((join(&dir, name), entry)),
            Kind::Dir if is_left(name, true, rest) => dirs.push(join(&dir, name)),
            _ => {}
        };
        let _ = root.scan(rules, &dir, |_| true, visit);
        files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        dirs.sort_unstable_by(|a, b| b.cmp(a));
        self.dirs.append(&mut dirs);
        Some(files)
    }
}

/// The path as it is called from a directory above it.
fn below<'a>(dir: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    match (dir.is_empty(), path.is_empty()) {
        (_, true) => None,
        (true, false) => Some(path),
        (false, false) => path.strip_prefix(dir)?.strip_prefix(b"/"),
    }
}

/// Whether an entry of a directory has its turn, or some of what is in it, after the file `last`.
fn is_left(name: &[u8], is_dir: bool, last: Option<&[u8]>) -> bool {
    let Some(last) = last else { return true };
    match (last.iter().position(|b| *b == b'/'), is_dir) {
        (None, false) => name > last,
        (None, true) => true,
        (Some(_), false) => false,
        (Some(end), true) => name >= &last[..end],
    }
}

pub fn join(dir: &[u8], name: &[u8]) -> RelPath {
    if dir.is_empty() { name.into() } else { [dir, b"/", name].concat().into() }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Keep, Key};
    use super::*;
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn reading_goes_on_from_any_file() {
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules {
            key: Key::new(&[7; 32]),
            keep: Keep::ARCHIVE,
            excluded: Arc::new(|_, _| false),
        };
        for path in ["b", "a/z", "a/b/c", "a/b-/c", "a/b/d/e", "a.b/x", "z/y", "0"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let from = |after: &[u8]| {
            let mut files = Files::below(vec![[].into()], after.into());
            let dirs = std::iter::from_fn(|| files.next_dir(&root, &rules));
            dirs.flatten().map(|(path, _)| path).collect::<Vec<_>>()
        };
        let all = from(b"");
        let text: Vec<_> = all.iter().map(|path| std::str::from_utf8(path).unwrap()).collect();
        assert_eq!(text, ["0", "b", "a/z", "a/b/c", "a/b/d/e", "a/b-/c", "a.b/x", "z/y"]);
        for (at, after) in all.iter().enumerate() {
            assert_eq!(from(after), all[at + 1..], "after {}", text[at]);
        }
        // What is gone by then is passed over as well.
        assert_eq!(from(b"a/b/gone"), all[4..]);
        assert_eq!(from(b"a/aa/gone"), all[3..]);
        assert!(from(b"zz/gone").is_empty());
    }
}
