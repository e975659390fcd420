//! Syncs on this node: the parts that the ledger gave it as source or target, started, changed and
//! ended one by one. It keeps no assignment itself; journals and cursors are its only own state.

mod context;
mod hooks;
mod look;
pub mod moving;
mod reach;
mod shared;
mod source;
mod tally;
pub mod target;
mod transfer;
mod verifying;
mod watch;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::identity::Principal;
use lockstep_model::path::DirPath;
use lockstep_model::sync::{HookName, SyncOptions, SyncReport};
use lockstep_model::task::{
    Outcome, OutcomeKind, SyncBarrier, SyncSource, SyncTarget, SyncVerify, TaskSpec,
};
use lockstep_model::{NodeName, SyncName, Timestamp};
use tokio::sync::{Mutex, Semaphore, mpsc, watch as tokio_watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::data::header::{Mark, Request};
use crate::data::lane::Lanes;
use crate::data::local::Exchange;
use crate::data::{Dial, Server, Stream, call};
use crate::host::Host;
use crate::inotify::place::Places;
use crate::mirror::trees::Trees;
use hooks::Site;
use target::Targets;

/// Most batches on their way at once, over all syncs of the node.
const BATCHES_MAX: usize = 16;
/// Most complete passes at once, over all syncs of the node.
const PASSES_MAX: usize = 4;
/// Most connections served at once.
const CONNECTIONS_MAX: usize = 256;

/// How long the transfers to this node may take to end when the agent ends.
const SERVED_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the engine needs to know of this agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Absolute. `<data_dir>/sync/<name>` is the engine's, and `<data_dir>/run`.
    pub data_dir: PathBuf,
    /// The agent's own binary: lsyncd's rsync by another name, and rsync's remote shell.
    pub agent: PathBuf,
    pub rsync: PathBuf,
    pub lsyncd: PathBuf,
    /// Where the site's own programs are.
    pub hook_dir: PathBuf,
    /// Keys and passwords for targets without an agent.
    pub secrets_dir: PathBuf,
    /// This node's name.
    pub node: String,
    /// Syncs may touch only these directories and what lies below; empty: any.
    pub allow_roots: Vec<DirPath>,
}

/// What each sync is like, for whoever reports it; clones are the same board.
#[derive(Clone, Default)]
pub struct Reports(Arc<tokio_watch::Sender<BTreeMap<SyncName, SyncReport>>>);

impl Reports {
    pub fn subscribe(&self) -> tokio_watch::Receiver<BTreeMap<SyncName, SyncReport>> {
        self.0.subscribe()
    }

    fn publish(&self, sync: &SyncName, report: SyncReport) {
        self.0.send_if_modified(|all| {
            let changed = all.get(sync) != Some(&report);
            if changed {
                all.insert(sync.clone(), report);
            }
            changed
        });
    }

    fn withdraw(&self, sync: &SyncName) {
        self.0.send_if_modified(|all| all.remove(sync).is_some());
    }
}

struct Engine {
    settings: Settings,
    host: Host,
    dial: Arc<dyn Dial>,
    now: fn() -> Timestamp,
    batches: Semaphore,
    passes: Semaphore,
    verifies: Semaphore,
    scrubs: Semaphore,
    connections: Semaphore,
    targets: Targets,
    lanes: Lanes,
    trees: Trees,
    /// What lsyncds of this node watch, all together.
    places: Places,
    _exchange: Exchange,
    reports: Reports,
    sources: Mutex<BTreeMap<SyncName, source::Handle>>,
    hooks: TaskTracker,
}

impl Engine {
    /// What hooks of a sync run with; `dir` is its state directory.
    fn site(&self, sync: &SyncName, path: &DirPath, dir: &Path) -> Site {
        Site {
            host: self.host.clone(),
            programs: self.settings.hook_dir.clone(),
            records: dir.join("hooks"),
            sync: sync.clone(),
            node: self.settings.node.clone(),
            path: path.as_str().into(),
            tasks: self.hooks.clone(),
            tell: Arc::new(|| ()),
        }
    }
}

/// Clones are the same engine.
#[derive(Clone)]
pub struct SyncEngine(Arc<Engine>);

impl SyncEngine {
    /// `now` is the agent's clock. Processes that an earlier agent left are ended here.
    pub async fn open(
        settings: Settings,
        dial: Arc<dyn Dial>,
        now: fn() -> Timestamp,
    ) -> io::Result<Self> {
        let host = Host::open(&settings.data_dir.join("run")).await?;
        let reports = Reports::default();
        let lanes = Lanes::default();
        let listener = call::listen(&settings.data_dir, call::SOCKET)?;
        let exchange = Exchange::open(listener, lanes.clone(), dial.clone())?;
        Ok(Self(Arc::new(Engine {
            settings,
            host,
            dial,
            now,
            batches: Semaphore::new(BATCHES_MAX),
            passes: Semaphore::new(PASSES_MAX),
            verifies: Semaphore::new(verifying::VERIFIES_MAX),
            scrubs: Semaphore::new(verifying::SCRUBS_MAX),
            connections: Semaphore::new(CONNECTIONS_MAX),
            targets: Targets::new(reports.clone()),
            lanes,
            trees: Trees::default(),
            places: Places::default(),
            _exchange: exchange,
            reports,
            sources: Mutex::default(),
            hooks: TaskTracker::new(),
        })))
    }

    /// Starts what the ledger says is in force; specs that are no sync's are ignored.
    pub async fn start(&self, assignments: impl IntoIterator<Item = TaskSpec>) {
        for spec in assignments {
            let slot = spec.slot();
            let outcome = match spec {
                TaskSpec::SyncSource(spec) => self.apply_source(spec).await,
                TaskSpec::SyncTarget(spec) => self.apply_target(spec).await,
                TaskSpec::SyncRelease { .. }
                | TaskSpec::SyncResync { .. }
                | TaskSpec::SyncVerify(_)
                | TaskSpec::SyncUnhold { .. }
                | TaskSpec::SyncBarrier(_)
                | TaskSpec::MirrorPlace(_)
                | TaskSpec::MirrorRelease(_)
                | TaskSpec::MirrorPull(_)
                | TaskSpec::MirrorHooks(_)
                | TaskSpec::ClusterPlace(_)
                | TaskSpec::ClusterRelease(_)
                | TaskSpec::ClusterAct(_) => continue,
            };
            if outcome.kind != OutcomeKind::Ok {
                tracing::error!(%slot, why = outcome.message, "cannot take up an assignment");
            }
        }
    }

    /// The one that records the children of this data directory.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    pub fn reports(&self) -> &Reports {
        &self.0.reports
    }

    /// The one that `rsh` of this data directory finds its peers in.
    pub fn lanes(&self) -> &Lanes {
        &self.0.lanes
    }

    /// What may be read through the data port.
    pub fn trees(&self) -> &Trees {
        &self.0.trees
    }

    /// What the source last said of this target; None while it has said nothing.
    pub fn last_mark(&self, sync: &SyncName) -> Option<Mark> {
        self.0.targets.last_mark(sync)
    }

    /// Be the source; repeating it is harmless. Ok when the sync is under way, not when it is
    /// complete.
    pub async fn apply_source(&self, spec: SyncSource) -> Outcome {
        finish(self.ensure_source(spec).await)
    }

    async fn ensure_source(&self, spec: SyncSource) -> Result<(), String> {
        let dir = self.state_dir(&spec.sync, &spec.path)?;
        self.0.targets.withdraw(&spec.sync);
        self.feed(dir, spec, None).await
    }

    /// Brings a directory to others, as its source or, with `relay`, as one of its copies.
    async fn feed(
        &self,
        dir: PathBuf,
        spec: SyncSource,
        relay: Option<tokio_watch::Receiver<bool>>,
    ) -> Result<(), String> {
        let sync = spec.sync.clone();
        let mut sources = self.0.sources.lock().await;
        if let Some(handle) = sources.get_mut(&sync)
            && !handle.needs_restart(&spec, relay.as_ref())
        {
            return handle.apply(spec).await;
        }
        if let Some(handle) = sources.remove(&sync) {
            handle.stop().await;
        }
        let handle = source::Handle::start(self.0.clone(), dir, spec, relay).await?;
        sources.insert(sync, handle);
        Ok(())
    }

    /// Let one peer write one directory; repeating it is harmless.
    pub async fn apply_target(&self, spec: SyncTarget) -> Outcome {
        finish(self.ensure_target(spec).await)
    }

    async fn ensure_target(&self, spec: SyncTarget) -> Result<(), String> {
        let dir = self.state_dir(&spec.sync, &spec.path)?;
        self.0.targets.assign(&spec, &dir);
        let site = self.0.site(&spec.sync, &spec.path, &dir);
        self.0.targets.set_hooks(&spec.sync, site, &spec.options.hooks);
        let filled = self.0.targets.filled(&spec.sync).filter(|_| !spec.receivers.is_empty());
        if filled.is_none() {
            self.stop_source(&spec.sync).await;
            self.0.targets.set_relay(&spec.sync, None, BTreeMap::new());
            // From now on it is told nothing: what it knew of others would be wrong later.
            return source::forget(&dir);
        }
        // What the source decides is decided before it comes here.
        let options = SyncOptions {
            once: false,
            marker: None,
            hooks: Vec::new(),
            remove_source_files: false,
            ..spec.options
        };
        let SyncTarget { sync, path, receivers, paused, generation, .. } = spec;
        let others = Vec::new();
        let source = SyncSource { sync, path, receivers, others, options, paused, generation };
        self.feed(dir, source, filled).await
    }

    /// Have nothing to do with the sync any more. Files of the sync stay; the engine's go.
    pub async fn release(&self, sync: &SyncName) -> Outcome {
        self.0.targets.withdraw(sync);
        self.stop_source(sync).await;
        self.0.reports.withdraw(sync);
        let dir = self.0.settings.data_dir.join("sync").join(sync.as_str());
        finish(match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", dir.display()))
            }
            _ => Ok(()),
        })
    }

    async fn stop_source(&self, sync: &SyncName) {
        let handle = self.0.sources.lock().await.remove(sync);
        if let Some(handle) = handle {
            handle.stop().await;
        }
    }

    /// The way to a running source, or to a relay's.
    async fn orders(&self, sync: &SyncName) -> Result<source::Orders, String> {
        let orders = self.0.sources.lock().await.get(sync).map(source::Handle::orders);
        orders.ok_or_else(|| format!("this node is not the source of {sync}"))
    }

    /// What ends by itself; lines of its output go to `progress`.
    pub async fn run(
        &self,
        spec: TaskSpec,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        match spec {
            TaskSpec::SyncResync { sync, target } => {
                self.resync(&sync, &target, progress, cancel).await
            }
            TaskSpec::SyncBarrier(SyncBarrier { sync, at_least, hook }) => {
                self.barrier(&sync, at_least, hook, progress, cancel).await
            }
            TaskSpec::SyncVerify(order) => self.verify(&order, progress, cancel).await,
            TaskSpec::SyncUnhold { sync, target } => self.unhold(&sync, &target).await,
            other => {
                let why = format!("this agent does not know {} runs", other.kind());
                Outcome::new(OutcomeKind::Unsupported, why)
            }
        }
    }

    /// Compares the copy of one target; ends when it is through, repaired if that was ordered.
    async fn verify(
        &self,
        order: &SyncVerify,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        match self.orders(&order.sync).await {
            Ok(orders) => verifying::carry_out(&orders, order, &progress, &cancel).await,
            Err(why) => Outcome::new(OutcomeKind::Failed, why),
        }
    }

    /// What the limit on removals holds for one target may go, for this once.
    pub async fn unhold(&self, sync: &SyncName, target: &NodeName) -> Outcome {
        match self.orders(sync).await {
            Ok(orders) => orders.release(target.clone()).await,
            Err(why) => Outcome::new(OutcomeKind::Failed, why),
        }
    }

    /// One complete pass to one target; ends when it is through, failed or cancelled.
    pub async fn resync(
        &self,
        sync: &SyncName,
        target: &NodeName,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        match self.orders(sync).await {
            Ok(orders) => orders.resync(target.clone(), progress, cancel).await,
            Err(why) => Outcome::new(OutcomeKind::Failed, why),
        }
    }

    /// The journal's entry up to which everything is told that is in the source when it is asked.
    pub async fn now(&self, sync: &SyncName) -> Result<u64, String> {
        self.orders(sync).await?.now(None).await.map(|now| now.seq)
    }

    /// Ends when so many targets, or all, have everything that is in the source when it is asked.
    pub async fn barrier(
        &self,
        sync: &SyncName,
        at_least: Option<u32>,
        hook: Option<HookName>,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        match self.orders(sync).await {
            Ok(orders) => orders.barrier(at_least, hook, progress, cancel).await,
            Err(why) => Outcome::new(OutcomeKind::Failed, why),
        }
    }

    /// Serves one connection to the data port, to its end.
    pub async fn serve(&self, stream: impl Stream, request: Request, caller: &Principal) {
        let Ok(_place) = self.0.connections.try_acquire() else {
            tracing::warn!(target: "audit", caller = %caller.subject, "refused a data connection: too many are open");
            return;
        };
        let engine = &self.0;
        let server = Server {
            targets: &engine.targets,
            trees: &engine.trees,
            lanes: &engine.lanes,
            host: &engine.host,
            rsync: &engine.settings.rsync,
        };
        server.serve(stream, request, caller).await;
    }

    /// Ends all processes of all syncs; what they are to do stays on disk.
    pub async fn shut_down(&self) {
        self.0.targets.withdraw_all();
        let sources = std::mem::take(&mut *self.0.sources.lock().await);
        let stopping: Vec<_> =
            sources.into_values().map(|handle| tokio::spawn(handle.stop())).collect();
        for stopped in stopping {
            let _ = stopped.await;
        }
        self.0.hooks.close();
        let _ = tokio::time::timeout(SERVED_WAIT_MAX, self.0.hooks.wait()).await;
        // Transfers to here end by themselves once their assignment is gone.
        let all = self.0.connections.acquire_many(CONNECTIONS_MAX as u32);
        let _ = tokio::time::timeout(SERVED_WAIT_MAX, all).await;
    }

    /// Makes the state directory of a sync, after a check of the directory to be synced.
    fn state_dir(&self, sync: &SyncName, path: &DirPath) -> Result<PathBuf, String> {
        let Settings { data_dir, allow_roots, .. } = &self.0.settings;
        check_path(path, data_dir, allow_roots)?;
        let dir = data_dir.join("sync").join(sync.as_str());
        fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        Ok(dir)
    }
}

fn finish(done: Result<(), String>) -> Outcome {
    match done {
        Ok(()) => Outcome::ok(),
        Err(why) => Outcome::new(OutcomeKind::Failed, why),
    }
}

/// Links are followed: what counts is where the files really are.
pub(crate) fn check_path(
    path: &DirPath,
    data_dir: &Path,
    allow_roots: &[DirPath],
) -> Result<(), String> {
    let real = real_path(Path::new(path.as_str()));
    let data_dir = real_path(data_dir);
    if real.starts_with(&data_dir) || data_dir.starts_with(&real) {
        return Err(format!(
            "path: {path} and the agent's data directory {} overlap",
            data_dir.display()
        ));
    }
    let allowed = |root: &DirPath| real.starts_with(real_path(Path::new(root.as_str())));
    if !allow_roots.is_empty() && !allow_roots.iter().any(allowed) {
        return Err(format!("path: {path} is outside of this node's allow-roots"));
    }
    Ok(())
}

/// As far as it exists.
fn real_path(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|above| {
            let rest = path.strip_prefix(above).ok()?;
            Some(fs::canonicalize(above).ok()?.join(rest))
        })
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_stays_in_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        let data = real.join("data");
        let srv = real.join("srv");
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&srv).unwrap();
        std::os::unix::fs::symlink(&data, srv.join("link")).unwrap();
        let path = |p: &Path| p.to_str().unwrap().parse::<DirPath>().unwrap();
        let roots = [path(&srv)];
        let check = |p: PathBuf, roots: &[DirPath]| check_path(&path(&p), &data, roots).is_ok();
        assert!(check(srv.join("www"), &roots));
        assert!(check(srv.clone(), &[]));
        assert!(!check(real.join("other"), &roots));
        assert!(!check(real.join("srvx"), &roots));
        assert!(!check(data.join("x"), &[]), "in the data directory");
        assert!(!check(real.clone(), &[]), "around the data directory");
        assert!(!check(srv.join("link/x"), &[]), "by a link into the data directory");
    }
}
