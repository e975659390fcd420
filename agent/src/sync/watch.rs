//! Keeps one lsyncd running for a source: starts it where the kernel's limits allow, reads its log,
//! starts it again with backoff, and when another directory stands in the source's place. It never
//! touches files of the sync; lsyncd's events go to the journal by the dispatcher.

pub mod alarms;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockstep_model::sync::EngineState;
use lockstep_model::{Millis, SyncName, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::classic::{self, DELIVERED, PARTIAL};
use crate::host::{Child, Host, Program};
use crate::inotify::count;
use crate::inotify::place::{Place, Places};
use crate::inotify::{Limits, Need, Shortage};
use crate::lsyncd::{Config, is_overflow, render, shortage, start_problem};
use crate::sync::moving::Trail;
use alarms::Alarms;

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// An lsyncd that ran for so long starts with the first backoff again.
const STABLE: Duration = Duration::from_secs(60);
/// How often it is looked which directory stands at the source's path, and what the limits are.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest line of lsyncd's log that is looked at, in bytes.
const LINE_MAX: u64 = 4096;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchState {
    /// lsyncd reads the tree; why the one before it ended, empty for the first.
    Starting(String),
    /// Nobody watches, on purpose.
    Still,
    /// Every change from now on reaches the journal.
    Watching,
    /// Not running; why, for people.
    Failing(String),
}

impl WatchState {
    /// In a report, and why.
    pub fn engine(&self) -> (EngineState, String) {
        match self {
            Self::Starting(last) if last.is_empty() => (EngineState::Starting, String::new()),
            // It may fail again the same way.
            Self::Starting(last) => (EngineState::Failing, last.clone()),
            Self::Still => (EngineState::Still, String::new()),
            Self::Watching => (EngineState::Watching, String::new()),
            Self::Failing(why) => (EngineState::Failing, why.clone()),
        }
    }
}

/// Everything one lsyncd needs.
#[derive(Clone)]
pub struct Watch {
    pub sync: SyncName,
    pub host: Host,
    pub lsyncd: PathBuf,
    pub source: PathBuf,
    /// What lsyncd calls the target.
    pub target: String,
    pub dispatcher: PathBuf,
    pub config_file: PathBuf,
    pub delay: Millis,
    /// Counts the dispatcher's calls that lsyncd took for a success.
    pub succeeded: Arc<AtomicU64>,
    /// Told when the count has changed, or the alarms.
    pub changed: Arc<Notify>,
    /// Knows how many directories there are.
    pub trail: Trail,
    pub places: Places,
    pub alarms: Arc<Alarms>,
    pub now: fn() -> Timestamp,
}

/// What tells one directory from another: device and inode. lsyncd watches a directory and not its
/// path, and says nothing when that is moved away or mounted over.
type Directory = (u64, u64);

/// How the watching ended.
enum End {
    Stopped,
    /// Another directory stands at the source's path, or none.
    Elsewhere,
    Failed(String),
}

impl Watch {
    /// Runs until `stop`; then no lsyncd is left.
    pub async fn run(self, state: watch::Sender<WatchState>, stop: CancellationToken) {
        let mut pause = BACKOFF_FIRST;
        let mut last = String::new();
        loop {
            let directory = tokio::select! {
                () = stop.cancelled() => return,
                found = self.find(&state) => found,
            };
            let started = tokio::time::Instant::now();
            let limits = Limits::read();
            let end = match self.take_place(&limits, &stop).await {
                Ok(place) => {
                    state.send_replace(WatchState::Starting(std::mem::take(&mut last)));
                    match self.start() {
                        Ok(child) => self.follow(child, directory, place, &state, &stop).await,
                        Err(why) => End::Failed(why),
                    }
                }
                Err(end) => end,
            };
            let why = match end {
                End::Stopped => return,
                End::Elsewhere => {
                    tracing::warn!(sync = %self.sync, "another directory stands at the source's path");
                    continue;
                }
                End::Failed(why) => why,
            };
            tracing::warn!(sync = %self.sync, why, "lsyncd does not run");
            last.clone_from(&why);
            state.send_replace(WatchState::Failing(why));
            if started.elapsed() >= STABLE {
                pause = BACKOFF_FIRST;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF_MAX),
                () = other_than(&limits) => pause = BACKOFF_FIRST,
            }
        }
    }

    /// What lsyncd will need of the kernel, if it is to be had; counted anew, since nobody watched.
    async fn take_place(&self, limits: &Limits, stop: &CancellationToken) -> Result<Place, End> {
        let (source, stopped) = (self.source.clone(), stop.clone());
        let count = move || count::directories(&source, || !stopped.is_cancelled());
        match tokio::task::spawn_blocking(count).await {
            Ok(Some(watches)) => {
                self.places.take(Need { watches, instances: 1 }, limits).map_err(End::Failed)
            }
            Ok(None) => Err(End::Stopped),
            Err(error) => Err(End::Failed(format!("cannot count directories: {error}"))),
        }
    }

    /// Tells when the limits come near.
    fn weigh(&self, place: &mut Place) {
        if let Some(counts) = self.trail.counts() {
            place.resize(Need { watches: counts.directories + 1, instances: 1 });
        }
        let near = Limits::read().weigh(self.places.held()).advice();
        if self.alarms.set_near(near) {
            self.changed.notify_one();
        }
    }

    /// Waits until there is a directory to watch.
    async fn find(&self, state: &watch::Sender<WatchState>) -> Directory {
        loop {
            if let Some(found) = self.look().await {
                return found;
            }
            state.send_replace(WatchState::Failing("the source directory is missing".to_owned()));
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&self) -> Option<Directory> {
        let path = self.source.clone();
        let looked = tokio::task::spawn_blocking(move || std::fs::metadata(path));
        let found = looked.await.ok()?.ok()?;
        found.is_dir().then(|| (found.dev(), found.ino()))
    }

    /// Returns when another directory stands there, or none.
    async fn leave(&self, directory: Directory, place: &mut Place) {
        while self.look().await == Some(directory) {
            self.weigh(place);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn start(&self) -> Result<Child, String> {
        let Self { source, target, dispatcher, delay, .. } = self;
        let config = Config { source, target, dispatcher, delay: *delay };
        std::fs::write(&self.config_file, render(&config))
            .map_err(|e| format!("cannot write {}: {e}", self.config_file.display()))?;
        let program = Program {
            path: self.lsyncd.clone(),
            args: vec![self.config_file.clone().into()],
            fed: false,
        };
        self.host.spawn(&program).map_err(|e| start_problem(&e, &self.lsyncd))
    }

    /// Until lsyncd ends, or has to; then it is gone.
    async fn follow(
        &self,
        mut child: Child,
        directory: Directory,
        mut place: Place,
        state: &watch::Sender<WatchState>,
        stop: &CancellationToken,
    ) -> End {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut remark = Remark::default();
        let ended = {
            let read = async {
                let mut out = Lines::new(stdout);
                let mut err = Lines::new(stderr);
                while out.is_open() || err.is_open() {
                    let line = tokio::select! {
                        line = out.next(), if out.is_open() => line,
                        line = err.next(), if err.is_open() => line,
                    };
                    if let Some(line) = line {
                        self.heed(&line, &mut remark, state);
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => Err(End::Stopped),
                () = self.leave(directory, &mut place) => Err(End::Elsewhere),
                (status, ()) = async { tokio::join!(child.wait(), read) } => Ok(status),
            }
        };
        match ended {
            Err(end) => {
                if let Err(error) = child.end().await {
                    tracing::error!(sync = %self.sync, %error, "cannot end lsyncd");
                }
                end
            }
            Ok(Err(error)) => End::Failed(format!("cannot wait for lsyncd: {error}")),
            Ok(Ok(status)) => {
                let refused = |what| Limits::read().refused(what, self.places.held());
                let said = remark.refused.map(refused).or(remark.strange).or(remark.error);
                End::Failed(said.unwrap_or_else(|| format!("lsyncd ended with {status}")))
            }
        }
    }

    fn heed(&self, line: &str, remark: &mut Remark, state: &watch::Sender<WatchState>) {
        tracing::debug!(sync = %self.sync, "lsyncd: {line}");
        if let Some(what) = shortage(line) {
            remark.refused = Some(what);
        } else if line.starts_with(classic::REFUSED) {
            remark.strange = Some(line.to_owned());
        } else if is_overflow(line) {
            let advice = Limits::read().queue_advice();
            tracing::warn!(sync = %self.sync, advice, "the kernel's queue of changes overflowed: everything is compared again");
            self.alarms.overflowed((self.now)(), advice);
            self.changed.notify_one();
        } else if let Some((_, error)) = line.split_once("Error: ") {
            remark.error = Some(format!("lsyncd: {}", error.trim()));
        }
        // lsyncd says both when the dispatcher has ended, at the earliest.
        let started = line.contains("Startup of ") && line.ends_with(" finished.");
        let finished =
            [DELIVERED, PARTIAL].map(|code| format!("Finished a list after exitcode: {code}"));
        if started || finished.iter().any(|text| line.ends_with(text)) {
            self.succeeded.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_one();
        }
        if started {
            state.send_replace(WatchState::Watching);
        }
    }
}

/// Returns when the limits have changed.
async fn other_than(limits: &Limits) {
    while Limits::read() == *limits {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What lsyncd said that tells why it fails.
#[derive(Default)]
struct Remark {
    refused: Option<Shortage>,
    /// A call that its configuration does not cause.
    strange: Option<String>,
    error: Option<String>,
}

/// Lines of a stream, cut at `LINE_MAX`. `next` is cancel safe.
struct Lines<R> {
    from: Option<BufReader<R>>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(from: Option<R>) -> Self {
        Self { from: from.map(BufReader::new), line: Vec::new() }
    }

    fn is_open(&self) -> bool {
        self.from.is_some()
    }

    async fn next(&mut self) -> Option<String> {
        use tokio::io::AsyncReadExt;
        let from = self.from.as_mut()?;
        let room = LINE_MAX - self.line.len() as u64;
        match from.take(room).read_until(b'\n', &mut self.line).await {
            Ok(1..) => {}
            _ => self.from = None,
        }
        let line = std::mem::take(&mut self.line);
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}
