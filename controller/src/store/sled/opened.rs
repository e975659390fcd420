//! sled's database, opened, and every access to it. Blocks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_model::Revision;
use lockstep_model::record::{Change, Txn};
use sled::{Batch, Db, IVec};

use super::STORE_DIR;
use super::database::{open_db, unreadable};
use super::mark::Mark;
use super::values::{Pair, Values, is_piece_of, piece_key};
use crate::offline;
use crate::store::export::Import;
use crate::store::lock::DirLock;
use crate::store::migrate::{Migration, Raw, migrate};
use crate::store::{
    self, CHANGES_MAX, ChangesError, CommitError, RECORD_PREFIXES, SCHEMA, Snapshot, StoreError,
    value,
};

/// Longer values are cut; see above.
const PIECE_BYTES: usize = 4096;
/// Entries of the log that are deleted at a time, so that nobody waits long for a compaction.
const COMPACT_SLICE: usize = 256;
/// Values that an import writes at a time.
const FILL_SLICE: usize = 256;

pub(super) const SCHEMA_KEY: &str = "meta/schema";
const REVISION_KEY: &str = "meta/revision";
const COMPACTED_KEY: &str = "meta/compacted";

pub(crate) struct Opened {
    db: Db,
    /// sled's file once more, for the fsync that sled leaves out.
    file: File,
    mark: Mark,
    data_dir: PathBuf,
    state: Mutex<State>,
    /// Last, so that it is given up after the database is closed. None when the caller has it.
    _lock: Option<DirLock>,
}

struct State {
    revision: Revision,
    compacted: Revision,
    /// Why no commit may build on this process's idea of the store any more.
    failed: Option<String>,
}

impl Opened {
    /// An empty store; one that was never written to is as good as none.
    pub(super) fn create(data_dir: &Path) -> Result<Self, StoreError> {
        let lock = DirLock::acquire(data_dir)?;
        let dir = data_dir.join(STORE_DIR);
        let opened = Self::new(open_db(&dir, data_dir)?, Some(lock), data_dir, &dir)?;
        if opened.revision() > Revision::ZERO || opened.check_mark().is_err() {
            return Err(StoreError::Exists { dir: data_dir.into() });
        }
        if !opened.db.is_empty() && !opened.db.contains_key(SCHEMA_KEY).unwrap_or(false) {
            let problem = "it is a sled database with other keys".to_owned();
            return Err(StoreError::Foreign { dir, problem });
        }
        opened.write_meta(Revision::ZERO, Revision::ZERO)?;
        opened.sync_names(data_dir)?;
        Ok(opened)
    }

    pub(crate) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let lock = DirLock::acquire(data_dir)?;
        let dir = data_dir.join(STORE_DIR);
        if !dir.join("db").exists() {
            return Err(StoreError::Missing { dir: data_dir.into() });
        }
        let opened = Self::new(open_db(&dir, data_dir)?, Some(lock), data_dir, &dir)?;
        opened.schema()?;
        Ok(opened)
    }

    /// A new store in `dir` that holds these records and this log, complete and durable. The caller
    /// has the lock.
    pub(crate) fn fill(data_dir: &Path, dir: &Path, import: &Import) -> Result<(), StoreError> {
        let opened = Self::new(open_db(dir, data_dir)?, None, data_dir, dir)?;
        let records = import.records.iter().map(|(key, record)| {
            let key = key.to_string();
            let value = value::encode_raw(&key, record.revision, &(&record.value).into());
            (key, value)
        });
        let mut values = records.chain(import.log.iter().map(value::encode_entry)).peekable();
        while values.peek().is_some() {
            let mut batch = Batch::default();
            for (key, value) in values.by_ref().take(FILL_SLICE) {
                opened.stage(&mut batch, &key, Some(&value));
            }
            opened.write(batch).map_err(|problem| StoreError::io(dir, problem))?;
        }
        opened.write_meta(Revision(import.header.revision), import.compacted)?;
        opened.sync_names(dir)
    }

    fn new(db: Db, lock: Option<DirLock>, data_dir: &Path, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("db");
        let file = File::open(&path).map_err(|e| StoreError::io(&path, e))?;
        let mark = Mark::open(dir).map_err(|e| StoreError::io(dir, e))?;
        let state =
            Mutex::new(State { revision: Revision::ZERO, compacted: Revision::ZERO, failed: None });
        let opened = Self { db, file, mark, data_dir: data_dir.into(), state, _lock: lock };
        let revision = Revision(opened.number(REVISION_KEY)?.unwrap_or_default());
        let compacted = Revision(opened.number(COMPACTED_KEY)?.unwrap_or_default());
        *opened.state() = State { revision, compacted, failed: None };
        Ok(opened)
    }

    fn write_meta(&self, revision: Revision, compacted: Revision) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.insert(SCHEMA_KEY, SCHEMA.to_string().as_str());
        if revision > Revision::ZERO {
            batch.insert(REVISION_KEY, revision.to_string().as_str());
            batch.insert(COMPACTED_KEY, compacted.to_string().as_str());
        }
        let written = self.write(batch).and_then(|()| self.set_mark(revision));
        written.map_err(|problem| StoreError::io(&self.data_dir, problem))
    }

    /// The names of sled's files, without which a machine that loses power may lose a new store.
    fn sync_names(&self, dir: &Path) -> Result<(), StoreError> {
        let dirs = [dir.to_owned(), dir.join(STORE_DIR)];
        let files = dirs.iter().map(|dir| dir.join("conf"));
        for path in files.chain(dirs.iter().cloned()).filter(|path| path.exists()) {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|e| StoreError::io(&path, e))?;
        }
        Ok(())
    }

    /// Brings all records to another schema in one batch. The log is of the older one and goes.
    pub(super) fn migrate(&mut self, to: u32, steps: &[Migration]) -> Result<(), StoreError> {
        let (from, at) = (self.schema()?, self.revision());
        let export = offline::export_before_migration(self)?;
        let mut raw = Raw::new();
        for prefix in RECORD_PREFIXES {
            for value in self.values(prefix) {
                let (key, bytes) = value.map_err(|e| self.damaged(e))?;
                let record = value::decode_raw(&key, &bytes).map_err(|e| self.damaged(e))?;
                raw.insert(key, record);
            }
        }
        let before: Vec<String> = raw.keys().cloned().collect();
        let taken = migrate(&mut raw, from, to, steps)?;

        let mut batch = Batch::default();
        for key in before.iter().filter(|key| !raw.contains_key(*key)) {
            self.stage(&mut batch, key, None);
        }
        for (key, (revision, record)) in &raw {
            self.stage(&mut batch, key, Some(&value::encode_raw(key, *revision, record)));
        }
        batch.insert(SCHEMA_KEY, to.to_string().as_str());
        batch.insert(COMPACTED_KEY, at.to_string().as_str());
        self.write(batch).map_err(|problem| StoreError::io(&self.data_dir, problem))?;
        self.state().compacted = at;
        let (steps, export) = (taken.join(", "), export.display().to_string());
        tracing::info!(from, to, steps, export, "the store was migrated");
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in the middle of a commit leaves `failed` behind, which says all there is to say.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn revision(&self) -> Revision {
        self.state().revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state().compacted
    }

    pub(crate) fn schema(&self) -> Result<u32, StoreError> {
        let schema = self.number(SCHEMA_KEY)?.and_then(|n| u32::try_from(n).ok());
        schema.ok_or_else(|| match self.db.is_empty() {
            true => StoreError::Missing { dir: self.data_dir.clone() },
            false => StoreError::Foreign {
                dir: self.data_dir.join(STORE_DIR),
                problem: "it says no schema".to_owned(),
            },
        })
    }

    fn number(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let Some(value) = self.db.get(key).map_err(|e| unreadable(&self.data_dir, e))? else {
            return Ok(None);
        };
        let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        let damaged = || self.damaged(StoreError::damaged(key, "is not a number"));
        number.map(Some).ok_or_else(damaged)
    }

    pub(super) fn commit(&self, txn: Txn) -> Result<Change, CommitError> {
        let mut state = self.state();
        if let Some(problem) = state.failed.clone() {
            return Err(CommitError::Unknown { problem });
        }
        store::check(&txn, state.revision)?;
        let change = Change::of(txn);
        let mut batch = Batch::default();
        for (key, value) in value::encode(&change)? {
            self.stage(&mut batch, &key, value.as_deref());
        }
        batch.insert(REVISION_KEY, change.revision.to_string().as_str());
        // Stays if the write panics, or never returns and its caller stops waiting.
        state.failed = Some("an earlier commit did not end".to_owned());
        let written = self.write(batch).and_then(|()| self.set_mark(change.revision));
        if let Err(problem) = written {
            state.failed = Some(problem.clone());
            return Err(CommitError::Unknown { problem });
        }
        state.failed = None;
        state.revision = change.revision;
        Ok(change)
    }

    fn set_mark(&self, revision: Revision) -> Result<(), String> {
        self.mark.set(revision).map_err(|e| e.to_string())
    }

    /// That nothing is gone from the end; `check` and `export` want to see what is there.
    pub(crate) fn check_mark(&self) -> Result<(), StoreError> {
        let marked = self.mark.get().map_err(|e| StoreError::io(&self.data_dir, e))?;
        let revision = self.revision();
        if revision >= marked {
            return Ok(());
        }
        let problem = format!("ends at revision {revision}, and {marked} was acknowledged");
        Err(self.damaged(StoreError::damaged("the end of the log", problem)))
    }

    /// Puts or deletes one value, and the pieces that an older and longer one left.
    pub(crate) fn stage(&self, batch: &mut Batch, key: &str, value: Option<&[u8]>) {
        for old in self.db.range(piece_key(key, 0)..=piece_key(key, u32::MAX)).keys().flatten() {
            batch.remove(old);
        }
        let Some(value) = value else {
            batch.remove(key);
            return;
        };
        let (first, rest) = value.split_at(value.len().min(PIECE_BYTES));
        batch.insert(key, first);
        for (n, piece) in (0..).zip(rest.chunks(PIECE_BYTES)) {
            batch.insert(piece_key(key, n), piece);
        }
    }

    /// All of a batch, for good.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), String> {
        self.db.apply_batch(batch).map_err(|e| e.to_string())?;
        self.db.flush().map_err(|e| e.to_string())?;
        self.file.sync_data().map_err(|e| e.to_string())
    }

    /// Of all keys that start with `prefix`, in order.
    pub(crate) fn values(&self, prefix: &str) -> Values<impl Iterator<Item = Pair>> {
        Values::of(self.db.scan_prefix(prefix))
    }

    /// Every value that can be read, and what kept others from it. Where sled cannot read on, it
    /// is read from the other end.
    pub(crate) fn readable(
        &self,
        prefix: &str,
        mut each: impl FnMut(&str, Result<Vec<u8>, StoreError>),
    ) {
        let (mut last, mut stopped) = (String::new(), false);
        for value in self.values(prefix) {
            match value {
                Ok((key, bytes)) => {
                    each(&key, Ok(bytes));
                    last = key;
                }
                Err(e) => {
                    each(&format!("{prefix}*, after {last:?}"), Err(e));
                    stopped = true;
                    break;
                }
            }
        }
        if !stopped {
            return;
        }
        let mut pairs: Vec<_> = self.db.scan_prefix(prefix).rev().map_while(Result::ok).collect();
        pairs.retain(|(key, _)| **key > *last.as_bytes() && !is_piece_of(key, last.as_bytes()));
        pairs.reverse();
        for (key, bytes) in Values::of(pairs.into_iter().map(Ok)).flatten() {
            each(&key, Ok(bytes));
        }
    }

    /// Keys that no version of this program writes.
    pub(crate) fn strange_keys(&self) -> Vec<String> {
        let known = RECORD_PREFIXES.iter().copied().chain([value::LOG, "meta/"]);
        let known: Vec<&[u8]> = known.map(str::as_bytes).collect();
        let keys = self.db.iter().keys().map_while(Result::ok);
        let strange = keys.filter(|key| !known.iter().any(|prefix| key.starts_with(prefix)));
        strange.map(|key| String::from_utf8_lossy(&key).into_owned()).collect()
    }

    #[cfg(test)]
    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        let mut batch = Batch::default();
        self.stage(&mut batch, key, Some(value));
        self.write(batch).unwrap();
    }

    #[cfg(test)]
    pub(crate) fn remove(&self, key: &str) {
        let mut batch = Batch::default();
        self.stage(&mut batch, key, None);
        self.write(batch).unwrap();
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let state = self.state();
        let mut snapshot = Snapshot { revision: state.revision, ..Snapshot::default() };
        for prefix in RECORD_PREFIXES {
            for value in self.values(prefix) {
                let (key, bytes) = value.map_err(|e| self.damaged(e))?;
                let (key, record) =
                    value::decode_record(&key, &bytes).map_err(|e| self.damaged(e))?;
                snapshot.records.insert(key, record);
            }
        }
        Ok(snapshot)
    }

    pub(crate) fn changes(&self, after: Revision) -> Result<Vec<Change>, ChangesError> {
        let state = self.state();
        if after < state.compacted {
            return Err(ChangesError::Compacted { oldest: state.compacted });
        }
        if after >= state.revision {
            return Ok(Vec::new());
        }
        let range = value::log_key(after.next()).into_bytes()..value::LOG_END.into();
        let entries = Values::of(self.db.range(range)).take(CHANGES_MAX).map(|value| {
            let (key, bytes) = value?;
            value::decode_entry(&key, &bytes)
        });
        Ok(entries.collect::<Result<_, _>>().map_err(|e| self.damaged(e))?)
    }

    pub(super) fn set_compacted(&self, upto: Revision) -> Result<(), String> {
        let mut state = self.state();
        let upto = upto.min(state.revision).max(state.compacted);
        let mut batch = Batch::default();
        batch.insert(COMPACTED_KEY, upto.to_string().as_str());
        self.write(batch)?;
        state.compacted = upto;
        Ok(())
    }

    /// Deletes some of the entries that nobody may ask for any more; false when none are left.
    pub(super) fn drop_compacted(&self) -> Result<bool, String> {
        let state = self.state();
        let end = piece_key(&value::log_key(state.compacted), u32::MAX);
        let range = value::LOG.as_bytes().to_vec()..=end;
        let keys: Result<Vec<IVec>, _> = self.db.range(range).keys().take(COMPACT_SLICE).collect();
        let keys = keys.map_err(|e| e.to_string())?;
        let mut batch = Batch::default();
        let some = !keys.is_empty();
        keys.into_iter().for_each(|key| batch.remove(key));
        if some {
            self.write(batch)?;
        }
        Ok(some)
    }

    /// The same error, with the way out.
    fn damaged(&self, e: StoreError) -> StoreError {
        match e {
            StoreError::Damaged { key, problem } => {
                let problem = format!("{problem}; {}", store::way_out(&self.data_dir));
                StoreError::Damaged { key, problem }
            }
            other => other,
        }
    }
}
