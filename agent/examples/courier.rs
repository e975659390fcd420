//! Stands in for the agent's binary in the tests of the sync engine: the dispatcher by its name,
//! and `rsh` over unix sockets instead of mTLS. Nothing else of the agent runs here.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};

use clap::Parser;
use futures_util::future::BoxFuture;
use lockstep_agent::data::{Dial, Stream};
use lockstep_agent::dispatch;
use lockstep_agent::rsh::{RshArgs, run};
use lockstep_model::task::Peer;
use lockstep_transport::clock;
use tokio::net::UnixStream;

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

/// A peer listens at `peers/<node>` beside the data directory.
struct SocketDial(PathBuf);

impl Dial for SocketDial {
    fn dial<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        Box::pin(async move {
            let path = self.0.join("peers").join(peer.node.as_str());
            let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

fn main() {
    let mut args = std::env::args_os();
    let argv0 = args.next().unwrap_or_default();
    if let Some(dir) = dispatch::state_dir(&argv0) {
        let code = dispatch::run(dir, args, std::io::stdin().lock(), clock::now());
        std::process::exit(code.into())
    }
    let Args { data_dir, command: Command::Rsh(args) } = Args::parse();
    let beside = data_dir.parent().unwrap_or(Path::new("/")).to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(run(args, &SocketDial(beside)));
    if let Err(error) = &ended {
        eprintln!("{error}");
    }
    std::process::exit(i32::from(ended.is_err()));
}
