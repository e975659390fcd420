//! One pull of a mirror from its place in the queue to its outcome: hooks, steps of rsync as
//! `pull::course` says, publication, and the mark that outlives the agent.

mod bring;
mod feed;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_model::Timestamp;
use lockstep_model::mirror::hook::MirrorHookEvent;
use lockstep_model::mirror::report::PullPhase;
use lockstep_model::mirror::{HopKind, PullProgress, Pulled};
use lockstep_model::task::{MirrorPull, Outcome, OutcomeKind, PullFrom, Stage};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::hooks::{Hooks, Trouble};
use super::local::Local;
use super::log::Log;
use super::mark::Mark;
use super::publish::Site;
use super::{scan, trace};
use crate::runner::Output;

/// Why a run failed.
#[derive(Debug)]
pub struct Failure {
    pub kind: OutcomeKind,
    pub why: String,
    /// Another try would not help.
    pub permanent: bool,
}

impl Failure {
    /// A person has to change something.
    fn permanent(why: impl Into<String>) -> Self {
        Self { kind: OutcomeKind::Failed, why: why.into(), permanent: true }
    }

    fn passing(why: impl Into<String>) -> Self {
        Self { kind: OutcomeKind::Failed, why: why.into(), permanent: false }
    }

    fn stopped() -> Self {
        let why = "it was stopped".to_owned();
        Self { kind: OutcomeKind::Cancelled, why, permanent: false }
    }
}

/// Of the tree and its file system.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::passing(format!("the tree: {error}"))
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Stopped => Self::stopped(),
            Trouble::Abort(why) => Self::passing(why),
        }
    }
}

/// A run that has its turn.
pub struct Turn<'a> {
    pub engine: &'a Engine,
    pub local: &'a Local,
    pub spec: &'a MirrorPull,
    pub log: &'a Log,
    /// Somebody wants it to end, or its time is over.
    pub stop: &'a CancellationToken,
    pub started_at: Timestamp,
    /// Something in the tree may be other than before.
    pub touched: AtomicBool,
}

/// From the queue to the outcome.
pub async fn pull(
    engine: &Engine,
    local: &Arc<Local>,
    spec: &MirrorPull,
    stop: &CancellationToken,
    output: Output,
) -> Outcome {
    let started_at = (engine.now)();
    local.show(Some(progress(spec.number, PullPhase::Queued, started_at)));
    let queued = async {
        let place = engine.queue.acquire().await;
        (place, local.busy.lock().await)
    };
    let taken = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = local.released.cancelled() => None,
        taken = queued => Some(taken),
    };
    let Some(_turn) = taken else {
        local.show(None);
        return Outcome::new(OutcomeKind::Cancelled, "it was stopped before its turn");
    };
    let started_at = (engine.now)();
    let log = Log::open(&local.log_dir(), spec.number, output);
    let own_stop = stop.child_token();
    let touched = AtomicBool::new(false);
    let turn = Turn { engine, local, spec, log: &log, stop: &own_stop, started_at, touched };
    log.line(&format!("{started_at} run {}/{}, stage {}", spec.mirror, spec.number, spec.stage));
    let mut pulled = Pulled::default();
    let ended = turn.within_its_time(&mut pulled).await;
    pulled.started_at = started_at;
    pulled.ended_at = (engine.now)();
    pulled.free_bytes = free(&Site::new(&spec.tree)).unwrap_or(0);
    let mut outcome = match ended {
        Ok(why) => {
            local.set_problem("");
            Outcome { message: why, ..Outcome::ok() }
        }
        Err(Failure { kind, why, permanent }) => {
            pulled.permanent = permanent;
            if kind == OutcomeKind::Failed {
                local.set_problem(&why);
                // Nothing of what it says can change the outcome any more.
                let more = [("LOCKSTEP_ERROR", why.clone())];
                let environment = turn.environment();
                let hooks = turn.hooks(&environment, stop);
                let _ = hooks.happened(MirrorHookEvent::Failed, true, &more).await;
            }
            Outcome::new(kind, why)
        }
    };
    log.line(&format!("{} {} {}", pulled.ended_at, outcome.kind, outcome.message));
    log.flush();
    // Without rsync there is nothing to tell but whether it makes sense to try again.
    outcome.pulled = Some(pulled).filter(|_| outcome.kind != OutcomeKind::Interrupted);
    local.show(None);
    outcome
}

fn progress(number: u64, phase: PullPhase, started_at: Timestamp) -> PullProgress {
    PullProgress {
        number,
        phase,
        started_at,
        percent: None,
        done_bytes: 0,
        done_files: 0,
        rate_bytes_per_s: 0,
        eta: None,
    }
}

impl Turn<'_> {
    /// What is stopped comes to its own end, so that no process is left.
    async fn within_its_time(&self, pulled: &mut Pulled) -> Result<String, Failure> {
        let limit = self.spec.options.limits.timeout;
        let carry = self.carry_out(pulled);
        tokio::pin!(carry);
        let is_late = tokio::select! {
            ended = &mut carry => return ended,
            () = tokio::time::sleep(limit.into()) => true,
            () = self.local.released.cancelled() => false,
        };
        self.stop.cancel();
        let ended = carry.await;
        let late = || Failure::passing(format!("it took longer than run-timeout, {limit}"));
        if is_late { ended.map_err(|_| late()) } else { ended }
    }

    /// Ok with what is to be told of a success.
    async fn carry_out(&self, pulled: &mut Pulled) -> Result<String, Failure> {
        let Self { engine, local, spec, .. } = self;
        self.show(PullPhase::Before);
        let environment = self.environment();
        let hooks = self.hooks(&environment, self.stop);
        if spec.stage != Stage::Second {
            hooks.happened(MirrorHookEvent::Before, true, &[]).await?;
        }
        let site = Site::new(&spec.tree);
        let mut mark = local.mark();
        if mark.tree.as_ref() != Some(&spec.tree) {
            // What is known is of another one.
            mark = Mark { tree: Some(spec.tree.clone()), ..Mark::default() };
        }
        self.check_disk(&site, &mark)?;
        let before = mark.pending;
        // Whatever comes next, somebody is to hear that something may have changed.
        mark.pending = Some(spec.generation);
        local.set_mark(mark.clone()).await.map_err(Failure::passing)?;
        let told = match &spec.from {
            PullFrom::Here => self.look(&site, &mut mark, pulled).await,
            PullFrom::Agent(_) | PullFrom::Remote(_) => self.bring(&site, &mark, pulled).await,
        };
        let is_untold = before.is_some_and(|generation| generation >= spec.generation);
        if told.is_err() {
            if !self.touched.load(Ordering::Relaxed) && !is_untold {
                mark.pending = before;
                local.set_mark(mark).await.map_err(Failure::passing)?;
            }
            return told;
        }
        let told = told?;
        pulled.changed |= is_untold || mark.generation.is_none();
        self.show(PullPhase::Finishing);
        if spec.stage == Stage::First {
            mark.staged = spec.generation;
            local.set_mark(mark).await.map_err(Failure::passing)?;
            return Ok(told);
        }
        self.leave_trace(pulled)?;
        mark.generation = Some(spec.generation);
        mark.staged = spec.generation;
        mark.system = system(&site);
        if !pulled.changed {
            mark.pending = None;
        }
        local.set_mark(mark.clone()).await.map_err(Failure::passing)?;
        engine.trees.set_filled(&spec.mirror, true);
        engine.lend(local);
        self.show(PullPhase::After);
        let more = [("LOCKSTEP_CHANGED", yes_no(pulled.changed))];
        if pulled.changed {
            hooks.happened(MirrorHookEvent::Changed, false, &more).await?;
        }
        hooks.happened(MirrorHookEvent::After, false, &more).await?;
        if spec.hop == HopKind::Replica {
            mark.pending = None;
            local.set_mark(mark).await.map_err(Failure::passing)?;
        }
        Ok(told)
    }

    /// A disk that is not mounted must not be taken for an empty one.
    fn check_disk(&self, site: &Site, mark: &Mark) -> Result<(), Failure> {
        match (mark.system, system(site)) {
            (Some(known), Some(now)) if known != now && !self.spec.allow.space => {
                Err(Failure::permanent(format!(
                    "{} is on another file system than the last complete tree: is its disk \
                     mounted? if this is the right one: --allow space",
                    self.spec.tree
                )))
            }
            _ => Ok(()),
        }
    }

    /// The tree was filled by its owner.
    async fn look(
        &self,
        site: &Site,
        mark: &mut Mark,
        pulled: &mut Pulled,
    ) -> Result<String, Failure> {
        self.show(PullPhase::Counting);
        let skip = self.spec.options.trace.as_ref().map(|dir| dir.as_str().into());
        let (tree, stop) = (site.tree().to_owned(), self.stop.clone());
        let scanned = tokio::task::spawn_blocking(move || scan::scan(&tree, skip, &stop)).await;
        let scanned = scanned.map_err(|error| Failure::passing(error.to_string()))?;
        let Some(found) = scanned.map_err(|e| Failure::permanent(format!("the tree: {e}")))? else {
            return Err(Failure::stopped());
        };
        (pulled.entries, pulled.tree_bytes) = (found.entries, found.bytes);
        if found.entries == 0 && !self.spec.allow.empty {
            return Err(Failure::permanent(
                "the tree is empty; if that is right: --allow empty".to_owned(),
            ));
        }
        pulled.changed = mark.fingerprint.as_ref() != Some(&found.fingerprint);
        mark.fingerprint = Some(found.fingerprint);
        Ok(String::new())
    }

    fn leave_trace(&self, pulled: &Pulled) -> Result<(), Failure> {
        self.leave_trace_in(Path::new(self.spec.tree.as_str()), pulled)
    }

    fn leave_trace_in(&self, tree: &Path, pulled: &Pulled) -> Result<(), Failure> {
        let Some(dir) = &self.spec.options.trace else { return Ok(()) };
        let now = (self.engine.now)();
        trace::leave(
            tree,
            dir,
            self.engine.settings.name.as_str(),
            self.spec,
            self.started_at,
            now,
            pulled,
        )
        .map_err(|error| Failure::passing(format!("cannot leave a trace in {dir}: {error}")))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let spec = self.spec;
        vec![
            ("LOCKSTEP_MIRROR", spec.mirror.to_string()),
            ("LOCKSTEP_TREE", spec.tree.to_string()),
            ("LOCKSTEP_NODE", self.engine.settings.name.to_string()),
            ("LOCKSTEP_RUN", spec.number.to_string()),
            ("LOCKSTEP_GENERATION", spec.generation.to_string()),
            ("LOCKSTEP_HOP", spec.hop.to_string()),
            ("LOCKSTEP_STAGE", spec.stage.to_string()),
        ]
    }

    fn hooks<'h>(
        &'h self,
        environment: &'h [(&'h str, String)],
        stop: &'h CancellationToken,
    ) -> Hooks<'h> {
        Hooks {
            host: &self.engine.host,
            programs: &self.engine.settings.hook_dir,
            local: self.local,
            log: self.log,
            all: &self.spec.options.hooks,
            hop: self.spec.hop,
            number: self.spec.number,
            environment,
            stop,
        }
    }

    fn show(&self, phase: PullPhase) {
        let now = progress(self.spec.number, phase, self.started_at);
        let former = self.local.pull().filter(|pull| pull.number == self.spec.number);
        let now = former.map_or(now, |former| PullProgress { phase, ..former });
        self.local.show(Some(now));
    }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn existing(site: &Site) -> &Path {
    let tree = site.tree();
    if tree.exists() { tree } else { tree.parent().unwrap_or(tree) }
}

/// Bytes that the agent may still write there.
fn free(site: &Site) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(existing(site))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The tree's file system; the same after a reboot.
fn system(site: &Site) -> Option<u64> {
    rustix::fs::statvfs(existing(site)).ok().map(|found| found.f_fsid)
}
