//! Reads a whole source tree into an index, at the lowest priority and a few names at a time, while
//! the tree goes on changing and the index goes on being used. What it put in late may be stale.

use std::io;

use rustix::fs::{Dir, OFlags};

use super::look::{Looker, see};
use super::{Counts, Index, Kind, Seen};

/// Most names of one directory that are handed over at once.
const CHUNK_MAX: usize = 512;

/// What was found in one directory, or in a part of it.
pub struct Found<'a> {
    pub directory: &'a [u8],
    pub names: &'a [(Box<[u8]>, Seen)],
}

/// Hands every name to `take` until that returns false; None then. A directory that cannot be read
/// is left out. The calling thread is at the lowest priority afterwards.
pub fn walk(
    looker: &Looker,
    mut take: impl FnMut(&Found<'_>) -> bool,
) -> io::Result<Option<Counts>> {
    // On Linux it is the thread's own. Without it the walk is only less polite.
    let _ = rustix::process::nice(19);
    let mut counts = Counts::default();
    let mut waiting: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(directory) = waiting.pop() {
        let opened = match looker.directory(&directory, OFlags::RDONLY) {
            Ok(opened) => opened,
            Err(error) if directory.is_empty() => return Err(error),
            Err(_) => continue,
        };
        let Ok(mut entries) = Dir::read_from(&opened) else { continue };
        let mut names: Vec<(Box<[u8]>, Seen)> = Vec::new();
        loop {
            let entry = entries.next();
            if let Some(Ok(entry)) = &entry {
                let name = entry.file_name().to_bytes();
                let Ok(seen) = see(&opened, name) else { continue };
                if name == b"." || name == b".." {
                    continue;
                }
                counts.entries += 1;
                counts.bytes += seen.bytes();
                if seen.kind == Kind::Directory {
                    counts.directories += 1;
                    waiting.push(join(&directory, name));
                }
                names.push((name.into(), seen));
            }
            let is_last = !matches!(entry, Some(Ok(_)));
            if is_last || names.len() == CHUNK_MAX {
                if !take(&Found { directory: &directory, names: &names }) {
                    return Ok(None);
                }
                names.clear();
            }
            if is_last {
                break;
            }
        }
    }
    Ok(Some(counts))
}

pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        _ => [directory, name].join(&b'/'),
    }
}

impl Index {
    /// Takes in what a walk found. False when there is no room.
    pub fn learn(&mut self, found: &Found<'_>) -> bool {
        // It may have moved since it was opened.
        let Some(parent) = self.find(found.directory) else { return true };
        if self.seen(parent).kind != Kind::Directory {
            return true;
        }
        for (name, seen) in found.names {
            match self.child(parent, name) {
                Some(id) if self.seen(id).is(seen) => self.refresh(id, seen),
                Some(_) => {}
                None if self.insert(parent, name, seen).is_none() => return false,
                None => {}
            }
        }
        true
    }

    /// Reads a tree into a new index.
    pub fn read(looker: &Looker) -> io::Result<Option<Self>> {
        let mut index = Self::new(&looker.root()?);
        let whole = walk(looker, |found| index.learn(found))?;
        Ok(whole.map(|_| index))
    }
}
