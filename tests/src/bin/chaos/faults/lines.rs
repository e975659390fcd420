//! Lines are cut, one way or both, or are bad.

use std::time::Duration;

use anyhow::Result;
use lockstep_tests::chance::Chance;
use lockstep_tests::impair::Impair;

use super::{a_standby, last};
use crate::field::{Field, NODES};

/// The primary's part of the world, and the rest.
fn cut_off(field: &mut Field, chance: &mut Chance, with: &[&str]) -> Result<()> {
    let primary = field.primary()?;
    let mut own = vec![primary.as_str()];
    own.extend(with);
    let all = ["controller", "client", NODES[0], NODES[1], NODES[2]];
    let rest: Vec<&str> = all.into_iter().filter(|name| !own.contains(name)).collect();
    field.part(&[&own, &rest])?;
    last(field, chance)
}

pub fn cut_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    cut_off(field, chance, &[])
}

pub fn cut_with_controller(field: &mut Field, chance: &mut Chance) -> Result<()> {
    cut_off(field, chance, &["controller", "client"])
}

pub fn cut_with_standby(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let standby = a_standby(field, chance)?;
    cut_off(field, chance, &[standby])
}

pub fn cut_from_standbys(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let (primary, others) = (field.primary()?, field.others()?);
    field.part(&[&[&primary], &others])?;
    last(field, chance)
}

pub fn cut_from_controller(field: &mut Field, chance: &mut Chance) -> Result<()> {
    field.part(&[&[&field.primary()?], &["controller"]])?;
    last(field, chance)
}

pub fn cut_controller(field: &mut Field, chance: &mut Chance) -> Result<()> {
    field.part(&[&["controller"], &NODES])?;
    last(field, chance)
}

fn one_way(field: &mut Field, chance: &mut Chance, is_mute: bool) -> Result<()> {
    let primary = field.primary()?;
    let own = field.host(&primary)?;
    for other in ["controller", "client"].into_iter().chain(field.others()?) {
        let other = field.host(other)?;
        let (from, to) = if is_mute { (&own, &other) } else { (&other, &own) };
        field.net.cut_one_way(from, to)?;
    }
    last(field, chance)
}

pub fn mute_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    one_way(field, chance, true)
}

pub fn deafen_primary(field: &mut Field, chance: &mut Chance) -> Result<()> {
    one_way(field, chance, false)
}

fn impaired(field: &mut Field, chance: &mut Chance, impair: Impair) -> Result<()> {
    let all = ["controller", NODES[0], NODES[1], NODES[2]];
    for (at, a) in all.iter().enumerate() {
        for b in &all[at + 1..] {
            let impair = Impair { seed: chance.number(), ..impair };
            field.net.impair(&field.host(a)?, &field.host(b)?, impair)?;
        }
    }
    last(field, chance)
}

pub fn lossy(field: &mut Field, chance: &mut Chance) -> Result<()> {
    impaired(field, chance, Impair { loss_percent: 30.0, ..Impair::default() })
}

pub fn slow(field: &mut Field, chance: &mut Chance) -> Result<()> {
    // Each way half of it.
    impaired(field, chance, Impair { delay_ms: 250, jitter_ms: 50, ..Impair::default() })
}

pub fn flapping(field: &mut Field, _: &mut Chance) -> Result<()> {
    let host = field.host(&field.primary()?)?;
    for _ in 0..3 {
        host.isolate()?;
        field.hold(Duration::from_millis(1500));
        host.rejoin()?;
        field.hold(Duration::from_millis(1500));
    }
    Ok(())
}
