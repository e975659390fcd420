//! Processes are killed or stand still, and machines lose their power.

use anyhow::Result;
use lockstep_tests::chance::Chance;
use rustix::process::Signal;

use super::{a_standby, last};
use crate::field::Field;

pub fn kill_postgres(field: &mut Field, _: &mut Chance) -> Result<()> {
    field.fleet.kill_postgres(&field.primary()?)
}

pub fn freeze_postgres(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.fleet.signal_instance(&primary, Signal::STOP)?;
    last(field, chance)
}

pub fn kill_standby(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    field.fleet.kill_postgres(standby)
}

pub fn kill_agent(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.fleet.node_mut(&primary)?.daemon.kill()?;
    last(field, chance)
}

pub fn freeze_agent(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.fleet.node_mut(&primary)?.daemon.stop()?;
    last(field, chance)
}

pub fn kill_both(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.fleet.node_mut(&primary)?.daemon.kill()?;
    field.fleet.kill_postgres(&primary)?;
    last(field, chance)
}

pub fn power_loss(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.host(&primary)?.power_off()?;
    last(field, chance)
}

pub fn standby_power_loss(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    field.host(standby)?.power_off()?;
    last(field, chance)
}

pub fn kill_controller(field: &mut Field, chance: &mut Chance) -> Result<()> {
    field.fleet.controller.daemon.kill()?;
    last(field, chance)
}

pub fn freeze_controller(field: &mut Field, chance: &mut Chance) -> Result<()> {
    field.fleet.controller.daemon.stop()?;
    last(field, chance)
}

pub fn kill_controller_and_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.fleet.controller.daemon.kill()?;
    field.fleet.kill_postgres(&primary)?;
    last(field, chance)
}
