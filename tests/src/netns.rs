//! A network namespace without a name. Only our file descriptor and the processes inside keep it,
//! so it cannot outlive the test, whatever ends the test.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::proc::cmd;
use crate::wait::try_until;

/// How long killed processes may take to be gone.
const KILL_WITHIN: Duration = Duration::from_secs(20);

pub struct NetNs {
    file: File,
}

impl NetNs {
    /// A new, empty namespace: only a loopback, which is down.
    pub fn new() -> Result<Self> {
        // The thread's end leaves the namespace to the file alone.
        let made = thread::spawn(|| -> Result<File> {
            // Deprecated since FILES is unsound; NET changes nothing but this thread's network.
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET).context("make a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        match made.join() {
            Ok(file) => Ok(Self { file: file? }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `work` on a thread of its own inside. Sockets it opens and processes and threads it
    /// starts are in the namespace and stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<T> {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("enter a network namespace")?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs lines of an iproute2 program (`ip`, `bridge`, `tc`) inside, all or an error.
    pub fn batch(&self, program: &str, lines: &str) -> Result<()> {
        let done = self.enter(|| -> Result<process::Output> {
            let mut child = cmd(program)
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("start {program}: install iproute2"))?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(lines.as_bytes())?;
            }
            Ok(child.wait_with_output()?)
        })??;
        if !done.status.success() {
            bail!("{program} refused:\n{lines}\n{}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }

    /// A path by which other programs can name the namespace while we hold it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()))
    }

    /// The number that the kernel knows it by; no other namespace has it while we hold this one.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// The processes inside, without those that ended and only wait for their parent.
    pub fn pids(&self) -> Result<BTreeSet<u32>> {
        let inode = self.inode()?;
        Ok(pids_where(|pid| is_inside(pid, inode)))
    }

    /// Kills every process inside and waits until none is left.
    pub fn kill_all(&self) -> Result<()> {
        let inode = self.inode()?;
        kill_where(|pid| is_inside(pid, inode))
    }
}

fn is_inside(pid: u32, inode: u64) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns.ino() == inode)
}

/// Every other process on the machine of which `is_meant` says so.
fn pids_where(is_meant: impl Fn(u32) -> bool) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != process::id() && is_meant(pid))
        .collect()
}

/// Kills every process of which `is_meant` says so, again and again until none is left: they may be
/// forking.
pub(crate) fn kill_where(is_meant: impl Fn(u32) -> bool) -> Result<()> {
    try_until(KILL_WITHIN, "every process is gone", || {
        let pids = pids_where(&is_meant);
        for &pid in &pids {
            kill(pid, &is_meant);
        }
        if pids.is_empty() { Ok(()) } else { Err(format!("{pids:?}")) }
    })?;
    Ok(())
}

/// The pidfd holds the process while we look again, so a reused pid is never hit. Errors mean that
/// it is gone.
fn kill(pid: u32, is_meant: impl Fn(u32) -> bool) {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    if let Ok(held) = pidfd_open(id, PidfdFlags::empty())
        && is_meant(pid)
    {
        let _ = pidfd_send_signal(&held, Signal::KILL);
    }
}
