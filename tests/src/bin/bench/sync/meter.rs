//! What a system takes of its source's CPU, of the wire, and of the source's file system. It starts
//! strace, and no system under test.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Host, Proc, cmd, try_until, until};
use rustix::process::Signal;

use super::WITHIN;
use super::system::{Daemons, System, running};
use crate::process::{children_cpu_s, cpu_s, rest};

const QUIET: Duration = Duration::from_secs(1);
/// Windows without work until there is none left.
const QUIET_TIMES: usize = 3;
/// Of CPU per window; less is no work.
const QUIET_S: f64 = 0.03;
const ATTACH_WITHIN: Duration = Duration::from_secs(20);
/// Calls that look at a path.
const STATS: [&str; 4] = ["stat", "lstat", "newfstatat", "statx"];

/// CPU seconds on the source so far.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Of lsyncd itself, and of our agent and our dispatcher.
    pub watching_s: f64,
    /// Of the rsyncs that have ended, and of their remote shells.
    pub rsync_s: f64,
}

impl Daemons {
    pub fn cpu(self) -> Result<Cpu> {
        let Self { lsyncd, agent } = self;
        let (own, of_lsyncd) = (cpu_s(lsyncd)?, children_cpu_s(lsyncd)?);
        Ok(match agent {
            None => Cpu { watching_s: own, rsync_s: of_lsyncd },
            Some(agent) => {
                Cpu { watching_s: own + of_lsyncd + cpu_s(agent)?, rsync_s: children_cpu_s(agent)? }
            }
        })
    }
}

/// Waits until nothing is under way on the source.
pub fn settle(system: &System) -> Result<()> {
    let used_s = || -> Result<f64> {
        let Cpu { watching_s, rsync_s } = system.daemons()?.cpu()?;
        Ok(watching_s + rsync_s)
    };
    let (mut quiet, mut before) = (0, used_s()?);
    try_until(WITHIN, "nothing is under way", || {
        rest(QUIET);
        let now = used_s().unwrap_or(f64::INFINITY);
        let work = now - before;
        before = now;
        let rsyncs = running(&system.source, "rsync").unwrap_or_default();
        quiet = if work < QUIET_S && rsyncs.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET_TIMES { Ok(()) } else { Err(format!("{work} s, {rsyncs:?}")) }
    })
    .map_err(|waited| anyhow::anyhow!("{waited}"))
}

/// Bytes on a host's line so far.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    pub received: f64,
    pub sent: f64,
}

impl Wire {
    pub fn of(host: &Host) -> Result<Self> {
        let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let mut fields = line.context("no eth0")?.split_whitespace().map(str::parse::<f64>);
        let mut field = |n| fields.nth(n).context("a short line").and_then(|f| Ok(f?));
        Ok(Self { received: field(0)?, sent: field(7)? })
    }

    pub fn both(self) -> f64 {
        self.received + self.sent
    }
}

/// Counts the looks at paths of a system's daemons and all that they start.
pub struct Stats {
    strace: Proc,
    file: std::path::PathBuf,
}

impl Stats {
    pub fn start(system: &System) -> Result<Self> {
        let Daemons { lsyncd, agent } = system.daemons()?;
        let file = system.source.path("strace.txt");
        let mut strace = cmd("strace");
        strace.args(["-f", "-c", "-e", &format!("trace={}", STATS.join(","))]);
        strace.arg("-o").arg(&file);
        let pids: Vec<u32> = agent.into_iter().chain([lsyncd]).collect();
        for pid in &pids {
            strace.args(["-p", &pid.to_string()]);
        }
        let strace = system.source.spawn(&mut strace)?;
        until(ATTACH_WITHIN, "strace is attached", || -> Result<()> {
            let traced = pids.iter().all(|pid| is_traced(*pid));
            ensure!(traced, "{}", strace.log());
            Ok(())
        });
        Ok(Self { strace, file })
    }

    pub fn stop(mut self) -> Result<f64> {
        self.strace.signal(Signal::INT)?;
        self.strace.wait_timeout(ATTACH_WITHIN)?;
        let text = fs::read_to_string(&self.file)?;
        let calls = |line: &str| -> Option<f64> {
            let words: Vec<&str> = line.split_whitespace().collect();
            STATS.contains(words.last()?).then(|| words.get(3)?.parse().ok())?
        };
        Ok(text.lines().filter_map(calls).sum())
    }
}

/// By another process, which sees every thread of it.
fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut traced = tasks.map(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    });
    traced.all(|traced| traced)
}
