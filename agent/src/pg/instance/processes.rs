//! The processes of an instance: found, told apart from others that have their numbers by now, signalled,
//! and waited for. Reads /proc and one small file, and never waits for postgres.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::unix::pipe;

use super::cgroup::Cgroup;
use super::found::{PostmasterStage, Processes};

pub const PID_FILE: &str = "postmaster.pid";
/// Line of the status in postmaster.pid, from 0.
const STAGE_LINE: usize = 7;

/// What postmaster.pid says; it may be of a run long ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PidFile {
    pub pid: i32,
    pub stage: PostmasterStage,
}

pub fn read_pid_file(data: &Path) -> Option<PidFile> {
    let text = fs::read_to_string(data.join(PID_FILE)).ok()?;
    let mut lines = text.lines();
    let pid: i32 = lines.next()?.trim().parse().ok()?;
    let stage = match lines.nth(STAGE_LINE - 1).unwrap_or_default().trim() {
        "ready" => PostmasterStage::Ready,
        "standby" => PostmasterStage::Standby,
        "stopping" => PostmasterStage::Stopping,
        _ => PostmasterStage::Starting,
    };
    // A server of single-user mode writes its number negated.
    Some(PidFile { pid: pid.abs(), stage })
}

/// True when the process is postgres and works in this data directory, by /proc alone.
pub fn is_ours(pid: i32, data: &Path) -> bool {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
    // The binary may have been replaced since by a newer package.
    let name =
        link("exe").and_then(|exe| exe.file_name().map(|n| n.to_string_lossy().into_owned()));
    let is_postgres = name.is_some_and(|name| name.trim_end_matches(" (deleted)") == "postgres");
    is_postgres && link("cwd").is_some_and(|cwd| cwd == data)
}

/// Every process of the instance: those in its cgroup, and postgres working in its data directory
/// wherever it was started.
pub fn all(data: &Path, cgroup: Option<&Cgroup>) -> Vec<i32> {
    let mut found = cgroup.map(Cgroup::processes).unwrap_or_default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        found.extend(pid.filter(|pid| is_ours(*pid, data)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// What runs. `data` is the data directory's real path.
pub fn look(data: &Path, cgroup: Option<&Cgroup>) -> Processes {
    let all = all(data, cgroup);
    if let Some(file) = read_pid_file(data)
        && all.contains(&file.pid)
        && is_ours(file.pid, data)
        && !parent(file.pid).is_some_and(|parent| is_ours(parent, data))
    {
        return Processes::Running { pid: file.pid, stage: file.stage };
    }
    match all.is_empty() {
        true => Processes::None,
        false => Processes::Orphans(all),
    }
}

pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Stopped by a signal: it does nothing until somebody lets it go on.
pub fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// True when some living process has this number.
pub fn exists(pid: i32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// A process that keeps being the one that it was, whatever becomes of its number.
pub struct Process {
    pub pid: i32,
    handle: OwnedFd,
}

impl Process {
    /// None: it is gone, or another one has its number.
    pub fn open(pid: i32, data: &Path) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Looked at after it is held: so it was the one when it was opened.
        is_ours(pid, data).then_some(Self { pid, handle })
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.handle, signal)?)
    }

    /// Until it is dead.
    pub async fn gone(self) -> io::Result<()> {
        Watch::new(self.handle)?.ended().await
    }
}

/// Waits for a process's end, which makes its descriptor readable.
pub struct Watch(pipe::Receiver);

impl Watch {
    pub fn new(handle: OwnedFd) -> io::Result<Self> {
        // Of all that the runtime waits for safely this asks for nothing but readability.
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(handle)?))
    }

    /// Of a child that nobody has reaped yet.
    pub fn child(pid: Pid) -> io::Result<Self> {
        Self::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
    }

    pub async fn ended(&self) -> io::Result<()> {
        self.0.readable().await
    }
}

/// SIGKILL to every process of the instance, those too that are born meanwhile: called again until
/// `all` finds none.
pub fn kill(data: &Path, cgroup: Option<&Cgroup>) {
    if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.is_populated())
        && cgroup.kill().is_err()
    {
        // Frozen, none is born between the list and its kills.
        cgroup.freeze(true);
        for pid in cgroup.processes() {
            kill_one(pid);
        }
        cgroup.freeze(false);
    }
    for pid in all(data, None) {
        if let Some(process) = Process::open(pid, data) {
            let _ = process.signal(Signal::KILL);
        }
    }
}

fn kill_one(pid: i32) {
    let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(handle) = handle {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}
