//! Batches: the paths that the journal named since the last delivery, in as many runs of rsync as
//! they need. What a batch did not bring over waits apart or is put back.

use lockstep_model::sync::DeliveryState;
use tokio_util::sync::CancellationToken;

use super::removal::Removed;
use super::{Done, Worker};
use crate::cursor::Cursor;
use crate::deliver::{Lists, PENDING_MAX, Source};
use crate::guard::By;
use crate::journal::RelPath;
use crate::rsync::exit::Exit;
use crate::rsync::{Form, Power, Scope};
use crate::sync::look::{come_back, list};
use crate::sync::transfer::Transfer;

/// What a batch did not bring over.
#[derive(Default)]
struct Remains {
    names: Vec<RelPath>,
    failure: Option<(Exit, String)>,
    held: bool,
}

impl Remains {
    fn fail(&mut self, names: impl IntoIterator<Item = RelPath>, ended: Transfer) {
        self.names.extend(names);
        self.failure.get_or_insert((ended.exit, ended.error));
    }

    fn hold(&mut self, names: &[RelPath]) {
        self.names.extend_from_slice(names);
        self.held = true;
    }
}

impl Worker {
    /// None when stopped, or when a pass became due since it was decided: whoever made it due has
    /// woken the worker.
    pub(super) async fn batch(&mut self, delete: bool, source: &Source) -> Option<Done> {
        let mut taken = self.shared.pending().take_batch()?;
        self.begin(DeliveryState::Syncing, &taken);
        let stop = self.stop.clone();
        self.move_ahead(delete, &mut taken, &stop).await?;
        // What changed again is looked at again.
        let again = self.late.split_off(|path| taken.has(path));
        taken.put_back(again);
        let upto = taken.upto();
        let options = self.context.options();
        let first = taken.split_off(|path| options.priority.cover(path, false));
        let mut all = true;
        if first.has_paths() && taken.has_paths() {
            self.shared.pending().put_back(std::mem::replace(&mut taken, first));
            all = false;
        } else {
            taken.put_back(first);
        }
        let lists = list(&self.context, taken.clone()).await;
        let engine = self.context.engine.clone();
        let sent = match self.turn(&engine.batches, &stop).await {
            Some(turn) => turn.spend(self.send(delete, &lists, &stop)).await,
            None => None,
        };
        let remains = match sent {
            Some(Ok(remains)) => remains,
            other => {
                self.shared.pending().put_back(taken);
                return other.map(|failed| match failed {
                    Err(done) => done,
                    Ok(_) => Done::Through,
                });
            }
        };
        let told = tokio::select! {
            () = stop.cancelled() => None,
            told = self.tell_batch(&taken) => Some(told),
        };
        if !matches!(told, Some(Done::Through)) {
            self.shared.pending().put_back(taken);
            return told;
        }
        let removed = if delete { &lists.gone[..] } else { &[] };
        for path in come_back(&self.context, removed).await {
            self.shared.pending().include(path, true);
            all = false;
        }
        // All names count as failed when one cannot be found among what was asked for.
        let is_known = |name: &RelPath| taken.paths().any(|(path, _)| concerns(name, path));
        let known = remains.names.iter().all(is_known);
        let left =
            taken.split_off(|path| !known || remains.names.iter().any(|name| concerns(name, path)));
        self.late.put_back(left);
        if self.late.count() > PENDING_MAX || self.late.is_full() {
            self.late = crate::deliver::Pending::default();
            self.save(Cursor { full: true, ..self.cursor }).await;
        }
        if all && !self.late.has_paths() {
            self.save(Cursor { acked: upto, ..self.cursor }).await;
        }
        self.context.remember(source).await;
        Some(match remains.failure {
            _ if remains.held => Done::Held,
            Some((exit, error)) => Done::Left(exit, error),
            None => Done::Through,
        })
    }

    /// What is there goes without any power to remove; what is gone is counted before. `Err` when
    /// nothing is known of any name.
    async fn send(
        &mut self,
        delete: bool,
        lists: &Lists,
        stop: &CancellationToken,
    ) -> Option<Result<Remains, Done>> {
        let options = self.context.options();
        let mut remains = Remains::default();
        let Lists { names: present, gone, deep, subtrees, contents } = lists;
        let gone: &[RelPath] = if delete { gone } else { &[] };
        // While a hold stands it is not counted with each new change.
        let waits = self.removals.hold().is_some() && (self.late.has_paths() || self.cursor.full);
        let most = (present.len() + gone.len()) as u64;
        let now = (self.context.engine.now)();
        // Without --force a name is one entry at most: so few that none needs a count.
        let quick = !gone.is_empty()
            && !deep
            && !waits
            && self.removals.would_allow(most, options.limit.as_ref(), now);
        let (power, listed) = match quick {
            true => (Power::Names, [present, gone].concat()),
            false => (Power::Nothing, present.clone()),
        };
        let mut counted: Vec<RelPath> = Vec::new();
        let runs = [(Scope::Batch, power, &listed), (Scope::Contents, Power::Nothing, contents)];
        for (scope, power, listed) in runs {
            if listed.is_empty() {
                continue;
            }
            let ended = self.transfer(Form { scope, delete, power }, listed, None, stop).await?;
            if power == Power::Names
                && matches!(ended.exit, Exit::Ok | Exit::Partial | Exit::Vanished)
            {
                // Without --force rsync counts nothing here.
                let removed = gone.len() as u64;
                self.removals.finish(By::Batch, removed, options.limit.as_ref(), now);
                self.save_removals().await;
            }
            counted.extend_from_slice(&ended.blocked);
            if let Err(done) = remains.take(ended) {
                return Some(Err(done));
            }
            remains.names.retain(|name| !counted.contains(name));
            if remains.names.is_empty() {
                remains.failure = None;
            }
        }
        if !quick {
            counted.extend_from_slice(gone);
        }
        for (scope, names) in [(Scope::Batch, &counted), (Scope::Subtrees, subtrees)] {
            if names.is_empty() {
                continue;
            }
            let bare = scope == Scope::Subtrees && !delete;
            if waits || bare {
                if waits {
                    remains.hold(names);
                }
                if scope == Scope::Subtrees {
                    let form = Form { scope, delete, power: Power::Nothing };
                    let ended = self.transfer(form, names, None, stop).await?;
                    if let Err(done) = remains.take(ended) {
                        return Some(Err(done));
                    }
                }
                continue;
            }
            match self.remove(scope, delete, names, None, stop).await? {
                Removed::Held => remains.hold(names),
                Removed::Lost(why) => return Some(Err(Done::Failed(Exit::Transient, why))),
                Removed::Ran(ended) => {
                    if let Err(done) = remains.take(ended) {
                        return Some(Err(done));
                    }
                }
            }
        }
        Some(Ok(remains))
    }
}

impl Remains {
    fn take(&mut self, ended: Transfer) -> Result<(), Done> {
        match (ended.exit, ended.failed.clone()) {
            (Exit::Ok, _) => {
                // A directory that stayed with something in it.
                if !ended.blocked.is_empty() {
                    let error = "a directory with something in it is in the way".to_owned();
                    let blocked = ended.blocked.clone();
                    self.fail(blocked, Transfer { exit: Exit::Partial, error, ..ended });
                }
                Ok(())
            }
            (Exit::Partial | Exit::Vanished, Some(names)) if !names.is_empty() => {
                self.fail(names, ended);
                Ok(())
            }
            (exit, _) => Err(Done::Failed(exit, ended.error)),
        }
    }
}

/// Whether trouble with `name` is trouble with what was to be brought for `path`.
fn concerns(name: &[u8], path: &[u8]) -> bool {
    let is_below = |inner: &[u8], outer: &[u8]| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    is_below(name, path) || is_below(path, name)
}
