//! The loop of a source: hands the journal to the workers, obeys commands, reports. It waits for
//! nothing that takes long, and delivers nothing itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::sync::{DeliveryState, EngineState, SourceReport, SyncReport};
use lockstep_model::task::{Peer, Receiver, Route, SyncSource};
use lockstep_transport::durable;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Command;
use super::barrier::Standing;
use super::canary::{self, Canaries};
use super::crew::Crew;
use super::feed::Feed;
use super::sieve::strain;
use crate::dispatch;
use crate::rsync::exclude;
use crate::sync::Engine;
use crate::sync::context::Context;
use crate::sync::watch::{Watch, WatchState};

/// How often the journal is looked at without a poke, and reports are made anew.
const TICK: Duration = Duration::from_secs(1);
/// Most segments of the journal, 1 MiB or one large batch each: a target for which more would have
/// to be kept gets a pass instead.
const SEGMENTS_MAX: usize = 64;

pub struct Keeper {
    context: Arc<Context>,
    feed: Feed,
    crew: Crew,
    watch: watch::Receiver<WatchState>,
    watch_task: JoinHandle<()>,
    poke: Option<UnixDatagram>,
    canaries: Canaries,
    /// lsyncd's.
    delay: Millis,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
    problem: String,
}

impl Keeper {
    pub async fn open(
        engine: Arc<Engine>,
        dir: PathBuf,
        spec: &SyncSource,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot use {}: {error}", dir.display());
        let cursors = dir.join("cursors");
        fs::create_dir_all(&cursors).map_err(failed)?;
        let dispatcher = dispatch::install(&dir, &engine.settings.agent).map_err(failed)?;
        let source = PathBuf::from(spec.path.as_str());
        let context =
            Arc::new(Context::new(engine, spec.sync.clone(), source, &dir, &spec.options));
        let swept = context.source.clone();
        let _ = tokio::task::spawn_blocking(move || canary::sweep(&swept)).await;
        let poke = bind_poke(&dir.join(dispatch::POKE));
        let journal = dir.join(dispatch::JOURNAL);
        let head = Feed::head(&journal).await?;
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
        let watch_task = tokio::spawn(lsyncd.run(state, stop.child_token()));
        let (crew, from) =
            Crew::start(context.clone(), cursors, &peers(spec), head, stop.child_token());
        let feed = Feed::open(journal, from, head, succeeded);
        let mut keeper = Self {
            context,
            feed,
            crew,
            watch,
            watch_task,
            poke,
            canaries: Canaries::default(),
            delay: spec.options.delay,
            standing: watch::Sender::default(),
            stop,
            problem: String::new(),
        };
        keeper.note_excludes(spec).await?;
        Ok(keeper)
    }

    /// How far each target has everything.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        let stop = self.stop.clone();
        loop {
            self.problem = self.follow_journal().await.err().unwrap_or_default();
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
        self.crew.end().await;
        self.context.trail.stop();
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
            Command::Resync(target, order) => self.crew.order(&target, order),
            Command::Now(answer) => {
                let now = (self.context.engine.now)();
                self.canaries.ask(&self.context.source, self.delay, now, answer).await;
            }
        }
    }

    async fn apply(&mut self, spec: SyncSource) -> Result<(), String> {
        self.context.set_options(&spec.options);
        self.crew.become_these(&peers(&spec), self.feed.read_upto()).await;
        self.note_excludes(&spec).await
    }

    /// Changed patterns change what belongs on every target: the same as "anything may have".
    async fn note_excludes(&mut self, spec: &SyncSource) -> Result<(), String> {
        let file = self.context.excludes_file.clone();
        let text = exclude::file(&spec.options.filters);
        let before = fs::read_to_string(&file).ok();
        if before.as_deref() == Some(&text) {
            return Ok(());
        }
        if before.is_some() {
            self.feed.append_full((self.context.engine.now)()).await?;
        }
        let write = move || durable::write(&file, text.as_bytes());
        let written = tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?;
        written.map_err(|e| format!("cannot write the excludes: {e}"))
    }

    async fn follow_journal(&mut self) -> Result<(), String> {
        // In this order: an entry is on disk before lsyncd can log its success.
        let succeeded = self.feed.succeeded();
        self.read_journal().await?;
        if matches!(*self.watch.borrow(), WatchState::Failing(_)) {
            // The next lsyncd begins with a "full", whatever the last one knew.
            self.feed.even_out();
        } else if self.feed.misses(succeeded) {
            tracing::warn!(sync = %self.context.sync, "a dispatcher was killed: everything is compared again");
            self.feed.append_full((self.context.engine.now)()).await?;
            self.feed.even_out();
            self.context.changed.notify_one();
        }
        Ok(())
    }

    async fn read_journal(&mut self) -> Result<(), String> {
        loop {
            let entries = self.feed.next().await?;
            if entries.is_empty() {
                break;
            }
            // Workers first: an answer must not be ahead of what they were given.
            let seen: Vec<_> = entries.iter().map(strain).collect();
            let by_file = self.context.options().excludes.has_filters();
            self.context.trail.absorb(&seen, by_file).await;
            self.crew.absorb(&seen, (self.context.engine.now)());
            self.canaries.heed(&entries);
        }
        self.canaries.look(self.feed.read_upto(), (self.context.engine.now)());
        let acked = self.crew.acked().unwrap_or(self.feed.read_upto());
        if self.feed.prune(acked).await? > SEGMENTS_MAX {
            self.crew.need_pass(acked);
        }
        Ok(())
    }

    fn publish(&mut self) {
        let standing = self.crew.standing();
        self.standing.send_if_modified(|now| {
            let changed = *now != standing;
            *now = standing;
            changed
        });
        let deliveries = self.crew.report((self.context.engine.now)());
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
        let head = self.feed.read_upto();
        let report = SourceReport { engine, problem, warnings: Vec::new(), head, deliveries };
        self.context.engine.reports.publish(&self.context.sync, SyncReport::Source(report));
    }
}

fn peers(spec: &SyncSource) -> Vec<Peer> {
    let peer = |receiver: &Receiver| match &receiver.route {
        Route::Agent(peer) => Some(peer.clone()),
        Route::Remote(_) => None,
    };
    spec.receivers.iter().filter_map(peer).collect()
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
