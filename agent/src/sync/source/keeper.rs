//! The loop of a source: hands the journal to the workers, obeys commands, reports. It waits for
//! nothing that takes long, and delivers nothing itself.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockstep_model::sync::hook::{HookEvent, HookPlace};
use lockstep_model::sync::options::{self, Symlinks};
use lockstep_model::sync::{
    DeletePolicy, DeliveryState, EngineState, FilePath, SourceReport, SyncReport,
};
use lockstep_model::task::SyncSource;
use lockstep_model::{Millis, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::canary::{self, Canaries, Now};
use super::classic::{self, Classic};
use super::crew::Crew;
use super::feed::Feed;
use super::follower::Follower;
use super::marker::Marker;
use super::poke::Poke;
use super::reaper::{Kept, Reaper};
use super::sluice::Sluice;
use super::{CURSORS, Command, shape};
use crate::data::below::Standing;
use crate::dispatch;
use crate::journal::{Change, Entry};
use crate::rsync::exclude::Excludes;
use crate::sync::Engine;
use crate::sync::context::Context;
use crate::sync::hooks::{Hooks, Site};
use crate::sync::watch::alarms::Alarms;
use crate::sync::watch::{Watch, WatchState};

/// How often the journal is looked at without a poke, and reports are made anew.
const TICK: Duration = Duration::from_secs(1);
/// How often everything is compared while lsyncd cannot run.
pub const BLIND_PASS_INTERVAL: Millis = Millis(60_000);
/// Most segments of the journal, 1 MiB or one large batch each: a target for which more would have
/// to be kept gets a pass instead.
const SEGMENTS_MAX: usize = 64;

pub struct Keeper {
    context: Arc<Context>,
    feed: Feed,
    crew: Crew,
    /// In place of the one lsyncd and the journal.
    classic: Option<Classic>,
    watch: watch::Receiver<WatchState>,
    alarms: Arc<Alarms>,
    /// Watches what links point to.
    follower: Option<Follower>,
    /// None when nothing is watched.
    watch_task: Option<JoinHandle<()>>,
    poke: Poke,
    canaries: Canaries,
    /// Fed by another node, and reported as a part of what is said of the copy.
    is_relay: bool,
    /// A relay brings on only a complete copy.
    may_feed: watch::Receiver<bool>,
    /// lsyncd's.
    delay: Millis,
    sluice: Sluice,
    marker: Option<Marker>,
    marker_record: PathBuf,
    /// Where files go once every target has them.
    reaper: Option<Reaper>,
    kept: Kept,
    hooks: Hooks,
    /// What had been brought to targets when the hooks last heard of it.
    told_brought: u64,
    /// When everything was last compared for want of an lsyncd.
    blind_pass_at: Option<Timestamp>,
    /// lsyncd has begun once; a later start begins with a "full".
    begun: bool,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
    problem: String,
}

impl Keeper {
    pub async fn open(
        engine: Arc<Engine>,
        dir: PathBuf,
        spec: &SyncSource,
        site: &Site,
        relay: Option<watch::Receiver<bool>>,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot use {}: {error}", dir.display());
        let cursors = dir.join(CURSORS);
        fs::create_dir_all(&cursors).map_err(failed)?;
        let dispatcher =
            dispatch::install(&dir, dispatch::NAME, &engine.settings.agent).map_err(failed)?;
        let context = Arc::new(Context::new(engine, &dir, spec));
        let swept = context.source.clone();
        let _ = tokio::task::spawn_blocking(move || canary::sweep(&swept)).await;
        let poke = Poke::bind(&dir.join(dispatch::POKE));
        let journal = dir.join(dispatch::JOURNAL);
        let head = Feed::head(&journal).await?;
        let (state, watch) = watch::channel(WatchState::Starting(String::new()));
        let alarms = Arc::<Alarms>::default();
        let succeeded = Arc::new(AtomicU64::new(0));
        let lsyncd = Watch {
            sync: spec.sync.clone(),
            host: context.engine.host.clone(),
            lsyncd: context.engine.settings.lsyncd.clone(),
            source: context.source.clone(),
            target: "lockstep::journal".to_owned(),
            dispatcher,
            config_file: dir.join("lsyncd.lua"),
            delay: spec.options.delay,
            succeeded: succeeded.clone(),
            changed: context.changed.clone(),
            trail: context.trail.clone(),
            places: context.engine.places.clone(),
            alarms: alarms.clone(),
            now: context.engine.now,
        };
        let is_classic = spec.options.engine == options::Engine::Classic && relay.is_none();
        let watch_task = match spec.options.once || is_classic || relay.is_some() {
            true => {
                state.send_replace(WatchState::Still);
                None
            }
            false => Some(tokio::spawn(lsyncd.run(state, stop.child_token()))),
        };
        let (crew, from) = Crew::start(context.clone(), cursors, spec, head, stop.child_token());
        crew.set_rates(spec);
        classic::sweep(&dir);
        let classic = is_classic.then(|| {
            Classic::new(context.clone(), spec.options.delay, alarms.clone(), stop.child_token())
        });
        let feed = Feed::open(journal, from, head, succeeded);
        let changed = context.changed.clone();
        let tell = Arc::new(move || changed.notify_one());
        let mut keeper = Self {
            context,
            feed,
            crew,
            classic,
            watch,
            alarms,
            follower: None,
            watch_task,
            poke,
            canaries: Canaries::default(),
            is_relay: relay.is_some(),
            may_feed: relay.unwrap_or_else(|| watch::channel(true).1),
            delay: spec.options.delay,
            sluice: Sluice::new(from),
            marker: None,
            marker_record: dir.join("marker"),
            reaper: None,
            kept: Kept::default(),
            hooks: Hooks::new(Site { tell, ..site.clone() }),
            told_brought: 0,
            blind_pass_at: None,
            begun: false,
            standing: watch::Sender::default(),
            stop,
            problem: String::new(),
        };
        keeper.set_rules(spec);
        keeper.note_shape(spec).await?;
        // No lsyncd begins with a "full" here, after which a source is looked at.
        if keeper.is_relay && *keeper.may_feed.borrow() {
            keeper.context.trail.begin_above(head);
        }
        // A place, by which it is known how far those are that others feed.
        if spec.options.once && head == 0 {
            keeper.feed.append_nothing((keeper.context.engine.now)()).await?;
        }
        keeper.fit_lsyncds().await?;
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
                () = self.poke.received() => {}
                Ok(()) = self.watch.changed() => {}
                Ok(()) = self.may_feed.changed() => {}
                change = Follower::next(&mut self.follower) => {
                    if let Err(why) = self.tell_all(change).await {
                        tracing::error!(sync = %self.context.sync, why, "cannot note a change");
                        // A new one begins with all that links point to.
                        self.follower = None;
                        self.set_follower(true);
                    }
                }
                () = self.context.changed.notified() => {}
                _ = tick.tick() => {}
            }
        }
        drop(commands);
        if let Some(classic) = self.classic {
            classic.end().await;
        }
        self.crew.end().await;
        self.context.trail.stop();
        self.stop.cancel();
        if let Some(task) = self.watch_task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "lsyncd's keeper ended badly");
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(spec, done) => {
                let _ = done.send(self.apply(*spec).await);
            }
            Command::Copies(answer) => {
                let _ = answer.send(self.crew.copies());
            }
            Command::Order(target, order) => self.crew.order(&target, order),
            Command::Now(target, answer) => {
                let now = (self.context.engine.now)();
                match (&mut self.classic, &self.watch_task) {
                    (Some(classic), _) => classic.ask(target.as_ref(), now, answer).await,
                    (None, Some(_)) => {
                        self.canaries.ask(&self.context.source, self.delay, now, answer).await;
                    }
                    // An entry of its own: whoever is past it has also what waited without one.
                    (None, None) => {
                        let doubt = Some("nothing is watched here".to_owned());
                        let seq = self.feed.append_nothing(now).await;
                        let _ = answer.send(seq.map(|seq| Now { seq, doubt }));
                    }
                }
            }
        }
    }

    async fn apply(&mut self, spec: SyncSource) -> Result<(), String> {
        self.context.set_options(&spec);
        self.set_rules(&spec);
        self.crew.become_these(&spec, self.sluice.given_upto()).await;
        self.crew.set_rates(&spec);
        self.note_shape(&spec).await?;
        self.fit_lsyncds().await
    }

    async fn fit_lsyncds(&mut self) -> Result<(), String> {
        match &mut self.classic {
            Some(classic) => classic.become_these(self.crew.nodes().cloned().collect()).await,
            None => Ok(()),
        }
    }

    fn set_rules(&mut self, spec: &SyncSource) {
        let options = &spec.options;
        // What the source of a relay ignores has not been told to it.
        let ignored = if self.is_relay { &[] } else { &options.ignore[..] };
        self.sluice.set(ignored, options.marker.as_ref());
        let record = &self.marker_record;
        let marker =
            |name: &FilePath| Marker::new(&self.context.source, name.as_str(), record.clone());
        self.marker = options.marker.as_ref().map(marker);
        let removes = options.remove_source_files && options.delete == DeletePolicy::Never;
        match (&self.reaper, removes) {
            (None, true) => self.reaper = Some(Reaper::default()),
            (_, false) => self.reaper = None,
            (Some(_), true) => {}
        }
        self.set_follower(options.transfer.symlinks == Symlinks::Follow);
        let names = [&options.marker, &options.sentinel].into_iter().flatten();
        self.kept = Kept {
            excludes: Excludes::new(&options.filters),
            names: names.map(|name| name.as_str().as_bytes().into()).collect(),
        };
        let here = options.hooks.iter().filter(|hook| hook.at == HookPlace::Source);
        self.hooks.set(here.cloned());
    }

    /// Whoever watches nothing, such as a relay, has no links to follow.
    fn set_follower(&mut self, follow: bool) {
        let before = self.follower.take();
        let start = || Follower::start(&self.context, self.delay, self.alarms.clone());
        let follow = follow && (self.watch_task.is_some() || self.classic.is_some());
        self.follower = follow.then(|| before.unwrap_or_else(start));
    }

    /// When it changes what every copy has to look like, that is the same as "anything may have".
    async fn note_shape(&mut self, spec: &SyncSource) -> Result<(), String> {
        let parts = shape::changed(&self.context, &spec.options);
        if parts.iter().any(|part| part.differs) {
            self.tell_all(Change::Full).await?;
        }
        for part in parts {
            part.write().await?;
        }
        Ok(())
    }

    /// What no lsyncd tells.
    async fn tell_all(&mut self, change: Change) -> Result<(), String> {
        let now = (self.context.engine.now)();
        match &self.classic {
            Some(classic) => classic.tell_all(&self.crew, &change, now),
            None => drop(self.feed.append(now, change).await?),
        }
        Ok(())
    }

    async fn follow_journal(&mut self) -> Result<(), String> {
        if let Some(classic) = &mut self.classic {
            let now = (self.context.engine.now)();
            let told = classic.follow(&self.crew, &self.sluice, now);
            if !told.is_empty() {
                self.follower.iter().for_each(Follower::look_again);
                classic.widen(&self.crew, told, now).await;
            }
            self.note_arrival().await;
            return Ok(());
        }
        // In this order: an entry is on disk before lsyncd can log its success.
        let succeeded = self.feed.succeeded();
        self.read_journal().await?;
        if matches!(*self.watch.borrow(), WatchState::Failing(_)) {
            // The next lsyncd begins with a "full", whatever the last one knew.
            self.feed.even_out();
            self.go_blind().await?;
        } else if self.feed.misses(succeeded) {
            tracing::warn!(sync = %self.context.sync, "a dispatcher was killed: everything is compared again");
            self.feed.append_full((self.context.engine.now)()).await?;
            self.feed.even_out();
            self.context.changed.notify_one();
        }
        Ok(())
    }

    /// Without lsyncd changes arrive late, not never.
    async fn go_blind(&mut self) -> Result<(), String> {
        let now = (self.context.engine.now)();
        let due = match self.blind_pass_at {
            // An lsyncd that only crashed is back before that.
            None => false,
            Some(at) => now.since(at) >= BLIND_PASS_INTERVAL,
        };
        if due {
            self.feed.append_full(now).await?;
            self.context.changed.notify_one();
        }
        if due || self.blind_pass_at.is_none() {
            self.blind_pass_at = Some(now);
        }
        Ok(())
    }

    /// Tells the hooks once everybody has what was brought since they were told.
    async fn note_arrival(&mut self) {
        let brought = self.context.brought.load(Ordering::Relaxed);
        let everybody_has_all = || match &self.classic {
            Some(classic) => classic.have_all(&self.crew),
            None => self.crew.have_all(self.sluice.given_upto()),
        };
        if brought != self.told_brought && everybody_has_all() {
            self.told_brought = brought;
            self.hooks.happened(HookEvent::Changed).await;
        }
    }

    async fn read_journal(&mut self) -> Result<(), String> {
        loop {
            let entries = self.feed.next().await?;
            if entries.is_empty() {
                break;
            }
            self.follower.iter().for_each(Follower::look_again);
            let given = self.sluice.given_upto();
            let marker = &self.marker;
            let is_written = || marker.as_ref().is_some_and(Marker::is_written);
            let go_on = self.sluice.pass(&entries, is_written);
            if given < self.sluice.given_upto()
                && let Some(marker) = marker
            {
                marker.note();
            }
            self.mark_for_removal(&go_on).await;
            // Workers first: an answer must not be ahead of what they were given.
            let by_file = self.context.options().excludes.has_filters();
            let go_on = self.context.trail.absorb(go_on, by_file).await;
            self.crew.absorb(&go_on, (self.context.engine.now)());
            self.canaries.heed(&entries, self.sluice.given_upto());
        }
        self.canaries.look(self.sluice.given_upto(), (self.context.engine.now)());
        self.note_arrival().await;
        self.remove_arrived().await;
        self.prune().await
    }

    /// Before workers hear of it: a file that changes later than this is not removed.
    async fn mark_for_removal(&mut self, entries: &[Entry]) {
        let Some(mut reaper) = self.reaper.take() else { return };
        let (source, kept) = (self.context.source.clone(), self.kept.clone());
        let entries = entries.to_vec();
        let noted = tokio::task::spawn_blocking(move || {
            reaper.note(&source, &entries, &kept);
            reaper
        });
        self.reaper = Some(noted.await.unwrap_or_default());
    }

    async fn remove_arrived(&mut self) {
        let Some(upto) = self.crew.complete_upto() else { return };
        let Some(mut reaper) = self.reaper.take_if(|reaper| reaper.has_any()) else { return };
        let source = self.context.source.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let removed = reaper.remove(&source, upto);
            (reaper, removed)
        });
        let (reaper, removed) = removed.await.unwrap_or_default();
        if removed > 0 {
            tracing::info!(sync = %self.context.sync, removed, "removed files that all targets have");
        }
        self.reaper = Some(reaper);
    }

    async fn prune(&mut self) -> Result<(), String> {
        let given = self.sluice.given_upto();
        let acked = self.crew.acked().unwrap_or(given);
        if self.feed.prune(acked).await? <= SEGMENTS_MAX {
            return Ok(());
        }
        if acked < given {
            self.crew.need_pass(acked);
        } else {
            // What waits for the marker is too much: what is deleted of it reads as a "full".
            self.sluice.collapse();
            self.feed.prune(self.feed.read_upto()).await?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        let standing = self.crew.standing();
        self.standing.send_if_modified(|was| std::mem::replace(was, standing.clone()) != standing);
        let deliveries = self.crew.report((self.context.engine.now)());
        let (mut engine, mut problem) = match (&self.classic, &*self.watch.borrow_and_update()) {
            (Some(classic), _) => classic.state(),
            (None, state) => state.engine(),
        };
        if engine != EngineState::Failing {
            self.blind_pass_at = None;
        }
        self.begun |= engine != EngineState::Starting;
        let is_open = self.begun && *self.may_feed.borrow_and_update();
        self.crew.set_gates(|node| match &self.classic {
            Some(classic) => classic.is_open(node),
            None => is_open,
        });
        if let Some(held) = deliveries.iter().find(|d| d.state == DeliveryState::Held) {
            engine = EngineState::Held;
            problem.clone_from(&held.last_error);
        }
        if !self.problem.is_empty() {
            problem.clone_from(&self.problem);
        }
        // Without a journal each target has a count of its own.
        let head = if self.classic.is_some() { 0 } else { self.sluice.given_upto() };
        let mut warnings = self.alarms.lines((self.context.engine.now)());
        warnings.append(&mut self.hooks.problems());
        warnings.extend(self.crew.warnings());
        warnings.truncate(SourceReport::WARNINGS_MAX);
        let report = SourceReport { engine, problem, warnings, head, deliveries };
        let Context { engine, sync, .. } = &*self.context;
        match self.is_relay {
            true => engine.targets.set_relay(sync, Some(report), standing),
            false => engine.reports.publish(sync, SyncReport::Source(report)),
        }
    }
}
