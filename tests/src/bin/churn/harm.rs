//! What happens to a fleet while it works: its processes are killed and hang, its lines are cut. Each
//! harm is over when it returns.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use lockstep_tests::chance::Chance;
use lockstep_tests::{Fleet, Host};
use rustix::process::{Pid, Signal, kill_process};

use super::rest;

const PAUSE_MS: usize = 3000;
const LASTS_MS: usize = 3000;

/// Waits, then does one harm, and tells which.
pub fn once(
    fleet: &mut Fleet,
    source: &str,
    targets: &[&str],
    chance: &mut Chance,
) -> Result<String> {
    pause(chance, PAUSE_MS);
    let target = chance.pick(targets).copied().unwrap_or(source);
    Ok(match chance.below(10) {
        0..=1 => {
            kill_program(&fleet.node(source)?.host, "lsyncd")?;
            "lsyncd killed".to_owned()
        }
        2..=3 => {
            kill_program(&fleet.node(source)?.host, "rsync")?;
            "the source's rsyncs killed".to_owned()
        }
        4 => {
            kill_program(&fleet.node(target)?.host, "rsync")?;
            format!("{target}'s rsyncs killed")
        }
        5..=6 => kill_agent(fleet, source, chance)?,
        7 => kill_agent(fleet, target, chance)?,
        8 => {
            let daemon = &mut fleet.node_mut(target)?.daemon;
            daemon.stop()?;
            pause(chance, LASTS_MS);
            daemon.cont()?;
            format!("{target}'s agent hung")
        }
        _ => {
            let (a, b) = (fleet.node(source)?.host.clone(), fleet.node(target)?.host.clone());
            fleet.net().cut(&a, &b)?;
            pause(chance, LASTS_MS);
            fleet.net().heal(&a, &b)?;
            format!("{target} cut off")
        }
    })
}

fn kill_agent(fleet: &mut Fleet, node: &str, chance: &mut Chance) -> Result<String> {
    fleet.node_mut(node)?.daemon.kill()?;
    pause(chance, LASTS_MS);
    fleet.restart_agent(node)?;
    Ok(format!("{node}'s agent killed"))
}

fn kill_program(host: &Host, program: &str) -> Result<()> {
    for pid in host.pids()? {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == program
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

fn pause(chance: &mut Chance, most_ms: usize) {
    rest(Duration::from_millis(chance.below(most_ms) as u64));
}
