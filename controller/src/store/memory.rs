//! A store that lasts as long as the process: for tests and for simulation. It encodes what it is
//! given and refuses what the other backends refuse, so that passing here means something.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, ready};
use lockstep_model::Revision;
use lockstep_model::record::{Change, Txn};

use super::{CHANGES_MAX, ChangesError, CommitError, Snapshot, Store, StoreError, value};

#[derive(Default, Debug)]
pub struct MemoryStore(Mutex<Held>);

#[derive(Default, Debug)]
struct Held {
    snapshot: Snapshot,
    log: BTreeMap<Revision, Change>,
    compacted: Revision,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change of it below is made after the last thing that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        ready(Ok(self.held().snapshot.clone())).boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Change, CommitError>> {
        ready(self.held().commit(txn)).boxed()
    }

    fn changes(&self, after: Revision) -> BoxFuture<'_, Result<Vec<Change>, ChangesError>> {
        ready(self.held().changes(after)).boxed()
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut held = self.held();
        let upto = upto.min(held.snapshot.revision).max(held.compacted);
        held.log = held.log.split_off(&upto.next());
        held.compacted = upto;
        ready(Ok(())).boxed()
    }
}

impl Held {
    fn commit(&mut self, txn: Txn) -> Result<Change, CommitError> {
        super::check(&txn, self.snapshot.revision)?;
        let change = Change::of(txn);
        value::encode(&change)?;
        self.snapshot.apply(&change);
        self.log.insert(change.revision, change.clone());
        Ok(change)
    }

    fn changes(&self, after: Revision) -> Result<Vec<Change>, ChangesError> {
        if after < self.compacted {
            return Err(ChangesError::Compacted { oldest: self.compacted });
        }
        let newer = self.log.range((Excluded(after), Unbounded));
        Ok(newer.take(CHANGES_MAX).map(|(_, change)| change.clone()).collect())
    }
}
