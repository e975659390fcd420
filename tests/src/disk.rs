//! A small disk (a tmpfs) that a test can fill or make read-only. It is unmounted with its world.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::proc::cmd;

const BALLAST: &str = ".ballast";

pub struct Disk {
    path: PathBuf,
}

impl Disk {
    pub(crate) fn mount(path: PathBuf, bytes: u64) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let size = format!("size={bytes},mode=755");
        succeed(cmd("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room on it, to the last byte.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::options().append(true).create(true).open(self.ballast())?;
        loop {
            match ballast.write(&[0; 4096]) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(e) => return Err(e).context("fill the disk"),
            }
        }
    }

    /// Gives back the room that [`Disk::fill`] took.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    /// Makes it read-only, which fails while a file is open for writing, or writable again.
    pub fn read_only(&self, read_only: bool) -> Result<()> {
        let mode = if read_only { "remount,ro" } else { "remount,rw" };
        succeed(cmd("mount").args(["-o", mode]).arg(&self.path))
    }

    /// Mounts it at a further path below the host's directory; it is the same disk.
    pub fn show_at(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path)?;
        succeed(cmd("mount").arg("--bind").arg(&self.path).arg(path))
    }

    /// Takes it away from that path, also while it is in use.
    pub fn hide_at(&self, path: &Path) -> Result<()> {
        succeed(cmd("umount").arg("-l").arg(path))
    }

    fn ballast(&self) -> PathBuf {
        self.path.join(BALLAST)
    }
}

/// Unmounts all that is mounted below a directory, the innermost first, also while it is in use.
pub(crate) fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let below: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    below.iter().rev().try_for_each(|point| succeed(cmd("umount").arg("-l").arg(point)))
}

fn succeed(command: &mut std::process::Command) -> Result<()> {
    let done = command.output().with_context(|| format!("start {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
