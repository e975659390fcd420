//! `lockstep-agent rsh`: what rsync calls in place of ssh. It opens a connection to the peer's data
//! port, asks for one sync's push, and copies bytes. Whom to call stands in the options that
//! `rsync::argv` wrote; what rsync adds (`HOST rsync --server --daemon .`) decides nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use lockstep_model::task::Peer;
use lockstep_model::{HostPort, KeyHash, NodeName, SyncName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::data::header::{Answer, Header, Op};
use crate::data::pump::{IDLE_MAX, pump};
use crate::data::{Dial, ask};
use crate::rsync::exit::{RSH_REFUSED, RSH_UNFILLED, RSH_UNREACHABLE};

/// rsync's remote shell; only rsync calls it.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct RshArgs {
    #[arg(long)]
    sync: SyncName,
    /// The key that the peer must show.
    #[arg(long)]
    key_hash: KeyHash,
    #[arg(long = "address")]
    addresses: Vec<HostPort>,
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
    #[error("{RSH_UNREACHABLE}{0}")]
    Unreachable(String),
    #[error("{RSH_REFUSED}{node}: {why}")]
    Refused { node: NodeName, why: String },
    #[error("{RSH_UNFILLED}{0} wants a complete pass first")]
    Unfilled(NodeName),
    #[error("{RSH_UNREACHABLE}the connection to {node} broke: {source}")]
    Broken { node: NodeName, source: io::Error },
}

/// Runs to the end of the connection. The process should exit after it without waiting for
/// threads that still read its standard input.
pub async fn run(args: RshArgs, dial: &dyn Dial) -> Result<(), RshError> {
    let RshArgs { sync, key_hash, addresses, pass, node, command: _ } = args;
    let peer = Peer { node, key_hash, addresses };
    let mut stream = dial.dial(&peer).await.map_err(RshError::Unreachable)?;
    let header = Header { sync, op: Op::Push { pass } };
    let node = peer.node;
    match ask(&mut stream, &header).await {
        Ok(Answer::Go) => {}
        Ok(Answer::Unfilled) => return Err(RshError::Unfilled(node)),
        Ok(Answer::Refused(why)) => return Err(RshError::Refused { node, why }),
        Err(why) => return Err(RshError::Unreachable(format!("{node}: {why}"))),
    }
    let broken = |source| RshError::Broken { node: node.clone(), source };
    let stdin = open_reader(io::stdin().as_fd()).map_err(broken)?;
    let stdout = open_writer(io::stdout().as_fd()).map_err(broken)?;
    let (reader, writer) = tokio::io::split(stream);
    pump((reader, stdout), (stdin, writer), IDLE_MAX, Duration::ZERO).await.map_err(broken)
}

/// rsync hands over sockets; pipes will do as well. Neither needs a thread.
fn open_reader(fd: BorrowedFd<'_>) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(match open_socket(fd)? {
        Some(socket) => Box::new(socket),
        None => Box::new(pipe::Receiver::from_owned_fd(fd.try_clone_to_owned()?)?),
    })
}

fn open_writer(fd: BorrowedFd<'_>) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    Ok(match open_socket(fd)? {
        Some(socket) => Box::new(socket),
        None => Box::new(pipe::Sender::from_owned_fd(fd.try_clone_to_owned()?)?),
    })
}

fn open_socket(fd: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    if kind != rustix::fs::FileType::Socket {
        return Ok(None);
    }
    let socket = std::os::unix::net::UnixStream::from(fd.try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket).map(Some)
}
