//! A plaintext listener, HTTP/1.1 and HTTP/2 on one port, without client certificates. Anyone may
//! connect, so everything is bounded: connections, time without a request, time of a request, time
//! to drain. What is answered is the router's.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::Layer;

/// The most connections at once; one more closes the oldest, which is the one that never speaks or
/// a Watch, whose client comes back by itself.
pub const CONNECTIONS_MAX: usize = 512;
/// A connection without a request in progress is closed after this: a slow header, a silent peer,
/// an idle keep-alive.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// A request is answered within this.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// HTTP/2: a peer that is gone is noticed after at most the sum of both.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2: the most requests at once on one connection.
const STREAMS_MAX: u32 = 32;
/// HTTP/1: the most bytes of a request's head. HTTP/2: of its header list.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// How long requests in progress may take after the shutdown began.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// The pause after a refused accept, such as "too many open files".
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves on `listener` until `shutdown` is cancelled and requests in progress are done, at most two
/// seconds later. Dropped earlier, it closes every connection.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let router = router.layer(from_fn(answer_in_time));
    let mut connections: VecDeque<AbortOnDropHandle<()>> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a plain HTTP listener cannot accept; trying again");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if connections.len() >= CONNECTIONS_MAX {
            connections.retain(|connection| !connection.is_finished());
        }
        if connections.len() >= CONNECTIONS_MAX {
            connections.pop_front();
        }
        let connection = tokio::spawn(serve_connection(stream, router.clone(), shutdown.clone()));
        connections.push_back(AbortOnDropHandle::new(connection));
    }
    drop(listener);
    for connection in connections {
        // The only error is a panic in the connection's task, which the runtime has told already.
        let _ = connection.await;
    }
}

async fn serve_connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let requests = Requests::default();
    let service = TowerToHyperService::new(Extension(requests.clone()).layer(router));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // How a peer ends its connection is its own affair: nothing to tell.
        _ = connection.as_mut() => return,
        () = requests.quiet(QUIET_MAX) => {}
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(DRAIN_MAX, connection).await;
}

async fn answer_in_time(
    Extension(requests): Extension<Requests>,
    mut request: Request,
    next: Next,
) -> Response {
    let in_progress = requests.start();
    request.extensions_mut().insert(in_progress.clone());
    match timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

/// The number of requests in progress on one connection. hyper's own header timeout begins only
/// after it knows the HTTP version, so a peer that sends nothing would stay for ever; this counts
/// for any state.
#[derive(Clone, Default)]
struct Requests(Arc<watch::Sender<usize>>);

/// While one of these lives, its connection is not quiet; a Watch keeps one in its stream.
pub(crate) struct InProgress(Requests);

impl Requests {
    fn start(&self) -> InProgress {
        self.0.send_modify(|count| *count += 1);
        InProgress(self.clone())
    }

    /// Returns when no request was in progress for this long.
    async fn quiet(&self, period: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // The sender lives in self: neither wait can fail.
            let _ = count.wait_for(|count| *count == 0).await;
            if timeout(period, count.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Clone for InProgress {
    fn clone(&self) -> Self {
        self.0.start()
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
