//! Primaries change, and something goes wrong in the middle.

use std::time::Duration;

use anyhow::{Context, Result};
use lockstep_tests::chance::Chance;
use lockstep_tests::try_until;

use super::processes::{kill_controller, power_loss};
use super::{a_standby, last};
use crate::field::Field;

const NAMED_WITHIN: Duration = Duration::from_secs(60);

/// A moment somewhere within what is under way.
fn moment(field: &Field, chance: &mut Chance, within_ms: usize) {
    field.hold(Duration::from_millis(chance.below(within_ms) as u64));
}

fn ask_switchover(field: &Field, to: &str) -> Result<()> {
    // Whether it is refused or given up is for the cluster to say.
    field.fleet.ctl(&["cluster", "switchover", "main", "--to", to, "--no-wait"]).map(drop)
}

pub fn switchover(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let to = a_standby(field, chance)?;
    field.fleet.ctl(&["cluster", "switchover", "main", "--to", to])?.ok().map(drop)
}

pub fn switchover_target_killed(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let to = a_standby(field, chance)?;
    ask_switchover(field, to)?;
    moment(field, chance, 600);
    // It may be on its way between two states of it.
    let _ = field.fleet.kill_postgres(to);
    Ok(())
}

pub fn switchover_controller_killed(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let to = a_standby(field, chance)?;
    ask_switchover(field, to)?;
    moment(field, chance, 600);
    kill_controller(field, chance)
}

pub fn three_crashes(field: &mut Field, _: &mut Chance) -> Result<()> {
    for _ in 0..3 {
        field.fleet.kill_postgres(&field.primary()?)?;
        field.wait_rows(40)?;
    }
    Ok(())
}

/// Each time the machine is back, and follows, before the next one is lost.
pub fn three_failovers(field: &mut Field, _: &mut Chance) -> Result<()> {
    for _ in 0..3 {
        let old = field.primary()?;
        field.host(&old)?.power_off()?;
        successor(field, &old)?;
        field.wait_rows(40)?;
        field.power_on(&old)?;
        field.wait_well(NAMED_WITHIN)?;
    }
    Ok(())
}

pub fn crash_in_set_change(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    field.fleet.kill_postgres(standby)?;
    moment(field, chance, 3000);
    power_loss(field, chance)
}

/// Whoever is named after the old one.
fn successor(field: &Field, old: &str) -> Result<String> {
    let named = || field.holder().ok().flatten().filter(|holder| holder != old);
    Ok(try_until(NAMED_WITHIN, "somebody takes over", named)?)
}

/// Kills the primary, and whoever takes over as soon as it is named.
pub fn kill_successor(field: &mut Field, _: &mut Chance) -> Result<()> {
    let old = field.primary()?;
    field.host(&old)?.power_off()?;
    if let Ok(next) = successor(field, &old) {
        let _ = field.fleet.kill_postgres(&next);
    }
    field.power_on(&old)
}

/// The chosen one's machine is lost while it becomes the primary, and the old one is still away.
pub fn power_loss_in_promotion(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let old = field.primary()?;
    field.host(&old)?.power_off()?;
    let next = try_until(NAMED_WITHIN, "somebody is promoted", || -> Result<String> {
        let state = field.fleet.cluster("main")?.state.context("no state")?;
        let is_next = !state.holder.is_empty() && state.holder != old;
        Some(state.holder).filter(|_| is_next).context(state.stage)
    })?;
    field.host(&next)?.power_off()?;
    last(field, chance)
}
