//! What a running process takes, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Of user and system time, as the kernel's ABI has it.
const TICKS_PER_S: f64 = 100.0;

/// Resident memory, MiB.
pub fn rss_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 =
        line.and_then(|l| l.trim().strip_suffix("kB")).context("no VmRSS")?.trim().parse()?;
    Ok(kib / 1024.0)
}

/// CPU time it has used, in seconds.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("no name")?;
    let field = |at: usize| -> Result<f64> {
        Ok(after_name.split_whitespace().nth(at).context("a short stat")?.parse()?)
    };
    Ok((field(11)? + field(12)?) / TICKS_PER_S)
}

/// Percent of one core over a while.
pub fn cpu_percent(pid: u32, over: Duration, wait: impl FnOnce(Duration)) -> Result<f64> {
    let before = cpu_s(pid)?;
    wait(over);
    Ok((cpu_s(pid)? - before) / over.as_secs_f64() * 100.0)
}
