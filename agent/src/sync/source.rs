//! Being a source: one lsyncd, one journal, one worker per target. Adding, changing and removing a
//! target touches neither lsyncd nor another target.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lockstep_model::NodeName;
use lockstep_model::sync::{DeliveryState, EngineState, SourceReport, SyncReport};
use lockstep_model::task::{Outcome, OutcomeKind, Peer, SyncSource};
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::context::Context;
use super::shared::Shared;
use super::tally::Tally;
use super::watch::{Watch, WatchState};
use super::worker::{Order, Worker};
use crate::cursor::{Cursor, write_durably};
use crate::dispatch;
use crate::journal::{self, Appender, Change, Reader};
use crate::rsync::exclude;

/// How often the journal is looked at without a poke, and reports are made anew.
const TICK: Duration = Duration::from_secs(1);
/// Commands that wait for a source; more are refused by waiting in the caller.
const COMMANDS_MAX: usize = 8;
/// Most segments of the journal, 1 MiB or one large batch each: a target for which more would have
/// to be kept gets a pass instead.
const SEGMENTS_MAX: usize = 64;
/// How long a cancelled pass may take to end.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Ordered passes that wait for one target.
const ORDERS_MAX: usize = 4;

enum Command {
    Apply(SyncSource, oneshot::Sender<Result<(), String>>),
    Resync(NodeName, Order),
}

/// A running source.
pub struct Handle {
    spec: SyncSource,
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Handle {
    /// `dir` is the sync's state directory and exists.
    pub async fn start(
        engine: Arc<Engine>,
        dir: PathBuf,
        spec: SyncSource,
    ) -> Result<Self, String> {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let stop = CancellationToken::new();
        let keeper = Keeper::open(engine, dir, &spec, stop.clone()).await?;
        let task = tokio::spawn(keeper.run(received));
        Ok(Self { spec, commands, stop, task })
    }

    /// Whether a spec differs in what lsyncd needs, so that the source has to start again.
    pub fn needs_restart(&self, spec: &SyncSource) -> bool {
        self.task.is_finished()
            || self.spec.path != spec.path
            || self.spec.options.delay != spec.options.delay
    }

    pub async fn apply(&mut self, spec: SyncSource) -> Result<(), String> {
        let (done, applied) = oneshot::channel();
        let ended = |_| format!("sync {} has stopped", spec.sync);
        self.commands.send(Command::Apply(spec.clone(), done)).await.map_err(|_| ended(()))?;
        applied.await.map_err(|_| ended(()))??;
        self.spec = spec;
        Ok(())
    }

    /// The way to order passes, usable while the handle is not.
    pub fn orders(&self) -> Orders {
        Orders(self.commands.clone())
    }

    /// Ends everything of the source; when it returns no process is left.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a source ended badly");
        }
    }
}

pub struct Orders(mpsc::Sender<Command>);

impl Orders {
    pub async fn resync(
        &self,
        target: NodeName,
        progress: mpsc::Sender<String>,
        cancel: CancellationToken,
    ) -> Outcome {
        let (done, ended) = oneshot::channel();
        let order = Order { progress, cancel: cancel.clone(), done };
        let stopped = || Outcome::new(OutcomeKind::Interrupted, "the sync was stopped");
        if self.0.send(Command::Resync(target, order)).await.is_err() {
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

struct WorkerHandle {
    peer: Peer,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl WorkerHandle {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(target = %self.peer.node, %error, "a delivery worker ended badly");
        }
    }
}

struct Keeper {
    context: Arc<Context>,
    dir: PathBuf,
    journal: PathBuf,
    reader: Option<Reader>,
    /// Last sequence handed to the workers.
    read_upto: u64,
    workers: BTreeMap<NodeName, WorkerHandle>,
    watch: watch::Receiver<WatchState>,
    watch_task: JoinHandle<()>,
    poke: Option<UnixDatagram>,
    tally: Tally,
    stop: CancellationToken,
    problem: String,
}

impl Keeper {
    async fn open(
        engine: Arc<Engine>,
        dir: PathBuf,
        spec: &SyncSource,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot use {}: {error}", dir.display());
        fs::create_dir_all(dir.join("cursors")).map_err(failed)?;
        let dispatcher = dispatch::install(&dir, &engine.settings.agent).map_err(failed)?;
        let source = PathBuf::from(spec.path.as_str());
        let context =
            Arc::new(Context::new(engine, spec.sync.clone(), source, &dir, &spec.options));
        let poke = bind_poke(&dir.join(dispatch::POKE));
        let journal = dir.join(dispatch::JOURNAL);
        let head = head(&journal).await?;
        let (state, watch) = watch::channel(WatchState::Starting);
        let succeeded = Arc::new(AtomicU64::new(0));
        let lsyncd = Watch {
            sync: spec.sync.clone(),
            host: context.engine.host.clone(),
            lsyncd: context.engine.settings.lsyncd.clone(),
            source: context.source.clone(),
            dispatcher,
            config_file: dir.join("lsyncd.lua"),
            delay: spec.options.delay,
            succeeded: succeeded.clone(),
            changed: context.changed.clone(),
        };
        let mut keeper = Self {
            context,
            reader: None,
            read_upto: head,
            workers: BTreeMap::new(),
            watch,
            watch_task: tokio::spawn(lsyncd.run(state, stop.child_token())),
            poke,
            tally: Tally::above(head, succeeded),
            stop,
            problem: String::new(),
            journal,
            dir,
        };
        let cursors: Vec<(Peer, Cursor)> = spec
            .targets
            .iter()
            .map(|peer| (peer.clone(), keeper.load_cursor(&peer.node, head)))
            .collect();
        let from = cursors.iter().map(|(_, cursor)| cursor.acked).min().unwrap_or(head);
        keeper.reader = Some(Reader::after(&keeper.journal, from));
        keeper.read_upto = from;
        for (peer, cursor) in cursors {
            keeper.add(peer, cursor);
        }
        keeper.note_excludes(spec).await?;
        Ok(keeper)
    }

    fn cursor_file(&self, node: &NodeName) -> PathBuf {
        self.dir.join("cursors").join(node.as_str())
    }

    fn load_cursor(&self, node: &NodeName, head: u64) -> Cursor {
        match Cursor::load(&self.cursor_file(node)) {
            // The journal it counts in is gone: only a pass can tell.
            Some(cursor) if cursor.acked > head => Cursor { acked: head, full: true, ..cursor },
            Some(cursor) => cursor,
            None => Cursor::fresh(head),
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        let stop = self.stop.clone();
        loop {
            self.follow_journal().await;
            self.publish();
            tokio::select! {
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => break,
                },
                () = poked(self.poke.as_ref()) => {}
                Ok(()) = self.watch.changed() => {}
                () = self.context.changed.notified() => {}
                _ = tick.tick() => {}
            }
        }
        drop(commands);
        // All at once: one that is slow to end does not hold up the others.
        let workers: Vec<_> = std::mem::take(&mut self.workers).into_values().collect();
        workers.iter().for_each(|worker| worker.stop.cancel());
        for worker in workers {
            worker.end().await;
        }
        self.stop.cancel();
        if let Err(error) = self.watch_task.await {
            tracing::error!(%error, "lsyncd's keeper ended badly");
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(spec, done) => {
                let _ = done.send(self.apply(spec).await);
            }
            Command::Resync(target, order) => {
                let refused = match self.workers.get(&target) {
                    None => {
                        Some((order, format!("{target} is no target of {}", self.context.sync)))
                    }
                    Some(worker) => match worker.orders.try_send(order) {
                        Ok(()) => None,
                        Err(error) => {
                            Some((error.into_inner(), format!("too many passes to {target} wait")))
                        }
                    },
                };
                if let Some((order, why)) = refused {
                    let _ = order.done.send(Outcome::new(OutcomeKind::Failed, why));
                }
            }
        }
    }

    async fn apply(&mut self, spec: SyncSource) -> Result<(), String> {
        self.context.set_options(&spec.options);
        let keeps = |node: &NodeName| spec.targets.iter().any(|peer| peer.node == *node);
        let gone: Vec<NodeName> =
            self.workers.keys().filter(|node| !keeps(node)).cloned().collect();
        for node in gone {
            if let Some(worker) = self.workers.remove(&node) {
                worker.end().await;
            }
            let _ = fs::remove_file(self.cursor_file(&node));
        }
        for peer in &spec.targets {
            let changed = self.workers.get(&peer.node).is_some_and(|worker| worker.peer != *peer);
            if changed && let Some(worker) = self.workers.remove(&peer.node) {
                worker.end().await;
            }
            if !self.workers.contains_key(&peer.node) {
                let cursor = self.load_cursor(&peer.node, self.read_upto);
                // What lies between was read and given to others already.
                let behind = cursor.acked < self.read_upto;
                let cursor =
                    Cursor { acked: self.read_upto, full: cursor.full || behind, ..cursor };
                self.add(peer.clone(), cursor);
            }
        }
        self.note_excludes(&spec).await
    }

    fn add(&mut self, peer: Peer, cursor: Cursor) {
        let shared = Arc::new(Shared::new(&cursor));
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let stop = self.stop.child_token();
        let worker = Worker {
            context: self.context.clone(),
            peer: peer.clone(),
            shared: shared.clone(),
            cursor,
            cursor_file: self.cursor_file(&peer.node),
            orders: received,
            stop: stop.clone(),
        };
        let task = tokio::spawn(worker.run());
        let node = peer.node.clone();
        self.workers.insert(node, WorkerHandle { peer, shared, orders, stop, task });
    }

    /// Changed patterns change what belongs on every target: the same as "anything may have".
    async fn note_excludes(&mut self, spec: &SyncSource) -> Result<(), String> {
        let file = self.context.excludes_file.clone();
        let text = exclude::file(&spec.options.excludes);
        let before = fs::read_to_string(&file).ok();
        if before.as_deref() == Some(&text) {
            return Ok(());
        }
        if before.is_some() {
            self.need_full().await?;
        }
        let write = move || write_durably(&file, text.as_bytes());
        let written = tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?;
        written.map_err(|e| format!("cannot write the excludes: {e}"))
    }

    /// Writes into the journal that anything may have changed.
    async fn need_full(&mut self) -> Result<(), String> {
        let journal = self.journal.clone();
        let now = (self.context.engine.now)();
        let append = move || Appender::open(&journal)?.append(now, Change::Full);
        let seq = tokio::task::spawn_blocking(append)
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        self.tally.note_own(seq);
        Ok(())
    }

    async fn follow_journal(&mut self) {
        // In this order: an entry is on disk before lsyncd can log its success.
        let succeeded = self.tally.succeeded();
        self.read_journal().await;
        if matches!(*self.watch.borrow(), WatchState::Failing(_)) {
            // The next lsyncd begins with a "full", whatever the last one knew.
            self.tally.even_out();
        } else if self.tally.misses(succeeded) && self.problem.is_empty() {
            tracing::warn!(sync = %self.context.sync, "a dispatcher was killed: everything is compared again");
            match self.need_full().await {
                Ok(()) => {
                    self.tally.even_out();
                    self.context.changed.notify_one();
                }
                Err(error) => self.problem = error,
            }
        }
    }

    async fn read_journal(&mut self) {
        self.problem.clear();
        loop {
            let Some(mut reader) = self.reader.take() else { return };
            let read = tokio::task::spawn_blocking(move || {
                let read = reader.read();
                (reader, read)
            });
            let (reader, read) = match read.await {
                Ok(done) => done,
                Err(error) => {
                    // Only a panic leads here; what was not read is read by a fresh reader.
                    tracing::error!(%error, "reading the journal failed");
                    self.reader = Some(Reader::after(&self.journal, self.read_upto));
                    return;
                }
            };
            self.read_upto = reader.seq();
            self.reader = Some(reader);
            match read {
                Ok(entries) if entries.is_empty() => break,
                Ok(entries) => {
                    self.tally.count(&entries);
                    let now = (self.context.engine.now)();
                    for worker in self.workers.values() {
                        worker.shared.absorb(&entries, now);
                    }
                }
                Err(error) => {
                    self.problem = error.to_string();
                    return;
                }
            }
        }
        let acked = self.workers.values().map(|worker| worker.shared.acked()).min();
        let acked = acked.unwrap_or(self.read_upto);
        match journal::prune(&self.journal, acked) {
            Ok(left) if left > SEGMENTS_MAX => {
                let last = self.workers.values().filter(|worker| worker.shared.acked() == acked);
                last.for_each(|worker| worker.shared.need_pass());
            }
            Ok(_) => {}
            Err(error) => self.problem = error.to_string(),
        }
    }

    fn publish(&mut self) {
        let now = (self.context.engine.now)();
        let deliveries: Vec<_> =
            self.workers.values().map(|worker| worker.shared.report(&worker.peer, now)).collect();
        let (mut engine, mut problem) = match &*self.watch.borrow_and_update() {
            WatchState::Starting => (EngineState::Starting, String::new()),
            WatchState::Watching => (EngineState::Watching, String::new()),
            WatchState::Failing(why) => (EngineState::Failing, why.clone()),
        };
        if engine != EngineState::Starting {
            self.context.gate.send_if_modified(|open| !std::mem::replace(open, true));
        }
        if let Some(held) = deliveries.iter().find(|d| d.state == DeliveryState::Held) {
            engine = EngineState::Held;
            problem.clone_from(&held.last_error);
        }
        if !self.problem.is_empty() {
            problem.clone_from(&self.problem);
        }
        let head = self.read_upto;
        let report = SourceReport { engine, problem, head, deliveries };
        self.context.engine.reports.publish(&self.context.sync, SyncReport::Source(report));
    }
}

async fn head(journal: &Path) -> Result<u64, String> {
    let journal = journal.to_owned();
    tokio::task::spawn_blocking(move || Appender::open(&journal).map(|appender| appender.head()))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

/// None when the path is too long for a socket: then the tick alone finds new entries.
fn bind_poke(path: &Path) -> Option<UnixDatagram> {
    let _ = fs::remove_file(path);
    UnixDatagram::bind(path)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "changes are noticed a second later");
        })
        .ok()
}

async fn poked(socket: Option<&UnixDatagram>) {
    let mut byte = [0];
    match socket {
        Some(socket) => drop(socket.recv(&mut byte).await),
        None => std::future::pending().await,
    }
}
