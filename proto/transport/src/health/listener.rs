//! The plaintext listener for health, HTTP/1.1 and HTTP/2 on one port, without client certificates. Anyone may
//! connect, so everything is bounded: connections, time without a request, time of a request, time to drain.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use futures_util::FutureExt;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tower::util::MapRequestLayer;
use tower::{Layer, Service};

use super::{HealthBoard, HealthService, http as plain};

/// The most connections at once; one more closes the oldest, which is the one that never speaks or a Watch, whose
/// client comes back by itself.
pub const CONNECTIONS_MAX: usize = 512;
/// A connection without a request in progress is closed after this: a slow header, a silent peer, an idle keep-alive.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// A request is answered within this.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// HTTP/2: a peer that is gone is noticed after at most the sum of both.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2: the most requests at once on one connection.
const STREAMS_MAX: u32 = 32;
/// HTTP/1: the most bytes of a request's head. HTTP/2: of its header list.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long requests in progress may take after the shutdown began.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// The pause after a refused accept, such as "too many open files".
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
