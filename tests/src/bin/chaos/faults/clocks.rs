//! Wall clocks jump. Those that nobody sets go on: no process can move them.

use anyhow::Result;
use lockstep_tests::chance::Chance;
use lockstep_tests::clock;

use super::last;
use crate::field::Field;

const HOUR_S: i64 = 3600;

/// Back or forward, and at the end of the fault to where it was.
fn jump(field: &mut Field, chance: &mut Chance, name: &str) -> Result<()> {
    let offset_s = if chance.below(2) == 0 { HOUR_S } else { -HOUR_S };
    clock::set(&field.host(name)?, offset_s)?;
    field.detail += &format!(" {name} {offset_s:+} s");
    last(field, chance)
}

pub fn of_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let primary = field.primary()?;
    jump(field, chance, &primary)
}

pub fn of_controller(field: &mut Field, chance: &mut Chance) -> Result<()> {
    jump(field, chance, "controller")
}
