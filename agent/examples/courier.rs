//! Stands in for the agent's binary in the tests of the sync engine: what lsyncd calls, by its name,
//! and `rsh`. Nothing else of the agent runs here.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::PathBuf;

use clap::Parser;
use lockstep_agent::rsh::{RshArgs, run};
use lockstep_agent::{classic, dispatch};
use lockstep_transport::clock;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Rsh(RshArgs),
}

fn main() {
    let mut args = std::env::args_os();
    let argv0 = args.next().unwrap_or_default();
    if let Some(dir) = dispatch::state_dir(&argv0) {
        let code = dispatch::run(dir, args, std::io::stdin().lock(), clock::now());
        std::process::exit(code.into())
    }
    if let Some(dir) = classic::unit_dir(&argv0) {
        let code = classic::run(dir, args, std::io::stdin().lock(), clock::now());
        std::process::exit(code.into())
    }
    let Args { data_dir, command: Command::Rsh(args) } = Args::parse();
    let ended = run(args, &data_dir);
    if let Err(error) = &ended {
        eprintln!("{error}");
    }
    std::process::exit(i32::from(ended.is_err()));
}
