//! Measures a comparison: `drift ENTRIES` makes two equal trees, compares them, changes ten files,
//! compares again, and tells times and bytes on the wire. It is no part of the product.

#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use lockstep_agent::verify::{Compare, Findings, Keep, Side, compare, serve};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Counts what goes through.
struct Counted(DuplexStream, Arc<[AtomicU64; 2]>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1[0].fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.0).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = polled {
            self.1[1].fetch_add(len as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn side(root: &Path) -> Side {
    Side { root: root.to_owned(), keep: Keep::ARCHIVE, rules: 0, excluded: Arc::new(|_, _| false) }
}

async fn measure(what: &str, source: &Path, target: &Path) -> anyhow::Result<Findings> {
    let (here, there) = tokio::io::duplex(64 << 10);
    let bytes: Arc<[AtomicU64; 2]> = Arc::default();
    let own = side(source);
    let asked = Compare {
        side: &own,
        key: [1; 32],
        extras: true,
        content: None,
        most: 1000,
        paths: None,
        settle: &|| Box::pin(async { Ok(()) }),
        progress: &|_| {},
    };
    let started = Instant::now();
    let theirs = side(target);
    let served = tokio::spawn(async move { serve(there, &theirs).await });
    let found = compare(Counted(here, bytes.clone()), &asked).await?;
    served.await??;
    let took = started.elapsed();
    let [received, sent] = [0, 1].map(|at| bytes[at].load(Ordering::Relaxed));
    println!("{what}: {took:?}, sent {sent} B, received {received} B; {found}");
    Ok(found)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let entries: usize = std::env::args().nth(1).unwrap_or("100000".to_owned()).parse()?;
    let dir = tempfile::tempdir()?;
    let roots = ["source", "target"].map(|name| dir.path().join(name));
    let path = |at: usize| format!("d{}/e{}/file{at}", at % 97, at / 97 % 41);
    for root in &roots {
        for at in 0..entries {
            let path = root.join(path(at));
            if at < 97 * 41 {
                std::fs::create_dir_all(path.with_file_name(""))?;
            }
            std::fs::write(&path, "some content")?;
        }
    }
    // Only what was written first and last would differ in time.
    let status = std::process::Command::new("rsync")
        .args(["-a", "--modify-window=-1"])
        .arg(format!("{}/", roots[0].display()))
        .arg(&roots[1])
        .status()?;
    anyhow::ensure!(status.success());
    let [source, target] = &roots;
    measure("first", source, target).await?;
    measure("equal", source, target).await?;
    for at in 0..10 {
        std::fs::write(target.join(path(at * entries / 10)), "other, longer content")?;
    }
    let found = measure("ten files differ", source, target).await?;
    anyhow::ensure!(found.list.len() == 10, "{found:?}");
    Ok(())
}
