//! The agent's end: finds the guard that is there, starts one where there is none, and has deadlines
//! confirmed. It never assumes that something is in force that was not answered.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lockstep_model::Millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::protocol::{ANSWER_BYTES, Answer, Request};
use super::{SOCKET, WatchdogSettings};
use crate::pg::boottime::Boottime;
use crate::pg::instance::Cgroup;

/// How long an answer may take. The guard does nothing else.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// How long a guard may take to start.
const START_MAX: Duration = Duration::from_secs(5);
/// The cgroup of all guards, beside those of instances.
const HOME: &str = "guards";
const START_POLL: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("the guard in {} does not answer: {source}", dir.display())]
    Silent { dir: PathBuf, source: io::Error },
    #[error(
        "watchdog is required, and the guard does not feed {}: is it there and free, and its timeout \
         shorter than the lease? A guard that was started without it is to be ended while the member is stopped",
        device.display()
    )]
    Unwatched { device: PathBuf },
    #[error("there is nothing to guard")]
    Needless,
    #[error("cannot start the guard {}: {source}", agent.display())]
    Start { agent: PathBuf, source: io::Error },
}

/// What a guard is started with.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// The agent's own binary.
    pub agent: &'a Path,
    /// The cluster's directory.
    pub dir: &'a Path,
    /// The instance's.
    pub cgroup: &'a Path,
    /// With what lies between a deadline and the lease's end.
    pub watchdog: Option<(&'a WatchdogSettings, Millis)>,
}

/// A guard that answered once.
#[derive(Debug)]
pub struct GuardClient {
    stream: UnixStream,
    dir: PathBuf,
}

impl GuardClient {
    /// The guard that is there, and what is in force. None: there is none.
    pub async fn attach(dir: &Path) -> Option<(Self, Option<Boottime>)> {
        // A path as long as it likes to be, by way of a descriptor.
        let opened = std::fs::File::open(dir).ok()?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
        let stream = UnixStream::connect(path).await.ok()?;
        let mut client = Self { stream, dir: dir.to_owned() };
        let deadline = client.ask(Request::Show).await.ok()?.deadline;
        Some((client, deadline))
    }

    /// The guard that is there, or a new one with this deadline.
    pub async fn attach_or_start(
        post: &Post<'_>,
        deadline: Boottime,
    ) -> Result<(Self, Option<Boottime>), GuardError> {
        let Post { agent, dir, cgroup, watchdog } = post;
        if let Some(found) = Self::attach(dir).await {
            return Ok(found);
        }
        let mut args: Vec<OsString> = vec!["guard".into(), "--dir".into(), dir.into()];
        args.extend(["--cgroup".into(), cgroup.into()]);
        // Apart from the agent's own, which its manager may kill as one.
        if let Some(home) = Cgroup::open(HOME) {
            args.extend(["--home".into(), home.dir().into()]);
        }
        if deadline != Boottime::NEVER {
            // From its first moment on: this process may be gone before it can say a word.
            args.extend(["--until".into(), deadline.0.to_string().into()]);
        }
        if let Some((WatchdogSettings { device, timeout, .. }, grace)) = watchdog {
            args.extend(["--watchdog".into(), device.into()]);
            args.extend(["--watchdog-timeout".into(), timeout.0.to_string().into()]);
            args.extend(["--watchdog-grace".into(), grace.0.to_string().into()]);
        }
        let failed = |source| GuardError::Start { agent: agent.to_path_buf(), source };
        // Not by `Host`, which ends its children with the agent.
        let mut child = tokio::process::Command::new(agent)
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(failed)?;
        let end = Instant::now() + START_MAX;
        loop {
            if let Some(found) = Self::attach(dir).await {
                // Reaps it when it quits.
                tokio::spawn(async move { child.wait().await });
                return Ok(found);
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(failed(io::Error::other(format!("it ended: {status}"))));
            }
            if Instant::now() >= end {
                let _ = child.start_kill();
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            sleep(START_POLL).await;
        }
    }

    /// In force when it returns. True: with the kernel's watchdog.
    pub async fn until(&mut self, deadline: Boottime) -> Result<bool, GuardError> {
        let request = match deadline {
            Boottime::NEVER => Request::Hold,
            deadline => Request::Until(deadline),
        };
        self.ask(request).await.map(|answer| answer.is_watched)
    }

    /// Nothing is to be ended, when it returns.
    pub async fn hold(&mut self) -> Result<(), GuardError> {
        self.ask(Request::Hold).await.map(drop)
    }

    pub async fn quit(mut self) {
        // One that is gone already is as good.
        let _ = self.ask(Request::Quit).await;
    }

    async fn ask(&mut self, request: Request) -> Result<Answer, GuardError> {
        let asked = async {
            self.stream.write_all(&request.encode()).await?;
            let mut answer = [0; ANSWER_BYTES];
            self.stream.read_exact(&mut answer).await?;
            Answer::decode(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        };
        let answered = timeout(ANSWER_MAX, asked).await;
        let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let silent = |source| GuardError::Silent { dir: self.dir.clone(), source };
        answered.map_err(silent)
    }
}
