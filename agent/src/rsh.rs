//! `lockstep-agent rsh`: what rsync calls in place of ssh. It hands rsync's ends to the agent that
//! runs beside it and waits for the outcome; what rsync adds (`HOST rsync --server --daemon .`)
//! decides nothing.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use lockstep_model::{MirrorName, NodeName, SyncName};

use crate::data::call::{Call, SOCKET, connect, read_verdict, send};
use crate::data::header::{Header, Op, Request};
use crate::rsync::exit::RSH_UNREACHABLE;

/// rsync's remote shell; only rsync calls it.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct RshArgs {
    #[arg(long, required_unless_present = "mirror")]
    sync: Option<SyncName>,
    /// Everything is brought, not only what changed.
    #[arg(long, requires = "sync")]
    pass: bool,
    /// The tree of this one is read.
    #[arg(long, conflicts_with = "sync")]
    mirror: Option<MirrorName>,
    node: NodeName,
    /// What rsync wants to run there; ignored.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Its text goes to standard error as one line: the agent that started rsync reads it there.
#[derive(Debug, thiserror::Error)]
pub enum RshError {
    #[error("{RSH_UNREACHABLE}this node's agent: {0}")]
    Agent(#[from] io::Error),
    #[error("{0}")]
    Said(String),
    #[error("--sync or --mirror is missing")]
    Nothing,
}

/// Returns when the agent has done its part.
pub fn run(args: RshArgs, data_dir: &Path) -> Result<(), RshError> {
    let RshArgs { sync, pass, mirror, node, command: _ } = args;
    let request = match (sync, mirror) {
        (Some(sync), _) => Request::Sync(Header { sync, op: Op::Push { pass } }),
        (None, Some(mirror)) => Request::Pull(mirror),
        (None, None) => return Err(RshError::Nothing),
    };
    let call = Call { request, node };
    let mut agent = connect(data_dir, SOCKET)?;
    send(&agent, &call, io::stdin().as_fd(), io::stdout().as_fd())?;
    match read_verdict(&mut agent)?.as_str() {
        "" => Ok(()),
        line => Err(RshError::Said(line.to_owned())),
    }
}
