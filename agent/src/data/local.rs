//! The agent's side of `rsh`: looks the peer up in the assignments of the moment, dials it and copies
//! between it and rsync, within the limits. A caller names a sync and a node and nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::{NodeName, SyncName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::call::{self, Call};
use super::header::{Answer, Op};
use super::lane::{Lanes, Way};
use super::pump::{IDLE_MAX, pump};
use super::{Dial, ask};
use crate::rsync::exit::{RSH_REFUSED, RSH_UNFILLED, RSH_UNREACHABLE};

/// Most calls served at once.
const CALLS_MAX: usize = 256;
/// For the call itself; it is one message.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept(2), which is almost always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why rsync got no connection or lost it, as the one line that the agent reads again in rsync's
/// standard error.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{RSH_UNREACHABLE}{0}")]
    Unreachable(String),
    #[error("{RSH_REFUSED}{node}: {why}")]
    Refused { node: NodeName, why: String },
    #[error("{RSH_REFUSED}{node} is no target of {sync}")]
    NoTarget { node: NodeName, sync: SyncName },
    #[error("{RSH_UNFILLED}{0} wants a complete pass first")]
    Unfilled(NodeName),
    #[error("{RSH_UNREACHABLE}the connection to {node} broke: {source}")]
    Broken { node: NodeName, source: io::Error },
}

/// Serves the calls of a data directory until it is dropped.
pub struct Exchange {
    _task: AbortOnDropHandle<()>,
}

impl Exchange {
    /// Needs a runtime; `listener` is `call::listen`'s.
    pub fn open(listener: UnixListener, lanes: Lanes, dial: Arc<dyn Dial>) -> io::Result<Self> {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let task = tokio::spawn(keep(listener, lanes, dial));
        Ok(Self { _task: AbortOnDropHandle::new(task) })
    }
}

async fn keep(listener: tokio::net::UnixListener, lanes: Lanes, dial: Arc<dyn Dial>) {
    let places = Arc::new(Semaphore::new(CALLS_MAX));
    let own_uid = rustix::process::geteuid().as_raw();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot take a call of rsync");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let uid = stream.peer_cred().ok().map(|cred| cred.uid());
        if uid != Some(own_uid) {
            tracing::warn!(target: "audit", ?uid, "refused a local call of another user");
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::error!("refused a call of rsync: too many are open");
            continue;
        };
        let (lanes, dial) = (lanes.clone(), dial.clone());
        tokio::spawn(async move {
            serve(stream, &lanes, &*dial).await;
            drop(place);
        });
    }
}

async fn serve(mut stream: UnixStream, lanes: &Lanes, dial: &dyn Dial) {
    let received = stream.async_io(Interest::READABLE, || call::receive(&stream));
    let (call, stdin, stdout) = match tokio::time::timeout(CALL_TIMEOUT, received).await {
        Ok(Ok(received)) => received,
        Ok(Err(error)) => return tracing::warn!(%error, "a local call cannot be read"),
        Err(_) => return tracing::warn!("a local connection that does not call was closed"),
    };
    let mut byte = [0];
    let ended = tokio::select! {
        ended = carry(call, stdin, stdout, lanes, dial) => ended,
        // Whoever called is gone, and rsync with it.
        _ = stream.read(&mut byte) => return,
    };
    let line = ended.err().map(|trouble| trouble.to_string()).unwrap_or_default();
    let _ = stream.write_all(&call::verdict(&line)).await;
}

async fn carry(
    call: Call,
    stdin: OwnedFd,
    stdout: OwnedFd,
    lanes: &Lanes,
    dial: &dyn Dial,
) -> Result<(), Trouble> {
    let Call { header, node } = call;
    let no_target = || Trouble::NoTarget { node: node.clone(), sync: header.sync.clone() };
    let Op::Push { .. } = header.op else {
        return Err(Trouble::Refused { node, why: "rsync can only push".to_owned() });
    };
    let way = lanes.find(&header.sync, &node).ok_or_else(no_target)?;
    let connected = async {
        let mut stream = dial.dial(&way.peer).await.map_err(Trouble::Unreachable)?;
        match ask(&mut stream, &header).await {
            Ok(Answer::Go) => {}
            Ok(Answer::Unfilled) => return Err(Trouble::Unfilled(node.clone())),
            Ok(Answer::Refused(why)) => return Err(Trouble::Refused { node: node.clone(), why }),
            Err(why) => return Err(Trouble::Unreachable(format!("{node}: {why}"))),
        }
        let copied = copy(stream, stdin, stdout, &way).await;
        copied.map_err(|source| Trouble::Broken { node: node.clone(), source })
    };
    tokio::select! {
        biased;
        () = way.closed.cancelled() => Err(no_target()),
        ended = connected => ended,
    }
}

async fn copy(
    stream: Box<dyn super::Stream>,
    stdin: OwnedFd,
    stdout: OwnedFd,
    way: &Way,
) -> io::Result<()> {
    // rsync talks to its remote shell through sockets.
    let socket = |fd: OwnedFd| {
        let socket = std::os::unix::net::UnixStream::from(fd);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    };
    let (reader, writer) = tokio::io::split(stream);
    let (stdin, stdout) = (socket(stdin)?, socket(stdout)?);
    pump((reader, stdout), (stdin, writer), Some(way), IDLE_MAX, Duration::ZERO).await
}
