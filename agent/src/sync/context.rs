//! What all workers of one source share. It holds facts and settings and takes no decisions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use lockstep_model::sync::hook::{HookEvent, HookPlace};
use lockstep_model::sync::{Hook, SyncOptions};
use lockstep_model::{Millis, SyncName};
use lockstep_transport::durable;
use tokio::sync::{Notify, watch};

use super::Engine;
use super::moving::Trail;
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
    options: RwLock<Arc<Options>>,
    /// What was renamed.
    pub trail: Trail,
    /// True once changes are watched, or cannot be: a pass before would be done again.
    pub gate: watch::Sender<bool>,
    /// What bounds all deliveries of the sync together.
    pub limit: Limiter,
    /// Counts the runs that may have brought something to a target.
    pub brought: AtomicU64,
    /// Something in a report has changed.
    pub changed: Arc<Notify>,
}

pub struct Options {
    pub delete: lockstep_model::sync::DeletePolicy,
    pub excludes: Excludes,
    /// Targets have hooks that wait to hear of a change.
    pub tells_at_once: bool,
    pub terms: Terms,
    pub verify_every: Option<Millis>,
    pub scrub_every: Option<Millis>,
}

impl From<&SyncOptions> for Options {
    fn from(options: &SyncOptions) -> Self {
        let waits = |hook: &Hook| hook.at == HookPlace::Target && hook.on == HookEvent::Changed;
        // Without watching, a source that changed is no drift of its copies.
        let every = |every: Option<Millis>| every.filter(|_| !options.once);
        Self {
            delete: options.delete,
            excludes: Excludes::new(&options.filters),
            tells_at_once: options.hooks.iter().any(waits),
            terms: options.into(),
            verify_every: every(options.verify_every),
            scrub_every: every(options.scrub_every),
        }
    }
}

impl Context {
    pub fn new(
        engine: Arc<Engine>,
        sync: SyncName,
        source: PathBuf,
        dir: &Path,
        options: &SyncOptions,
    ) -> Self {
        let device_file = dir.join("source");
        let device = read_device(&device_file, &source);
        let trail = Trail::new(sync.clone(), source.clone());
        Self {
            engine,
            sync,
            trail,
            dir: dir.to_owned(),
            excludes_file: dir.join("excludes"),
            device_file,
            device: Mutex::new(device),
            options: RwLock::new(Arc::new(options.into())),
            gate: watch::Sender::new(false),
            limit: Limiter::new(None),
            brought: AtomicU64::new(0),
            changed: Arc::default(),
            source,
        }
    }

    pub fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_options(&self, options: &SyncOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options.into());
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
