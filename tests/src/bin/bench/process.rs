//! What a running process takes, as the kernel counts it, and what this one may open. It starts and
//! ends nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::try_until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Of user and system time, as the kernel's ABI has it.
const TICKS_PER_S: f64 = 100.0;

/// What processes took over a while in which nothing was asked of them.
#[derive(Default)]
pub struct Quiet {
    /// Percent of one core: one value per process and window.
    pub cpu_percent: Vec<f64>,
    /// Resident memory: likewise.
    pub rss_mib: Vec<f64>,
}

/// Looks on over some windows, one after the other.
pub fn look_on(pids: &[u32], windows: usize, window: Duration) -> Result<Quiet> {
    let mut quiet = Quiet::default();
    for _ in 0..windows {
        let before = pids.iter().map(|pid| cpu_s(*pid)).collect::<Result<Vec<_>>>()?;
        rest(window);
        for (pid, before) in pids.iter().zip(before) {
            quiet.cpu_percent.push((cpu_s(*pid)? - before) / window.as_secs_f64() * 100.0);
            quiet.rss_mib.push(rss_mib(*pid)?);
        }
    }
    Ok(quiet)
}

/// Here nothing is waited for but time itself: that is the measure.
pub fn rest(window: Duration) {
    try_until(window, "the window has passed", || false).ok();
}

/// Resident memory.
pub fn rss_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 =
        line.and_then(|l| l.trim().strip_suffix("kB")).context("no VmRSS")?.trim().parse()?;
    Ok(kib / 1024.0)
}

/// CPU time used so far.
pub fn cpu_s(pid: u32) -> Result<f64> {
    Ok(stat(pid, 14)? + stat(pid, 15)?)
}

/// CPU time of children that have ended and were waited for, with those that they waited for.
pub fn children_cpu_s(pid: u32) -> Result<f64> {
    Ok(stat(pid, 16)? + stat(pid, 17)?)
}

/// When it started, in seconds since the machine did.
pub fn started_s(pid: u32) -> Result<f64> {
    stat(pid, 22)
}

/// Seconds since the machine started.
pub fn uptime_s() -> Result<f64> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    Ok(uptime.split(' ').next().context("an empty uptime")?.parse()?)
}

/// A time of `/proc/PID/stat`, by its number in proc(5).
fn stat(pid: u32, number: usize) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("no name")?;
    let ticks = after_name.split_whitespace().nth(number - 3).context("a short stat")?;
    Ok(ticks.parse::<f64>()? / TICKS_PER_S)
}

/// Raises the limit of open files, here and in children, if it is lower.
pub fn allow_open_files(wanted: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let enough = maximum.is_none_or(|maximum| maximum >= wanted);
    ensure!(enough, "{wanted} open files are needed, and {maximum:?} are allowed: see ulimit -Hn");
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?)
}
