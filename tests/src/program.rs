//! What the programs of the tests have in common: they tell their usage, and a mistake in one line
//! without a trace of their inside. What they do is theirs.

use std::env;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

/// Runs a program with its arguments, its own name left out. With `--help` among those before a `--` it
/// only tells `usage`.
pub fn run(usage: &str, work: impl FnOnce(Vec<String>) -> Result<ExitCode>) -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let mut own = args.iter().take_while(|arg| *arg != "--");
    let done = match own.any(|arg| arg == "-h" || arg == "--help") {
        true => writeln!(std::io::stdout(), "usage: {usage}")
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        false => work(args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}
