//! Tells stories of simulated clusters, one per number, and holds each against all checks. A number
//! that fails is printed; alone it is told as a timeline.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use lockstep_tests::program;
use lockstep_tests::sim::mutation::Mutation;
use lockstep_tests::sim::tell;

const USAGE: &str = "tests/sim [--seeds N] [--first-seed S] [--minutes M] [--all] [--seed N] [--mutation NAME]; \
     from seed 1000000 on stories of old copies of the store";

struct Arguments {
    first: u64,
    seeds: Option<u64>,
    minutes: Option<u64>,
    /// This one alone, with its story.
    seed: Option<u64>,
    mutation: Option<Mutation>,
    /// Go on after a failure.
    all: bool,
}

fn arguments(args: Vec<String>) -> Result<Arguments> {
    let mut found =
        Arguments { first: 1, seeds: None, minutes: None, seed: None, mutation: None, all: false };
    let mut rest = args.into_iter();
    while let Some(name) = rest.next() {
        if name == "--all" {
            found.all = true;
            continue;
        }
        let value = rest.next().with_context(|| format!("{name} is not understood: {USAGE}"))?;
        let number = || value.parse::<u64>().with_context(|| format!("{name} {value}"));
        match name.as_str() {
            "--seeds" => found.seeds = Some(number()?),
            "--first-seed" => found.first = number()?,
            "--minutes" => found.minutes = Some(number()?),
            "--seed" => found.seed = Some(number()?),
            "--mutation" => found.mutation = Some(value.parse().map_err(Error::msg)?),
            _ => bail!("{name} is not understood: {USAGE}"),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    program::run(USAGE, work)
}

#[allow(clippy::print_stdout, clippy::disallowed_methods)] // a program for a terminal, which measures itself
fn work(args: Vec<String>) -> Result<ExitCode> {
    let Arguments { first, seeds, minutes, seed, mutation, all } = arguments(args)?;
    if let Some(seed) = seed {
        let told = tell(seed, mutation);
        println!("seed {seed}: {}", told.story());
        return Ok(ExitCode::from(u8::from(told.violation.is_some())));
    }
    let began = Instant::now();
    let limit = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let last = match (seeds, limit) {
        (Some(seeds), _) => first.saturating_add(seeds),
        (None, Some(_)) => u64::MAX,
        (None, None) => first + 2000,
    };
    let (mut count, mut failed) = (0u64, 0u64);
    for seed in first..last {
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
        let told = tell(seed, mutation);
        count += 1;
        if let Some(violation) = told.violation {
            failed += 1;
            println!("seed {seed} ({}): {}: {}", told.scenario, violation.check, violation.text);
            if !all {
                break;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds from {first} on, {failed} failed, {:.1} seeds/s",
        count as f64 / seconds.max(0.001)
    );
    Ok(ExitCode::from(u8::from(failed > 0)))
}
