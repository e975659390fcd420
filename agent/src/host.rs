//! Children of the agent: the one file that starts programs. Each child leads a process group of
//! its own, is recorded on disk while it lives, and takes its whole group with it when it ends,
//! so that an agent that was killed finds what it left behind. It never runs a shell.

pub mod launch;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

/// How long a child may take to obey SIGTERM before it gets SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to be gone; longer means it hangs in the kernel.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program, its arguments and whether it is fed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<OsString>,
    /// A pipe as standard input; else `/dev/null`.
    pub fed: bool,
}

#[derive(Clone, Debug)]
pub struct Host {
    run_dir: PathBuf,
}

impl Host {
    /// `run_dir` holds one file per living child and belongs to this agent alone. Children that an
    /// earlier agent left behind are ended before this returns.
    pub async fn open(run_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(run_dir)?;
        for entry in fs::read_dir(run_dir)? {
            let path = entry?.path();
            if let Some(orphan) = Recorded::read(&path) {
                orphan.end().await?;
            }
            fs::remove_file(&path)?;
        }
        Ok(Self { run_dir: run_dir.to_owned() })
    }

    /// Starts a child with an empty environment but for PATH, HOME and LC_ALL; its output is piped.
    pub fn spawn(&self, program: &Program) -> io::Result<Child> {
        self.spawn_with(program, &[])
    }

    /// As `spawn`, with these variables too.
    pub fn spawn_with(
        &self,
        program: &Program,
        environment: &[(&str, &OsStr)],
    ) -> io::Result<Child> {
        let mut child = tokio::process::Command::new(&program.path)
            .args(&program.args)
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/nonexistent"), ("LC_ALL", "C")])
            .envs(environment.iter().copied())
            .current_dir("/")
            .process_group(0)
            .stdin(if program.fed { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("child has no process id"))?;
        let record = self.run_dir.join(pid.as_raw_nonzero().to_string());
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let child = Child { inner: child, pid, record, ended: false, stdin, stdout, stderr };
        let started = start_time(pid.as_raw_nonzero().get()).unwrap_or_default();
        fs::write(&child.record, started.to_string())?;
        Ok(child)
    }
}

/// A running child. Dropping it kills its process group.
pub struct Child {
    inner: tokio::process::Child,
    pid: Pid,
    record: PathBuf,
    ended: bool,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    pub stderr: Option<ChildStderr>,
}

impl Child {
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for the child's own end and then takes the rest of its group away. Cancel safe.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.inner.wait().await?;
        if !self.ended {
            self.ended = true;
            // Members that outlive the leader keep the group's number from being used again.
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = fs::remove_file(&self.record);
        }
        Ok(status)
    }

    /// Ends the child and its group: SIGTERM, then SIGKILL. Returns when the child is gone.
    pub async fn end(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let _ = kill_process_group(self.pid, Signal::TERM);
        if tokio::time::timeout(TERM_GRACE, self.wait()).await.is_ok_and(|done| done.is_ok()) {
            return Ok(());
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        match tokio::time::timeout(KILL_WAIT_MAX, self.wait()).await {
            Ok(done) => done.map(drop),
            Err(_) => Err(io::Error::other(format!(
                "process {} does not end after SIGKILL: it hangs in the kernel, look at its disk",
                self.id()
            ))),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            // Not reaped yet, so the number still is this child's.
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = fs::remove_file(&self.record);
        }
    }
}

/// Reads to the end and keeps the last `keep_max` bytes.
pub async fn tail(mut from: impl AsyncRead + Unpin, keep_max: usize) -> String {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..n]);
        if kept.len() > keep_max {
            kept.drain(..kept.len() - keep_max);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// A child of an earlier agent, as its record tells.
struct Recorded {
    pid: Pid,
    started: u64,
}

impl Recorded {
    fn read(path: &Path) -> Option<Self> {
        let pid = path.file_name()?.to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let started = fs::read_to_string(path).ok()?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// The number may belong to another process by now: the start time tells.
    fn lives(&self) -> bool {
        start_time(self.pid.as_raw_nonzero().get()) == Some(self.started)
    }

    async fn end(&self) -> io::Result<()> {
        if !self.lives() {
            return Ok(());
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        let gone = async {
            while self.lives() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(KILL_WAIT_MAX, gone).await.map_err(|_| {
            let pid = self.pid.as_raw_nonzero();
            io::Error::other(format!("process {pid} of an earlier agent does not end: kill it"))
        })
    }
}

/// Clock ticks from boot to the start of a process that is not a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold anything, so fields are counted after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &str, args: &[&str]) -> Program {
        Program { path: path.into(), args: args.iter().map(Into::into).collect(), fed: false }
    }

    #[tokio::test]
    async fn a_child_has_a_clean_environment_and_no_record_after_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path()).await.unwrap();
        let mut child = host.spawn(&program("/usr/bin/env", &[])).unwrap();
        let out = tail(child.stdout.take().unwrap(), 1000).await;
        assert!(child.wait().await.unwrap().success());
        let mut names: Vec<_> = out.lines().filter_map(|l| l.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_is_ended_and_a_reused_number_is_spared() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path()).await.unwrap();
        let mut left = host.spawn(&program("/bin/sleep", &["60"])).unwrap();
        let mut other = host.spawn(&program("/bin/sleep", &["60"])).unwrap();
        fs::write(&other.record, "1").unwrap();
        Host::open(dir.path()).await.unwrap();
        let status = tokio::time::timeout(KILL_WAIT_MAX, left.wait()).await.unwrap().unwrap();
        assert!(!status.success());
        assert!(start_time(other.id()).is_some());
        other.end().await.unwrap();
    }

    #[tokio::test]
    async fn dropping_a_child_ends_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path()).await.unwrap();
        let child = host.spawn(&program("/bin/sleep", &["60"])).unwrap();
        let recorded = Recorded { pid: child.pid, started: start_time(child.id()).unwrap() };
        drop(child);
        let gone = async {
            while recorded.lives() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(KILL_WAIT_MAX, gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_tail_is_bounded() {
        let long = [b'a'; 10_000];
        assert_eq!(tail(&long[..], 10).await, "aaaaaaaaaa");
    }
}
