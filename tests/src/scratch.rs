//! The directory of a world, and the sweep of what dead worlds left. A world lives as long as its
//! lock is held, and the kernel drops the lock with the process, however that ends.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::disk::{thaw_below, unmount_below};
use crate::netns::kill_where;

static WORLDS: AtomicU8 = AtomicU8::new(0);

/// Names a world: the process that made it, and which of its worlds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorldId {
    pid: u32,
    count: u8,
}

impl WorldId {
    /// The network interface that every host of the world has, down and without address: the mark
    /// by which a process is known to belong to it.
    pub fn mark(self) -> String {
        format!("w{self}")
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, count) = text.split_once('-')?;
        Some(Self { pid: pid.parse().ok()?, count: count.parse().ok()? })
    }
}

impl fmt::Display for WorldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.count)
    }
}

pub struct Scratch {
    pub id: WorldId,
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Sweeps what dead worlds left, then makes the directory of a new one.
    pub fn new() -> Result<Self> {
        // Short, since unix sockets will live below it.
        let root = std::env::temp_dir().join("lockstep-tests");
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        let alone = File::create(root.join("lock"))?;
        flock(&alone, FlockOperation::LockExclusive).context("lock the directory of the worlds")?;
        sweep(&root)?;

        let id = WorldId { pid: process::id(), count: WORLDS.fetch_add(1, Ordering::Relaxed) };
        let dir = root.join(id.to_string());
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let lock = File::create(dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("lock {}", dir.display()))?;
        Ok(Self { id, dir, _lock: lock })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("LOCKSTEP_TEST_KEEP").is_none() {
            remove(&self.dir);
        } else {
            eprintln!("kept {}", self.dir.display());
            let _ = fs::remove_file(self.dir.join("lock"));
        }
    }
}

/// With the disks mounted below. What fails here is tried again by the next sweep.
fn remove(dir: &Path) {
    if let Err(e) = unmount_below(dir).and_then(|()| Ok(fs::remove_dir_all(dir)?)) {
        eprintln!("left {}: {e:#}", dir.display());
    }
}

/// Ends the processes and removes the directories of worlds whose maker is dead. Kept ones have no
/// lock and stay.
fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(WorldId::parse) else { continue };
        let lock = match File::open(entry.path().join("lock")) {
            Ok(lock) => lock,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e).context("look at a dead world"),
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            thaw_below(&entry.path())?;
            kill_where(|pid| belongs(pid, id))?;
            remove(&entry.path());
        }
    }
    Ok(())
}

/// Whether the process lives on a host of that world.
fn belongs(pid: u32, world: WorldId) -> bool {
    let mark = format!("{}:", world.mark());
    fs::read_to_string(format!("/proc/{pid}/net/dev"))
        .is_ok_and(|text| text.lines().any(|line| line.trim_start().starts_with(&mark)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_known_by_its_directory() {
        let world = WorldId { pid: 4_194_304, count: 255 };
        assert_eq!(WorldId::parse(&world.to_string()), Some(world));
        assert!(world.mark().len() <= 15, "an interface's name has 15 bytes");
        for garbage in ["", "-", "7", "7-", "x-1", "7-256", "lock"] {
            assert_eq!(WorldId::parse(garbage), None, "{garbage}");
        }
    }
}
