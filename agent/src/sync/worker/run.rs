//! One run of rsync for a worker: through what, counted, within the node's limits.

use std::sync::atomic::Ordering;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::rsync::{self, Form, Route};
use crate::sync::transfer::{Run, Transfer};

impl Worker {
    pub(super) async fn transfer(
        &self,
        form: Form,
        input: Option<Vec<u8>>,
        progress: Option<&mpsc::Sender<String>>,
        stop: &CancellationToken,
    ) -> Option<Transfer> {
        let engine = &self.context.engine;
        let route = Route {
            source: &self.context.source,
            sync: &self.context.sync,
            node: &self.peer.node,
            agent: &engine.settings.agent,
            data_dir: &engine.settings.data_dir,
            excludes: &self.context.excludes_file,
        };
        // The source's own times alone are no change to tell of: a canary leaves them different.
        let matters = input.as_deref() != Some(&rsync::list([&[][..]])[..]);
        let run = Run {
            host: &engine.host,
            rsync: &engine.settings.rsync,
            args: rsync::argv(&route, form),
            input,
            progress,
        };
        let ended = run.complete(stop).await?;
        let mut status = self.shared.status();
        status.sent_bytes += ended.sent_bytes;
        // Also one that failed may have brought something.
        if matters {
            status.unmarked = true;
            self.context.brought.fetch_add(1, Ordering::Relaxed);
        }
        drop(status);
        Some(ended)
    }
}

/// None when stopped.
pub(super) async fn permit<'a>(
    of: &'a Semaphore,
    stop: &CancellationToken,
) -> Option<SemaphorePermit<'a>> {
    tokio::select! {
        () = stop.cancelled() => None,
        permit = of.acquire() => permit.ok(),
    }
}
