//! Renames below one directory, for a peer that may be wrong or hostile. It follows no symlink,
//! leaves the directory nowhere, and deletes and overwrites nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, RenameFlags, mkdirat, openat2, renameat_with};

use super::Verdict;
use crate::index::absorb::Move;
use crate::index::look::{beneath, see, split};
use crate::index::{Kind, Seen};
use crate::journal::entry::is_rel_path;

/// Of a directory made on the way to a new name: the delivery that follows opens it to others.
const MODE: Mode = Mode::RWXU;
const HOW: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

pub struct Applier {
    root: OwnedFd,
    /// A directory did not move: what follows might be about what is in it.
    broken: bool,
}

impl Applier {
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: rustix::fs::open(root, HOW, Mode::empty())?, broken: false })
    }

    pub fn apply(&mut self, hint: &Move) -> Verdict {
        if self.broken {
            return Verdict::Left;
        }
        let verdict = self.rename(hint).unwrap_or(Verdict::Failed);
        self.broken = verdict != Verdict::Applied && hint.kind == Kind::Directory;
        verdict
    }

    fn rename(&self, hint: &Move) -> io::Result<Verdict> {
        if !is_rel_path(&hint.from) || !is_rel_path(&hint.to) {
            return Ok(Verdict::Failed);
        }
        let (from_dir, from) = split(&hint.from);
        let (to_dir, to) = split(&hint.to);
        let Some(old) = found(open(&self.root, from_dir))? else { return Ok(Verdict::Missing) };
        let Some(moving) = found(see(&old, from))? else { return Ok(Verdict::Missing) };
        if !is_expected(&moving, hint) {
            return Ok(Verdict::Different);
        }
        let new = self.make(to_dir)?;
        let flags = match (found(see(&new, to))?, hint.over) {
            (None, _) => RenameFlags::NOREPLACE,
            (Some(there), Some(kind)) if there.kind == kind => RenameFlags::EXCHANGE,
            (Some(_), _) => return Ok(Verdict::Occupied),
        };
        renameat_with(&old, from, &new, to, flags)?;
        Ok(Verdict::Applied)
    }

    /// Opens a directory, made with all above it where they are missing.
    fn make(&self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some(opened) = found(open(&self.root, path))? {
            return Ok(opened);
        }
        let mut at = openat2(&self.root, ".", HOW, Mode::empty(), beneath())?;
        for name in path.split(|b| *b == b'/') {
            at = match found(open(&at, name))? {
                Some(opened) => opened,
                None => {
                    mkdirat(&at, name, MODE)?;
                    open(&at, name)?
                }
            };
        }
        Ok(at)
    }
}

/// A size and a time are as good as a content here: they are what rsync goes by.
fn is_expected(found: &Seen, hint: &Move) -> bool {
    match hint.kind {
        Kind::File => {
            (found.kind, found.size, found.mtime_ns) == (hint.kind, hint.size, hint.mtime_ns)
        }
        Kind::Directory => found.kind == hint.kind,
        Kind::Other => false,
    }
}

fn open(dir: &impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    Ok(openat2(dir, path, HOW, Mode::empty(), beneath())?)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
