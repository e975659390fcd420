//! What happens to a system, one function an event, the same for all. Each begins with a system that
//! is well and returns when it is well again; an error tells what would have needed a person.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_tests::chance::Chance;
use tokio::time::Instant;

use super::results::{Event, Outcome, Peer};
use super::system::World;
use super::watch::{Return, Watch};
use crate::process::rest;

/// Events come at any time within what systems do in turns.
const TURN: Duration = Duration::from_secs(2);
/// What comes later is seen for so long.
const AFTERMATH: Duration = Duration::from_secs(3);
/// A standby's host is off for so long: more than what any of the systems gives it.
const STANDBY_AWAY: Duration = Duration::from_secs(8);
/// A cut lasts at least so long: more than any lease here.
const CUT: Duration = Duration::from_secs(15);
/// Control is away for so long: many times what a lease lasts.
const CONTROL_AWAY: Duration = Duration::from_secs(30);
const CONTROL_AWAY_QUICK: Duration = Duration::from_secs(12);

pub struct Stage {
    pub world: World,
    pub peer: Peer,
    pub quick: bool,
    chance: Chance,
    events: usize,
}

impl Stage {
    pub fn new(world: World, peer: Peer, quick: bool, seed: u64) -> Self {
        Self { world, peer, quick, chance: Chance::new(seed), events: 0 }
    }

    /// What came of it, in the order of what happened: a loss brings the return after it.
    pub fn run(&mut self, event: Event, outcomes: &mut Vec<Outcome>) -> Result<()> {
        match event {
            Event::Crash => outcomes.push(self.crash()?),
            Event::Switchover => outcomes.push(self.switchover()?),
            Event::Standby => outcomes.push(self.standby()?),
            Event::Reclone => outcomes.push(self.reclone()?),
            Event::Partition => outcomes.push(self.partition()?),
            Event::Control => outcomes.push(self.control()?),
            Event::Loss | Event::Rejoin => {
                let (lost, outcome) = self.loss()?;
                outcomes.push(outcome);
                outcomes.push(self.rejoin(lost)?);
            }
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<Outcome> {
        let (mut watch, mut outcome) = self.begin(Event::Crash)?;
        let primary = self.world.primary()?;
        let fault = watch.begin();
        self.world.kill_postgres(primary)?;
        self.settle(&watch, fault, &mut outcome)?;
        self.end(watch, outcome)
    }

    fn switchover(&mut self) -> Result<Outcome> {
        let (mut watch, mut outcome) = self.begin(Event::Switchover)?;
        let old = self.world.primary()?;
        let fault = watch.begin();
        self.world.system.switch_over()?;
        self.settle(&watch, fault, &mut outcome)?;
        ensure!(self.world.primary()? != old, "the primary is where it was");
        self.end(watch, outcome)
    }

    fn standby(&mut self) -> Result<Outcome> {
        let (mut watch, mut outcome) = self.begin(Event::Standby)?;
        let standby = self.world.standby()?;
        let fault = watch.begin();
        self.world.power_off(standby)?;
        rest(STANDBY_AWAY);
        watch.wait_rows(fault + STANDBY_AWAY)?;
        watch.note_outages(&mut outcome);
        self.power_on(standby, &mut outcome)?;
        self.end(watch, outcome)
    }

    fn reclone(&mut self) -> Result<Outcome> {
        let (mut watch, mut outcome) = self.begin(Event::Reclone)?;
        let standby = self.world.standby()?;
        let file = self.world.node(standby)?.data.join("PG_VERSION");
        let old = fs::metadata(&file)?.ino();
        let returns = Return::watch(&self.world, standby)?;
        let fault = watch.begin();
        self.world.system.reclone(standby)?;
        outcome.took_s = Some(returns.wait()?.duration_since(fault).as_secs_f64());
        ensure!(fs::metadata(&file)?.ino() != old, "it is the old directory");
        self.world.wait_well()?;
        watch.note_outages(&mut outcome);
        self.end(watch, outcome)
    }

    /// Leaves the host off that was the primary's.
    fn loss(&mut self) -> Result<(usize, Outcome)> {
        let (mut watch, mut outcome) = self.begin(Event::Loss)?;
        let primary = self.world.primary()?;
        watch.begin();
        self.world.power_off(primary)?;
        watch.wait_rows(Instant::now())?;
        rest(AFTERMATH);
        watch.note_outages(&mut outcome);
        watch.end(&self.world, &mut outcome)?;
        Ok((primary, outcome))
    }

    fn rejoin(&mut self, lost: usize) -> Result<Outcome> {
        let (mut watch, mut outcome) = self.begin(Event::Rejoin)?;
        watch.begin();
        self.power_on(lost, &mut outcome)?;
        watch.note_outages(&mut outcome);
        self.end(watch, outcome)
    }

    /// Everybody is cut off from the primary, but for a program beside it.
    fn partition(&mut self) -> Result<Outcome> {
        let (watch, mut outcome) = self.begin(Event::Partition)?;
        let primary = self.world.primary()?;
        let mut watch = watch.beside(&self.world, primary)?;
        let fault = watch.begin();
        self.world.silence(primary)?;
        watch.wait_rows(Instant::now())?;
        rest(AFTERMATH);
        rest(CUT.saturating_sub(fault.elapsed()));
        watch.note_outages(&mut outcome);
        let returns = Return::watch(&self.world, primary)?;
        let healed = Instant::now();
        self.world.heal(primary)?;
        outcome.took_s = Some(returns.wait()?.duration_since(healed).as_secs_f64());
        self.world.wait_well()?;
        self.end(watch, outcome)
    }

    fn control(&mut self) -> Result<Outcome> {
        let (mut watch, mut outcome) = self.begin(Event::Control)?;
        watch.begin();
        self.world.system.control().kill_all()?;
        rest(if self.quick { CONTROL_AWAY_QUICK } else { CONTROL_AWAY });
        let back = Instant::now();
        self.world.system.boot_control()?;
        self.settle(&watch, back, &mut outcome)?;
        self.end(watch, outcome)
    }

    /// Clients, a while before it happens.
    fn begin(&mut self, event: Event) -> Result<(Watch, Outcome)> {
        self.events += 1;
        let watch = Watch::start(&self.world, self.events)?;
        rest(TURN.mul_f64(self.chance.draw()));
        Ok((watch, Outcome::new(self.peer, self.world.mode, event)))
    }

    /// Until all is well, and stays so.
    fn settle(&self, watch: &Watch, since: Instant, outcome: &mut Outcome) -> Result<()> {
        self.world.wait_well()?;
        outcome.took_s = Some(since.elapsed().as_secs_f64());
        rest(AFTERMATH);
        self.world.wait_well()?;
        watch.wait_rows(Instant::now())?;
        watch.note_outages(outcome);
        Ok(())
    }

    /// Until the host's node streams, counted from when its programs are started.
    fn power_on(&mut self, node: usize, outcome: &mut Outcome) -> Result<()> {
        let returns = Return::watch(&self.world, node)?;
        self.world.power_on(node)?;
        let on = Instant::now();
        self.world.system.boot(node)?;
        outcome.took_s = Some(returns.wait()?.duration_since(on).as_secs_f64());
        self.world.wait_well()
    }

    fn end(&self, watch: Watch, mut outcome: Outcome) -> Result<Outcome> {
        watch.end(&self.world, &mut outcome)?;
        Ok(outcome)
    }
}
