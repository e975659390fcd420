//! One process that a test started: signals, a wait with a bound, its output. It ends with its
//! handle; what it started itself ends with its host.
#![allow(clippy::disallowed_methods, reason = "the one place where tests start processes")]

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A command to be completed and given to [`Host::spawn`](crate::Host::spawn) or
/// [`Host::run`](crate::Host::run).
pub fn cmd(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that must have succeeded.
    pub fn ok(self) -> Result<String> {
        if !self.status.success() {
            bail!("{self}");
        }
        Ok(self.stdout)
    }

    /// The standard error of a command that must have refused: by an exit code, not by a signal or
    /// a panic's 101.
    pub fn refused(self) -> Result<String> {
        match self.status.code() {
            None | Some(0 | 101) => bail!("not refused: {self}"),
            Some(_) => Ok(self.stderr),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}\n{status}\n{stdout}{stderr}")
    }
}

pub struct Proc {
    command: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Proc {
    /// Starts `command` as the calling thread would, with its output in `NAME.out` and `NAME.err`
    /// below `dir`.
    pub(crate) fn start(command: &mut Command, dir: &Path, name: &str) -> Result<Self> {
        let stdout = dir.join(format!("{name}.out"));
        let stderr = dir.join(format!("{name}.err"));
        let child = command
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Self { command: format!("{command:?}"), child, stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// SIGTERM.
    pub fn term(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: the process hangs, with all its connections open.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn cont(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends a signal to the process alone; an error if it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended already: {status}\n{}", self.command, self.log());
        }
        // Not reaped yet, so the pid is still its own.
        Ok(kill_process(self.id()?, signal)?)
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end; an error with the log if it does not come in time.
    pub fn wait_timeout(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let held = pidfd_open(self.id()?, PidfdFlags::empty())?;
        let timeout = Timespec::try_from(within)?;
        if poll(&mut [PollFd::new(&held, PollFlags::IN)], Some(&timeout))? == 0 {
            bail!("{} still runs after {within:?}\n{}", self.command, self.log());
        }
        Ok(self.child.wait()?)
    }

    /// As [`Proc::wait_timeout`], with the output.
    pub fn output(&mut self, within: Duration) -> Result<Output> {
        let status = self.wait_timeout(within)?;
        let command = self.command.clone();
        Ok(Output { command, status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// All it has written so far: errors first, then data.
    pub fn log(&self) -> String {
        self.stderr() + &self.stdout()
    }

    fn id(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such pid")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}
