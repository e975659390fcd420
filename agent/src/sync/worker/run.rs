//! One run of rsync for a worker: through what, and counted.

use std::sync::atomic::Ordering;

use lockstep_model::task;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::journal::RelPath;
use crate::rsync::exit::Exit;
use crate::rsync::{self, End, Form, Power, Route, Scope};
use crate::sync::Settings;
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
        let Settings { agent, data_dir, bandwidth_limit, .. } = &engine.settings;
        let to = match &self.to.route {
            task::Route::Agent(peer) => {
                End::Agent { sync: &self.context.sync, node: &peer.node, agent, data_dir }
            }
            task::Route::Remote(remote) => {
                let limits = [self.to.limit.rate(), self.context.limit.rate(), *bandwidth_limit];
                End::Remote { remote, secrets: data_dir, rate: limits.into_iter().flatten().min() }
            }
        };
        let route = Route {
            transfer: &options.transfer,
            source: &self.context.source,
            excludes: &self.context.excludes_file,
            to,
        };
        // The source's own times alone are no change to tell of: a canary leaves them different.
        let matters = form.power != Power::Count
            && !(form.is_listed() && matches!(names, [only] if only.is_empty()));
        let input = form.is_listed().then(|| rsync::list(names.iter().map(|name| &**name)));
        let is_pass = form.scope == Scope::Pass && matters;
        self.shared.begin_run(is_pass, self.cursor.filled);
        let follow = |line: &str| {
            if let Some(to) = progress {
                let _ = to.try_send(line.to_owned());
            }
            self.shared.progress(line, self.context.trail.counts().map(|counts| counts.bytes));
        };
        let run = Run {
            host: &engine.host,
            rsync: &engine.settings.rsync,
            source: &self.context.source,
            args: rsync::argv(&route, form),
            input,
            progress: &follow,
        };
        let ended = run.complete(stop).await;
        let mut status = self.shared.status();
        status.progress = None;
        let ended = ended?;
        status.sent_bytes += ended.stats.sent_bytes;
        // Also one that failed may have brought something.
        if matters {
            status.unmarked = true;
            self.context.brought.fetch_add(1, Ordering::Relaxed);
        }
        status.doubtful |= matches!(ended.exit, Exit::Transient | Exit::Killed | Exit::Resource);
        drop(status);
        Some(ended)
    }
}
