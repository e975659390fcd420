//! What must not be forgotten: every record, and the log of every transaction. Four methods; all
//! queries run on the world in memory. Nothing above this trait may assume one process.

pub mod audit;
#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
mod crash;
pub mod export;
pub(crate) mod lock;
pub mod memory;
pub(crate) mod migrate;
pub mod retention;
pub mod sled;
pub(crate) mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use lockstep_model::Revision;
use lockstep_model::record::{Change, Key, Record, TXN_WRITES_MAX, Txn, Versioned, Write};

pub(crate) use self::sled::Opened;
pub use self::sled::{STORE_DIR, SledStore};

/// Of the records on disk and in exports; each step up has a migration and a fixture.
pub const SCHEMA: u32 = 5;

/// Where records live; those below `meta/` are named one by one.
pub(crate) const RECORD_PREFIXES: [&str; 18] = [
    "cluster/",
    "cluster-secret/",
    "cluster-state/",
    "failover/",
    "meta/fleet",
    "meta/past",
    "node/",
    "token/",
    "user/",
    "sync/",
    "sync-state/",
    "mirror/",
    "mirror-state/",
    "replica/",
    "run/",
    "secret/",
    "task/",
    "request/",
];

/// Below the data directory: exports that the program makes before it changes the schema.
pub const EXPORTS_DIR: &str = "exports";

/// Most bytes of one transaction as it is stored, its log entry aside. Everything a planner may
/// put into `TXN_WRITES_MAX` ordinary writes fits; a thousand targets with the longest paths do not.
pub const TXN_BYTES_MAX: usize = 4 << 20;

/// Most entries that one call of `changes` returns.
pub const CHANGES_MAX: usize = 1000;

/// One writer, one order. A value is shared by everything in the process, so it is `Sync`.
pub trait Store: Send + Sync {
    /// Every record, at one revision.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>>;

    /// All writes of `txn` and its log entry, or nothing. Compare-and-set on `txn.base`; durable
    /// when it returns `Ok`. Dropping the future does not stop a commit under way.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Change, CommitError>>;

    /// The oldest `CHANGES_MAX` entries of the log that are newer than `after`, in order; empty
    /// when there are none.
    fn changes(&self, after: Revision) -> BoxFuture<'_, Result<Vec<Change>, ChangesError>>;

    /// Forgets the log up to and including `upto`. Records stay.
    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Every record at one revision; what the changes up to it add up to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Snapshot {
    pub revision: Revision,
    pub records: BTreeMap<Key, Versioned<Record>>,
}

impl Snapshot {
    pub fn apply(&mut self, change: &Change) {
        self.revision = change.revision;
        for write in &change.writes {
            match write {
                Write::Put(record) => {
                    let value = Versioned { revision: change.revision, value: record.clone() };
                    self.records.insert(record.key(), value);
                }
                Write::Delete(key) => {
                    self.records.remove(key);
                }
            }
        }
    }
}

/// Why a store cannot be opened or read. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} holds no store: create one with `lockstep-controller init --data-dir {0}`", dir.display())]
    Missing { dir: PathBuf },
    #[error("{} holds a store already: choose another directory, or move it away", dir.display())]
    Exists { dir: PathBuf },
    #[error("{} is not a store of this program: {problem}; choose another directory, or move it away", dir.display())]
    Foreign { dir: PathBuf, problem: String },
    #[error(
        "the store has schema {found} and this program knows up to {known}: start the newer program, or import an export of the older one"
    )]
    Newer { found: u32, known: u32 },
    #[error("{} cannot be written ({problem}): give it to the user that runs the controller, on a writable file system", dir.display())]
    ReadOnly { dir: PathBuf, problem: String },
    #[error("{} is in use by {by}: stop it first, two controllers on one store would destroy it", dir.display())]
    InUse { dir: PathBuf, by: String },
    /// One value is not what was written, or the whole cannot be read.
    #[error("the store is damaged at {key}: {problem}")]
    Damaged { key: String, problem: String },
    #[error("{what}: {problem}")]
    Io { what: String, problem: String },
}

impl StoreError {
    pub(crate) fn damaged(key: impl ToString, problem: impl ToString) -> Self {
        Self::Damaged { key: key.to_string(), problem: problem.to_string() }
    }

    pub(crate) fn io(path: &Path, problem: impl ToString) -> Self {
        Self::Io { what: path.display().to_string(), problem: problem.to_string() }
    }
}

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was written: the store is at `at` and not at the transaction's base.
    #[error("the store is at revision {at}, not at the transaction's base")]
    Conflict { at: Revision },
    /// Nothing was written.
    #[error("the transaction is too large: {problem}")]
    TooLarge { problem: String },
    /// Nobody can tell whether it was written. The process must end: only a fresh start, which
    /// reads what is on disk, knows.
    #[error("the store failed, and what it holds is only known after a restart: {problem}")]
    Unknown { problem: String },
}

/// Why the log cannot be read from some revision.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// Entries are gone that were asked for; changes are known after `oldest` and later.
    #[error("the log before revision {oldest} was compacted: list, then continue from there")]
    Compacted { oldest: Revision },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The checks that every backend makes before it writes.
fn check(txn: &Txn, at: Revision) -> Result<(), CommitError> {
    if txn.base != at {
        return Err(CommitError::Conflict { at });
    }
    if txn.writes.len() > TXN_WRITES_MAX {
        let problem = format!("{} writes, at most {TXN_WRITES_MAX} fit", txn.writes.len());
        return Err(CommitError::TooLarge { problem });
    }
    Ok(())
}

/// What to do about a damaged store, as commands to copy.
fn way_out(data_dir: &Path) -> String {
    let dir = data_dir.display();
    format!(
        "`lockstep-controller store check --data-dir {dir}` lists all damage; to restore a backup: \
         `mv {dir}/store {dir}/store.damaged && lockstep-controller store import --data-dir {dir} \
         BACKUP.ndjson`; without one, first save what can be read: `lockstep-controller store \
         export --data-dir {dir} > salvaged.ndjson`, and import that with --allow-incomplete"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that is missing among the prefixes would be written, and never read again.
    #[test]
    fn every_kind_of_record_is_looked_for() {
        let place = |key: &Key| match key {
            Key::Fleet => 0,
            Key::Node(_) => 1,
            Key::Token(_) => 2,
            Key::User(_) => 3,
            Key::Sync(_) => 4,
            Key::SyncState(..) => 5,
            Key::Mirror(_) => 6,
            Key::MirrorState(_) => 7,
            Key::Replica(..) => 8,
            Key::Run(..) => 9,
            Key::Secret(_) => 10,
            Key::Task(..) => 11,
            Key::Request(_) => 12,
            Key::Cluster(_) => 13,
            Key::ClusterState(_) => 14,
            Key::Failover(..) => 15,
            Key::ClusterSecret(_) => 16,
            Key::Past => 17,
        };
        let named = |prefix: &str| match prefix {
            "meta/fleet" | "meta/past" => prefix.to_owned(),
            "replica/" | "sync-state/" => format!("{prefix}a/b"),
            "run/" => format!("{prefix}a/{:016x}/b", 1),
            "failover/" => format!("{prefix}a/{:016x}", 1),
            "task/" => format!("{prefix}a/{:016x}.{:08x}", 1, 2),
            _ => format!("{prefix}a"),
        };
        let keys = RECORD_PREFIXES.map(|prefix| named(prefix).parse::<Key>().unwrap());
        let mut places = keys.map(|key| place(&key));
        places.sort_unstable();
        assert!(places.into_iter().eq(0..18), "{places:?}");
    }
}
