//! What all workers of one source share. It holds facts and settings and takes no decisions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_model::sync::hook::{HookEvent, HookPlace};
use lockstep_model::sync::options::{DeleteLimit, Initial, TransferOptions};
use lockstep_model::sync::{DeletePolicy, FilePath, Hook};
use lockstep_model::task::SyncSource;
use lockstep_model::{Millis, SyncName};
use lockstep_transport::durable;
use tokio::sync::{Notify, Semaphore, watch};

use super::Engine;
use super::moving::Trail;
use super::target::Place;
use super::verifying::Terms;
use crate::data::limit::Limiter;
use crate::deliver::Source;
use crate::rsync::exclude::Excludes;

pub struct Context {
    pub engine: Arc<Engine>,
    pub sync: SyncName,
    pub source: PathBuf,
    /// The sync's state directory.
    pub dir: PathBuf,
    pub excludes_file: PathBuf,
    device_file: PathBuf,
    /// File system that the source was on when it was last delivered.
    device: Mutex<Option<u64>>,
    /// Whoever watches it hears of changes.
    pub options: watch::Sender<Arc<Options>>,
    /// What was renamed.
    pub trail: Trail,
    /// What bounds all deliveries of the sync together.
    pub limit: Limiter,
    /// Counts the runs that may have brought something to a target.
    pub brought: AtomicU64,
    /// Something in a report has changed.
    pub changed: Arc<Notify>,
}

pub struct Options {
    pub delete: DeletePolicy,
    pub transfer: TransferOptions,
    pub excludes: Excludes,
    pub priority: Excludes,
    pub limit: Option<DeleteLimit>,
    pub sentinel: Option<FilePath>,
    pub initial: Initial,
    /// Transfers at once, all targets together.
    pub transfers: Arc<Semaphore>,
    transfers_max: Option<u32>,
    /// Nothing is delivered.
    pub paused: bool,
    /// Targets have hooks that wait to hear of a change.
    pub tells_at_once: bool,
    /// Targets feed others.
    pub is_tree: bool,
    pub terms: Terms,
    pub verify_every: Option<Millis>,
    pub scrub_every: Option<Millis>,
    pub max_lag: Option<Millis>,
}

impl Options {
    fn new(spec: &SyncSource, before: Option<&Self>) -> Self {
        let options = &spec.options;
        let waits = |hook: &Hook| hook.at == HookPlace::Target && hook.on == HookEvent::Changed;
        // Without watching, a source that changed is no drift of its copies.
        let every = |every: Option<Millis>| every.filter(|_| !options.once);
        let same = before.filter(|before| before.transfers_max == options.transfers);
        let most = options.transfers.map_or(Semaphore::MAX_PERMITS, |most| most as usize);
        Self {
            delete: options.delete,
            transfer: options.transfer.clone(),
            excludes: Excludes::new(&options.filters),
            priority: Excludes::of(&options.priority),
            limit: options.delete_limit,
            sentinel: options.sentinel.clone(),
            initial: options.initial,
            transfers: same.map_or_else(|| Arc::new(Semaphore::new(most)), |b| b.transfers.clone()),
            transfers_max: options.transfers,
            paused: spec.paused,
            tells_at_once: options.hooks.iter().any(waits),
            is_tree: options.fanout.is_some(),
            terms: options.into(),
            verify_every: every(options.verify_every),
            scrub_every: every(options.scrub_every),
            max_lag: options.max_lag,
        }
    }
}

impl Context {
    pub fn new(engine: Arc<Engine>, dir: &Path, spec: &SyncSource) -> Self {
        let source = PathBuf::from(spec.path.as_str());
        let device_file = dir.join("source");
        let device = read_device(&device_file, &source);
        let trail = Trail::new(spec.sync.clone(), source.clone());
        Self {
            engine,
            trail,
            dir: dir.to_owned(),
            sync: spec.sync.clone(),
            excludes_file: dir.join("excludes"),
            device_file,
            device: Mutex::new(device),
            options: watch::Sender::new(Arc::new(Options::new(spec, None))),
            limit: Limiter::new(None),
            brought: AtomicU64::new(0),
            changed: Arc::default(),
            source,
        }
    }

    pub fn options(&self) -> Arc<Options> {
        self.options.borrow().clone()
    }

    pub fn set_options(&self, spec: &SyncSource) {
        self.options.send_modify(|options| *options = Arc::new(Options::new(spec, Some(options))));
    }

    /// How far the copy is that is brought on here; None at the source.
    pub fn place(&self) -> Option<Place> {
        Some(self.engine.targets.standing(&self.sync)?.0)
    }

    pub fn known_device(&self) -> Option<u64> {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next delivery's file system is the right one.
    pub fn forget_device(&self) {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Records the file system of a source that was delivered, if none is known.
    pub async fn remember(&self, source: &Source) {
        let Source::Present { device: device @ 1.. } = *source else { return };
        {
            let mut known = self.device.lock().unwrap_or_else(PoisonError::into_inner);
            if known.is_some() {
                return;
            }
            *known = Some(device);
        }
        let file = self.device_file.clone();
        let text = device_text(device, &self.source);
        let write = move || durable::write(&file, text.as_bytes());
        let written = tokio::task::spawn_blocking(write).await;
        if let Err(error) = written.map_err(std::io::Error::other).and_then(|w| w) {
            tracing::error!(sync = %self.sync, %error, "cannot record the source's file system");
        }
    }
}

fn device_text(device: u64, source: &Path) -> String {
    format!("{device} {}", source.display())
}

/// None when nothing is recorded for this very directory.
fn read_device(file: &Path, source: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let device = text.split_once(' ')?.0.parse().ok()?;
    (text == device_text(device, source)).then_some(device)
}
