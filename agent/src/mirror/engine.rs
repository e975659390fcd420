//! The mirrors of this node: assignments of the ledger put in force, changed and ended one by one, and
//! the runs that fill their trees. What is to be pulled when is not decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_model::mirror::HopKind;
use lockstep_model::mirror::hook::MirrorHookEvent;
use lockstep_model::path::DirPath;
use lockstep_model::task::{
    MirrorHooks, MirrorPlace, MirrorPull, MirrorRelease, Outcome, OutcomeKind, TaskSpec,
};
use lockstep_model::{MirrorName, NodeName, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::hooks::{self, Hooks, Trouble};
use super::local::{Local, Reports};
use super::log::{Log, Logs};
use super::module::Modules;
use super::passwords::{PasswordFile, Passwords};
use super::publish::{Current, Site};
use super::trees::{CONFIG, Trees};
use super::{moving, run};
use crate::data::lane::Lanes;
use crate::host::Host;
use crate::runner::Output;
use crate::sync::{SyncEngine, check_path};

/// How long pulls may take to end when the agent ends.
const END_MAX: Duration = Duration::from_secs(10);

/// What the engine needs to know of this agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Absolute. `<data_dir>/mirror/<name>` is the engine's.
    pub data_dir: PathBuf,
    /// The agent's own binary, which is rsync's remote shell.
    pub agent: PathBuf,
    pub rsync: PathBuf,
    pub hook_dir: PathBuf,
    pub secrets_dir: PathBuf,
    /// What the node's rsyncd.conf includes; None: nothing is lent to third parties.
    pub rsyncd_dir: Option<PathBuf>,
    /// This node's name.
    pub name: NodeName,
    /// Trees may be only in these directories; empty: anywhere.
    pub allow_roots: Vec<DirPath>,
    /// Most pulls at once.
    pub pulls: usize,
}

pub struct Engine {
    pub settings: Settings,
    pub host: Host,
    pub lanes: Lanes,
    pub trees: Trees,
    pub passwords: Passwords,
    pub queue: Semaphore,
    pub now: fn() -> Timestamp,
    reports: Reports,
    locals: Mutex<BTreeMap<MirrorName, Arc<Local>>>,
}

/// Clones are the same engine.
#[derive(Clone)]
pub struct MirrorEngine(Arc<Engine>);

impl MirrorEngine {
    /// Shares children, lanes and the data port with `syncs`. `now` is the agent's clock.
    pub fn open(settings: Settings, syncs: &SyncEngine, now: fn() -> Timestamp) -> Self {
        let engine = Engine {
            host: syncs.host().clone(),
            lanes: syncs.lanes().clone(),
            trees: syncs.trees().clone(),
            passwords: Passwords::default(),
            queue: Semaphore::new(settings.pulls),
            now,
            reports: Reports::default(),
            locals: Mutex::default(),
            settings,
        };
        for dir in fs::read_dir(engine.root()).into_iter().flatten().flatten() {
            sweep(&dir.path());
        }
        Self(Arc::new(engine))
    }

    /// Starts what the ledger says is in force; specs that are no mirror's are ignored.
    pub async fn start(&self, assignments: impl IntoIterator<Item = TaskSpec>) {
        for spec in assignments {
            let TaskSpec::MirrorPlace(place) = spec else { continue };
            let mirror = place.mirror.clone();
            if let Err(why) = self.0.place(place).await {
                tracing::error!(%mirror, why, "cannot take up an assignment");
            }
        }
        let known: BTreeSet<MirrorName> = self.0.locals().keys().cloned().collect();
        if let Err(why) = self.0.modules().sweep(&known) {
            tracing::warn!(why, "modules of mirrors that are not here any more may be left");
        }
    }

    pub fn reports(&self) -> &Reports {
        &self.0.reports
    }

    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub fn logs(&self) -> Logs {
        Logs::new(self.0.root())
    }

    /// Have a mirror's tree; repeating it is harmless.
    pub async fn place(&self, spec: MirrorPlace) -> Outcome {
        finish(self.0.place(spec).await)
    }

    /// Have nothing to do with the mirror any more.
    pub async fn release(&self, spec: MirrorRelease, output: &Output) -> Outcome {
        finish(self.0.release(spec, output).await)
    }

    /// One try of a run.
    pub async fn pull(&self, spec: MirrorPull, stop: CancellationToken, output: Output) -> Outcome {
        match self.0.ready(&spec.mirror, &spec.tree) {
            Ok(local) => run::pull(&self.0, &local, &spec, &stop, output).await,
            Err(why) => Outcome::new(OutcomeKind::Failed, why),
        }
    }

    /// The hooks that wait until replicas have the generation.
    pub async fn distributed(
        &self,
        spec: MirrorHooks,
        stop: CancellationToken,
        output: Output,
    ) -> Outcome {
        self.0.distributed(&spec, &stop, output).await
    }

    /// Ends what is served; pulls end with their tasks.
    pub async fn shut_down(&self) {
        self.0.trees.withdraw_all();
        let locals: Vec<_> = self.0.locals().values().cloned().collect();
        for local in locals {
            local.released.cancel();
            let _ = tokio::time::timeout(END_MAX, local.busy.lock()).await;
        }
    }
}

/// What an agent that was killed left.
fn sweep(dir: &Path) {
    PasswordFile::sweep(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(CONFIG)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn finish(done: Result<String, String>) -> Outcome {
    match done {
        Ok(message) => Outcome { message, ..Outcome::ok() },
        Err(why) => Outcome::new(OutcomeKind::Failed, why),
    }
}

impl Engine {
    fn root(&self) -> PathBuf {
        self.settings.data_dir.join("mirror")
    }

    fn locals(&self) -> MutexGuard<'_, BTreeMap<MirrorName, Arc<Local>>> {
        self.locals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With a tree that may be there, and a directory that it can be in.
    fn ready(&self, mirror: &MirrorName, tree: &DirPath) -> Result<Arc<Local>, String> {
        check_path(tree, &self.settings.data_dir, &self.settings.allow_roots)?;
        Site::new(tree).make_dest()?;
        self.local(mirror)
    }

    fn local(&self, mirror: &MirrorName) -> Result<Arc<Local>, String> {
        let mut locals = self.locals();
        if let Some(local) = locals.get(mirror) {
            return Ok(local.clone());
        }
        let dir = self.root().join(mirror.as_str());
        fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        let local = Arc::new(Local::open(mirror.clone(), dir, self.reports.clone()));
        hooks::unknown(&local.hook_dir()).into_iter().for_each(|warning| local.warn(warning));
        locals.insert(mirror.clone(), local.clone());
        Ok(local)
    }

    /// Repeating it is harmless.
    async fn place(&self, place: MirrorPlace) -> Result<String, String> {
        self.take_over(&place).await?;
        self.trees.check(&place)?;
        let local = self.ready(&place.mirror, &place.tree)?;
        let mut told = String::new();
        let may_have_been = |from: &&DirPath| {
            // What was never let in is not there.
            let allowed = check_path(from, &self.settings.data_dir, &self.settings.allow_roots);
            allowed.is_ok() || local.mark().tree.as_ref() == Some(from)
        };
        let from = place.moved_from.as_ref().filter(|from| **from != place.tree);
        if let Some(from) = from.filter(may_have_been) {
            check_path(from, &self.settings.data_dir, &self.settings.allow_roots)?;
            let _busy = local.busy.lock().await;
            let known = local.mark().tree;
            if known.as_ref() != Some(&place.tree) {
                told = moving::carry(self, from, &place.tree).await?;
            }
        }
        let mut mark = local.mark();
        let is_other = mark.tree.as_ref() != Some(&place.tree);
        if is_other {
            // A disk is known by the tree that was on it.
            mark.system = None;
            if mark.tree.is_none() || place.moved_from != mark.tree {
                mark.generation = None;
            }
            mark.tree = Some(place.tree.clone());
            local.set_mark(mark.clone()).await?;
        }
        let is_there = !matches!(Site::new(&place.tree).current(), Ok(Current::Nothing));
        if mark.is_filled() && !is_there {
            local.set_problem(&format!("the tree {} is gone", place.tree));
            mark.generation = None;
            local.set_mark(mark.clone()).await?;
        }
        self.trees.assign(&place, &local.dir, mark.is_filled());
        self.lend(&local);
        local.publish();
        Ok(told)
    }

    fn modules(&self) -> Modules {
        Modules::new(self.settings.rsyncd_dir.clone())
    }

    /// Puts the module of the node's rsync daemon into force, or takes it away. That it cannot be
    /// done keeps no tree from its files.
    pub fn lend(&self, local: &Local) {
        const BEGIN: &str = "rsyncd-module: ";
        let place = self.trees.place(&local.mirror).filter(|_| local.mark().is_filled());
        local.unwarn(BEGIN);
        if let Err(why) = self.modules().set(&local.mirror, place.as_ref()) {
            local.warn(format!("{BEGIN}{why}"));
        }
    }

    /// A mirror that was renamed: its tree, with all that is known of it, goes on by its new name.
    async fn take_over(&self, place: &MirrorPlace) -> Result<(), String> {
        let Some(from) = &place.moved_from else { return Ok(()) };
        let Some(was) = self.trees.owner(from).filter(|was| *was != place.mirror) else {
            return Ok(());
        };
        let (old, new) = (self.local(&was)?, self.local(&place.mirror)?);
        old.released.cancel();
        let _busy = old.busy.lock().await;
        self.trees.withdraw(&was);
        self.lend(&old);
        self.reports.withdraw(&was);
        if new.mark().tree.is_some() {
            // An agent that was started anew took both up.
            self.locals().remove(&was);
            return Ok(());
        }
        self.locals().retain(|name, _| *name != was && *name != place.mirror);
        let carry = || {
            fs::remove_dir_all(&new.dir)?;
            fs::rename(&old.dir, &new.dir)
        };
        carry().map_err(|e| format!("cannot go on with {was} by its new name: {e}"))
    }

    async fn release(&self, spec: MirrorRelease, output: &Output) -> Result<String, String> {
        let MirrorRelease { mirror, delete } = spec;
        self.trees.withdraw(&mirror);
        let local = self.local(&mirror)?;
        self.lend(&local);
        local.released.cancel();
        let _busy = local.busy.lock().await;
        let mut told = String::new();
        if let Some(tree) = delete {
            told = self.delete(&local, &tree).await?;
            output.line(&told);
        }
        self.passwords.take(&mirror);
        self.reports.withdraw(&mirror);
        self.locals().remove(&mirror);
        match fs::remove_dir_all(&local.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", local.dir.display()))
            }
            _ => Ok(told),
        }
    }

    /// Only the tree that is known to be this mirror's own.
    async fn delete(&self, local: &Local, tree: &DirPath) -> Result<String, String> {
        match local.mark().tree {
            Some(own) if own == *tree => {}
            Some(own) => return Ok(format!("kept {tree}: this node's tree was {own}")),
            None => return Ok(format!("kept {tree}: it was never this node's")),
        }
        check_path(tree, &self.settings.data_dir, &self.settings.allow_roots)?;
        let site = Site::new(tree);
        let deleted = tokio::task::spawn_blocking(move || site.delete()).await;
        let deleted = deleted.map_err(io::Error::other).and_then(|deleted| deleted);
        deleted.map_err(|error| format!("cannot remove {tree}: {error}"))
    }

    /// The hooks that wait until replicas have the generation.
    async fn distributed(
        &self,
        spec: &MirrorHooks,
        stop: &CancellationToken,
        output: Output,
    ) -> Outcome {
        let local = match self.ready(&spec.mirror, &spec.tree) {
            Ok(local) => local,
            Err(why) => return Outcome::new(OutcomeKind::Failed, why),
        };
        let log = Log::open(&local.log_dir(), spec.number, output);
        let environment = [
            ("LOCKSTEP_MIRROR", spec.mirror.to_string()),
            ("LOCKSTEP_TREE", spec.tree.to_string()),
            ("LOCKSTEP_NODE", self.settings.name.to_string()),
            ("LOCKSTEP_RUN", spec.number.to_string()),
            ("LOCKSTEP_GENERATION", spec.generation.to_string()),
        ];
        let hooks = Hooks {
            host: &self.host,
            programs: &self.settings.hook_dir,
            local: &local,
            log: &log,
            all: &spec.options.hooks,
            hop: HopKind::Upstream,
            number: spec.number,
            environment: &environment,
            stop,
        };
        let ran = hooks.happened(MirrorHookEvent::Distributed, false, &[]).await;
        log.flush();
        match ran {
            Ok(()) => Outcome::ok(),
            Err(Trouble::Stopped) => Outcome::new(OutcomeKind::Cancelled, "it was stopped"),
            Err(Trouble::Abort(why)) => Outcome::new(OutcomeKind::Failed, why),
        }
    }
}
