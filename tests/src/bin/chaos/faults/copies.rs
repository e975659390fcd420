//! Members get their data anew, and something dies in the middle.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::chance::Chance;
use lockstep_tests::{Host, try_until};

use super::processes::power_loss;
use super::{a_standby, last};
use crate::field::Field;

/// What is over before it is seen was not interrupted; the fault happens all the same.
const SEEN_WITHIN: Duration = Duration::from_secs(15);
const NAMED_WITHIN: Duration = Duration::from_secs(60);

fn reclone(field: &Field, standby: &str) -> Result<()> {
    let args = ["cluster", "reclone", "main", standby, "--yes", "--no-wait"];
    field.fleet.ctl(&args)?.ok().map(drop)
}

/// Kills everything on a host while it runs a program.
fn cut_power_in(host: &Host, program: &str) -> Result<()> {
    let runs = || host.processes(program).is_ok_and(|all| !all.is_empty());
    let _ = try_until(SEEN_WITHIN, program, runs);
    host.power_off()
}

pub fn crash_in_copy(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    reclone(field, standby)?;
    field.hold(Duration::from_millis(chance.below(1500) as u64));
    power_loss(field, chance)
}

pub fn crash_of_copy(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    reclone(field, standby)?;
    cut_power_in(&field.host(standby)?, "pg_basebackup")?;
    last(field, chance)
}

/// An old primary that wrote on alone is back, and has to lose that again.
pub fn crash_in_rewind(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let old = field.primary()?;
    let host = field.host(&old)?;
    host.isolate()?;
    try_until(NAMED_WITHIN, "somebody takes over", || -> Result<()> {
        let holder = field.holder()?;
        ensure!(holder.is_some_and(|holder| holder != old), "nobody did");
        Ok(())
    })?;
    host.rejoin()?;
    cut_power_in(&host, "pg_rewind")?;
    last(field, chance)
}

pub fn replacement(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    field.host(standby)?.power_off()?;
    field.fleet.replace_member("main", standby)
}
