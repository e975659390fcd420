//! Being a target: who may write which directory now, whether it was filled, and the one-module
//! configuration that confines rsync to it. It decides nothing about health; it tells facts.

mod admission;
mod place;
mod record;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lockstep_model::path::DirPath;
use lockstep_model::sync::hook::{HookEvent, HookPlace};
use lockstep_model::sync::{Hook, SourceReport, SyncOptions, SyncReport, TargetReport};
use lockstep_model::task::{Peer, SyncTarget};
use lockstep_model::{Millis, SyncName};
use lockstep_transport::durable;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Reports;
use super::hooks::{Hooks, Site};
use super::verifying::Terms;
use crate::data::below::Standing;
use crate::data::changes;
use crate::data::header::{Mark, Offer};
use crate::dispatch;
use crate::rsync::options::allowed;
use crate::verify::Side;
pub use admission::Admission;
pub use place::Place;
use record::{FILLED, identify};

/// How long a newer push waits for the end of an older one.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most comparisons of one copy at once; a source asks for no more.
const COMPARISONS_MAX: usize = 4;

/// The assignments in force on this node.
#[derive(Clone)]
pub struct Targets {
    table: Arc<Mutex<BTreeMap<SyncName, Assigned>>>,
    reports: Reports,
}

struct Assigned {
    target: Arc<Target>,
    source: Option<Peer>,
    /// Ends all transfers under this assignment.
    withdrawn: CancellationToken,
}

impl Targets {
    pub fn new(reports: Reports) -> Self {
        Self { table: Arc::default(), reports }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SyncName, Assigned>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an assignment in force. `state_dir` exists. Transfers go on when neither the directory
    /// nor the source has changed.
    pub fn assign(&self, spec: &SyncTarget, state_dir: &Path) {
        let mut table = self.lock();
        let mut place = Place::default();
        if let Some(now) = table.get(&spec.sync) {
            let mut state = now.target.lock();
            // A person who wants it taken up anew wants no more waiting.
            if state.generation != spec.generation {
                state.place.take_any();
            }
            if now.target.path == spec.path && now.source == spec.source {
                state.terms = (&spec.options).into();
                state.options = spec.options.clone();
                state.generation = spec.generation;
                state.is_relay = !spec.receivers.is_empty();
                drop(state);
                now.target.publish();
                return;
            }
            if now.target.path == spec.path {
                place = state.place.handed_over();
            }
            now.withdrawn.cancel();
        }
        let filled = record::is_filled(state_dir, &spec.path);
        let target = Arc::new(Target {
            sync: spec.sync.clone(),
            path: spec.path.clone(),
            state_dir: state_dir.to_owned(),
            state: Mutex::new(State {
                filled,
                relay: None,
                // Before anybody can tell what changed: nothing may be dropped.
                is_relay: !spec.receivers.is_empty(),
                options: spec.options.clone(),
                problem: String::new(),
                mark: None,
                lag: record::lag(state_dir),
                terms: (&spec.options).into(),
                place,
                allowed: 0,
                generation: spec.generation,
            }),
            comparisons: Semaphore::new(COMPARISONS_MAX),
            compared: AtomicU64::new(0),
            turn: Mutex::default(),
            busy: tokio::sync::Mutex::default(),
            filled: watch::Sender::new(filled),
            told: watch::Sender::new(false),
            below: watch::Sender::default(),
            hooks: OnceLock::new(),
            reports: self.reports.clone(),
        });
        target.publish();
        let withdrawn = CancellationToken::new();
        let assigned = Assigned { target, source: spec.source.clone(), withdrawn };
        table.insert(spec.sync.clone(), assigned);
    }

    /// Whether the copy is complete, as that changes; ends with the assignment.
    pub fn filled(&self, sync: &SyncName) -> Option<watch::Receiver<bool>> {
        Some(self.lock().get(sync)?.target.filled.subscribe())
    }

    /// Until everything that was brought to the copy is told as well; at once at the source.
    pub async fn delivery_told(&self, sync: &SyncName) -> Result<(), String> {
        let Some(mut told) = self.lock().get(sync).map(|a| a.target.told.subscribe()) else {
            return Ok(());
        };
        let told = told.wait_for(|told| *told).await;
        told.map(drop).map_err(|_| "the sync was stopped".to_owned())
    }

    /// What the node says of those it feeds, and how far they and those behind them are.
    pub fn set_relay(&self, sync: &SyncName, report: Option<SourceReport>, below: Standing) {
        let target = self.lock().get(sync).map(|assigned| assigned.target.clone());
        if let Some(target) = target {
            target.lock().relay = report;
            target.below.send_if_modified(|was| std::mem::replace(was, below.clone()) != below);
            target.publish();
        }
    }

    /// From now on these run on what happens to the copy.
    pub fn set_hooks(&self, sync: &SyncName, site: Site, hooks: &[Hook]) {
        let Some(target) = self.lock().get(sync).map(|assigned| assigned.target.clone()) else {
            return;
        };
        let again = Arc::downgrade(&target);
        let tell = Arc::new(move || {
            if let Some(target) = again.upgrade() {
                target.publish();
            }
        });
        let here = hooks.iter().filter(|hook| hook.at == HookPlace::Target).cloned();
        target.hooks.get_or_init(|| Hooks::new(Site { tell, ..site })).set(here);
    }

    /// Takes an assignment out of force; its transfers end at once.
    pub fn withdraw(&self, sync: &SyncName) {
        if let Some(assigned) = self.lock().remove(sync) {
            assigned.withdrawn.cancel();
            self.reports.withdraw(sync);
        }
    }

    pub fn withdraw_all(&self) {
        for assigned in std::mem::take(&mut *self.lock()).into_values() {
            assigned.withdrawn.cancel();
        }
    }

    /// How far the copy is, and how many entries were ever allowed to go behind it; None at the
    /// source.
    pub fn standing(&self, sync: &SyncName) -> Option<(Place, u64)> {
        let table = self.lock();
        let state = table.get(sync)?.target.lock();
        Some((state.place, state.allowed))
    }

    /// How often the copy was compared with its feeder's; None at the source.
    pub fn compared(&self, sync: &SyncName) -> Option<u64> {
        Some(self.lock().get(sync)?.target.compared.load(Ordering::Relaxed))
    }

    /// What the source last said of this node.
    pub fn last_mark(&self, sync: &SyncName) -> Option<Mark> {
        self.lock().get(sync)?.target.lock().mark
    }

    /// How far this node is behind, as its source told it last.
    pub fn told_lag(&self, sync: &SyncName) -> Option<Millis> {
        Some(self.lock().get(sync)?.target.lock().lag)
    }
}

pub struct Target {
    sync: SyncName,
    path: DirPath,
    state_dir: PathBuf,
    state: Mutex<State>,
    pub comparisons: Semaphore,
    /// How often all of it was compared.
    pub compared: AtomicU64,
    /// Cancelled by the next push.
    turn: Mutex<CancellationToken>,
    /// Held while a push runs.
    busy: tokio::sync::Mutex<()>,
    filled: watch::Sender<bool>,
    /// All that was brought was told as well, as a relay has to know.
    told: watch::Sender<bool>,
    /// How far those are that it feeds.
    below: watch::Sender<Standing>,
    hooks: OnceLock<Hooks>,
    reports: Reports,
}

struct State {
    filled: bool,
    /// From the next transfer on.
    options: SyncOptions,
    problem: String,
    relay: Option<SourceReport>,
    is_relay: bool,
    mark: Option<Mark>,
    /// As its source told it last; a source that is silent changes nothing.
    lag: Millis,
    terms: Terms,
    place: Place,
    /// Entries that may go behind it, all that were ever told.
    allowed: u64,
    generation: u32,
}

/// The right to run a push, until a newer one comes.
pub struct Turn<'a> {
    superseded: CancellationToken,
    _busy: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Target {
    /// It feeds others.
    pub fn is_relay(&self) -> bool {
        self.lock().is_relay
    }

    /// Of the agent, for this sync.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub fn sync(&self) -> &SyncName {
        &self.sync
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.path.as_str())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_filled(&self) -> bool {
        self.lock().filled
    }

    /// Whether what goes at the source goes here with it, and not only in complete passes.
    pub fn gives_up_names(&self) -> bool {
        self.lock().options.delete.in_batches()
    }

    /// Not beside files, to take their places.
    pub fn writes_in_place(&self) -> bool {
        self.lock().options.transfer.inplace
    }

    /// Our side of a comparison with the source.
    pub fn side(&self) -> Side {
        let root = Path::new(self.path.as_str());
        self.lock().terms.side(root, rustix::process::geteuid().is_root())
    }

    /// One line; empty when fine.
    pub fn set_problem(&self, problem: &str) {
        problem.clone_into(&mut self.lock().problem);
        self.publish();
    }

    /// Takes in what the source says; a fill is on disk when it returns.
    pub async fn note(&self, mark: Mark) -> io::Result<()> {
        if mark.filled && !self.is_filled() {
            // First, so that a crash in between cannot lose it: the fill is declared again.
            self.happened(HookEvent::Filled).await;
            let path = self.state_dir.join(FILLED);
            let dir = self.path.clone();
            let write = move || durable::write(&path, identify(&dir)?.as_bytes());
            tokio::task::spawn_blocking(write).await.map_err(io::Error::other)??;
            self.lock().filled = true;
        }
        if mark.changed {
            self.happened(HookEvent::Changed).await;
        }
        {
            let mut state = self.lock();
            state.lag = mark.lag.unwrap_or(state.lag);
            state.mark = Some(mark);
        }
        if let Some(lag) = mark.lag {
            let dir = self.state_dir.clone();
            let keep = tokio::task::spawn_blocking(move || record::keep_lag(&dir, lag));
            if let Err(error) = keep.await.map_err(io::Error::other)? {
                tracing::warn!(sync = %self.sync, %error, "cannot keep how far the copy is behind");
            }
        }
        self.note_place(mark.acked).await?;
        // A fill is declared before it is told, and a lag beside deliveries; else its feeder speaks
        // up between deliveries.
        if !mark.filled && mark.lag.is_none() {
            self.note_told();
        }
        self.publish();
        Ok(())
    }

    /// Its feeder may be another than before, and must not be behind it. The error is for the feeder.
    pub async fn consider(&self, offer: &Offer) -> Result<(), String> {
        self.lock().place.take(offer)?;
        self.note_place(offer.target_has).await.map_err(|error| error.to_string())
    }

    /// What is told to a relay is in its journal before it hears that it has it.
    async fn note_place(&self, has: u64) -> io::Result<()> {
        let own = if self.is_relay() { changes::head(&self.state_dir).await? } else { 0 };
        self.lock().place.note(has, own);
        dispatch::poke(&self.state_dir);
        Ok(())
    }

    pub fn below(&self) -> watch::Receiver<Standing> {
        self.below.subscribe()
    }

    /// A hold on it was released: behind it the same may go.
    pub fn allow(&self, entries: u64) {
        let mut state = self.lock();
        state.allowed = state.allowed.saturating_add(entries);
    }

    /// Its feeder has told everything that it brought.
    pub fn note_told(&self) {
        self.told.send_replace(true);
    }

    async fn happened(&self, event: HookEvent) {
        if let Some(hooks) = self.hooks.get() {
            hooks.happened(event).await;
        }
    }

    /// A copy whose directory is gone, or is another one than was filled, is complete no more:
    /// everything has to come again, and nothing of what is there is removed.
    pub async fn notice_loss(&self) -> io::Result<()> {
        if !self.is_filled() {
            return Ok(());
        }
        let (path, record) = (self.path.clone(), self.state_dir.join(FILLED));
        let look = move || match identify(&path) {
            Ok(found) if fs::read(&record)? == found.as_bytes() => Ok(None),
            Ok(_) => fs::remove_file(record).map(|()| Some("is another one: is its disk mounted?")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_file(record).map(|()| Some("is gone"))
            }
            // A disk that does not answer is no other disk, nor is a file in the way.
            Err(_) => Ok(None),
        };
        if let Some(why) = tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?? {
            let problem = format!("the directory {} {why}", self.path);
            tracing::warn!(sync = %self.sync, problem, "the copy is not complete any more");
            self.lock().filled = false;
            self.set_problem(&problem);
        }
        Ok(())
    }

    fn publish(&self) {
        let report = {
            let state = self.lock();
            let is_filled = state.filled;
            self.filled.send_if_modified(|was| std::mem::replace(was, is_filled) != is_filled);
            let mut problem = state.problem.clone();
            if problem.is_empty() {
                let hooks = self.hooks.get().map(Hooks::problems).unwrap_or_default();
                problem = hooks.into_iter().next().unwrap_or_default();
            }
            let behind = state.options.max_lag.is_some_and(|most| state.lag > most);
            TargetReport { filled: state.filled, behind, problem, relay: state.relay.clone() }
        };
        self.reports.publish(&self.sync, SyncReport::Target(report));
    }

    /// Ends the push before, if one still runs. None when that one does not end, or when an even
    /// newer push came meanwhile.
    pub async fn take_turn(&self) -> Option<Turn<'_>> {
        self.told.send_replace(false);
        let superseded = CancellationToken::new();
        {
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *turn, superseded.clone()).cancel();
        }
        let busy = tokio::time::timeout(TURN_WAIT_MAX, self.busy.lock()).await.ok()?;
        (!superseded.is_cancelled()).then_some(Turn { superseded, _busy: busy })
    }

    /// Makes the directory if only it is missing, and writes rsync's configuration.
    pub fn prepare(&self) -> Result<PathBuf, String> {
        let path = Path::new(self.path.as_str());
        let made = match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err("it is not a directory".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().mode(0o755).create(path).map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        made.map_err(|why| format!("cannot use target directory {}: {why}", self.path))?;
        let allowed = {
            let state = self.lock();
            allowed(&state.options, state.filled)
        };
        let root = rustix::process::geteuid().is_root();
        let text = config(&self.sync, &self.path, &allowed, root)?;
        let file = self.state_dir.join("rsyncd.conf");
        // Not durable: it is written before each use.
        fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        Ok(file)
    }
}

/// One module, written to only. Only root can chroot and keep owners; anyone else is confined by
/// rsync's own path walk.
fn config(sync: &SyncName, path: &DirPath, allowed: &str, root: bool) -> Result<String, String> {
    // rsync replaces `%NAME%` by its environment.
    if path.as_str().contains('%') {
        return Err(format!("cannot use target directory {path}: rsync cannot take a '%' in it"));
    }
    let (chroot, ids) = if root { ("yes", "uid = 0\ngid = 0\n") } else { ("no", "") };
    // `/.`: a backslash or a blank at the end of a line would mean something else.
    Ok(format!(
        "use chroot = {chroot}
munge symlinks = no
reverse lookup = no
max verbosity = 1
log file = /dev/null
[{sync}]
path = {path}/.
read only = no
write only = yes
list = no
numeric ids = yes
timeout = 120
refuse options = * {allowed}
{ids}"
    ))
}

#[cfg(test)]
mod tests;
