//! Copies bytes both ways between a process and a connection, half-close included, until the main
//! direction ends or nothing moves for too long, within a lane's limits. It never looks at the bytes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::lane::Meter;

/// Without a byte in either direction for so long a connection is given up; rsync itself gives up
/// after 60 s, so this only catches what it cannot see.
pub const IDLE_MAX: Duration = Duration::from_secs(150);
/// As `IDLE_MAX`, for pulls, whose timeout is the mirror's own and at most a day.
pub const PULL_IDLE_MAX: Duration = Duration::from_secs(86_400 + 600);
const CHUNK: usize = 64 << 10;

/// Ends when `main`'s reader has ended and all of it was written; `other` is served meanwhile, and
/// its writer is shut down when its reader ends. `other` then gets `linger` to end as well: closing
/// a connection with unread bytes in it would take the last messages back from the peer. A direction
/// that leaves the node has a meter.
pub async fn pump(
    main: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin, Option<&Meter>),
    other: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin, Option<&Meter>),
    idle_max: Duration,
    linger: Duration,
) -> io::Result<()> {
    let moved = AtomicU64::new(0);
    let idle = async {
        let mut before = u64::MAX;
        loop {
            let seen = moved.load(Ordering::Relaxed);
            if seen == before {
                return;
            }
            before = seen;
            tokio::time::sleep(idle_max).await;
        }
    };
    let served = serve(other.0, other.1, other.2, &moved);
    tokio::pin!(served);
    let mut is_served = false;
    let copied = copy(main.0, main.1, main.2, &moved);
    tokio::pin!(copied);
    tokio::pin!(idle);
    let done = loop {
        tokio::select! {
            done = &mut copied => break done,
            () = &mut idle => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moved for too long"));
            }
            () = &mut served, if !is_served => is_served = true,
        }
    };
    if !is_served && !linger.is_zero() {
        let _ = tokio::time::timeout(linger, served).await;
    }
    done
}

/// As `copy`, but reads on when its writer is gone: the peer's end shows in the main direction.
async fn serve(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    meter: Option<&Meter>,
    moved: &AtomicU64,
) {
    if copy(&mut from, to, meter, moved).await.is_err() {
        let _ = copy(from, tokio::io::sink(), None, moved).await;
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    meter: Option<&Meter>,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        let mut rest = &chunk[..n];
        while !rest.is_empty() {
            let size = match meter {
                Some(meter) => meter.pass(rest.len()).await,
                None => rest.len(),
            };
            let (piece, later) = rest.split_at(size);
            to.write_all(piece).await?;
            // TLS keeps what it was given until it is told to send it.
            to.flush().await?;
            moved.fetch_add(size as u64, Ordering::Relaxed);
            if let Some(meter) = meter {
                meter.count_sent(size);
            }
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn half_close_goes_through_and_the_main_direction_decides() {
        let (mut process, ours) = tokio::io::duplex(16);
        let (peers, mut peer) = tokio::io::duplex(16);
        let (ours_r, ours_w) = tokio::io::split(ours);
        let (peers_r, peers_w) = tokio::io::split(peers);
        let pumping = tokio::spawn(async move {
            pump((peers_r, ours_w, None), (ours_r, peers_w, None), IDLE_MAX, Duration::ZERO).await
        });
        process.write_all(b"question").await.unwrap();
        process.shutdown().await.unwrap();
        let mut question = Vec::new();
        peer.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        let answering = async {
            peer.write_all(&[b'x'; 1000]).await.unwrap();
            drop(peer);
        };
        let mut answer = Vec::new();
        let (read, ()) = tokio::join!(process.read_to_end(&mut answer), answering);
        assert_eq!((read.unwrap(), answer.len()), (1000, 1000));
        pumping.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn silence_ends_it() {
        let idle_max = Duration::from_millis(20);
        let (_process, ours) = tokio::io::duplex(16);
        let (peers, _peer) = tokio::io::duplex(16);
        let (ours_r, ours_w) = tokio::io::split(ours);
        let (peers_r, peers_w) = tokio::io::split(peers);
        let error =
            pump((peers_r, ours_w, None), (ours_r, peers_w, None), idle_max, Duration::ZERO)
                .await
                .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
