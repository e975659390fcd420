//! Removes files from the source that every target has. A file goes only if it still is what it was
//! before it was delivered; one that somebody wrote to since stays, and is delivered again. It never
//! follows a link and never removes a directory.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with, statat, unlinkat,
};

use crate::deliver::PENDING_MAX;
use crate::journal::{Change, Entry, RelPath};
use crate::rsync::exclude::{Excludes, RESERVED};

/// What a file that is on its way out is called, behind `RESERVED`.
const KIND: &str = "gone-";
/// Most files that wait to be removed; those beyond wait for the next complete look.
const WAITING_MAX: usize = 4 * PENDING_MAX;

/// What tells that a file was not written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Print {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Waiting {
    seq: u64,
    path: RelPath,
    print: Print,
}

/// Files of one source that go when everybody has them.
#[derive(Default)]
pub struct Reaper {
    waiting: VecDeque<Waiting>,
}

/// What stays whatever happens.
#[derive(Clone, Default)]
pub struct Kept {
    pub excludes: Excludes,
    /// Names with a meaning of their own: the marker, the sentinel.
    pub names: Vec<RelPath>,
}

impl Kept {
    fn has(&self, path: &[u8]) -> bool {
        self.excludes.cover(path, false) || self.names.iter().any(|name| **name == *path)
    }
}

impl Reaper {
    /// Notes what files are now, before the targets are told of these entries.
    pub fn note(&mut self, source: &Path, entries: &[Entry], kept: &Kept) {
        for entry in entries {
            match &entry.change {
                Change::Full => {
                    self.waiting.clear();
                    self.note_all(source, entry.seq, kept);
                }
                Change::Batch(changed) => {
                    for changed in changed {
                        self.note_one(source, entry.seq, changed.path.clone(), kept);
                    }
                }
            }
        }
    }

    fn note_one(&mut self, source: &Path, seq: u64, path: RelPath, kept: &Kept) {
        if path.is_empty() || self.waiting.len() >= WAITING_MAX || kept.has(&path) {
            return;
        }
        let Ok((dir, name)) = open_parent(source, &path) else { return };
        if let Ok(Some(print)) = look(&dir, &name) {
            self.waiting.push_back(Waiting { seq, path, print });
        }
    }

    fn note_all(&mut self, source: &Path, seq: u64, kept: &Kept) {
        let mut todo = vec![OsString::new()];
        while let Some(dir) = todo.pop() {
            let Ok(entries) = fs::read_dir(source.join(&dir)) else { continue };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                let path = Path::new(&dir).join(entry.file_name()).into_os_string();
                let bytes = path.as_bytes();
                if kind.is_dir() && !kept.excludes.cover(bytes, true) {
                    todo.push(path);
                } else if kind.is_file() && is_leaving(entry.file_name().as_bytes()) {
                    // It is looked at again with the next start if this fails.
                    let _ = finish(source, bytes);
                } else if kind.is_file() {
                    self.note_one(source, seq, bytes.into(), kept);
                }
                if self.waiting.len() >= WAITING_MAX {
                    return;
                }
            }
        }
    }

    /// Removes what everybody has who has everything up to `seq`; how many files.
    pub fn remove(&mut self, source: &Path, seq: u64) -> u64 {
        let mut removed = 0;
        while self.waiting.front().is_some_and(|waiting| waiting.seq <= seq) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            match remove_one(source, &waiting) {
                Ok(gone) => removed += u64::from(gone),
                Err(error) => {
                    let path = OsString::from_vec(waiting.path.to_vec());
                    tracing::warn!(path = %path.display(), %error, "cannot remove a file that all targets have");
                }
            }
        }
        removed
    }

    pub fn has_any(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Aside first, so that a file that is put in its place meanwhile is not the one that goes.
fn remove_one(source: &Path, waiting: &Waiting) -> io::Result<bool> {
    let (dir, name) = open_parent(source, &waiting.path)?;
    if look(&dir, &name)? != Some(waiting.print) {
        return Ok(false);
    }
    let aside = format!("{RESERVED}{KIND}{}-{}", waiting.print.inode, waiting.seq);
    renameat_with(&dir, &name, &dir, &aside, RenameFlags::NOREPLACE)?;
    // The renaming itself changes only this time.
    let same = look(&dir, OsStr::new(&aside))?
        .is_some_and(|print| Print { changed: waiting.print.changed, ..print } == waiting.print);
    if same {
        unlinkat(&dir, &aside, AtFlags::empty())?;
    } else {
        renameat_with(&dir, &aside, &dir, &name, RenameFlags::NOREPLACE)?;
    }
    Ok(same)
}

fn is_leaving(name: &[u8]) -> bool {
    name.strip_prefix(RESERVED.as_bytes()).is_some_and(|rest| rest.starts_with(KIND.as_bytes()))
}

/// Removes what an agent that was killed had on its way out, which all targets have. What is not
/// surely such a file stays, also what was written to within a second of its renaming.
fn finish(source: &Path, path: &[u8]) -> io::Result<()> {
    let (dir, name) = open_parent(source, path)?;
    let Some(print) = look(&dir, &name)? else { return Ok(()) };
    let own = format!("{RESERVED}{KIND}{}-", print.inode);
    let unwritten = print.modified.0 + 1 < print.changed.0;
    if name.as_bytes().starts_with(own.as_bytes()) && unwritten {
        unlinkat(&dir, &name, AtFlags::empty())?;
    }
    Ok(())
}

/// The directory that holds the name, reached through no link.
fn open_parent(source: &Path, path: &[u8]) -> io::Result<(OwnedFd, OsString)> {
    let path = Path::new(OsStr::from_bytes(path));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(source, flags, Mode::empty())?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = match parent {
        None => top,
        Some(parent) => {
            let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            openat2(&top, parent, flags, Mode::empty(), stay)?
        }
    };
    Ok((dir, name.to_owned()))
}

/// None when it is no regular file, or gone.
fn look(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Print>> {
    let found = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let is_file =
        rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::RegularFile;
    Ok(is_file.then_some(Print {
        device: found.st_dev,
        inode: found.st_ino,
        size: found.st_size,
        modified: (found.st_mtime, found.st_mtime_nsec as i64),
        changed: (found.st_ctime, found.st_ctime_nsec as i64),
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::journal::Changed;
    use lockstep_model::Timestamp;

    fn batch(seq: u64, paths: &[&str]) -> Entry {
        let changed = |path: &&str| Changed { path: path.as_bytes().into(), subtree: false };
        let change = Change::Batch(paths.iter().map(changed).collect());
        Entry { seq, at: Timestamp(seq), change }
    }

    #[test]
    fn only_what_was_not_touched_since_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (src, outside) = (dir.path().join("src"), dir.path().join("outside"));
        fs::create_dir_all(src.join("d")).unwrap();
        fs::create_dir(&outside).unwrap();
        for name in ["same", "written", "replaced", "d/in", "marker", "left.tmp", "later"] {
            fs::write(src.join(name), name).unwrap();
        }
        fs::write(outside.join("far"), "far").unwrap();
        symlink(&outside, src.join("link")).unwrap();
        symlink(outside.join("far"), src.join("pointer")).unwrap();
        let kept = Kept {
            excludes: Excludes::new(&["- *.tmp".parse().unwrap()]),
            names: vec![b"marker"[..].into()],
        };
        let mut reaper = Reaper::default();
        let named = [
            "same", "written", "replaced", "d", "d/in", "marker", "left.tmp", "link/far",
            "pointer", "absent",
        ];
        reaper.note(&src, &[batch(1, &named), batch(2, &["later"])], &kept);
        fs::write(src.join("written"), "longer than before").unwrap();
        fs::write(src.join("fresh"), "replaced").unwrap();
        fs::rename(src.join("fresh"), src.join("replaced")).unwrap();

        assert_eq!(reaper.remove(&src, 0), 0);
        assert_eq!(reaper.remove(&src, 1), 2);
        let left = |name: &str| src.join(name).symlink_metadata().is_ok();
        assert!(!left("same") && !left("d/in"));
        for name in ["written", "replaced", "d", "marker", "left.tmp", "link", "pointer", "later"] {
            assert!(left(name), "{name} is gone");
        }
        assert!(outside.join("far").exists());
        // A complete look finds the rest.
        let full = Entry { change: Change::Full, ..batch(3, &[]) };
        reaper.note(&src, &[full], &kept);
        assert_eq!(reaper.remove(&src, 3), 3);
        assert!(left("marker") && left("left.tmp") && left("pointer") && !left("written"));
        let names = fs::read_dir(&src).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.as_bytes().starts_with(RESERVED.as_bytes())));
    }
    #[test]
    fn what_a_killed_agent_had_on_its_way_out_goes() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let src = dir.path();
        fs::create_dir(src.join("d")).unwrap();
        let left = |in_dir: &str, is_old: bool, off: u64| {
            let path = src.join(in_dir).join("fresh");
            let file = fs::File::create(&path).unwrap();
            if is_old {
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }
            let inode = file.metadata().unwrap().ino() + off;
            let aside = path.with_file_name(format!("{RESERVED}{KIND}{inode}-7"));
            fs::rename(path, &aside).unwrap();
            aside
        };
        let (ours, deep) = (left("", true, 0), left("d", true, 0));
        let (written, other) = (left("d", false, 0), left("d", true, 1 << 40));
        let full = Entry { change: Change::Full, ..batch(1, &[]) };
        Reaper::default().note(src, &[full], &Kept::default());
        assert!(!ours.exists() && !deep.exists());
        assert!(written.exists() && other.exists());
    }
}
