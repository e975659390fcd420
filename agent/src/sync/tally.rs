//! Finds out that a dispatcher was killed before it wrote: lsyncd takes such a one for one that
//! succeeded and forgets its events. Only counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::journal::Entry;

/// The successes that lsyncd logs, held against the entries that dispatchers wrote.
pub struct Tally {
    succeeded: Arc<AtomicU64>,
    /// Entries from here on are counted.
    above: u64,
    written: u64,
    /// Sequences of entries that the agent wrote itself.
    own: Vec<u64>,
}

impl Tally {
    /// `head` is the journal's last entry before lsyncd's first call.
    pub fn above(head: u64, succeeded: Arc<AtomicU64>) -> Self {
        Self { succeeded, above: head, written: 0, own: Vec::new() }
    }

    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::SeqCst)
    }

    /// Whether fewer entries are there than the successes that were logged before they were read.
    pub fn misses(&self, succeeded: u64) -> bool {
        self.written < succeeded
    }

    pub fn note_own(&mut self, seq: u64) {
        self.own.push(seq);
    }

    pub fn count(&mut self, entries: &[Entry]) {
        let by_dispatcher = |e: &&Entry| e.seq > self.above && !self.own.contains(&e.seq);
        self.written += entries.iter().filter(by_dispatcher).count() as u64;
        if let Some(last) = entries.last() {
            self.own.retain(|seq| *seq > last.seq);
        }
    }

    pub fn even_out(&mut self) {
        self.written = self.succeeded();
    }
}
