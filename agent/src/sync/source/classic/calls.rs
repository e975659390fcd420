//! The calls of one target's lsyncd: taken from its socket, handed on, and answered when somebody
//! knows what became of them. It decides nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::classic::{DELIVERED, PARTIAL};
use crate::data::call;
use crate::journal::Change;
use crate::journal::entry::{BODY_MAX, HEADER_LEN, Step, decode};

/// Calls of one lsyncd at once: it makes one, and those whose caller was killed may still wait.
pub const CALLS_MAX: usize = 16;
/// For a call to be read; it is written at once.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Call {
    pub change: Change,
    /// Whether all of it is on the target; dropped, lsyncd tells it again.
    pub answer: oneshot::Sender<bool>,
}

/// Takes calls until it is dropped. `changed` is told of each.
pub async fn take(listener: UnixListener, calls: mpsc::Sender<Call>, changed: Arc<Notify>) {
    let serve = |stream| {
        let (calls, changed) = (calls.clone(), changed.clone());
        async move {
            // A caller that is gone was killed, and what it told is being delivered.
            if let Err(error) = serve(stream, &calls, &changed).await {
                tracing::debug!(%error, "a call of lsyncd was cut short");
            }
        }
    };
    call::take(listener, "lsyncd", CALLS_MAX, serve).await;
}

async fn serve(
    mut stream: UnixStream,
    calls: &mpsc::Sender<Call>,
    changed: &Notify,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut whole = (&mut stream).take((HEADER_LEN + BODY_MAX) as u64);
    let read = whole.read_to_end(&mut bytes);
    tokio::time::timeout(READ_TIMEOUT, read).await.map_err(io::Error::other)??;
    let Step::Entry { entry, .. } = decode(&bytes, 0) else {
        return Err(io::Error::other("it is none"));
    };
    drop(bytes);
    let (answer, answered) = oneshot::channel();
    if calls.send(Call { change: entry.change, answer }).await.is_err() {
        return Ok(());
    }
    changed.notify_one();
    match answered.await {
        Ok(true) => stream.write_u8(DELIVERED).await,
        Ok(false) => stream.write_u8(PARTIAL).await,
        Err(_) => Ok(()),
    }
}
