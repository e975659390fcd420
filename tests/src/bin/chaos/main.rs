//! `tests/chaos`: faults on real hosts, in a random order, under clients that write; after each the
//! cluster has to be well again by itself, and nothing that was acknowledged may be missing. Not part of
//! the tests: it runs as long as one likes.

mod faults;
mod field;
mod table;

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lockstep_tests::chance::Chance;
use lockstep_tests::program;
use lockstep_tests::wait::{caught, timed};
use lockstep_tests::witness::verdict;
use tokio::time::Instant;

use faults::{FAULTS, Fault, named};
use field::{Field, Mode};
use table::{Round, show};

const USAGE: &str = "tests/chaos [--minutes M] [--seed S] [--mode sync|async] [--fault NAME]… \
                     [--append FILE] | --list";
const MINUTES: u64 = 10;
/// Until the cluster is as it was, after everything is mended.
const WELL_WITHIN: Duration = Duration::from_secs(120);
/// Faults that one world sees, before a new one is made.
const ROUNDS_MAX: usize = 20;

struct Args {
    minutes: u64,
    seed: u64,
    mode: Option<Mode>,
    faults: Vec<&'static Fault>,
    append: Option<String>,
}

fn main() -> ExitCode {
    program::run(USAGE, work)
}

fn work(args: Vec<String>) -> Result<ExitCode> {
    let Some(args) = read_args(args)? else {
        let mut out = std::io::stdout();
        for fault in FAULTS {
            writeln!(out, "{}", fault.name)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let limit = Duration::from_secs(args.minutes * 60);
    let (mut spent, mut seed, mut rounds) = (Duration::ZERO, args.seed, Vec::new());
    while spent < limit {
        let mode = args.mode.unwrap_or(if seed % 2 == 0 { Mode::Sync } else { Mode::Async });
        let left = limit.saturating_sub(spent);
        let (lived, took) = timed(|| live(seed, mode, &args, left, &mut rounds));
        if let Err(error) = lived {
            if rounds.is_empty() {
                return Err(error);
            }
            eprintln!("seed {seed}: {error:#}");
        }
        spent += took;
        seed = seed.wrapping_add(1);
    }
    write!(std::io::stdout(), "{}", show(&rounds))?;
    let is_well = rounds.iter().all(Round::keeps_promises);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One world, until its rounds or the time are over, or it does not get well.
fn live(seed: u64, mode: Mode, args: &Args, left: Duration, rounds: &mut Vec<Round>) -> Result<()> {
    let mut chance = Chance::new(seed);
    let (field, mut spent) = timed(|| caught(|| Field::new(mode)));
    let mut field = field.context("make a cluster")?;
    for number in 0..ROUNDS_MAX {
        let fault = *chance.pick(&args.faults).context("a fault")?;
        let (round, took) = timed(|| suffer(&mut field, fault, &mut chance));
        spent += took;
        let round = Round { seed, number, ..round };
        eprintln!("seed {seed} round {number} {}: {}", mode.as_str(), round.line());
        if let Some(file) = &args.append {
            let mut file = File::options().create(true).append(true).open(file)?;
            writeln!(file, "{}", serde_json::to_string(&round)?)?;
        }
        let goes_on = round.keeps_promises();
        rounds.push(round);
        if !goes_on {
            let dir = std::env::temp_dir().join(format!("lockstep-chaos-{seed}"));
            field.record(&dir)?;
            let minutes = 1 + spent.as_secs() / 60;
            bail!(
                "this world is left, and its logs are in {}; \
                 replay: tests/chaos --seed {seed} --minutes {minutes}",
                dir.display()
            );
        }
        if spent > left {
            break;
        }
    }
    Ok(())
}

/// A fault, its end, and what became of the cluster.
fn suffer(field: &mut Field, fault: &Fault, chance: &mut Chance) -> Round {
    let (began, counted) = (Instant::now(), field.counts().len());
    field.detail.clear();
    let (ran, lasted) = timed(|| {
        let ran = caught(|| fault.run(field, chance));
        caught(|| field.mend()).and(ran)
    });
    let (well, recovered) = timed(|| ran.and_then(|()| field.wait_well(WELL_WITHIN)));
    let (mut trouble, mut lost) = (String::new(), 0);
    match well.and_then(|()| field.lost()) {
        Ok(count) => lost = count,
        Err(error) => trouble = format!("{error:#}"),
    }
    let (rows, counts) = (field.rows(), field.counts());
    let may_lose = field.mode == Mode::Async && fault.parts;
    let now = Instant::now();
    Round {
        fault: fault.name.to_owned(),
        detail: field.detail.clone(),
        mode: field.mode.as_str().to_owned(),
        may_lose,
        seed: 0,
        number: 0,
        lost,
        overlap_ms: verdict::overlap(&rows).map(ms),
        miscounts: verdict::miscounts(counts.get(counted..).unwrap_or_default(), may_lose),
        outage_ms: ms(verdict::outage(&rows, began, now).unwrap_or(now.duration_since(began))),
        lasted_ms: ms(lasted),
        recovered_ms: ms(recovered),
        trouble,
    }
}

fn ms(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// None: only what there is to be listed.
fn read_args(args: Vec<String>) -> Result<Option<Args>> {
    let seed = u64::from(std::process::id());
    let mut found = Args { minutes: MINUTES, seed, mode: None, faults: Vec::new(), append: None };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--list", _) => return Ok(None),
            ("--minutes", 1..) => found.minutes = args.next().context(USAGE)?.parse()?,
            ("--seed", 1..) => found.seed = args.next().context(USAGE)?.parse()?,
            ("--append", 1..) => found.append = args.next(),
            ("--mode", 1..) => {
                found.mode = Some(match args.next().as_deref() {
                    Some("sync") => Mode::Sync,
                    Some("async") => Mode::Async,
                    other => bail!("--mode {other:?}: sync or async"),
                });
            }
            ("--fault", 1..) => {
                let name = args.next().context(USAGE)?;
                let fault = named(&name).with_context(|| {
                    format!("no fault is called {name:?}; tests/chaos --list names them")
                })?;
                found.faults.push(fault);
            }
            _ => bail!("{arg:?} is not understood: {USAGE}"),
        }
    }
    if found.faults.is_empty() {
        found.faults = FAULTS.iter().collect();
    }
    Ok(Some(found))
}
