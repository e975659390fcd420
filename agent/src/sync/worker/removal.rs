//! Runs that may remove: counted first, weighed against the limit, bounded by what was counted. There
//! is no other way to a run with such power.

use std::path::{Path, PathBuf};

use lockstep_model::task::{Outcome, OutcomeKind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::relay::Allowed;
use crate::deliver::held;
use crate::guard::By;
use crate::journal::RelPath;
use crate::rsync::exit::Exit;
use crate::rsync::{Form, Power, Scope};
use crate::sync::look::examine;
use crate::sync::transfer::Transfer;

/// Beside the cursor; `@` is in no node's name.
pub fn removals_file(cursor_file: &Path) -> PathBuf {
    let mut name = cursor_file.as_os_str().to_owned();
    name.push("@removals");
    name.into()
}

/// How a run ended that may remove.
pub(super) enum Removed {
    Ran(Transfer),
    /// Nothing was removed.
    Held,
    /// The source does not look sound any more; nothing was removed.
    Lost(String),
}

impl Worker {
    /// None when stopped. `names` go to standard input; none for a pass.
    pub(super) async fn remove(
        &mut self,
        scope: Scope,
        delete: bool,
        names: &[RelPath],
        progress: Option<&mpsc::Sender<String>>,
        stop: &CancellationToken,
    ) -> Option<Removed> {
        let form = |power| Form { scope, delete, power };
        let limit = self.context.options().limit;
        if limit.is_none() {
            return Some(match self.lost(delete).await {
                Some(why) => Removed::Lost(why),
                None => {
                    let power = form(Power::Most(None));
                    Removed::Ran(self.transfer(power, names, progress, stop).await?)
                }
            });
        }
        let by = if scope == Scope::Pass { By::Pass } else { By::Batch };
        let counted = self.transfer(form(Power::Count), names, None, stop).await?;
        let readable = matches!(counted.exit, Exit::Ok | Exit::Vanished);
        if scope == Scope::Pass {
            self.shared.status().to_bring = Some(counted.stats.brought_bytes);
        }
        // Of a source that cannot be read in full nobody knows what it does not have.
        let entries = if readable { counted.stats.deleted } else { 0 };
        if !readable && counted.exit != Exit::Partial {
            return Some(Removed::Ran(counted));
        }
        if readable && scope == Scope::Pass {
            self.removals.note_total(counted.stats.before());
        }
        let asked = self.removals.ask(by, entries, limit.as_ref(), (self.context.engine.now)());
        if asked.is_err() {
            self.save_removals().await;
            return Some(Removed::Held);
        }
        if entries == 0 {
            let ended = self.transfer(form(Power::Nothing), names, progress, stop).await?;
            // What is gone was not counted and so is there still: all of it is tried again.
            let came = matches!(ended.exit, Exit::Ok | Exit::Partial | Exit::Vanished);
            if !readable && came && !names.is_empty() {
                let (failed, error) = (Some(names.to_vec()), counted.error);
                let ended = Transfer { exit: Exit::Partial, failed, error, ..ended };
                return Some(Removed::Ran(ended));
            }
            if readable && delete && scope == Scope::Pass && ended.exit == Exit::Ok {
                self.removals.note_trimmed();
                self.save_removals().await;
            }
            return Some(Removed::Ran(ended));
        }
        if let Some(why) = self.lost(delete).await {
            return Some(Removed::Lost(why));
        }
        self.removals.begin(by, entries);
        if !self.save_removals().await {
            let why = "cannot record what is to be removed: nothing is".to_owned();
            return Some(Removed::Lost(why));
        }
        let ended = self.transfer(form(Power::Most(Some(entries))), names, progress, stop).await?;
        if matches!(ended.exit, Exit::Ok | Exit::Partial | Exit::Vanished) {
            let now = (self.context.engine.now)();
            self.removals.finish(by, ended.stats.deleted, limit.as_ref(), now);
            if delete && scope == Scope::Pass && ended.exit == Exit::Ok {
                self.removals.note_trimmed();
            }
            self.save_removals().await;
        }
        Some(Removed::Ran(ended))
    }

    /// After a fill: how many entries there are, and whether any is somebody else's. Where none is,
    /// the stricter limit for a target that may have been mistyped ends.
    pub(super) async fn count_others(&mut self, stop: &CancellationToken) {
        let options = self.context.options();
        if options.limit.is_none() || !options.delete.in_full_pass() {
            return;
        }
        let form = Form { scope: Scope::Pass, delete: true, power: Power::Count };
        let Some(counted) = self.transfer(form, &[], None, stop).await else { return };
        if counted.exit != Exit::Ok {
            return;
        }
        self.removals.note_total(counted.stats.before());
        if counted.stats.deleted == 0 {
            self.removals.note_trimmed();
        }
        self.save_removals().await;
    }

    /// Why nothing may be removed; the source may have changed while it was counted.
    async fn lost(&self, delete: bool) -> Option<String> {
        held(&examine(&self.context, true).await, delete)
    }

    /// A person lets go what is held.
    pub(super) async fn release(&mut self) -> Outcome {
        let at = (self.context.engine.now)();
        let Some(entries) = self.removals.release(at) else {
            let why = format!("no removals are held for {}", self.to.node);
            return Outcome::new(OutcomeKind::Failed, why);
        };
        self.allowed = Some(Allowed { entries, at });
        self.save_removals().await;
        self.lates.reset();
        self.passes.reset();
        self.batches.reset();
        tracing::info!(target: "audit", sync = %self.context.sync, node = %self.to.node, entries, "released removals");
        Outcome::new(OutcomeKind::Ok, format!("{entries} entries on {} may go now", self.to.node))
    }

    pub(super) async fn save_removals(&self) -> bool {
        let (removals, file) = (self.removals.clone(), removals_file(&self.cursor_file));
        let saved = tokio::task::spawn_blocking(move || removals.save(&file)).await;
        let saved = saved.map_err(std::io::Error::other).and_then(|saved| saved);
        if let Err(error) = &saved {
            tracing::error!(sync = %self.context.sync, target = %self.to.node, %error, "cannot record removals");
        }
        saved.is_ok()
    }
}
