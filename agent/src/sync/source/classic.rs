//! engine=classic: an lsyncd of its own for each target. What one tells is its target's alone, it is
//! delivered by that target's worker, and lsyncd waits for the outcome. There is no journal: what
//! has not been told yet waits in lsyncd's memory. It delivers nothing itself.

mod calls;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lockstep_model::sync::EngineState;
use lockstep_model::{Millis, NodeName, Timestamp};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::canary::{self, Canaries};
use super::crew::Crew;
use super::keeper::BLIND_PASS_INTERVAL;
use super::sluice::Sluice;
use crate::classic;
use crate::data::call;
use crate::dispatch;
use crate::journal::{Change, Entry};
use crate::sync::context::Context;
use crate::sync::shared::Shared;
use crate::sync::tally::Tally;
use crate::sync::watch::alarms::Alarms;
use crate::sync::watch::{Watch, WatchState};
use calls::Call;

/// Below a sync's state directory: one directory per target.
const DIR: &str = "classic";

pub struct Classic {
    context: Arc<Context>,
    dir: PathBuf,
    delay: Millis,
    stop: CancellationToken,
    units: BTreeMap<NodeName, Unit>,
    alarms: Arc<Alarms>,
}

/// One target's lsyncd.
struct Unit {
    dir: PathBuf,
    watch: watch::Receiver<WatchState>,
    task: JoinHandle<()>,
    stop: CancellationToken,
    calls: mpsc::Receiver<Call>,
    _taking: AbortOnDropHandle<()>,
    waiting: Vec<Waiting>,
    tally: Tally,
    canaries: Canaries,
    /// lsyncd has told something once, or cannot run: a pass before would be done again.
    is_open: bool,
    /// lsyncd is starting, and has told that first of all everything may have changed: by then it
    /// watches, though it calls itself started when it has the answer.
    has_begun: bool,
    /// When everything was last compared for want of an lsyncd.
    blind_pass_at: Option<Timestamp>,
}

/// A call that lsyncd waits for.
struct Waiting {
    shared: Arc<Shared>,
    seq: u64,
    answer: oneshot::Sender<bool>,
}

/// Removes what an earlier agent, or engine, left in a sync's state directory.
pub fn sweep(state_dir: &Path) {
    let _ = fs::remove_dir_all(state_dir.join(DIR));
}

impl Classic {
    pub fn new(
        context: Arc<Context>,
        delay: Millis,
        alarms: Arc<Alarms>,
        stop: CancellationToken,
    ) -> Self {
        let dir = context.dir.join(DIR);
        Self { context, dir, delay, stop, units: BTreeMap::new(), alarms }
    }

    /// One lsyncd for each of these from now on; the others' are not touched.
    pub async fn become_these(&mut self, nodes: Vec<NodeName>) -> Result<(), String> {
        let gone: Vec<NodeName> =
            self.units.keys().filter(|node| !nodes.contains(node)).cloned().collect();
        for node in gone {
            if let Some(unit) = self.units.remove(&node) {
                unit.end().await;
            }
        }
        let new: Vec<NodeName> =
            nodes.into_iter().filter(|node| !self.units.contains_key(node)).collect();
        for node in new {
            let unit = self.start(&node)?;
            self.units.insert(node, unit);
        }
        Ok(())
    }

    fn start(&self, node: &NodeName) -> Result<Unit, String> {
        let Context { engine, sync, source, changed, trail, .. } = &*self.context;
        let dir = self.dir.join(node.as_str());
        let failed = |error: std::io::Error| format!("cannot use {}: {error}", dir.display());
        fs::create_dir_all(&dir).map_err(failed)?;
        let dispatcher =
            dispatch::install(&dir, classic::NAME, &engine.settings.agent).map_err(failed)?;
        let listener = call::listen(&dir, classic::SOCKET).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let (told, calls) = mpsc::channel(calls::CALLS_MAX);
        let (state, watch) = watch::channel(WatchState::Starting(String::new()));
        let succeeded = Arc::new(AtomicU64::new(0));
        let lsyncd = Watch {
            sync: sync.clone(),
            host: engine.host.clone(),
            lsyncd: engine.settings.lsyncd.clone(),
            source: source.clone(),
            target: format!("{node}::{sync}"),
            dispatcher,
            config_file: dir.join("lsyncd.lua"),
            delay: self.delay,
            succeeded: succeeded.clone(),
            changed: changed.clone(),
            trail: trail.clone(),
            places: engine.places.clone(),
            alarms: self.alarms.clone(),
            now: engine.now,
        };
        let stop = self.stop.child_token();
        let (mut seen, tell) = (watch.clone(), changed.clone());
        let taking = async move {
            let takes = calls::take(listener, told, tell.clone());
            let tells = async {
                while seen.changed().await.is_ok() {
                    tell.notify_one();
                }
                std::future::pending::<()>().await;
            };
            tokio::join!(takes, tells);
        };
        Ok(Unit {
            dir,
            watch,
            task: tokio::spawn(lsyncd.run(state, stop.clone())),
            stop,
            calls,
            _taking: AbortOnDropHandle::new(tokio::spawn(taking)),
            waiting: Vec::new(),
            tally: Tally::above(0, succeeded),
            canaries: Canaries::default(),
            is_open: false,
            has_begun: false,
            blind_pass_at: None,
        })
    }

    /// Hands on what was told, and answers what has an outcome; what was told.
    pub fn follow(&mut self, crew: &Crew, sluice: &Sluice, now: Timestamp) -> Vec<Change> {
        let mut told = Vec::new();
        for (node, unit) in &mut self.units {
            if let Some(shared) = crew.shared(node) {
                told.append(&mut unit.follow(shared, sluice, now, &self.context));
            }
        }
        told
    }

    /// Has the index take in what was told, and everybody told what changed beside it: other names
    /// of a file, above all.
    pub async fn widen(&self, crew: &Crew, told: Vec<Change>, now: Timestamp) {
        // Their places in no journal: what moved is told to nobody.
        let entry = |change| Entry { seq: 0, at: now, change };
        let told: Vec<Entry> = told.into_iter().map(entry).collect();
        let by_file = self.context.options().excludes.has_filters();
        let widened = self.context.trail.absorb(told.clone(), by_file).await;
        let mut beside = Vec::new();
        for (told, widened) in told.into_iter().zip(widened) {
            if let (Change::Batch(told), Change::Batch(mut widened)) = (told.change, widened.change)
            {
                beside.extend(widened.drain(told.len().min(widened.len())..));
            }
        }
        if !beside.is_empty() {
            self.tell_all(crew, &Change::Batch(beside), now);
        }
    }

    /// A change for everybody of which no lsyncd knows.
    pub fn tell_all(&self, crew: &Crew, change: &Change, now: Timestamp) {
        for shared in self.units.keys().filter_map(|node| crew.shared(node)) {
            shared.tell(change.clone(), now);
        }
    }

    /// Asks for the place of "now" among what a target is told.
    pub async fn ask(&mut self, target: Option<&NodeName>, now: Timestamp, answer: canary::Answer) {
        match target.and_then(|target| self.units.get_mut(target)) {
            Some(unit) => unit.canaries.ask(&self.context.source, self.delay, now, answer).await,
            None => {
                let why = "with engine=classic there is no order of changes that targets share";
                let _ = answer.send(Err(why.to_owned()));
            }
        }
    }

    /// Whether a target may be brought something.
    pub fn is_open(&self, target: &NodeName) -> bool {
        self.units.get(target).is_some_and(|unit| unit.is_open)
    }

    /// Whether everybody has what was told so far; false without targets.
    pub fn have_all(&self, crew: &Crew) -> bool {
        let mut all = self.units.keys().map(|node| crew.shared(node)).peekable();
        all.peek().is_some() && all.all(|shared| shared.is_some_and(|shared| shared.has_all()))
    }

    /// What there is to say of all of them in one word, and why.
    pub fn state(&self) -> (EngineState, String) {
        let rank = |state| match state {
            EngineState::Failing => 0,
            EngineState::Watching => 2,
            _ => 1,
        };
        let states = self.units.iter().map(|(node, unit)| (node, unit.state()));
        match states.min_by_key(|(_, (state, _))| rank(*state)) {
            Some((node, (EngineState::Failing, why))) => {
                (EngineState::Failing, format!("{node}: {why}"))
            }
            Some((_, said)) => said,
            None => (EngineState::Still, String::new()),
        }
    }

    /// Ends all at once; when it returns none of their processes is left.
    pub async fn end(self) {
        self.units.values().for_each(|unit| unit.stop.cancel());
        for unit in self.units.into_values() {
            unit.end().await;
        }
    }
}

impl Unit {
    fn state(&self) -> (EngineState, String) {
        match self.has_begun {
            true => (EngineState::Watching, String::new()),
            false => self.watch.borrow().engine(),
        }
    }

    fn follow(
        &mut self,
        shared: &Arc<Shared>,
        sluice: &Sluice,
        now: Timestamp,
        of: &Context,
    ) -> Vec<Change> {
        let mut all = Vec::new();
        // In this order: a call is taken before lsyncd can log its success.
        let succeeded = self.tally.succeeded();
        while let Ok(Call { change, answer }) = self.calls.try_recv() {
            let told = Entry { seq: 0, at: now, change };
            let strained = sluice.strain(&told).change;
            let seq = shared.tell(strained.clone(), now);
            all.push(strained);
            let told = [Entry { seq, ..told }];
            self.canaries.heed(&told, seq);
            self.tally.count(&told);
            self.waiting.push(Waiting { shared: shared.clone(), seq, answer });
            (self.is_open, self.has_begun) = (true, true);
        }
        let state = self.watch.borrow_and_update().clone();
        self.has_begun &= matches!(state, WatchState::Starting(_));
        if matches!(state, WatchState::Failing(_)) {
            self.is_open = true;
            // The next lsyncd begins with a complete pass, whatever the last one knew.
            self.tally.even_out();
            self.go_blind(shared, now);
        } else {
            self.blind_pass_at = None;
            if self.tally.misses(succeeded) {
                tracing::warn!(sync = %of.sync, "a call of lsyncd was killed: everything is compared again");
                shared.tell(Change::Full, now);
                self.tally.even_out();
            }
        }
        let upto = shared.pending().upto();
        self.canaries.look(upto, now);
        self.answer(shared, now);
        all
    }

    /// Without lsyncd changes arrive late, not never.
    fn go_blind(&mut self, shared: &Shared, now: Timestamp) {
        match self.blind_pass_at {
            Some(at) if now.since(at) < BLIND_PASS_INTERVAL => return,
            Some(_) => drop(shared.tell(Change::Full, now)),
            // An lsyncd that only crashed is back before that.
            None => {}
        }
        self.blind_pass_at = Some(now);
    }

    fn answer(&mut self, shared: &Arc<Shared>, now: Timestamp) {
        for mut call in std::mem::take(&mut self.waiting) {
            if !Arc::ptr_eq(&call.shared, shared) {
                // The worker that was told has ended, and nobody knows how far it got.
                call.seq = shared.tell(Change::Full, now);
                call.shared = shared.clone();
            }
            match shared.outcome(call.seq) {
                // A caller that was killed hears nothing of it.
                Some(all) => drop(call.answer.send(all)),
                None => self.waiting.push(call),
            }
        }
    }

    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "lsyncd's keeper ended badly");
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
