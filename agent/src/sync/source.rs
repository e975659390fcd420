//! Being a source: one lsyncd and one journal, or an lsyncd per target; one worker per target. This is the outside of it, what
//! the engine holds; `keeper` is the loop behind it. It decides nothing about deliveries.

mod barrier;
pub mod canary;
mod classic;
mod crew;
mod feed;
mod follower;
mod keeper;
mod marker;
mod poke;
mod reaper;
mod shape;
mod sieve;
mod sluice;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::NodeName;
use lockstep_model::sync::HookName;
use lockstep_model::task::{Outcome, OutcomeKind, SyncSource};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::hooks::Site;
use super::verifying::{Copy, Schedule};
use super::worker::{Order, Task};
use crate::data::below::Standing;
use crate::dispatch;
use crate::hook::Ran;
use canary::Now;
use keeper::Keeper;

/// Commands that wait for a source; more are refused by waiting in the caller.
const COMMANDS_MAX: usize = 8;
/// Of the state directory: how far each target is.
const CURSORS: &str = "cursors";
/// How long a cancelled pass may take to end.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Removes what a source has in its state directory of the targets that it had.
pub fn forget(dir: &Path) -> Result<(), String> {
    for name in [CURSORS, dispatch::JOURNAL] {
        let path = dir.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

enum Command {
    Apply(Box<SyncSource>, oneshot::Sender<Result<(), String>>),
    Order(NodeName, Order),
    /// Of one target; None: of all together.
    Now(Option<NodeName>, canary::Answer),
    Copies(oneshot::Sender<Vec<Copy>>),
}

/// A running source.
pub struct Handle {
    spec: SyncSource,
    /// Whether the copy is complete that it brings on, for one that is no source of its own.
    relay: Option<watch::Receiver<bool>>,
    site: Site,
    commands: mpsc::Sender<Command>,
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    schedules: Vec<JoinHandle<()>>,
}

impl Handle {
    /// `dir` is the sync's state directory and exists.
    pub async fn start(
        engine: Arc<Engine>,
        dir: PathBuf,
        spec: SyncSource,
        relay: Option<watch::Receiver<bool>>,
    ) -> Result<Self, String> {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let stop = CancellationToken::new();
        let site = engine.site(&spec.sync, &spec.path, &dir);
        let keeper = Keeper::open(engine, dir, &spec, &site, relay.clone(), stop.clone()).await?;
        let standing = keeper.standing();
        let task = tokio::spawn(keeper.run(received));
        let schedules = Vec::new();
        let mut handle = Self { spec, relay, site, commands, standing, stop, task, schedules };
        for schedule in [Schedule::Verify, Schedule::Scrub] {
            let keep = schedule.keep(handle.orders(), handle.stop.clone());
            handle.schedules.push(tokio::spawn(keep));
        }
        Ok(handle)
    }

    /// Whether a spec differs in what lsyncd needs, so that the source has to start again.
    pub fn needs_restart(&self, spec: &SyncSource, relay: Option<&watch::Receiver<bool>>) -> bool {
        let same = match (&self.relay, relay) {
            (Some(before), Some(now)) => before.same_channel(now),
            (before, now) => before.is_none() && now.is_none(),
        };
        !same
            || self.task.is_finished()
            || self.spec.path != spec.path
            || self.spec.options.delay != spec.options.delay
            || self.spec.options.once != spec.options.once
            || self.spec.options.engine != spec.options.engine
            || self.spec.generation != spec.generation
    }

    pub async fn apply(&mut self, spec: SyncSource) -> Result<(), String> {
        let (done, applied) = oneshot::channel();
        let ended = |_| format!("sync {} has stopped", spec.sync);
        let apply = Command::Apply(Box::new(spec.clone()), done);
        self.commands.send(apply).await.map_err(|_| ended(()))?;
        applied.await.map_err(|_| ended(()))??;
        self.spec = spec;
        Ok(())
    }

    /// The way to order passes, usable while the handle is not.
    pub fn orders(&self) -> Orders {
        Orders {
            site: self.site.clone(),
            commands: self.commands.clone(),
            standing: self.standing.clone(),
        }
    }

    /// Ends everything of the source; when it returns no process is left.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in [self.task].into_iter().chain(self.schedules) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a source ended badly");
            }
        }
    }
}

#[derive(Clone)]
pub struct Orders {
    site: Site,
    commands: mpsc::Sender<Command>,
    standing: watch::Receiver<Standing>,
}

impl Orders {
    /// The place of everything that was in the source before this was asked, among what `target` is
    /// told, or all targets are.
    pub async fn now(&self, target: Option<&NodeName>) -> Result<Now, String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || "the sync was stopped".to_owned();
        self.commands.send(Command::Now(target.cloned(), answer)).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// What a comparison needs to know of each target.
    pub async fn copies(&self) -> Result<Vec<Copy>, String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || "the sync was stopped".to_owned();
        self.commands.send(Command::Copies(answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }

    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Ends when so many targets, or all, have everything that is in the source now, and the hook
    /// that was to run then has ended.
    pub async fn barrier(
        &self,
        at_least: Option<u32>,
        hook: Option<HookName>,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        let cancelled = || Outcome::new(OutcomeKind::Cancelled, "cancelled");
        let waited = tokio::select! {
            () = cancel.cancelled() => return cancelled(),
            waited = barrier::wait(self, at_least, &progress) => waited,
        };
        let doubt = match waited {
            Ok(now) => now.doubt.unwrap_or_default(),
            Err(outcome) => return outcome,
        };
        let Some(hook) = hook else { return Outcome::new(OutcomeKind::Ok, doubt) };
        match self.site.run_at_barrier(&hook, &cancel).await {
            None => cancelled(),
            Some(Ran { problem, output }) => {
                for line in output.lines() {
                    let _ = progress.try_send(line.to_owned());
                }
                match problem {
                    None => Outcome::new(OutcomeKind::Ok, doubt),
                    Some(why) => Outcome::new(OutcomeKind::Failed, why),
                }
            }
        }
    }

    /// What the limit on removals holds for a target may go, for this once.
    pub async fn release(&self, target: NodeName) -> Outcome {
        let (progress, _) = mpsc::channel(1);
        self.order(Task::Release, target, progress, CancellationToken::new()).await
    }

    pub async fn resync(
        &self,
        target: NodeName,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        self.order(Task::Resync, target, progress, cancel).await
    }

    /// The same without anybody who waits, for a target that only rsync can compare.
    pub async fn compare(&self, target: NodeName, content: bool) -> Outcome {
        let (progress, _) = mpsc::channel(1);
        self.order(Task::Compare { content }, target, progress, CancellationToken::new()).await
    }

    async fn order(
        &self,
        task: Task,
        target: NodeName,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        let (done, ended) = oneshot::channel();
        let order = Order { task, progress, cancel: cancel.clone(), done };
        let stopped = || Outcome::new(OutcomeKind::Interrupted, "the sync was stopped");
        if self.commands.send(Command::Order(target, order)).await.is_err() {
            return stopped();
        }
        tokio::pin!(ended);
        tokio::select! {
            outcome = &mut ended => return outcome.unwrap_or_else(|_| stopped()),
            () = cancel.cancelled() => {}
        }
        match tokio::time::timeout(CANCEL_WAIT_MAX, ended).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| stopped()),
            // It still waits for its turn and will not start.
            Err(_) => Outcome::new(OutcomeKind::Cancelled, "cancelled"),
        }
    }
}
