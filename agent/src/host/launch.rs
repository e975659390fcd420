//! Starts programs as another user, and such as outlive the agent: `lockstep-agent launch`, which
//! turns itself into the program, and the one function that starts it and lets go of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

use clap::Args;
use rustix::fs::Mode;
use rustix::process::{Pid, setsid, umask};
use rustix::thread::{Gid, Uid, set_thread_gid, set_thread_groups, set_thread_uid};

use super::{PATH, Program};

/// The command line of `lockstep-agent launch`.
#[derive(Args, Clone, Default, PartialEq, Eq, Debug)]
pub struct Launch {
    /// Directory of a cgroup to join first
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// The user to become; with it --gid and --groups
    #[arg(long, requires = "gid")]
    pub uid: Option<u32>,
    #[arg(long)]
    pub gid: Option<u32>,
    #[arg(long, value_delimiter = ',')]
    pub groups: Vec<u32>,
    /// Lead a session of its own
    #[arg(long)]
    pub session: bool,
    /// The out-of-memory killer's score of the program, -1000 to 1000
    #[arg(long, allow_hyphen_values = true)]
    pub oom_score: Option<i32>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub line: Vec<OsString>,
}

impl Launch {
    /// The call of the agent's binary that does it.
    pub fn program(&self, agent: PathBuf) -> Program {
        let mut args: Vec<OsString> = vec!["launch".into()];
        let mut pair = |name: &str, value: &OsStr| args.extend([name.into(), value.to_owned()]);
        if let Some(dir) = &self.cgroup {
            pair("--cgroup", dir.as_os_str());
        }
        if let Some(uid) = self.uid {
            pair("--uid", uid.to_string().as_ref());
        }
        if let Some(gid) = self.gid {
            pair("--gid", gid.to_string().as_ref());
        }
        if !self.groups.is_empty() {
            let groups: Vec<_> = self.groups.iter().map(ToString::to_string).collect();
            pair("--groups", groups.join(",").as_ref());
        }
        if let Some(score) = self.oom_score {
            pair("--oom-score", score.to_string().as_ref());
        }
        if self.session {
            args.push("--session".into());
        }
        args.push("--".into());
        args.extend(self.line.iter().cloned());
        Program { path: agent, args, fed: false }
    }
}

/// Becomes the program; returns only why it could not. The process has one thread.
#[allow(clippy::disallowed_methods)] // this file owns it
pub fn exec(launch: Launch) -> anyhow::Error {
    let what = match prepare(&launch) {
        Err(error) => return error,
        Ok(()) => launch.line.first().cloned().unwrap_or_default(),
    };
    let error = std::process::Command::new(&what).args(&launch.line[1..]).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", what.display()))
}

fn prepare(launch: &Launch) -> anyhow::Result<()> {
    use anyhow::Context;
    if let Some(dir) = &launch.cgroup {
        let procs = dir.join("cgroup.procs");
        // 0 is who writes.
        fs::write(&procs, "0").with_context(|| format!("cannot join {}", procs.display()))?;
    }
    if let Some(score) = launch.oom_score {
        // Where it is not allowed, postgres is as likely a victim as others.
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    if launch.session {
        setsid().context("cannot lead a session")?;
    }
    if let (Some(uid), Some(gid)) = (launch.uid, launch.gid) {
        let groups: Vec<Gid> = launch.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups).context("cannot set groups")?;
        set_thread_gid(Gid::from_raw(gid)).context("cannot change the group")?;
        set_thread_uid(Uid::from_raw(uid)).context("cannot change the user")?;
    }
    umask(Mode::from_raw_mode(0o077));
    Ok(())
}

/// Starts a program that goes on when the agent ends; `log` gets what it says.
pub fn spawn_detached(
    program: &Program,
    log: fs::File,
    environment: &[(&str, &OsStr)],
) -> io::Result<Pid> {
    let errors = log.try_clone()?;
    let child = tokio::process::Command::new(&program.path)
        .args(&program.args)
        .env_clear()
        .envs([("PATH", PATH), ("HOME", "/nonexistent"), ("LC_ALL", "C")])
        .envs(environment.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(false)
        .spawn()?;
    // Dropped, it is still reaped by the runtime.
    child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("child has no process id"))
}
