//! What this agent was told to do and what became of it, on disk: one file per slot, durable before
//! anything is answered. It refuses what is older than it knows. It runs nothing. All calls that
//! change it block on the disk.

mod entry;
pub mod file;
mod told;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_model::TaskId;
use lockstep_model::task::{Outcome, OutcomeKind, Slot, TaskPhase, TaskSpec};
use lockstep_proto::agent;

pub use entry::{Entry, Offer, State};
pub use file::FileError;
pub use told::Memory;

/// Most slots. At the limit those that are through are forgotten, oldest task first.
pub const SLOTS_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("ledger: {dir}: {source}")]
    Dir { dir: String, source: io::Error },
    #[error("ledger: {0}; is the disk full or read-only?")]
    File(#[from] FileError),
    #[error("ledger: all {SLOTS_MAX} slots are in use; release syncs from this node first")]
    Full,
}

/// What the ledger says to an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is in the ledger now, and to be run.
    New,
    /// It was offered before, and is so far.
    Known(State),
    /// The slot has had a newer one.
    Stale { newest: TaskId },
}

pub struct Ledger {
    dir: PathBuf,
    entries: BTreeMap<Slot, Entry>,
    /// Counts the changes of what is in force.
    changes: u64,
}

/// What was wrong with a file that now counts as absent, in one line.
pub type Damage = String;

impl Ledger {
    /// Makes the directory where there is none.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Damage>), LedgerError> {
        let at = |source| LedgerError::Dir { dir: dir.display().to_string(), source };
        fs::create_dir_all(dir).map_err(at)?;
        let mut ledger = Self { dir: dir.to_owned(), entries: BTreeMap::new(), changes: 0 };
        let mut damages = Vec::new();
        for file in fs::read_dir(dir).map_err(at)? {
            let path = file.map_err(at)?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name.ends_with('~') {
                // What a crash left; the file beside it holds.
                continue;
            }
            match read_entry(&path, name) {
                Ok(entry) => drop(ledger.entries.insert(entry.slot(), entry)),
                Err(why) => damages.push(format!("ledger: {why}; it counts as absent")),
            }
        }
        Ok((ledger, damages))
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub fn get(&self, slot: &Slot) -> Option<&Entry> {
        self.entries.get(slot)
    }

    /// What holds on this node, without asking anybody.
    pub fn in_force(&self) -> impl Iterator<Item = &TaskSpec> {
        self.entries.values().filter_map(|entry| entry.in_force.as_ref())
    }

    /// Another number than before: something else is in force.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes a task in, durably; one that begins at once is written once. After an error it is not in.
    pub fn accept(&mut self, offer: Offer, phase: TaskPhase) -> Result<Admission, LedgerError> {
        let slot = offer.spec.slot();
        let former = self.entries.get(&slot);
        if let Some(Entry { task: Offer { id, .. }, state, .. }) = former {
            if *id > offer.id {
                return Ok(Admission::Stale { newest: *id });
            }
            if *id == offer.id {
                return Ok(Admission::Known(state.clone()));
            }
        } else {
            self.make_room()?;
        }
        let in_force = self.entries.get(&slot).and_then(|entry| entry.in_force.clone());
        let entry = Entry { task: offer, state: State::Live(phase), in_force };
        self.write(&entry)?;
        self.entries.insert(slot, entry);
        Ok(Admission::New)
    }

    /// False: the slot has another task by now.
    pub fn begin(&mut self, slot: &Slot, id: TaskId) -> Result<bool, LedgerError> {
        self.change(slot, id, |entry| entry.state = State::Live(TaskPhase::Running))
    }

    /// What the task did holds from now on, if it succeeded. The outcome is kept in memory also
    /// where the disk refuses it.
    pub fn end(&mut self, slot: &Slot, id: TaskId, outcome: Outcome) -> Result<bool, LedgerError> {
        self.change(slot, id, |entry| {
            if outcome.kind == OutcomeKind::Ok {
                match &entry.task.spec {
                    spec @ (TaskSpec::SyncSource(_)
                    | TaskSpec::SyncTarget(_)
                    | TaskSpec::MirrorPlace(_)
                    | TaskSpec::ClusterPlace(_)) => {
                        entry.in_force = Some(spec.clone());
                    }
                    TaskSpec::SyncRelease { .. }
                    | TaskSpec::MirrorRelease(_)
                    | TaskSpec::ClusterRelease(_) => {
                        entry.in_force = None;
                    }
                    TaskSpec::SyncResync { .. }
                    | TaskSpec::SyncVerify(_)
                    | TaskSpec::SyncUnhold { .. }
                    | TaskSpec::SyncBarrier(_)
                    | TaskSpec::MirrorPull(_)
                    | TaskSpec::MirrorHooks(_)
                    | TaskSpec::ClusterAct(_) => {}
                }
            }
            entry.state = State::Ended { outcome, acked: false };
        })
    }

    /// The controller has the outcome.
    pub fn ack(&mut self, id: TaskId) -> Result<(), LedgerError> {
        let of = |entry: &&Entry| {
            entry.task.id == id && matches!(entry.state, State::Ended { acked: false, .. })
        };
        let Some(slot) = self.entries.values().find(of).map(Entry::slot) else { return Ok(()) };
        self.change(&slot, id, |entry| {
            if let State::Ended { acked, .. } = &mut entry.state {
                *acked = true;
            }
        })?;
        Ok(())
    }

    fn change(
        &mut self,
        slot: &Slot,
        id: TaskId,
        change: impl FnOnce(&mut Entry),
    ) -> Result<bool, LedgerError> {
        let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.task.id == id) else {
            return Ok(false);
        };
        let before = entry.clone();
        change(entry);
        if *entry != before {
            self.changes += u64::from(entry.in_force != before.in_force);
            let entry = entry.clone();
            self.write(&entry)?;
        }
        Ok(true)
    }

    fn write(&self, entry: &Entry) -> Result<(), LedgerError> {
        let message = agent::v1::Entry::from(entry.clone());
        Ok(file::write(&self.dir.join(file_name(&entry.slot())), &message)?)
    }

    fn make_room(&mut self) -> Result<(), LedgerError> {
        if self.entries.len() < SLOTS_MAX {
            return Ok(());
        }
        let spent = self.entries.values().filter(|entry| entry.is_spent());
        let oldest = spent.min_by_key(|entry| entry.task.id).map(Entry::slot);
        let slot = oldest.ok_or(LedgerError::Full)?;
        let path = self.dir.join(file_name(&slot));
        fs::remove_file(&path)
            .map_err(|source| FileError::Io { file: path.display().to_string(), source })?;
        self.entries.remove(&slot);
        Ok(())
    }
}

/// `sync+webroot`: no name holds a '+', so two slots never share a file.
fn file_name(slot: &Slot) -> String {
    slot.to_string().replace('/', "+")
}

fn read_entry(path: &Path, name: &str) -> Result<Entry, String> {
    let message: agent::v1::Entry =
        file::read(path).map_err(|e| e.to_string())?.ok_or("a file is gone")?;
    let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let entry = Entry::try_from(message).map_err(|e| wrong(&e))?;
    if file_name(&entry.slot()) != name {
        return Err(wrong(&"is of another slot than its name says"));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests;
