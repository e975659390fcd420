//! `lockstep-agent rsh`: what rsync calls in place of ssh. It hands rsync's ends to the agent that
//! runs beside it and waits for the outcome; what rsync adds (`HOST rsync --server --daemon .`)
//! decides nothing.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use lockstep_model::{NodeName, SyncName};

use crate::data::call::{Call, SOCKET, connect, read_verdict, send};
use crate::data::header::{Header, Op};
use crate::rsync::exit::RSH_UNREACHABLE;

/// rsync's remote shell; only rsync calls it.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct RshArgs {
    #[arg(long)]
    sync: SyncName,
    /// Everything is brought, not only what changed.
    #[arg(long)]
    pass: bool,
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
}

/// Returns when the agent has done its part.
pub fn run(args: RshArgs, data_dir: &Path) -> Result<(), RshError> {
    let RshArgs { sync, pass, node, command: _ } = args;
    let call = Call { header: Header { sync, op: Op::Push { pass } }, node };
    let mut agent = connect(data_dir, SOCKET)?;
    send(&agent, &call, io::stdin().as_fd(), io::stdout().as_fd())?;
    match read_verdict(&mut agent)?.as_str() {
        "" => Ok(()),
        line => Err(RshError::Said(line.to_owned())),
    }
}
