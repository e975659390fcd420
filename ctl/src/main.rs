//! lockstepctl: the command line of a Lockstep fleet. It speaks only the public gRPC API. Data goes
//! to stdout, everything else to stderr, and the exit code says what happened.

mod args;
mod client;
mod cmd;
mod context;
mod error;
mod list;
mod render;
mod target;
mod wait;

use std::process::ExitCode;

use clap::Parser;
use tracing::Instrument;

use crate::args::Args;
use crate::error::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::failed(format!("cannot start: {error}"))),
    };
    // Entered while telemetry starts: its exporter lives on the runtime.
    let entered = runtime.enter();
    let options = lockstep_transport::telemetry::Options {
        filter: args.global.log.clone(),
        otlp_endpoint: args.global.otlp_endpoint.clone(),
        ..Default::default()
    };
    let guard = match lockstep_transport::telemetry::init("lockstepctl", &options) {
        Ok(guard) => guard,
        Err(error) => return report(&Failure::usage(error.to_string())),
    };
    drop(entered);
    let span = tracing::info_span!("lockstepctl", command = args.command.name());
    let result = runtime.block_on(cmd::run(args).instrument(span));
    drop(guard);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    if !failure.is_silent() {
        eprintln!("lockstepctl: {failure}");
    }
    failure.exit_code()
}
