//! The open accepted connections: who is behind each, and the means to end all of one key at once.
//! It accepts none and decides nothing.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use lockstep_model::KeyHash;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::certificate::PeerCert;

/// Who is at the other end of an accepted connection. tonic puts it into each request's extensions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    pub addr: SocketAddr,
    /// None where the client showed no certificate: such a one may join, and nothing else.
    pub peer: Option<PeerCert>,
}

/// The table of open connections; clones are the same table.
#[derive(Clone, Default)]
pub struct Connections {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
}

struct Entry {
    key: Option<KeyHash>,
    closing: CancellationToken,
}

impl Connections {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Ends all connections of a key: their next read or write fails, and who waits is woken.
    /// Returns how many there were.
    pub fn close_key(&self, key: KeyHash) -> usize {
        self.close(|entry| entry.key == Some(key))
    }

    /// Ends all connections.
    pub fn close_all(&self) -> usize {
        self.close(|_| true)
    }

    fn close(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let table = self.lock();
        let closing = table.open.values().filter(|entry| which(entry));
        closing.map(|entry| entry.closing.cancel()).count()
    }

    /// None where `max` are open already.
    pub(crate) fn register(&self, peer: &PeerInfo, max: usize) -> Option<Registration> {
        let mut table = self.lock();
        if table.open.len() >= max {
            return None;
        }
        let id = table.next;
        table.next += 1;
        let key = peer.peer.as_ref().map(|cert| cert.key_hash);
        let closing = CancellationToken::new();
        table.open.insert(id, Entry { key, closing: closing.clone() });
        Some(Registration { table: self.clone(), id, closing })
    }

    /// The table is whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the table, given back on drop.
pub(crate) struct Registration {
    table: Connections,
    id: u64,
    closing: CancellationToken,
}

impl Registration {
    /// Cancelled when the connection is to end, and when it has ended.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.table.lock().open.remove(&self.id);
        self.closing.cancel();
    }
}

/// An accepted connection after its handshake.
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    // One waiter for each direction: a reader and a writer may be different tasks, and a waiter
    // wakes only the task that polled it last.
    read_closed: Pin<Box<WaitForCancellationFutureOwned>>,
    write_closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _registration: Registration,
}

impl TlsIo {
    pub(crate) fn new(
        stream: TlsStream<TcpStream>,
        peer: PeerInfo,
        registration: Registration,
    ) -> Self {
        let closed = || Box::pin(registration.closing().clone().cancelled_owned());
        let (read_closed, write_closed) = (closed(), closed());
        Self { stream, peer, read_closed, write_closed, _registration: registration }
    }

    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl Connected for TlsIo {
    type ConnectInfo = PeerInfo;
    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "closed by this side: the peer lost its right")
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.write_closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
