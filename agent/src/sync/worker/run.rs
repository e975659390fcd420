//! One run of rsync for a worker: through what, and counted.

use std::path::Path;
use std::sync::atomic::Ordering;

use lockstep_model::sync::Remote;
use lockstep_model::task;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::journal::RelPath;
use crate::rsync::exit::Exit;
use crate::rsync::{self, End, Form, Power, Route, Scope};
use crate::secrets;
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
        let Settings { agent, data_dir, secrets_dir, .. } = &engine.settings;
        let to = match &self.to.route {
            task::Route::Agent(peer) => {
                End::Agent { sync: &self.context.sync, node: &peer.node, agent, data_dir }
            }
            task::Route::Remote(remote) => {
                let limits = [self.to.limit.rate(), self.context.limit.rate(), engine.lanes.rate()];
                let rate = limits.into_iter().flatten().min();
                if let Err(why) = look_for_secrets(secrets_dir, remote).await {
                    return Some(Transfer::not_begun(Exit::Config, why));
                }
                End::Remote { remote, secrets: secrets_dir, rate }
            }
        };
        let mut terms = options.transfer.clone();
        terms.checksum |=
            self.by_content && form.scope == Scope::Pass && form.power != Power::Count;
        let route = Route {
            transfer: &terms,
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
            remote: match to {
                End::Agent { .. } => None,
                End::Remote { remote, secrets, .. } => Some((remote, secrets)),
            },
            input,
            progress: &follow,
        };
        let ended = run.complete(stop).await;
        let mut status = self.shared.status();
        status.progress = None;
        let ended = ended?;
        status.sent_bytes += ended.stats.sent_bytes;
        if is_pass {
            status.pass_found = ended.stats.brought + ended.stats.deleted;
        }
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

async fn look_for_secrets(dir: &Path, remote: &Remote) -> Result<(), String> {
    let (dir, remote) = (dir.to_owned(), remote.clone());
    let checked = tokio::task::spawn_blocking(move || secrets::check(&dir, &remote)).await;
    checked.unwrap_or_else(|error| Err(error.to_string()))
}
