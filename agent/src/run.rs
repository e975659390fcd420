//! One run of the agent: what is made of the settings, in which order it starts and how it ends.
//! What is in force works before any controller is asked.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockstep_model::task::{Outcome, TaskSpec};
use lockstep_transport::clock;
use lockstep_transport::health::{HealthBoard, READY, Verdict};
use lockstep_transport::identity::IdentityError;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::data::MemberDial;
use crate::health;
use crate::identity::{self, Keeper, RenewError};
use crate::ledger::{Ledger, LedgerError, Memory};
use crate::link::{Clusters, Link, Sources};
use crate::lock::{DataDirLock, LockError};
use crate::metrics;
use crate::mirror::{self, MirrorEngine};
use crate::pg::{self, ClusterEngine};
use crate::port::Port;
use crate::runner::{Output, Runner, Work};
use crate::sync::{Settings, SyncEngine};
use crate::tools::{self, Inspector};

/// How long tasks may take to end when the agent ends, and then the syncs.
/// For the controller to record and to grant a longer lease.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long the first stream waits for the data port.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Lines of a pass that wait for their place in the task's output.
const PROGRESS_MAX: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{0}; run lockstep-agent join first")]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Renew(#[from] RenewError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("setting health-listen: cannot listen on {at}: {source}")]
    Health { at: std::net::SocketAddr, source: io::Error },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("no randomness from the kernel: {0}")]
    Random(#[from] getrandom::Error),
}

/// A started agent.
pub struct Agent {
    pub board: HealthBoard,
    runner: Runner,
    engine: SyncEngine,
    mirrors: MirrorEngine,
    clusters: ClusterEngine,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
    _lock: DataDirLock,
}

impl Agent {
    pub async fn start(config: Config) -> Result<Self, RunError> {
        let Config {
            data_dir,
            controllers,
            listen,
            advertise,
            health_listen,
            rsync,
            lsyncd,
            allow_roots,
            hook_dir,
            secrets_dir,
            rsyncd_dir,
            bandwidth_limit,
            mirror_pulls,
            watchdog,
            telemetry: _,
        } = config;
        let lock = DataDirLock::take(&data_dir)?;
        let keeper = Keeper::load(&data_dir.join(identity::DIR))?;
        let name = identity::node_name(&keeper.handle.current())?.clone();
        let listener = TcpListener::bind(health_listen).await;
        let listener = listener.map_err(|source| RunError::Health { at: health_listen, source })?;
        let board = HealthBoard::new();

        let (ledger, damages) = Ledger::open(&data_dir.join("ledger"))?;
        let (mut memory, damage) = Memory::open(data_dir.join("told"));
        if !damages.is_empty() {
            memory.forget();
        }
        let damages =
            damages.into_iter().chain(damage.map(|e| format!("{e}; it counts as absent")));
        let damages: BTreeSet<String> = damages.collect();
        for damage in &damages {
            tracing::error!(damage, "something on disk was lost");
        }
        let instance = getrandom::u64()?;

        let (addresses_tx, addresses) = watch::channel(Vec::new());
        let known = addresses.clone();
        let cluster_hooks = hook_dir.clone();
        let mirrors = mirror::Settings {
            data_dir: data_dir.clone(),
            agent: own_path()?,
            rsync: program("rsync", rsync.as_deref()),
            hook_dir: hook_dir.clone(),
            secrets_dir: secrets_dir.clone(),
            name: name.clone(),
            rsyncd_dir,
            allow_roots: allow_roots.clone(),
            pulls: mirror_pulls,
        };
        let settings = Settings {
            agent: mirrors.agent.clone(),
            rsync: mirrors.rsync.clone(),
            lsyncd: program("lsyncd", lsyncd.as_deref()),
            data_dir: data_dir.clone(),
            allow_roots,
            hook_dir,
            secrets_dir,
            node: name.to_string(),
        };
        let dial = Arc::new(MemberDial(keeper.handle.clone()));
        let engine = SyncEngine::open(settings, dial.clone(), clock::now).await;
        let engine = engine.map_err(|source| RunError::Io { what: "data-dir", source })?;
        engine.lanes().limit(bandwidth_limit);
        let mirrors = MirrorEngine::open(mirrors, &engine, clock::now);
        if let Some(wrong) = watchdog.as_ref().and_then(|watchdog| watchdog.check().err()) {
            tracing::warn!(wrong, "the kernel's watchdog");
        }
        let members = pg::Settings {
            data_dir: data_dir.clone(),
            agent: own_path()?,
            hook_dir: cluster_hooks,
            watchdog,
            name: name.clone(),
            addresses: known.clone(),
        };
        let promises = Arc::new(pg::promise::Peers(dial.clone()));
        let ways = pg::Ways { dial, promises };
        let clusters = ClusterEngine::open(members, ways, engine.host().clone());
        let in_force: Vec<_> = ledger.in_force().cloned().collect();
        Box::pin(engine.start(in_force.clone())).await;
        Box::pin(mirrors.start(in_force.clone())).await;
        Box::pin(clusters.start(in_force)).await;
        let (syncs, mirrors_too) = (engine.clone(), mirrors.clone());
        let work = Engines { syncs, mirrors: mirrors_too, clusters: clusters.clone() };
        let runner = Runner::start(ledger, Arc::new(work)).await;

        let (warnings, warned) = watch::channel(damages);
        let (report_tx, report) = watch::channel(Inspector::blank());
        let syncs = engine.reports().subscribe();
        let trees = mirrors.reports().subscribe();
        let sources = Sources {
            runner: runner.clone(),
            report,
            syncs: syncs.clone(),
            mirrors: trees.clone(),
            passwords: mirrors.passwords().clone(),
            clusters: link_of(&clusters),
            logs: mirrors.logs(),
            addresses,
        };
        let link = Link::new(keeper.clone(), sources, memory, controllers, &data_dir, instance);
        let port = Port {
            engine: engine.clone(),
            clusters: clusters.clone(),
            identity: keeper.handle.clone(),
            listen,
            advertise,
            controllers: link.controllers(),
            in_force: runner.in_force(),
            addresses: addresses_tx,
            warnings,
        };
        let inspector = Inspector {
            host: engine.host().clone(),
            rsync,
            lsyncd,
            in_force: runner.in_force(),
            warnings: warned,
        };
        tracing::info!(node = %name, data_dir = %data_dir.display(), health = %health_listen, "agent starts");

        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let checks = pg::health::Sources {
            in_force: runner.in_force(),
            reports: clusters.reports(),
            leases: Arc::new(clusters.clone()),
        };
        let (of_syncs, of_trees) = (syncs.clone(), trees.clone());
        let further = Arc::new(move || metrics::text(&of_syncs.borrow(), &of_trees.borrow()));
        let routes = pg::health::routes(checks.clone(), name, further);
        let (answers, ended) = (board.clone(), shutdown.clone());
        tasks.spawn(lockstep_transport::health::serve(listener, answers, routes, ended));
        tasks.spawn(pg::health::keep(board.clone(), checks));
        let said = health::Reports { syncs, mirrors: trees };
        tasks.spawn(health::keep(board.clone(), runner.in_force(), said, link.status()));
        tasks.spawn(inspector.keep(report_tx));
        tasks.spawn(port.keep());
        let list = link.controllers();
        tasks.spawn(async move { keeper.keep(list, instance).await });
        let ended = shutdown.clone();
        tasks.spawn(async move {
            let mut known = known;
            // Without addresses the fleet would plan as if nobody could reach us, and then again.
            let opened = known.wait_for(|addresses| !addresses.is_empty());
            let _ = timeout(PORT_PATIENCE, opened).await;
            link.run(ended).await;
        });
        board.set(READY, Verdict::Serving, "running");
        Ok(Self { board, runner, engine, mirrors, clusters, tasks, shutdown, _lock: lock })
    }

    /// Takes up what of the settings may change while the agent runs.
    pub fn reload(&self, config: &Config) {
        self.engine.lanes().limit(config.bandwidth_limit);
    }

    /// Ends the syncs and tasks in order, within a bound; what they are to do stays on disk.
    pub async fn stop(mut self) {
        self.board.set(READY, Verdict::NotServing, "stopping");
        self.clusters.leave(LEAVE_PATIENCE).await;
        self.runner.shut_down(STOP_PATIENCE).await;
        let (mirrors, clusters) = (self.mirrors.shut_down(), self.clusters.shut_down());
        let engines = async { tokio::join!(mirrors, clusters, self.engine.shut_down()) };
        if timeout(STOP_PATIENCE, engines).await.is_err() {
            tracing::warn!("syncs did not stop in time; ending all the same");
        }
        self.shutdown.cancel();
        self.tasks.shutdown().await;
    }
}

/// The link's side of the engine.
fn link_of(engine: &ClusterEngine) -> Clusters {
    // Given out once, and this is the time; a closed one says nothing.
    let renewals = engine.renewals().unwrap_or_else(|| mpsc::channel(1).1);
    let engine_of_grants = engine.clone();
    Clusters {
        reports: engine.reports(),
        renewals: Arc::new(Mutex::new(renewals)),
        granted: Arc::new(move |grant| engine_of_grants.granted(grant)),
        passwords: engine.passwords().clone(),
    }
}

/// As set, whatever is there; else the first on the usual path.
fn program(name: &str, set: Option<&Path>) -> PathBuf {
    let set = set.map(Path::to_owned);
    set.or_else(|| tools::find(name, None)).unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

fn own_path() -> Result<PathBuf, RunError> {
    std::env::current_exe().map_err(|source| RunError::Io { what: "path of this program", source })
}

/// What carries tasks out.
struct Engines {
    syncs: SyncEngine,
    mirrors: MirrorEngine,
    clusters: ClusterEngine,
}

impl Work for Engines {
    fn carry_out(
        &self,
        spec: TaskSpec,
        stop: CancellationToken,
        output: Output,
    ) -> BoxFuture<'static, Outcome> {
        let (engine, mirrors) = (self.syncs.clone(), self.mirrors.clone());
        let clusters = self.clusters.clone();
        async move {
            match spec {
                TaskSpec::SyncSource(spec) => engine.apply_source(spec).await,
                TaskSpec::SyncTarget(spec) => engine.apply_target(spec).await,
                TaskSpec::SyncRelease { sync } => engine.release(&sync).await,
                TaskSpec::MirrorPlace(spec) => mirrors.place(spec).await,
                TaskSpec::MirrorRelease(spec) => mirrors.release(spec, &output).await,
                TaskSpec::MirrorPull(spec) => mirrors.pull(spec, stop, output).await,
                TaskSpec::MirrorHooks(spec) => mirrors.distributed(spec, stop, output).await,
                TaskSpec::ClusterPlace(spec) => clusters.place(*spec, stop).await,
                TaskSpec::ClusterRelease(spec) => clusters.release(spec, &output).await,
                TaskSpec::ClusterAct(spec) => clusters.act(spec, stop, output).await,
                spec @ (TaskSpec::SyncResync { .. }
                | TaskSpec::SyncVerify(_)
                | TaskSpec::SyncUnhold { .. }
                | TaskSpec::SyncBarrier(_)) => {
                    let (progress, mut lines) = mpsc::channel::<String>(PROGRESS_MAX);
                    let run = engine.run(spec, progress, stop);
                    let copy = async {
                        while let Some(line) = lines.recv().await {
                            output.line(&line);
                        }
                    };
                    // The run drops its end of the channel.
                    tokio::join!(run, copy).0
                }
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
