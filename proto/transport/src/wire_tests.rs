//! Accepting and dialing against each other over real TCP on loopback.

mod crowd;
mod lifetime;
mod refusals;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockstep_model::identity::Subject;
use lockstep_model::{HostPort, NodeName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;
use tracing_subscriber::fmt::MakeWriter;

use crate::accept::{Gate, Limits, accept};
use crate::connections::{Connections, PeerInfo};
use crate::dial::{DataStream, DialError, connect, dial_data, explain_read};
use crate::identity::IdentityHandle;
use crate::tls::{Alpn, Caller};
use crate::verify::{ClientPolicy, Expect, Pin};

/// Longer than anything here takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn gate(identity: &IdentityHandle, alpn: Alpn) -> Gate {
    Gate {
        identity: identity.clone(),
        policy: ClientPolicy::members(),
        alpn,
        limits: Limits::default(),
        connections: Connections::default(),
    }
}

fn anonymous_too() -> ClientPolicy {
    ClientPolicy { anonymous: true, ..ClientPolicy::members() }
}

/// A port with a gate before it; closed on drop.
struct Port {
    address: HostPort,
    connections: Connections,
    peers: Arc<Mutex<Vec<PeerInfo>>>,
    task: AbortHandle,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Port {
    /// Answers each line with the same line.
    async fn echo(gate: Gate) -> Self {
        let (listener, address) = listen().await;
        let (connections, peers) = (gate.connections.clone(), Arc::default());
        let seen = Arc::clone(&peers);
        let mut incoming = accept(listener, gate);
        let task = tokio::spawn(async move {
            while let Some(mut io) = incoming.next().await {
                push(&seen, io.peer().clone());
                tokio::spawn(async move {
                    let mut buf = [0; 64];
                    while let Ok(n @ 1..) = io.read(&mut buf).await {
                        if io.write_all(&buf[..n]).await.is_err() || io.flush().await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, connections, peers, task: task.abort_handle() }
    }

    /// Serves gRPC health.
    async fn grpc(gate: Gate) -> Self {
        let (listener, address) = listen().await;
        let (connections, peers) = (gate.connections.clone(), Arc::default());
        let seen = Arc::clone(&peers);
        let incoming = accept(listener, gate);
        let (_, health) = health_reporter();
        let note_peer = move |request: tonic::Request<()>| {
            push(&seen, request.extensions().get::<PeerInfo>().unwrap().clone());
            Ok(request)
        };
        let health = tonic::service::interceptor::InterceptedService::new(health, note_peer);
        let serving = Server::builder().add_service(health).serve_with_incoming(incoming);
        let task = tokio::spawn(serving);
        Self { address, connections, peers, task: task.abort_handle() }
    }

    fn socket(&self) -> SocketAddr {
        self.address.to_string().parse().unwrap()
    }

    /// Dials, says hello, hears it back.
    async fn greet(&self, caller: &Caller) -> Result<DataStream, DialError> {
        let (mut stream, _) = dial_data(std::slice::from_ref(&self.address), caller).await?;
        say(&mut stream).await.map_err(|e| explain_read(&self.address, &e))?;
        Ok(stream)
    }

    /// One health check over gRPC.
    async fn check(&self, caller: &Caller) -> Result<(), DialError> {
        let channel = connect(std::slice::from_ref(&self.address), caller).await?;
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        Ok(())
    }

    fn peers(&self) -> Vec<PeerInfo> {
        self.peers.lock().unwrap().clone()
    }
}

fn push(peers: &Mutex<Vec<PeerInfo>>, peer: PeerInfo) {
    peers.lock().unwrap().push(peer);
}

async fn listen() -> (TcpListener, HostPort) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, address)
}

async fn say(stream: &mut DataStream) -> std::io::Result<()> {
    stream.write_all(b"hello").await?;
    stream.flush().await?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"hello");
    Ok(())
}

fn member(identity: &IdentityHandle, expect: Expect) -> Caller {
    Caller::Member { identity: identity.clone(), expect }
}

fn node_name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn node(name: &str) -> Subject {
    Subject::Node(node_name(name))
}

fn expect_node(name: &str) -> Expect {
    Expect::Node { name: node_name(name), pin: None }
}

fn expect_pinned(name: &str, identity: &IdentityHandle, accept_expired: bool) -> Expect {
    let pin = Pin { key_hash: identity.current().key_hash, accept_expired };
    Expect::Node { name: node_name(name), pin: Some(pin) }
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("still not so: {what}"));
}

/// What was logged on this thread since `Log::start`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false);
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).unwrap()
    }

    async fn has(&self, text: &str) {
        let what = format!("the log says {text:?}");
        until(&what, || self.text().contains(text)).await;
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
