//! Where a mirror's tree is on disk, and how readers come to see the next one: at once in snapshots,
//! each a directory of its own beside the symlink that bears the tree's name. All calls block on the
//! disk. What is beside the tree and of another name is never touched.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use lockstep_model::path::DirPath;
use lockstep_transport::durable;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::pull::argv::{PARTIAL, TEMPORARY};

/// Ends the name of the directory of unfinished files, which only the agent may enter. Inside of the
/// tree, where the tree is a file system of its own, it is the name.
pub const WORK: &str = ".lockstep";
/// Ends the name that a tree has in between, on its way to the first snapshot.
const MOVING: &str = ".moving";

/// A tree and what belongs to it beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    tree: PathBuf,
    /// The directory that it is in, and its name there.
    dest: PathBuf,
    dir: OsString,
}

/// What is at the tree's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Current {
    Nothing,
    Directory,
    /// The directory that the symlink names.
    Snapshot(PathBuf),
}

impl Site {
    pub fn new(tree: &DirPath) -> Self {
        let tree = PathBuf::from(tree.as_str());
        let dest = tree.parent().unwrap_or(Path::new("/")).to_owned();
        let dir = tree.file_name().unwrap_or_default().to_owned();
        Self { tree, dest, dir }
    }

    pub fn tree(&self) -> &Path {
        &self.tree
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(&self.dir);
        name.push(suffix);
        self.dest.join(name)
    }

    /// Makes the directory that the tree is in, if only it is missing.
    pub fn make_dest(&self) -> Result<(), String> {
        let shown = self.dest.display();
        match fs::metadata(&self.dest) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(format!("dest: {shown} is not a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = DirBuilder::new().mode(0o755).create(&self.dest);
                made.map_err(|error| format!("dest: cannot make {shown}: {error}"))
            }
            Err(error) => Err(format!("dest: {shown}: {error}")),
        }
    }

    pub fn current(&self) -> io::Result<Current> {
        match fs::symlink_metadata(&self.tree) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Current::Nothing),
            Err(error) => Err(error),
            Ok(found) if found.is_dir() => Ok(Current::Directory),
            Ok(found) if found.is_symlink() => {
                let to = self.dest.join(fs::read_link(&self.tree)?);
                let known = self.snapshots()?.into_iter().any(|(_, path)| path == to);
                if !known {
                    let shown = self.tree.display();
                    let why = format!("{shown} is a symlink that is not a mirror's: move it away");
                    return Err(io::Error::other(why));
                }
                Ok(Current::Snapshot(to))
            }
            Ok(_) => {
                let why = format!("{} is not a directory: move it away", self.tree.display());
                Err(io::Error::other(why))
            }
        }
    }

    /// A directory of the agent's own on the tree's file system.
    pub fn work(&self) -> PathBuf {
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        match device(&self.tree) {
            Some(own) if device(&self.dest) != Some(own) => self.tree.join(WORK),
            _ => self.beside(WORK),
        }
    }

    /// Ends what a crash cut in two, from a plain directory to the first snapshot or back. Nobody else
    /// may work in the tree meanwhile.
    pub fn heal(&self) -> io::Result<()> {
        let moving = self.beside(MOVING);
        let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
        match fs::symlink_metadata(&moving) {
            // The tree's name leads to the first snapshot's, and that one here.
            Ok(found) if found.is_dir() => {
                let first = self.dest.join(fs::read_link(&self.tree)?);
                if fs::read_link(&first)?.as_os_str() != name(&moving) {
                    let shown = moving.display();
                    return Err(io::Error::other(format!("{shown} is in the way: move it away")));
                }
                exchange(&first, &moving)?;
                fs::remove_file(&moving)?;
            }
            // On a file system that cannot exchange names the tree is the first snapshot by now.
            Ok(found) if found.is_symlink() && !self.tree.is_symlink() && !self.tree.exists() => {
                fs::rename(&moving, &self.tree)?;
            }
            Ok(_) => fs::remove_file(&moving)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // What is left of a name that was in between.
        let entries = match fs::read_dir(&self.dest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if self.number(&entry.file_name()).is_some() && entry.file_type()?.is_symlink() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Empties what earlier runs left half done, files that go on apart, and makes the work
    /// directory.
    pub fn prepare(&self) -> io::Result<Work> {
        self.heal()?;
        let work = Work { dir: self.work(), keeps: false };
        let made = DirBuilder::new().mode(0o700).create(&work.dir);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        remove(&work.temporary())?;
        let keeps = work.partial().exists();
        for dir in [work.temporary(), work.partial()] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(Work { keeps, ..work })
    }

    /// Makes the tree where there is none.
    pub fn make_tree(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o755).create(&self.tree) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Oldest first.
    pub fn snapshots(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dest)? {
            let entry = entry?;
            if let Some(number) = self.number(&entry.file_name())
                && entry.file_type()?.is_dir()
            {
                found.push((number, entry.path()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Of the snapshot of that name.
    fn number(&self, name: &OsStr) -> Option<u64> {
        let digits = name.to_str()?.strip_prefix('.')?.strip_prefix(self.dir.to_str()?)?;
        let digits = digits.strip_prefix('.')?;
        let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    }

    fn next_snapshot(&self) -> io::Result<PathBuf> {
        let number = self.snapshots()?.last().map_or(0, |(number, _)| *number) + 1;
        Ok(self.beside(&format!(".{number}")))
    }

    /// From a plain directory to the first snapshot; readers see it all the time.
    pub fn adopt(&self) -> io::Result<()> {
        if self.current()? != Current::Directory {
            return Ok(());
        }
        let (first, moving) = (self.next_snapshot()?, self.beside(MOVING));
        for path in [&first, &moving] {
            remove(path)?;
        }
        let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
        symlink(name(&first), &moving)?;
        // Until the end a link to where the tree is in between.
        symlink(name(&moving), &first)?;
        match exchange(&moving, &self.tree) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS) => {
                // A file system that cannot: nobody sees it for a moment.
                fs::remove_file(&first)?;
                fs::rename(&self.tree, &first)?;
                fs::rename(&moving, &self.tree)?;
                return durable::sync_dir(&self.dest);
            }
            Err(error) => return Err(error.into()),
        }
        exchange(&first, &moving)?;
        fs::remove_file(moving)?;
        durable::sync_dir(&self.dest)
    }

    /// What was built is what readers see from now on.
    pub fn publish(&self, work: &Work) -> io::Result<()> {
        let next = self.next_snapshot()?;
        fs::rename(work.new_tree(), &next)?;
        durable::sync_dir(&self.dest)?;
        let link = work.dir.join("link");
        remove(&link)?;
        symlink(next.file_name().unwrap_or_default(), &link)?;
        fs::rename(&link, &self.tree)?;
        durable::sync_dir(&self.dest)
    }

    /// Removes the oldest snapshots down to `keep`, but for the current one and those in use.
    pub fn prune(&self, keep: usize, is_used: impl Fn(&Path) -> bool) -> io::Result<()> {
        let Current::Snapshot(current) = self.current()? else { return Ok(()) };
        let all = self.snapshots()?;
        let many = all.len().saturating_sub(keep.max(1));
        for (_, path) in all.into_iter().take(many) {
            let real = fs::canonicalize(&path)?;
            if path != current && !is_used(&real) {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    /// From snapshots to a plain directory; the other snapshots go, since they share its files.
    pub fn flatten(&self) -> io::Result<()> {
        if let Current::Snapshot(current) = self.current()? {
            match exchange(&current, &self.tree) {
                Ok(()) => fs::remove_file(&current)?,
                Err(_) => {
                    fs::remove_file(&self.tree)?;
                    fs::rename(&current, &self.tree)?;
                }
            }
            durable::sync_dir(&self.dest)?;
        }
        if self.current()? == Current::Directory {
            for (_, path) in self.snapshots()? {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    /// Removes the tree with all that belongs to it. What it did, in one line.
    pub fn delete(&self) -> io::Result<String> {
        self.heal()?;
        let current = self.current()?;
        remove(&self.work())?;
        let shown = self.tree.display();
        Ok(match current {
            Current::Nothing => format!("{shown} was not there"),
            Current::Directory => {
                fs::remove_dir_all(&self.tree)?;
                format!("removed {shown}")
            }
            Current::Snapshot(_) => {
                fs::remove_file(&self.tree)?;
                let snapshots = self.snapshots()?;
                for (_, path) in &snapshots {
                    fs::remove_dir_all(path)?;
                }
                format!("removed {shown} and {} snapshots", snapshots.len())
            }
        })
    }

    /// Gives all that belongs to the tree the names that it has at `to`; on one file system.
    pub fn rename(&self, to: &Self) -> io::Result<()> {
        let current = self.current()?;
        remove(&self.work())?;
        match current {
            Current::Nothing => return Ok(()),
            Current::Directory => fs::rename(&self.tree, &to.tree)?,
            Current::Snapshot(current) => {
                let mut now = None;
                for (number, path) in self.snapshots()? {
                    let new = to.beside(&format!(".{number}"));
                    if path == current {
                        now = Some((path, new));
                        continue;
                    }
                    fs::rename(path, new)?;
                }
                if let Some((path, new)) = now {
                    symlink(new.file_name().unwrap_or_default(), &to.tree)?;
                    fs::rename(path, new)?;
                }
                fs::remove_file(&self.tree)?;
            }
        }
        durable::sync_dir(&self.dest)?;
        durable::sync_dir(&to.dest)
    }
}

/// The work directory of one tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    dir: PathBuf,
    /// The try before did not come to its end, so that this one may find files that were cut.
    pub keeps: bool,
}

impl Work {
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Of rsync's temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.dir.join(TEMPORARY)
    }

    /// Of files that go on where they were cut.
    pub fn partial(&self) -> PathBuf {
        self.dir.join(PARTIAL)
    }

    /// The next snapshot while it is built.
    pub fn new_tree(&self) -> PathBuf {
        self.dir.join("new")
    }

    /// What an earlier run had built before it failed; files are linked from it.
    pub fn left_tree(&self) -> PathBuf {
        self.dir.join("left")
    }

    /// Begins a new snapshot. An unfinished one is kept for its files.
    pub fn begin(&self) -> io::Result<()> {
        let (new, left) = (self.new_tree(), self.left_tree());
        if new.exists() {
            remove(&left)?;
            fs::rename(&new, &left)?;
        }
        DirBuilder::new().mode(0o755).create(new)
    }

    /// A stage is complete, and the run is not.
    pub fn end_stage(&self) -> io::Result<()> {
        remove(&self.partial())
    }

    /// Nothing of a run is left to go on with.
    pub fn clear(&self) -> io::Result<()> {
        remove(&self.dir)
    }
}

fn exchange(one: &Path, other: &Path) -> Result<(), Errno> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
}

/// Whatever it is; that it is not there is fine. Symlinks are not followed.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
