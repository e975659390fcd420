//! The agent's side of `rsh`: looks the peer up in the assignments of the moment, dials it and copies
//! between it and rsync, within the limits. A caller names a sync and a node and nothing else.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::{MirrorName, NodeName, SyncName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::call::{self, Call};
use super::header::{About, Answer, Header, Op, Request};
use super::lane::{Lanes, Way};
use super::pump::{IDLE_MAX, PULL_IDLE_MAX, pump};
use super::{Dial, ask};
use crate::rsync::exit::{RSH_REFUSED, RSH_UNFILLED, RSH_UNREACHABLE};

/// Most calls served at once.
const CALLS_MAX: usize = 256;
/// For the call itself; it is one message.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

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
    #[error("{RSH_REFUSED}{node} is not where {mirror} is pulled from now")]
    NoSource { node: NodeName, mirror: MirrorName },
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
        let take = async move {
            let serve = |stream| serve(stream, lanes.clone(), dial.clone());
            call::take(listener, "rsync", CALLS_MAX, serve).await;
        };
        let task = tokio::spawn(take);
        Ok(Self { _task: AbortOnDropHandle::new(task) })
    }
}

async fn serve(mut stream: UnixStream, lanes: Lanes, dial: Arc<dyn Dial>) {
    let received = stream.async_io(Interest::READABLE, || call::receive(&stream));
    let (call, stdin, stdout) = match tokio::time::timeout(CALL_TIMEOUT, received).await {
        Ok(Ok(received)) => received,
        Ok(Err(error)) => return tracing::warn!(%error, "a local call cannot be read"),
        Err(_) => return tracing::warn!("a local connection that does not call was closed"),
    };
    let mut byte = [0];
    let ended = tokio::select! {
        ended = carry(call, stdin, stdout, &lanes, &*dial) => ended,
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
    let Call { request, node } = call;
    let no_lane = || match request.about() {
        About::Sync(sync) => Trouble::NoTarget { node: node.clone(), sync },
        About::Mirror(mirror) => Trouble::NoSource { node: node.clone(), mirror },
        About::Cluster(cluster) => {
            let why = format!("rsync has no part in cluster {cluster}");
            Trouble::Refused { node: node.clone(), why }
        }
    };
    let idle_max = match &request {
        Request::Sync(Header { op: Op::Push { .. }, .. }) => IDLE_MAX,
        Request::Sync(_) => {
            return Err(Trouble::Refused { node, why: "rsync can only push".to_owned() });
        }
        Request::Pull(_) => PULL_IDLE_MAX,
        Request::Promise(_) | Request::Wal(_) => return Err(no_lane()),
    };
    let way = lanes.find(request.about(), &node).ok_or_else(no_lane)?;
    let connected = async {
        let mut stream = dial.dial(&way.peer).await.map_err(Trouble::Unreachable)?;
        match ask(&mut stream, request.clone()).await {
            Ok(Answer::Go) => {}
            Ok(Answer::Unfilled) => return Err(Trouble::Unfilled(node.clone())),
            Ok(Answer::Refused(why)) => return Err(Trouble::Refused { node: node.clone(), why }),
            Err(why) => return Err(Trouble::Unreachable(format!("{node}: {why}"))),
        }
        let copied = copy(stream, stdin, stdout, &way, idle_max).await;
        copied.map_err(|source| Trouble::Broken { node: node.clone(), source })
    };
    tokio::select! {
        biased;
        () = way.closed.cancelled() => Err(no_lane()),
        ended = connected => ended,
    }
}

async fn copy(
    stream: Box<dyn super::Stream>,
    stdin: OwnedFd,
    stdout: OwnedFd,
    way: &Way,
    idle_max: Duration,
) -> io::Result<()> {
    // rsync talks to its remote shell through sockets.
    let socket = |fd: OwnedFd| {
        let socket = std::os::unix::net::UnixStream::from(fd);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    };
    let (reader, writer) = tokio::io::split(stream);
    let (stdin, stdout) = (socket(stdin)?, socket(stdout)?);
    pump((reader, stdout, None), (stdin, writer, Some(&way.meter)), idle_max, Duration::ZERO).await
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream as Socket;

    use futures_util::future::BoxFuture;
    use lockstep_model::KeyHash;
    use lockstep_model::task::Peer;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::data::Stream;
    use crate::data::lane::Lane;
    use crate::data::limit::Limiter;

    /// Answers "go" and reads on for ever.
    struct Sink(mpsc::UnboundedSender<Peer>);

    impl Dial for Sink {
        fn dial<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
            let _ = self.0.send(peer.clone());
            let (ours, mut theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                Request::read(&mut theirs).await.unwrap();
                Answer::Go.write(&mut theirs).await.unwrap();
                tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await
            });
            Box::pin(async move { Ok(Box::new(ours) as Box<dyn Stream>) })
        }
    }

    struct Agent {
        dir: tempfile::TempDir,
        lanes: Lanes,
        dialed: mpsc::UnboundedReceiver<Peer>,
        _exchange: Exchange,
    }

    impl Agent {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (dial, dialed) = mpsc::unbounded_channel();
            let (lanes, listener) =
                (Lanes::default(), call::listen(dir.path(), call::SOCKET).unwrap());
            let exchange = Exchange::open(listener, lanes.clone(), Arc::new(Sink(dial))).unwrap();
            Self { dir, lanes, dialed, _exchange: exchange }
        }

        fn open(&self, key: u8, own: &Limiter) -> Lane {
            let key_hash = KeyHash([key; 32]);
            let peer = Peer { node: "web1".parse().unwrap(), key_hash, addresses: vec![] };
            self.lanes.open(
                &"webroot".parse::<SyncName>().unwrap(),
                &peer,
                own,
                &Limiter::new(None),
            )
        }

        /// As rsync and its rsh: the socket that rsync has, and the verdict to come.
        fn call(&self, op: Op) -> (UnixStream, BoxFuture<'static, String>) {
            let (rsync, handed) = Socket::pair().unwrap();
            rsync.set_nonblocking(true).unwrap();
            let mut agent = call::connect(self.dir.path(), call::SOCKET).unwrap();
            let header = Header { sync: "webroot".parse().unwrap(), op };
            let node = "web1".parse().unwrap();
            let call = Call { request: (&header).into(), node };
            call::send(&agent, &call, handed.as_fd(), handed.as_fd()).unwrap();
            let verdict = tokio::task::spawn_blocking(move || call::read_verdict(&mut agent));
            let verdict = Box::pin(async move { verdict.await.unwrap().unwrap() });
            (UnixStream::from_std(rsync).unwrap(), verdict)
        }
    }

    async fn flood(mut rsync: UnixStream) {
        while rsync.write_all(&[7; 64 << 10]).await.is_ok() {}
    }

    const PUSH: Op = Op::Push { pass: false };

    #[tokio::test(flavor = "multi_thread")]
    async fn only_an_open_lane_is_dialed_and_its_end_ends_transfers() {
        let mut agent = Agent::start();
        let (_rsync, verdict) = agent.call(PUSH);
        assert_eq!(verdict.await, "lockstep rsh: refused: web1 is no target of webroot");
        assert!(agent.dialed.try_recv().is_err());

        let lane = agent.open(5, &Limiter::new(None));
        let (_rsync, verdict) = agent.call(Op::Verify);
        assert_eq!(verdict.await, "lockstep rsh: refused: web1: rsync can only push");
        let (rsync, verdict) = agent.call(PUSH);
        assert_eq!(agent.dialed.recv().await.unwrap().key_hash, KeyHash([5; 32]));
        let flooding = tokio::spawn(flood(rsync));
        drop(lane);
        assert_eq!(verdict.await, "lockstep rsh: refused: web1 is no target of webroot");
        flooding.await.unwrap();
    }

    /// Bytes and not speed are asserted: a slow machine moves too few in any time.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_limit_holds_for_a_transfer_under_way() {
        const SLOW: u64 = 256 << 10;
        let agent = Agent::start();
        let limit = Limiter::new(None);
        let lane = agent.open(1, &limit);
        let (rsync, _verdict) = agent.call(PUSH);
        tokio::spawn(flood(rsync));
        let slow = async || {
            limit.set(Some(SLOW));
            let (start, before) = (Instant::now(), lane.sent_bytes());
            tokio::time::sleep(Duration::from_secs(1)).await;
            let moved = lane.sent_bytes() - before;
            let allowed = SLOW * (start.elapsed().as_millis() as u64 + 200) / 1000 + (128 << 10);
            assert!(moved <= allowed, "{moved} > {allowed}");
        };
        slow().await;
        limit.set(None);
        // By the old rate it would take minutes.
        let fast = async {
            let before = lane.sent_bytes();
            while lane.sent_bytes() - before < 64 << 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), fast).await.unwrap();
        slow().await;
        let before = lane.sent_bytes();
        let goes_on = async {
            while lane.sent_bytes() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), goes_on).await.unwrap();
    }
}
