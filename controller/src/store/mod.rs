//! What must not be forgotten: every record, and the log of every transaction. Four methods; all
//! queries run on the world in memory. Nothing above this trait may assume one process.

pub mod memory;
mod value;

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use lockstep_model::Revision;
use lockstep_model::record::{Change, Key, Record, TXN_WRITES_MAX, Txn, Versioned, Write};

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

/// Why a store cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// One value is not what was written.
    #[error("the store is damaged at {key}: {problem}")]
    Damaged { key: String, problem: String },
    #[error("{problem}")]
    Io { problem: String },
}

impl StoreError {
    pub(crate) fn damaged(key: impl ToString, problem: impl ToString) -> Self {
        Self::Damaged { key: key.to_string(), problem: problem.to_string() }
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
