//! Outgoing connections: tries a list of addresses in order, each with a bound, and says in words
//! for people why none would do. It does not retry: that is the caller's, with his own patience.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use lockstep_model::HostPort;
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::certificate::PeerCert;
use crate::socket;
use crate::tls::{Alpn, Caller, client_config};
use crate::verify::{Expect, VerifyError};

/// Most resolved addresses of one name that are tried.
const RESOLVED_MAX: usize = 4;
/// For finding a name's addresses, and then for each of them: the TCP connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// For the TLS handshake and the peer's first word.
const GREET_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a peer could not be had. `address` is as the caller wrote it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    #[error("no address is known to dial")]
    NoAddress,
    #[error("cannot find {address}: {why}; is the name spelled right?")]
    Resolve { address: HostPort, why: String },
    #[error("cannot reach {address}: {why}; is the {peer} running there?")]
    Unreachable { address: HostPort, peer: &'static str, why: String },
    #[error("{address} answers, but does not speak TLS; is it the right port?")]
    NotTls { address: HostPort },
    #[error("{address} is not to be trusted: {why}")]
    Untrusted { address: HostPort, why: VerifyError },
    #[error("refused by {address}: {why}")]
    Refused { address: HostPort, why: String },
    #[error("TLS with {address} failed: {why}")]
    Tls { address: HostPort, why: String },
    #[error("none of {} addresses will do: {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<DialError>),
}

impl DialError {
    /// Nobody was there: waiting may help. Otherwise somebody was, and either side said no.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Unreachable { .. } => true,
            Self::All(errors) => errors.iter().all(Self::is_unreachable),
            _ => false,
        }
    }
}

/// A TLS stream to another agent's data port.
pub type DataStream = TlsStream<TcpStream>;

/// A gRPC channel. The first connection is made now; later ones, after a loss, when a request needs
/// them, each with the identity that is current then.
pub async fn connect(addresses: &[HostPort], caller: &Caller) -> Result<Channel, DialError> {
    let connector = Connector { addresses: addresses.to_vec(), caller: caller.clone() };
    // The name goes nowhere but into `:authority`: our connector knows the addresses.
    Endpoint::from_static("http://lockstep")
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|e| dial_error_in(&e).unwrap_or_else(|| all(addresses, &e)))
}

/// The dial error inside of what tonic returns, from `connect` or from a call on its channel.
pub fn dial_error_in(error: &(dyn std::error::Error + 'static)) -> Option<DialError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<DialError>() {
            return Some(found.clone());
        }
        next = error.source();
    }
    None
}

fn all(addresses: &[HostPort], error: &dyn std::error::Error) -> DialError {
    match addresses.first() {
        Some(address) => DialError::Tls { address: address.clone(), why: error.to_string() },
        None => DialError::NoAddress,
    }
}

/// A stream to the data port of the first address that will do, and who is there. The peer checks
/// our certificate after we are done: its refusal is the first read's error, which
/// [`explain_read`] puts in words.
pub async fn dial_data(
    addresses: &[HostPort],
    caller: &Caller,
) -> Result<(DataStream, PeerCert), DialError> {
    dial(addresses, caller, Alpn::Data).await
}

/// Words for the error of reading from a peer that was dialed.
pub fn explain_read(address: &HostPort, error: &io::Error) -> DialError {
    let address = address.clone();
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(alert)) => {
            DialError::Refused { address, why: alert_text(*alert) }
        }
        Some(rustls::Error::InvalidMessage(_)) => DialError::NotTls { address },
        Some(other) => DialError::Tls { address, why: other.to_string() },
        None => DialError::Tls { address, why: format!("connection lost: {error}") },
    }
}

async fn dial(
    addresses: &[HostPort],
    caller: &Caller,
    alpn: Alpn,
) -> Result<(TlsStream<TcpStream>, PeerCert), DialError> {
    let mut errors = Vec::new();
    for address in addresses {
        match dial_one(address, caller, alpn).await {
            Ok(found) => return Ok(found),
            Err(error) => errors.push(error),
        }
    }
    match errors.pop() {
        None => Err(DialError::NoAddress),
        Some(only) if errors.is_empty() => Err(only),
        Some(last) => {
            errors.push(last);
            Err(DialError::All(errors))
        }
    }
}

async fn dial_one(
    address: &HostPort,
    caller: &Caller,
    alpn: Alpn,
) -> Result<(TlsStream<TcpStream>, PeerCert), DialError> {
    let tcp = reach(address, caller).await?;
    let failed = |why: String| DialError::Tls { address: address.clone(), why };
    socket::tune(&tcp, alpn).map_err(|e| failed(e.to_string()))?;
    timeout(GREET_TIMEOUT, greet(address, caller, alpn, tcp))
        .await
        .unwrap_or_else(|_| Err(failed("no answer in time".to_owned())))
}

async fn reach(address: &HostPort, caller: &Caller) -> Result<TcpStream, DialError> {
    let resolve = |why: String| DialError::Resolve { address: address.clone(), why };
    let lookup = tokio::net::lookup_host((address.host(), address.port));
    let found = timeout(REACH_TIMEOUT, lookup)
        .await
        .map_err(|_| resolve("the name service does not answer".to_owned()))?
        .map_err(|e| resolve(e.to_string()))?;
    let mut last = None;
    for at in found.take(RESOLVED_MAX) {
        match timeout(REACH_TIMEOUT, TcpStream::connect(at)).await {
            Ok(Ok(stream)) if is_self_connect(&stream, at) => {
                last = Some("connection refused".to_owned())
            }
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = Some(os_text(&e)),
            Err(_) => last = Some("no answer in time".to_owned()),
        }
    }
    let why = last.ok_or_else(|| resolve("the name has no address".to_owned()))?;
    let peer = match caller {
        Caller::Member { expect: Expect::Node { .. }, .. } => "agent",
        _ => "controller",
    };
    Err(DialError::Unreachable { address: address.clone(), peer, why })
}

/// Linux connects a socket to itself when it dials a free local port that it also drew as its own.
fn is_self_connect(stream: &TcpStream, at: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|ours| ours == at)
}

/// `connection refused`, without `(os error 111)`.
fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

async fn greet(
    address: &HostPort,
    caller: &Caller,
    alpn: Alpn,
    tcp: TcpStream,
) -> Result<(TlsStream<TcpStream>, PeerCert), DialError> {
    let failed = |why: String| DialError::Tls { address: address.clone(), why };
    let (config, outcome) = client_config(caller, alpn).map_err(|e| failed(e.to_string()))?;
    let name = ServerName::try_from("lockstep").map_err(|e| failed(e.to_string()))?;
    let shaken = TlsConnector::from(config).connect(name, tcp).await;
    if let Some(Err(refusal)) = outcome.get() {
        let why = refusal.why.clone();
        return Err(DialError::Untrusted { address: address.clone(), why });
    }
    let mut stream = shaken.map_err(|e| explain_read(address, &e))?;
    if stream.get_ref().1.alpn_protocol() != Some(alpn.as_bytes()) {
        return Err(failed("it speaks another protocol; is it the right port?".to_owned()));
    }
    if alpn == Alpn::Grpc {
        // In TLS 1.3 a client is done before the server has looked at its certificate. The server's
        // HTTP/2 settings come at once after that, so waiting for them turns a refusal into an
        // error of this call instead of the first request's.
        match stream.fill_buf().await {
            Ok([]) => return Err(failed("the peer closed the connection".to_owned())),
            Ok(_) => {}
            Err(e) => return Err(explain_read(address, &e)),
        }
    }
    match outcome.get() {
        Some(Ok(peer)) => Ok((stream, peer.clone())),
        _ => Err(failed("the peer showed no certificate".to_owned())),
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn alert_text(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let known = match alert {
        A::CertificateExpired => "our certificate is expired or not yet valid on its clock",
        A::UnknownCA => "our certificate is of another fleet, or its root is no longer trusted",
        A::AccessDenied => "we are not whom it lets in",
        A::CertificateRequired => "it asks for a certificate, and we have none; join first",
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => {
            "it cannot use our certificate"
        }
        A::NoApplicationProtocol => "it speaks another protocol; is it the right port?",
        A::ProtocolVersion => "it does not speak TLS 1.3",
        _ => return format!("TLS alert {alert:?}"),
    };
    known.to_owned()
}

/// What tonic calls for each new connection of a channel.
#[derive(Clone)]
struct Connector {
    addresses: Vec<HostPort>,
    caller: Caller,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { addresses, caller } = self.clone();
        Box::pin(async move {
            let (stream, _) = dial(&addresses, &caller, Alpn::Grpc).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
