//! A small disk (a tmpfs, or a formatted file) that a test can fill, make read-only, hold up or let fail.
//! It is unmounted with its world.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::proc::cmd;
use crate::wait::try_until;

/// After its processes were killed.
const UNUSED_WITHIN: Duration = Duration::from_secs(20);
const BALLAST: &str = ".ballast";

#[derive(Clone)]
pub struct Disk {
    path: PathBuf,
}

/// Whoever writes to the disk stands still in the kernel, also when he is killed, until this is dropped.
pub struct Hung(PathBuf);

/// As [`Hung`], again and again, with a little time in between.
pub struct Slow {
    // Dropped, it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    pub(crate) fn mount(path: PathBuf, bytes: u64) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let size = format!("size={bytes},mode=755");
        succeed(cmd("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path))?;
        Ok(Self { path })
    }

    /// One that is mounted already.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// A file system on a file beside it, which can fail as one on a medium does.
    pub(crate) fn format(path: PathBuf, bytes: u64) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let disk = Self { path };
        File::create(disk.image())?.set_len(bytes)?;
        // Nothing in reserve for root, as whom agents run.
        succeed(cmd("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(disk.image()))?;
        disk.attach()?;
        // Whoever wants an empty directory gets one.
        fs::remove_dir(disk.path.join("lost+found"))?;
        Ok(disk)
    }

    fn attach(&self) -> Result<()> {
        succeed(cmd("mount").args(["-o", "loop"]).arg(self.image()).arg(&self.path))
    }

    /// What the kernel does when the medium of a formatted one fails: nothing is written any more, not
    /// even to files that are open.
    pub fn fail(&self) -> Result<()> {
        succeed(cmd("mount").args(["-o", "remount,abort"]).arg(&self.path))
    }

    /// What a power cut does to a formatted one that nobody has files open on any more: of what was not
    /// flushed nothing more is written. To be called around the end of the processes, which `cut` brings.
    pub fn lose_power(&self, cut: impl FnOnce() -> Result<()>) -> Result<()> {
        self.fail()?;
        cut()?;
        let umount = || succeed(cmd("umount").arg(&self.path));
        try_until(UNUSED_WITHIN, "nobody has files open", umount)?;
        // It was never told that it is well; 1 is that something was mended.
        let checked = cmd("e2fsck").args(["-f", "-y"]).arg(self.image()).output()?;
        if checked.status.code().is_none_or(|code| code > 1) {
            bail!("e2fsck: {}", String::from_utf8_lossy(&checked.stdout));
        }
        self.attach()
    }

    /// From now on nothing is written to a formatted one, and nobody is told so.
    pub fn hang(&self) -> Result<Hung> {
        succeed(cmd("fsfreeze").arg("--freeze").arg(&self.path))?;
        Ok(Hung(self.path.clone()))
    }

    /// Lets writes to a formatted one through for a moment of `pass` only, each time after `hold`.
    pub fn slow(&self, hold: Duration, pass: Duration) -> Slow {
        let (stop, stopped) = channel::<()>();
        let disk = self.clone();
        let thread = thread::spawn(move || {
            let waits = |time| stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            loop {
                // One that cannot be held up is fast.
                let hung = disk.hang();
                let goes_on = waits(hold);
                drop(hung);
                if !goes_on || !waits(pass) {
                    break;
                }
            }
        });
        Slow { stop: Some(stop), thread: Some(thread) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room on it, to the last byte.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::options().append(true).create(true).open(self.ballast())?;
        let left = statvfs(&self.path)?;
        let mut part = left.f_bavail * left.f_frsize;
        // Most of it without a write.
        while part >= 4096 {
            let end = ballast.metadata()?.len();
            if fallocate(&ballast, FallocateFlags::empty(), end, part).is_err() {
                part /= 2;
            }
        }
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
        match fs::remove_file(self.ballast()) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
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

    fn image(&self) -> PathBuf {
        self.path.with_extension("img")
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = succeed(cmd("fsfreeze").arg("--unfreeze").arg(&self.0));
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets everything go on that hangs on a disk below a directory, so that it can be killed.
pub(crate) fn thaw_below(dir: &Path) -> Result<()> {
    for point in mounts_below(dir)? {
        // Those that do not hang refuse it.
        cmd("fsfreeze").arg("--unfreeze").arg(&point).output()?;
    }
    Ok(())
}

/// Unmounts all that is mounted below a directory, the innermost first, also while it is in use.
pub(crate) fn unmount_below(dir: &Path) -> Result<()> {
    let below = mounts_below(dir)?;
    below.iter().rev().try_for_each(|point| succeed(cmd("umount").arg("-l").arg(point)))
}

fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(points.filter(|point| point.starts_with(dir)).collect())
}

fn succeed(command: &mut std::process::Command) -> Result<()> {
    let done = command.output().with_context(|| format!("start {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
