//! Disks have no room, are slow, or answer nothing. Those of a member's data and of its agent's are two.

use std::time::Duration;

use anyhow::Result;
use lockstep_tests::Disk;
use lockstep_tests::chance::Chance;
use lockstep_tests::sql;

use super::{a_standby, last};
use crate::field::Field;

const DATA: &str = "pg";
/// Of an agent or of the controller.
const BOOKS: &str = "data";

/// More log than the segments that are there have room for.
fn write_log(field: &Field, primary: &str) -> Result<()> {
    let message = "select pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) \
                   from generate_series(1, 40)";
    // That it fails is the point, where the primary has no room.
    let _ = sql::ask(&field.client, &field.fleet.pg_reach(&[primary])?, message);
    Ok(())
}

pub fn full_at_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.host(&primary)?.disk_at(DATA).fill()?;
    write_log(field, &primary)?;
    last(field, chance)
}

pub fn full_at_standby(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    field.host(standby)?.disk_at(DATA).fill()?;
    write_log(field, &field.primary()?)?;
    last(field, chance)
}

/// Something is to be written down there, perhaps.
pub fn full_at_controller(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.host("controller")?.disk_at(BOOKS).fill()?;
    if chance.below(2) == 0 {
        field.fleet.kill_postgres(&primary)?;
    }
    last(field, chance)
}

pub fn full_at_agent(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    field.host(&primary)?.disk_at(BOOKS).fill()?;
    if chance.below(2) == 0 {
        field.fleet.kill_postgres(&primary)?;
    }
    last(field, chance)
}

pub fn slow_at_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let disk = field.host(&field.primary()?)?.disk_at(DATA);
    let _slow = disk.slow(Duration::from_millis(300), Duration::from_millis(30));
    last(field, chance)
}

/// Nothing else may happen meanwhile: whoever waited for a process there to end would wait for ever.
fn hang(field: &Field, chance: &mut Chance, disk: &Disk) -> Result<()> {
    let ms = [1000, 4000, 8000, 16_000];
    let _hung = disk.hang()?;
    field.hold(Duration::from_millis(chance.pick(&ms).copied().unwrap_or(4000)));
    Ok(())
}

pub fn hung_at_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let disk = field.host(&field.primary()?)?.disk_at(DATA);
    hang(field, chance, &disk)
}

pub fn hung_at_agent(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let disk = field.host(&field.primary()?)?.disk_at(BOOKS);
    hang(field, chance, &disk)
}

/// What was not flushed is gone with the machine's memory.
pub fn power_and_caches(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let host = field.host(&field.primary()?)?;
    host.disk_at(BOOKS).lose_power(|| host.disk_at(DATA).lose_power(|| host.power_off()))?;
    last(field, chance)
}
