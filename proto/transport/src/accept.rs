//! The accept loop of every TLS port: bounds what strangers may take, shakes hands with the identity
//! that is current, logs each refusal with who and why, and hands on connections whose peer is
//! known. What a peer may do is decided elsewhere.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::connections::{Connections, PeerInfo, TlsIo};
use crate::identity::IdentityHandle;
use crate::socket;
use crate::tls::{Alpn, server_config};
use crate::verify::ClientPolicy;

/// Most open connections of one port.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Most unfinished handshakes of one port; half of them from one address.
pub const HANDSHAKES_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client without a certificate may stay: joining takes a second.
const ANONYMOUS_LIFE: Duration = Duration::from_secs(60);
/// Shaken connections that wait to be taken.
const ACCEPTED_MAX: usize = 64;
/// Messages about overload come at most this often.
const QUIET: Duration = Duration::from_secs(1);
/// After a failed accept(2), which is almost always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all peers together may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub connections: usize,
    pub handshakes: usize,
    pub handshake_timeout: Duration,
    pub anonymous_life: Duration,
}

impl Limits {
    /// At most three quarters of a process's file descriptors, an eighth for handshakes among them,
    /// so that files and outgoing connections find room.
    pub fn within(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self {
            connections: CONNECTIONS_MAX.min(descriptors / 8 * 5).max(1),
            handshakes: HANDSHAKES_MAX.min(descriptors / 8).max(2),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            anonymous_life: ANONYMOUS_LIFE,
        }
    }
}

impl Default for Limits {
    /// What fits this process.
    fn default() -> Self {
        Self::within(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }
}

/// How one port is kept.
#[derive(Clone)]
pub struct Gate {
    pub identity: IdentityHandle,
    pub policy: ClientPolicy,
    pub alpn: Alpn,
    pub limits: Limits,
    pub connections: Connections,
}

/// Accepted connections as they come: what tonic's `serve_with_incoming` takes. Dropping it closes
/// the port and all unfinished handshakes.
pub struct Incoming(mpsc::Receiver<TlsIo>);

impl Incoming {
    pub async fn next(&mut self) -> Option<TlsIo> {
        self.0.recv().await
    }
}

impl Stream for Incoming {
    type Item = io::Result<TlsIo>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// Starts accepting, on a task of its own.
pub fn accept(listener: TcpListener, gate: Gate) -> Incoming {
    let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
    tokio::spawn(run(listener, gate, accepted));
    Incoming(incoming)
}

async fn run(listener: TcpListener, gate: Gate, accepted: mpsc::Sender<TlsIo>) {
    let mut tasks = JoinSet::new();
    let mut waiting = Waiting::new(gate.limits.handshakes);
    let mut crowded = Quiet::default();
    loop {
        tokio::select! {
            () = accepted.closed() => return,
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|e| e.id(), |(id, ())| id);
                waiting.remove(id);
            }
            next = listener.accept() => match next {
                Err(e) => {
                    crowded.say(|n| {
                        tracing::error!(target: "audit", error = %e, times = n, "cannot accept a connection");
                    });
                    // The oldest handshake gives its descriptor back.
                    waiting.drop_oldest();
                    sleep(ACCEPT_PAUSE).await;
                }
                Ok((tcp, addr)) if gate.connections.count() >= gate.limits.connections => {
                    drop(tcp);
                    let max = gate.limits.connections;
                    crowded.say(|n| {
                        tracing::warn!(target: "audit", from = %addr, max, times = n, "refused a connection: as many as allowed are open");
                    });
                }
                Ok((tcp, addr)) => {
                    if let Some(victim) = waiting.make_room(addr.ip()) {
                        crowded.say(|n| {
                            tracing::warn!(target: "audit", from = %victim, times = n, "refused a connection: too many handshakes, and this one was the oldest");
                        });
                    }
                    let task = tasks.spawn(greet(tcp, addr, gate.clone(), accepted.clone()));
                    waiting.add(addr.ip(), task);
                }
            }
        }
    }
}

/// One connection from its first byte until somebody has taken it.
async fn greet(tcp: TcpStream, addr: SocketAddr, gate: Gate, accepted: mpsc::Sender<TlsIo>) {
    let shaken = timeout(gate.limits.handshake_timeout, shake(tcp, addr, &gate));
    let late = |_| Err(Refused::unknown("did not finish the TLS handshake in time"));
    match shaken.await.unwrap_or_else(late) {
        Ok(Some(io)) => {
            let _ = accepted.send(io).await; // nobody takes it: the port is closing
        }
        Ok(None) => {}
        Err(Refused { who, why }) => {
            tracing::warn!(target: "audit", from = %addr, who, why, "refused a connection");
        }
    }
}

struct Refused {
    who: String,
    why: String,
}

impl Refused {
    fn unknown(why: impl Into<String>) -> Self {
        Self { who: "unknown".to_owned(), why: why.into() }
    }
}

/// None where the client left without having said anything: a port check, not a refusal.
async fn shake(tcp: TcpStream, addr: SocketAddr, gate: &Gate) -> Result<Option<TlsIo>, Refused> {
    const TLS_HANDSHAKE_RECORD: u8 = 0x16;
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(1..) if first == [TLS_HANDSHAKE_RECORD] => {}
        Ok(1..) => return Err(Refused::unknown("speaks plaintext on the TLS port")),
        Ok(0) | Err(_) => return Ok(None),
    }
    socket::tune(&tcp, gate.alpn).map_err(|e| Refused::unknown(e.to_string()))?;
    let (config, outcome) = server_config(gate.identity.current(), gate.policy.clone(), gate.alpn)
        .map_err(|e| Refused::unknown(e.to_string()))?;
    let shaken = TlsAcceptor::from(config).accept(tcp).await;
    let who = || match outcome.get() {
        Some(Ok(peer)) => peer.spiffe.to_string(),
        Some(Err(refusal)) => {
            let claimed = refusal.claimed.as_ref().map(|id| format!("claims to be {id}"));
            claimed.unwrap_or_else(|| "unreadable".to_owned())
        }
        None => "no certificate".to_owned(),
    };
    let stream = shaken.map_err(|e| {
        let why = match outcome.get() {
            Some(Err(refusal)) => refusal.why.to_string(),
            _ => format!("TLS handshake failed: {e}"),
        };
        Refused { who: who(), why }
    })?;
    if stream.get_ref().1.alpn_protocol() != Some(gate.alpn.as_bytes()) {
        return Err(Refused { who: who(), why: "asks for no protocol that is spoken here".into() });
    }
    let peer = outcome.get().and_then(|found| found.as_ref().ok()).cloned();
    let info = PeerInfo { addr, peer };
    let Some(registration) = gate.connections.register(&info, gate.limits.connections) else {
        return Err(Refused { who: who(), why: "as many connections as allowed are open".into() });
    };
    if info.peer.is_none() {
        let (closing, life) = (registration.closing().clone(), gate.limits.anonymous_life);
        tokio::spawn(async move {
            if timeout(life, closing.cancelled()).await.is_err() {
                closing.cancel();
            }
        });
    }
    Ok(Some(TlsIo::new(stream, info, registration)))
}

/// The unfinished handshakes, oldest first. When there is no room, the oldest goes: who is slow by
/// intent gives way to who comes now.
struct Waiting {
    max: usize,
    queue: VecDeque<(IpAddr, AbortHandle)>,
}

impl Waiting {
    fn new(max: usize) -> Self {
        Self { max, queue: VecDeque::new() }
    }

    /// Makes room for one more from `ip`; the address that had to give way, if any.
    fn make_room(&mut self, ip: IpAddr) -> Option<IpAddr> {
        let source = source_of(ip);
        let same = self.queue.iter().filter(|(other, _)| *other == source).count();
        let at = if same >= self.max / 2 {
            self.queue.iter().position(|(other, _)| *other == source)
        } else if self.queue.len() >= self.max {
            Some(0)
        } else {
            None
        };
        let (victim, task) = self.queue.remove(at?)?;
        task.abort();
        Some(victim)
    }

    fn drop_oldest(&mut self) {
        if let Some((_, task)) = self.queue.pop_front() {
            task.abort();
        }
    }

    fn add(&mut self, ip: IpAddr, task: AbortHandle) {
        self.queue.push_back((source_of(ip), task));
    }

    fn remove(&mut self, id: Id) {
        self.queue.retain(|(_, task)| task.id() != id);
    }
}

/// Who counts as one source: an IPv4 address, or an IPv6 /64, of which anyone has all addresses.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            const HOST_BITS: u32 = 64;
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> HOST_BITS << HOST_BITS))
        }
        v4 => v4,
    }
}

/// Lets a message through once in a while, with how often it would have been said since.
#[derive(Default)]
struct Quiet {
    said_at: Option<Instant>,
    times: u64,
}

impl Quiet {
    fn say(&mut self, message: impl FnOnce(u64)) {
        self.times += 1;
        if self.said_at.is_none_or(|at| at.elapsed() >= QUIET) {
            message(std::mem::take(&mut self.times));
            self.said_at = Some(Instant::now());
        }
    }
}
