//! Tells a source what changes behind its links, which lsyncd does not watch. One thread that waits
//! for events, looks where the links lead when that may have changed, and hands changes over; it
//! delivers nothing and writes nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_model::Millis;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::deliver::PENDING_MAX;
use crate::inotify::place::{Place, Places};
use crate::inotify::{Limits, Need};
use crate::journal::{Change, Changed, RelPath};
use crate::links::watcher::Watcher;
use crate::links::{MEANINGS_MAX, Survey, survey};
use crate::sync::context::Context;
use crate::sync::watch::alarms::Alarms;

/// Changes that wait for the source; more are collected meanwhile.
const CHANGES_MAX: usize = 4;
/// How often it is looked whether there is something to do.
const TURN: Duration = Duration::from_millis(200);
/// Links are looked at again after so long, and so many times as long as it took the last time.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_TIMES: u32 = 10;
/// How often everything is compared while not all can be watched.
const BLIND_PASS_INTERVAL: Duration = Duration::from_secs(300);

/// Ends when it is dropped.
pub struct Follower {
    changes: mpsc::Receiver<Change>,
    stale: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Follower {
    pub fn start(context: &Context, delay: Millis, alarms: Arc<Alarms>) -> Self {
        let (sync, source) = (context.sync.clone(), context.source.clone());
        let places = context.engine.places.clone();
        let (hand_over, changes) = mpsc::channel(CHANGES_MAX);
        let stale = Arc::new(AtomicBool::new(true));
        let stop = CancellationToken::new();
        let follow = Follow {
            source,
            delay: Duration::from(delay).max(TURN),
            places,
            alarms,
            stale: stale.clone(),
            stop: stop.clone(),
            survey: Survey::default(),
            place: None,
            paths: BTreeMap::new(),
            full: false,
        };
        let run = move || {
            if let Err(error) = follow.run(&hand_over) {
                tracing::error!(%sync, %error, "what links point to is not watched any more");
            }
        };
        drop(tokio::task::spawn_blocking(run));
        Self { changes, stale, _stop: stop.drop_guard() }
    }

    /// The next change; never, when nothing is followed.
    pub async fn next(follower: &mut Option<Self>) -> Change {
        let change = match follower {
            Some(follower) => follower.changes.recv().await,
            None => None,
        };
        match change {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// Something changed in the tree: links may have come or gone.
    pub fn look_again(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }
}

struct Follow {
    source: PathBuf,
    delay: Duration,
    places: Places,
    alarms: Arc<Alarms>,
    stale: Arc<AtomicBool>,
    stop: CancellationToken,
    survey: Survey,
    place: Option<Place>,
    /// What is to be handed over.
    paths: BTreeMap<RelPath, bool>,
    full: bool,
}

impl Follow {
    fn run(mut self, hand_over: &mpsc::Sender<Change>) -> std::io::Result<()> {
        let mut watcher = None;
        let (mut look_at, mut blind_since) = (Instant::now(), None);
        let mut first_at = None;
        while !self.stop.is_cancelled() {
            if Instant::now() >= look_at && self.stale.swap(false, Ordering::Relaxed) {
                let began = Instant::now();
                let problem = self.look(&mut watcher).err();
                look_at = Instant::now() + PAUSE + began.elapsed() * PAUSE_TIMES;
                blind_since = problem.is_some().then(|| blind_since.unwrap_or(began));
                self.alarms.set_links(problem);
            }
            if blind_since.is_some_and(|since| since.elapsed() >= BLIND_PASS_INTERVAL) {
                blind_since = Some(Instant::now());
                self.full = true;
                self.look_again();
            }
            match &mut watcher {
                Some(watcher) => self.heed(watcher)?,
                None => std::thread::park_timeout(TURN),
            }
            if self.paths.is_empty() && !self.full {
                first_at = None;
            } else if first_at.get_or_insert_with(Instant::now).elapsed() >= self.delay {
                self.give(hand_over);
            }
        }
        self.alarms.set_links(None);
        Ok(())
    }

    fn look_again(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    fn heed(&mut self, watcher: &mut Watcher) -> std::io::Result<()> {
        let events = watcher.next(TURN)?;
        for (path, below) in events.paths {
            self.add(path, below);
        }
        if events.overflow {
            self.full = true;
        }
        if events.moved || events.overflow {
            self.look_again();
        }
        Ok(())
    }

    fn add(&mut self, path: RelPath, below: bool) {
        *self.paths.entry(path).or_default() |= below;
        self.full |= self.paths.len() > PENDING_MAX;
    }

    /// Finds out where links lead, and watches that. What is new there may have changed before it was
    /// watched. `Err` tells people why not all is.
    fn look(&mut self, watcher: &mut Option<Watcher>) -> Result<(), String> {
        let found = survey(&self.source, || !self.stop.is_cancelled());
        let news = found.news(&self.survey);
        self.place = None;
        if found.directories.is_empty() {
            *watcher = None;
            self.survey = found;
            return Ok(());
        }
        let watches = found.directories.len() as u64;
        let limits = Limits::read();
        self.place = Some(self.places.take(Need { watches, instances: 1 }, &limits)?);
        if watcher.is_none() {
            *watcher = Some(Watcher::new().map_err(|error| error.to_string())?);
        }
        let watched = watcher.as_mut().map_or(Ok(()), |watcher| watcher.watch(&found));
        watched.map_err(|error| error.to_string())?;
        for path in news {
            let below = self.source.join(OsStr::from_bytes(&path)).is_dir();
            self.add(path, below);
        }
        self.survey = found;
        match self.survey.is_cut {
            true => Err(format!("they point to more than {MEANINGS_MAX} directories")),
            false => Ok(()),
        }
    }

    fn give(&mut self, hand_over: &mpsc::Sender<Change>) {
        // Else it is collected further, until there is room.
        let Ok(place) = hand_over.try_reserve() else { return };
        let paths = std::mem::take(&mut self.paths);
        let changed = paths.into_iter().map(|(path, subtree)| Changed { path, subtree });
        place.send(match std::mem::take(&mut self.full) {
            true => Change::Full,
            false => Change::Batch(changed.collect()),
        });
    }
}
