//! One run of rsync for a worker: through what, counted, within the node's limits.

use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::journal::RelPath;
use crate::rsync::{self, Form, Power, Route};
use crate::sync::transfer::{Run, Transfer};

impl Worker {
    pub(super) async fn transfer(
        &self,
        form: Form,
        names: &[RelPath],
        progress: Option<&mpsc::Sender<String>>,
        stop: &CancellationToken,
    ) -> Option<Transfer> {
        let engine = &self.context.engine;
        let options = self.context.options();
        let route = Route {
            transfer: &options.transfer,
            source: &self.context.source,
            sync: &self.context.sync,
            node: &self.peer.node,
            agent: &engine.settings.agent,
            data_dir: &engine.settings.data_dir,
            excludes: &self.context.excludes_file,
        };
        // The source's own times alone are no change to tell of: a canary leaves them different.
        let matters = form.power != Power::Count
            && !(form.is_listed() && matches!(names, [only] if only.is_empty()));
        let input = form.is_listed().then(|| rsync::list(names.iter().map(|name| &**name)));
        let run = Run {
            host: &engine.host,
            rsync: &engine.settings.rsync,
            source: &self.context.source,
            args: rsync::argv(&route, form),
            input,
            progress,
        };
        let ended = run.complete(stop).await?;
        let mut status = self.shared.status();
        status.sent_bytes += ended.stats.sent_bytes;
        // Also one that failed may have brought something.
        if matters {
            status.unmarked = true;
            self.context.brought.fetch_add(1, Ordering::Relaxed);
        }
        drop(status);
        Some(ended)
    }

    /// A turn among the sync's transfers, then among the node's; None when stopped.
    pub(super) async fn permits<'a>(
        &self,
        of: &'a Semaphore,
        stop: &CancellationToken,
    ) -> Option<(OwnedSemaphorePermit, SemaphorePermit<'a>)> {
        let own = self.context.options().transfers.clone();
        tokio::select! {
            () = stop.cancelled() => None,
            permits = async { Some((own.acquire_owned().await.ok()?, of.acquire().await.ok()?)) } => permits,
        }
    }
}
