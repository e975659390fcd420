//! One mirror on this node: its state directory, its mark, and what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstep_model::MirrorName;
use lockstep_model::mirror::{MirrorReport, PullProgress};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::log;
use super::mark::Mark;

/// The latest report of each mirror that this node has a part in.
pub type MirrorReports = BTreeMap<MirrorName, MirrorReport>;

/// What each mirror is like, for whoever reports it; clones are the same board.
#[derive(Clone, Default)]
pub struct Reports(Arc<watch::Sender<MirrorReports>>);

impl Reports {
    pub fn subscribe(&self) -> watch::Receiver<MirrorReports> {
        self.0.subscribe()
    }

    fn publish(&self, mirror: &MirrorName, report: MirrorReport) {
        self.0.send_if_modified(|all| {
            let changed = all.get(mirror) != Some(&report);
            if changed {
                all.insert(mirror.clone(), report);
            }
            changed
        });
    }

    pub(super) fn withdraw(&self, mirror: &MirrorName) {
        self.0.send_if_modified(|all| all.remove(mirror).is_some());
    }
}

pub struct Local {
    pub mirror: MirrorName,
    pub dir: PathBuf,
    /// Held by what changes the tree.
    pub busy: tokio::sync::Mutex<()>,
    /// Nobody wants it any more: what runs ends.
    pub released: CancellationToken,
    state: Mutex<State>,
    reports: Reports,
}

struct State {
    mark: Mark,
    problem: String,
    warnings: BTreeSet<String>,
    pull: Option<PullProgress>,
}

impl Local {
    /// `dir` exists.
    pub fn open(mirror: MirrorName, dir: PathBuf, reports: Reports) -> Self {
        let mark = Mark::load(&dir.join("mark"));
        let state = State { mark, problem: String::new(), warnings: BTreeSet::new(), pull: None };
        Self {
            mirror,
            dir,
            busy: tokio::sync::Mutex::default(),
            released: CancellationToken::new(),
            state: Mutex::new(state),
            reports,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn mark(&self) -> Mark {
        self.lock().mark.clone()
    }

    /// Durable when it returns; only who holds `busy` changes it.
    pub async fn set_mark(&self, mark: Mark) -> Result<(), String> {
        let path = self.dir.join("mark");
        let written = mark.clone();
        let saved = tokio::task::spawn_blocking(move || written.save(&path)).await;
        let saved = saved.map_err(io::Error::other).and_then(|saved| saved);
        saved.map_err(|error| format!("cannot keep what the tree holds: {error}"))?;
        self.lock().mark = mark;
        self.publish();
        Ok(())
    }

    pub fn set_problem(&self, problem: &str) {
        problem.clone_into(&mut self.lock().problem);
        self.publish();
    }

    pub fn warn(&self, warning: String) {
        self.lock().warnings.insert(warning);
        self.publish();
    }

    /// Takes warnings back that begin so.
    pub fn unwarn(&self, start: &str) {
        self.lock().warnings.retain(|warning| !warning.starts_with(start));
        self.publish();
    }

    pub fn show(&self, pull: Option<PullProgress>) {
        self.lock().pull = pull;
        self.publish();
    }

    pub fn pull(&self) -> Option<PullProgress> {
        self.lock().pull
    }

    pub fn publish(&self) {
        if self.released.is_cancelled() {
            return;
        }
        let report = {
            let state = self.lock();
            let warnings = state.warnings.iter().take(MirrorReport::WARNINGS_MAX).cloned();
            MirrorReport {
                filled: state.mark.is_filled(),
                problem: state.problem.clone(),
                warnings: warnings.collect(),
                pull: state.pull,
            }
        };
        self.reports.publish(&self.mirror, report);
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.join(log::DIR)
    }

    pub fn hook_dir(&self) -> PathBuf {
        self.dir.join("hooks")
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }
}
