//! The journal as its source reads it: entries in order, each once, own entries added, old segments
//! given up. It notices what dispatchers failed to write; what an entry means is for others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lockstep_model::Timestamp;

use crate::journal::{self, Appender, Change, Entry, JournalError, Reader};
use crate::sync::tally::Tally;

pub struct Feed {
    journal: PathBuf,
    reader: Reader,
    tally: Tally,
}

impl Feed {
    /// The journal's last sequence; makes the journal when there is none.
    pub async fn head(journal: &Path) -> Result<u64, String> {
        let journal = journal.to_owned();
        on_disk(move || Appender::open(&journal).map(|appender| appender.head())).await
    }

    /// Will read the entries above `from`. `head` is the last entry before lsyncd's first call,
    /// `succeeded` counts the calls that lsyncd took for a success.
    pub fn open(journal: PathBuf, from: u64, head: u64, succeeded: Arc<AtomicU64>) -> Self {
        let reader = Reader::after(&journal, from);
        Self { journal, reader, tally: Tally::above(head, succeeded) }
    }

    /// Last sequence read.
    pub fn read_upto(&self) -> u64 {
        self.reader.seq()
    }

    /// Calls of dispatchers that lsyncd logged as successes so far; asked before reading.
    pub fn succeeded(&self) -> u64 {
        self.tally.succeeded()
    }

    /// Whether a dispatcher that lsyncd took for a success wrote nothing. All entries must have
    /// been read since `succeeded` was asked.
    pub fn misses(&self, succeeded: u64) -> bool {
        self.tally.misses(succeeded)
    }

    /// What was missed is covered by a "full".
    pub fn even_out(&mut self) {
        self.tally.even_out();
    }

    /// The next entries; none when all were read.
    pub async fn next(&mut self) -> Result<Vec<Entry>, String> {
        let fresh = Reader::after(&self.journal, self.reader.seq());
        // Should reading panic, the fresh reader reads on.
        let mut reader = std::mem::replace(&mut self.reader, fresh);
        let read = tokio::task::spawn_blocking(move || {
            let read = reader.read();
            (reader, read)
        });
        let (reader, read) = read.await.map_err(|error| error.to_string())?;
        self.reader = reader;
        let entries = read.map_err(|error| error.to_string())?;
        self.tally.count(&entries);
        Ok(entries)
    }

    /// Writes that anything may have changed.
    pub async fn append_full(&mut self, now: Timestamp) -> Result<(), String> {
        self.append(now, Change::Full).await.map(drop)
    }

    /// An entry that only marks a place.
    pub async fn append_nothing(&mut self, now: Timestamp) -> Result<u64, String> {
        self.append(now, Change::Batch(Vec::new())).await
    }

    /// Writes what lsyncd did not tell; the entry's sequence.
    pub async fn append(&mut self, now: Timestamp, change: Change) -> Result<u64, String> {
        let journal = self.journal.clone();
        let append = move || Appender::open(&journal)?.append(now, change);
        let seq = on_disk(append).await?;
        self.tally.note_own(seq);
        Ok(seq)
    }

    /// Gives up what all have passed; how many segments are left.
    pub async fn prune(&self, passed: u64) -> Result<usize, String> {
        let journal = self.journal.clone();
        on_disk(move || journal::prune(&journal, passed)).await
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}
