//! `tests/bench`: lists the benches, or runs one and prints its figures. A figure that misses its
//! goal is told, and is no failure.

mod control;
mod crowd;
mod figures;
mod process;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use figures::Figures;

const USAGE: &str = "tests/bench NAME [--quick] [--json FILE]";

/// Every bench: its name, what it measures, and how.
const BENCHES: &[Bench] = &[Bench {
    name: "control",
    about: "500 idle agents and their return, one agent's size, pings, tasks, commits",
    run: control::run,
}];

struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Figures, quick: bool) -> Result<()>,
}

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mut out = std::io::stdout();
    let Some(name) = args.next() else {
        for bench in BENCHES {
            writeln!(out, "{:<10} {}", bench.name, bench.about)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let (mut quick, mut json) = (false, None);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--quick", _) => quick = true,
            ("--json", 1..) => json = args.next().map(PathBuf::from),
            _ => bail!("{arg:?} is not understood: {USAGE}"),
        }
    }
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        bail!("there is no bench {name:?}; tests/bench lists them");
    };
    let mut figures = Figures::new();
    (bench.run)(&mut figures, quick)?;
    if let Some(file) = json {
        let json = serde_json::to_string_pretty(&figures)?;
        std::fs::write(&file, json).with_context(|| format!("write {}", file.display()))?;
    }
    write!(out, "\n{figures}")?;
    Ok(ExitCode::SUCCESS)
}
