//! `tests/bench`: lists the benches, or runs one, or parts of it, and prints its figures. A figure
//! that misses its goal is told, and is no failure.

mod control;
mod crowd;
mod failover;
mod figures;
mod mirror;
mod process;
mod sync;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lockstep_tests::program;

use figures::Figures;

const USAGE: &str = "tests/bench NAME [--quick] [--only PART] [--json FILE]\n       tests/bench failover \
                     [--quick] [--only EVENT]... [--peer SYSTEM]... [--mode sync|async] [--runs N] \
                     [--append FILE]\nWithout arguments: what there is to be measured.";

/// Every bench: its name and what it measures.
const BENCHES: &[Bench] = &[
    Bench {
        name: "control",
        about: "500 idle agents and their return, one agent's size, pings, tasks, commits",
        parts: control::PARTS,
    },
    Bench {
        name: "sync",
        about: "plain lsyncd with ssh, with rsyncd, and Lockstep: lag, CPU, bytes, transport, relays",
        parts: sync::PARTS,
    },
    Bench {
        name: "mirror",
        about: "a run beside bare rsync, a cascade beside a shell's loop, thousands of schedules",
        parts: mirror::PARTS,
    },
];

struct Bench {
    name: &'static str,
    about: &'static str,
    parts: &'static [Part],
}

/// What can be measured by itself.
struct Part {
    name: &'static str,
    run: fn(&mut Figures, quick: bool) -> Result<()>,
}

fn main() -> ExitCode {
    program::run(USAGE, work)
}

fn work(args: Vec<String>) -> Result<ExitCode> {
    let mut args = args.into_iter();
    let mut out = std::io::stdout();
    let Some(name) = args.next() else {
        for Bench { name, about, parts } in BENCHES {
            writeln!(out, "{name:<10} {about}; parts: {}", names(parts))?;
        }
        let (name, about, parts) = (failover::NAME, failover::ABOUT, failover::parts());
        writeln!(out, "{name:<10} {about}; events: {parts}")?;
        return Ok(ExitCode::SUCCESS);
    };
    if name == failover::NAME {
        return failover::run(args);
    }
    let (mut quick, mut only, mut json) = (false, String::new(), None);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--quick", _) => quick = true,
            ("--only", 1..) => only = args.next().unwrap_or_default(),
            ("--json", 1..) => json = args.next().map(PathBuf::from),
            _ => bail!("{arg:?} is not understood: {USAGE}"),
        }
    }
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        bail!("there is no bench {name:?}; tests/bench lists them");
    };
    let wanted = |part: &&Part| only.is_empty() || part.name == only;
    if !bench.parts.iter().any(|part| wanted(&part)) {
        bail!("there is no part {only:?}, but {}", names(bench.parts));
    }
    let mut figures = Figures::new();
    let mut code = ExitCode::SUCCESS;
    for part in bench.parts.iter().filter(wanted) {
        // What the others measure is worth having.
        if let Err(e) = (part.run)(&mut figures, quick) {
            eprintln!("{} failed: {e:#}", part.name);
            code = ExitCode::FAILURE;
        }
    }
    if let Some(file) = json {
        let json = serde_json::to_string_pretty(&figures)?;
        std::fs::write(&file, json).with_context(|| format!("write {}", file.display()))?;
    }
    write!(out, "\n{figures}")?;
    Ok(code)
}

fn names(parts: &[Part]) -> String {
    parts.iter().map(|part| part.name).collect::<Vec<_>>().join(", ")
}
