//! What goes wrong, by name: each fault begins and lasts, and is mended by [`Field::mend`] where it does
//! not end by itself. What follows from it is not its business.

mod changes;
mod clocks;
mod copies;
mod disks;
mod lines;
mod processes;

use std::time::Duration;

use anyhow::{Context, Result};
use lockstep_tests::chance::Chance;

use crate::field::Field;

pub struct Fault {
    pub name: &'static str,
    /// It may cost rows that an asynchronous primary acknowledged and nobody else had.
    pub parts: bool,
    /// Another one may happen while it lasts.
    pub lasts: bool,
    run: Run,
}

type Run = fn(&mut Field, &mut Chance) -> Result<()>;

impl Fault {
    const fn new(name: &'static str, run: Run) -> Self {
        Self { name, parts: false, lasts: false, run }
    }

    const fn parts(self) -> Self {
        Self { parts: true, ..self }
    }

    const fn lasts(self) -> Self {
        Self { lasts: true, ..self }
    }

    pub fn run(&self, field: &mut Field, chance: &mut Chance) -> Result<()> {
        (self.run)(field, chance)
    }
}

pub const FAULTS: &[Fault] = &[
    Fault::new("postgres killed", processes::kill_postgres),
    Fault::new("postgres frozen", processes::freeze_postgres).parts().lasts(),
    Fault::new("a standby's postgres killed", processes::kill_standby),
    Fault::new("agent killed", processes::kill_agent).parts().lasts(),
    Fault::new("agent frozen", processes::freeze_agent).parts().lasts(),
    Fault::new("agent and postgres killed", processes::kill_both).parts().lasts(),
    Fault::new("primary's power lost", processes::power_loss).parts().lasts(),
    Fault::new("a standby's power lost", processes::standby_power_loss).lasts(),
    Fault::new("controller killed", processes::kill_controller).lasts(),
    Fault::new("controller frozen", processes::freeze_controller).lasts(),
    Fault::new("controller and primary killed", processes::kill_controller_and_primary)
        .parts()
        .lasts(),
    Fault::new("primary cut off", lines::cut_primary).parts().lasts(),
    Fault::new("primary cut from standbys", lines::cut_from_standbys).parts().lasts(),
    Fault::new("primary cut from controller", lines::cut_from_controller).lasts(),
    Fault::new("primary and controller cut off", lines::cut_with_controller).parts().lasts(),
    Fault::new("primary and one standby cut off", lines::cut_with_standby).parts().lasts(),
    Fault::new("controller cut off", lines::cut_controller).lasts(),
    Fault::new("nobody hears the primary", lines::mute_primary).parts().lasts(),
    Fault::new("the primary hears nobody", lines::deafen_primary).parts().lasts(),
    Fault::new("30 % of frames lost", lines::lossy).parts().lasts(),
    Fault::new("500 ms of delay", lines::slow).parts().lasts(),
    Fault::new("a line that flaps", lines::flapping).parts(),
    Fault::new("primary's disk full", disks::full_at_primary).parts().lasts(),
    Fault::new("a standby's disk full", disks::full_at_standby).lasts(),
    Fault::new("controller's disk full", disks::full_at_controller).parts().lasts(),
    Fault::new("agent's disk full", disks::full_at_agent).parts().lasts(),
    Fault::new("primary's disk slow", disks::slow_at_primary).parts().lasts(),
    Fault::new("primary's disk hung", disks::hung_at_primary).parts(),
    Fault::new("agent's disk hung", disks::hung_at_agent).parts(),
    Fault::new("primary's power and caches lost", disks::power_and_caches).parts().lasts(),
    Fault::new("primary's clock an hour off", clocks::of_primary).lasts(),
    Fault::new("controller's clock an hour off", clocks::of_controller).lasts(),
    Fault::new("switchover", changes::switchover),
    Fault::new("switchover, target killed", changes::switchover_target_killed),
    Fault::new("switchover, controller killed", changes::switchover_controller_killed).lasts(),
    Fault::new("three crashes in a row", changes::three_crashes),
    Fault::new("three failovers in a row", changes::three_failovers).parts(),
    Fault::new("primary killed while the set changes", changes::crash_in_set_change)
        .parts()
        .lasts(),
    Fault::new("new primary killed at once", changes::kill_successor).parts(),
    Fault::new("power lost in a promotion", changes::power_loss_in_promotion).parts().lasts(),
    Fault::new("primary killed while a copy is made", copies::crash_in_copy).parts().lasts(),
    Fault::new("a standby killed while it is copied", copies::crash_of_copy).lasts(),
    Fault::new("an old primary killed while it is rewound", copies::crash_in_rewind)
        .parts()
        .lasts(),
    Fault::new("a standby's machine replaced", copies::replacement),
    Fault::new(TWO, two).parts(),
];

pub const TWO: &str = "two at once";

pub fn named(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

/// Another fault begins while one lasts.
fn two(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let lasting: Vec<_> = FAULTS.iter().filter(|fault| fault.lasts).collect();
    let (first, second) = (chance.pick(&lasting), chance.pick(&lasting));
    let (first, second) = (*first.context("a fault")?, *second.context("a fault")?);
    field.detail = format!("{}, {}", first.name, second.name);
    field.meanwhile = Some(second);
    let ran = first.run(field, chance);
    field.meanwhile = None;
    ran
}

/// From a blink to more than twice a lease; or as long as what happens meanwhile, and that in addition.
fn last(field: &mut Field, chance: &mut Chance) -> Result<()> {
    let ms = [300, 1500, 4000, 8000, 13_000];
    if let Some(other) = field.meanwhile.take() {
        // After the first one it may be impossible.
        if let Err(error) = other.run(field, chance) {
            field.detail += &format!(" (not: {error:#})");
        }
    }
    field.hold(Duration::from_millis(chance.pick(&ms).copied().unwrap_or(4000)));
    Ok(())
}

fn a_standby(field: &Field, chance: &mut Chance) -> Result<&'static str> {
    chance.pick(&field.others()?).copied().context("a standby")
}
