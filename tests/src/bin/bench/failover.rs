//! Failover: Lockstep beside Patroni and pg_auto_failover. One system at a time has the machine, they
//! take turns, and the same client and the same faults come to each.

mod autofailover;
mod events;
mod lockstep;
mod packages;
mod patroni;
mod results;
mod system;
mod table;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lockstep_tests::wait::caught;

use crate::USAGE;
use events::Stage;
use results::{EVENTS, Event, MODES, Mode, Outcome, PEERS, Peer, Results};
use system::World;
use table::Table;

pub const NAME: &str = "failover";
pub const ABOUT: &str = "Lockstep, Patroni, pg_auto_failover: outages, lost rows, second writers";

/// What is to be measured; each list is never empty.
struct Wanted {
    quick: bool,
    events: Vec<Event>,
    peers: Vec<Peer>,
    modes: Vec<Mode>,
    /// Of each event, of every system.
    runs: Option<usize>,
    file: Option<PathBuf>,
}

/// Names of what can be had by itself.
pub fn parts() -> String {
    EVENTS.map(Event::name).join(", ")
}

pub fn run(args: impl Iterator<Item = String>) -> Result<ExitCode> {
    let wanted = Wanted::parse(args)?;
    for peer in &wanted.peers {
        packages::install(*peer)?;
    }
    let mut results = Results::open(wanted.file.clone())?;
    let mut code = ExitCode::SUCCESS;
    let rounds = wanted.peers.iter().map(|peer| wanted.runs_of(*peer)).max().unwrap_or_default();
    for round in 1..=rounds {
        for mode in &wanted.modes {
            for peer in wanted.peers.iter().filter(|peer| round <= wanted.runs_of(**peer)) {
                // What the others do is worth having.
                if let Err(e) = measure(&wanted, &mut results, (*peer, *mode), round) {
                    eprintln!("{} {}: {e:#}", peer.name(), mode.name());
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    write!(std::io::stdout(), "\n{}\n\n{}", crate::figures::machine(), Table(&results))?;
    Ok(code)
}

/// All events of which there are fewer than `round` outcomes, on one world if it lasts.
fn measure(
    wanted: &Wanted,
    results: &mut Results,
    (peer, mode): (Peer, Mode),
    round: usize,
) -> Result<()> {
    let is_due = |results: &Results, event| results.count(peer, mode, event) < round;
    let mut stage = None;
    for event in wanted.events.iter().copied() {
        if !is_due(results, event) {
            continue;
        }
        let mut on = match stage.take() {
            Some(stage) => stage,
            None => {
                eprintln!("{} {}, run {round}", peer.name(), mode.name());
                let world = caught(|| World::start(peer, mode)).context("it was not set up")?;
                Stage::new(world, peer, wanted.quick, round as u64)
            }
        };
        let mut outcomes = Vec::new();
        let run = caught(|| on.run(event, &mut outcomes));
        match run {
            Ok(()) => stage = Some(on),
            // Another world for the rest.
            Err(e) => {
                // A loss that went well is followed by a return.
                let event = if outcomes.is_empty() { event } else { Event::Rejoin };
                let mut outcome = Outcome::new(peer, mode, event);
                outcome.trouble = format!("{e:#}").replace('\n', " ");
                outcomes.push(outcome);
            }
        }
        for outcome in outcomes {
            if is_due(results, outcome.event) {
                results.add(outcome)?;
            }
        }
    }
    Ok(())
}

impl Wanted {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let (mut events, mut peers, mut modes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut quick, mut runs, mut file) = (false, None, None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} of what? {USAGE}"));
            match arg.as_str() {
                "--quick" => quick = true,
                "--only" => events.push(named(&EVENTS, Event::name, &value()?)?),
                "--peer" => peers.push(named(&PEERS, Peer::name, &value()?)?),
                "--mode" => modes.push(named(&MODES, Mode::name, &value()?)?),
                "--runs" => runs = Some(value()?.parse().context("--runs takes a number")?),
                "--append" => file = Some(PathBuf::from(value()?)),
                _ => bail!("{arg:?} is not understood: {USAGE}"),
            }
        }
        let (events, peers) = (chosen(events, EVENTS), chosen(peers, PEERS));
        Ok(Self { quick, events, peers, modes: chosen(modes, MODES), runs, file })
    }

    fn runs_of(&self, peer: Peer) -> usize {
        match (self.runs, self.quick, peer) {
            (Some(runs), ..) => runs,
            (None, true, _) => 1,
            (None, false, Peer::Lockstep) => 5,
            (None, false, _) => 3,
        }
    }
}

fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Result<T> {
    let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.with_context(|| format!("there is no {text:?}, but {}", names.join(", ")))
}

/// All of them when none is named, in their own order.
fn chosen<T: Copy + PartialEq, const N: usize>(named: Vec<T>, all: [T; N]) -> Vec<T> {
    all.into_iter().filter(|one| named.is_empty() || named.contains(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Wanted> {
        Wanted::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn everything_is_wanted_unless_something_is_named() -> Result<()> {
        let all = parse("")?;
        assert_eq!((all.events.len(), all.peers.len(), all.modes.len()), (8, 3, 2));
        assert_eq!((all.runs_of(Peer::Lockstep), all.runs_of(Peer::Patroni)), (5, 3));
        let some = parse("--peer patroni --peer lockstep --only loss --mode sync --runs 7")?;
        assert_eq!(some.peers, [Peer::Lockstep, Peer::Patroni]);
        assert_eq!((some.events, some.modes), (vec![Event::Loss], vec![Mode::Sync]));
        assert_eq!(some.runs, Some(7));
        Ok(())
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        for (text, says) in
            [("--peer stolon", "patroni"), ("--only rain", "switchover"), ("--runs", "--runs of")]
        {
            let refused = parse(text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
