//! The store on one machine's disk. Only this directory names sled, and here is made up for
//! what sled 0.34 does not do:
//!
//! * its flush is `sync_file_range`, which keeps neither the file's length nor what is in the
//!   disk's own cache, so a commit also fsyncs the file;
//! * a page of more than 128 KiB goes to a file of its own that is never synced at all, so long
//!   values are cut into pieces of `PIECE_BYTES`, of which a page holds twenty at most;
//! * it cleans its file only in the thread of its timed flush, so that stays on;
//! * where its file is damaged it drops all that follows and opens an older state without a word,
//!   so the last acknowledged revision is kept beside it (`mark`);
//! * after some I/O errors it waits for ever, so every call has a time limit.

mod database;
mod mark;
mod opened;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use lockstep_model::Revision;
use lockstep_model::record::{Change, Txn};

use super::migrate::{MIGRATIONS, Migration};
use super::{ChangesError, CommitError, SCHEMA, Snapshot, Store, StoreError};
pub(crate) use opened::Opened;

/// Below the data directory.
pub const STORE_DIR: &str = "store";

/// Longest that one call may take, on a disk that is busy but works.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A handle; clones share one open store, which is closed with the last of them.
#[derive(Clone)]
pub struct SledStore(Arc<Opened>);

impl SledStore {
    /// An empty store at revision 0. Blocks. `Exists` when there is one that was ever written to.
    pub fn create(data_dir: &Path) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Opened::create(data_dir)?)))
    }

    /// Blocks. The data directory must hold a store, and nobody else may have it open.
    /// An older schema is migrated, after an export of it to `exports/` below the data directory.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_as(data_dir, SCHEMA, MIGRATIONS)
    }

    fn open_as(data_dir: &Path, schema: u32, steps: &[Migration]) -> Result<Self, StoreError> {
        let mut opened = Opened::open(data_dir)?;
        opened.check_mark()?;
        if opened.schema()? != schema {
            opened.migrate(schema, steps)?;
        }
        Ok(Self(Arc::new(opened)))
    }

    /// Runs `call` where blocking is allowed, and no longer than a call may take.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Opened) -> T + Send + 'static,
    ) -> Result<T, String> {
        let opened = self.0.clone();
        let task = tokio::task::spawn_blocking(move || call(&opened));
        match tokio::time::timeout(CALL_TIMEOUT, task).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(panic)) => Err(panic.to_string()),
            Err(_) => Err(format!("no answer from the disk in {} s", CALL_TIMEOUT.as_secs())),
        }
    }

    fn failed(&self, problem: String) -> StoreError {
        StoreError::io(self.0.data_dir(), problem)
    }
}

impl Store for SledStore {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        async move { self.run(Opened::snapshot).await.map_err(|p| self.failed(p))? }.boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Change, CommitError>> {
        async move {
            let done = self.run(move |opened| opened.commit(txn)).await;
            done.unwrap_or_else(|problem| Err(CommitError::Unknown { problem }))
        }
        .boxed()
    }

    fn changes(&self, after: Revision) -> BoxFuture<'_, Result<Vec<Change>, ChangesError>> {
        async move {
            let done = self.run(move |opened| opened.changes(after)).await;
            done.map_err(|problem| self.failed(problem))?
        }
        .boxed()
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let upto = self.run(move |opened| opened.set_compacted(upto)).await;
            upto.and_then(|done| done).map_err(|problem| self.failed(problem))?;
            while self
                .run(Opened::drop_compacted)
                .await
                .and_then(|done| done)
                .map_err(|problem| self.failed(problem))?
            {}
            Ok(())
        }
        .boxed()
    }
}
