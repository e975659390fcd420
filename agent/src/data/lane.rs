//! Lanes: whom a sync of this node may be brought to right now, or a mirror pulled from, how fast, and
//! how much went there. Who transfers opens and closes them; a transfer finds its peer nowhere else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstep_model::NodeName;
use lockstep_model::task::Peer;
use tokio_util::sync::CancellationToken;

use super::header::About;
use super::limit::{Chain, Limiter};

type Table = BTreeMap<(About, NodeName), Arc<Way>>;

/// All open lanes of this node; clones are the same table.
#[derive(Clone)]
pub struct Lanes {
    table: Arc<Mutex<Table>>,
    limit: Limiter,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { table: Arc::default(), limit: Limiter::new(None) }
    }
}

impl Lanes {
    /// Bounds all lanes together from now on, in bytes per second; None: no limit.
    pub fn limit(&self, rate: Option<u64>) {
        self.limit.set(rate);
    }

    /// Of all lanes together.
    pub fn rate(&self) -> Option<u64> {
        self.limit.rate()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets transfers of `about` through to `peer` until the lane is dropped. `own` is this one's
    /// limit, `limit` is shared by all its lanes. A lane that was open between the two is closed.
    pub fn open(
        &self,
        about: impl Into<About>,
        peer: &Peer,
        own: &Limiter,
        limit: &Limiter,
    ) -> Lane {
        let way = Arc::new(Way {
            peer: peer.clone(),
            meter: self.meter(own, limit),
            closed: CancellationToken::new(),
        });
        let key = (about.into(), peer.node.clone());
        if let Some(former) = self.lock().insert(key.clone(), way.clone()) {
            former.closed.cancel();
        }
        Lane { lanes: self.clone(), key, way }
    }

    /// For what this node sends to somebody who called.
    pub fn lend(&self) -> Meter {
        let free = Limiter::new(None);
        self.meter(&free, &free)
    }

    fn meter(&self, own: &Limiter, limit: &Limiter) -> Meter {
        let limits = Chain([own.clone(), limit.clone(), self.limit.clone()]);
        Meter { limits, sent_bytes: AtomicU64::new(0) }
    }

    /// None when this node has nothing to do with that one about it.
    pub fn find(&self, about: impl Into<About>, node: &NodeName) -> Option<Arc<Way>> {
        self.lock().get(&(about.into(), node.clone())).cloned()
    }
}

/// The right to transfer one thing to or from one peer. Dropping it ends the transfers under way.
pub struct Lane {
    lanes: Lanes,
    key: (About, NodeName),
    way: Arc<Way>,
}

impl Lane {
    /// Bytes that rsync gave to be sent to the peer since the lane was opened.
    pub fn sent_bytes(&self) -> u64 {
        self.way.meter.sent_bytes()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.way.closed.cancel();
        let mut table = self.lanes.lock();
        if table.get(&self.key).is_some_and(|way| Arc::ptr_eq(way, &self.way)) {
            table.remove(&self.key);
        }
    }
}

/// An open lane as a transfer sees it.
pub struct Way {
    pub peer: Peer,
    pub meter: Meter,
    /// Cancelled when the lane is no more.
    pub closed: CancellationToken,
}

/// What bytes pass on their way out, and are counted by.
pub struct Meter {
    /// Its own, the sync's and the node's.
    limits: Chain<3>,
    sent_bytes: AtomicU64,
}

impl Meter {
    /// Waits for its turn; how many of `bytes` may be sent now, at least one of them.
    pub async fn pass(&self, bytes: usize) -> usize {
        self.limits.pass(bytes).await
    }

    pub fn count_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_model::{KeyHash, SyncName};

    fn peer(key: u8) -> Peer {
        Peer { node: "web1".parse().unwrap(), key_hash: KeyHash([key; 32]), addresses: vec![] }
    }

    #[test]
    fn a_lane_is_found_while_it_is_open_and_for_its_sync_only() {
        let (lanes, any) = (Lanes::default(), Limiter::new(None));
        let web1 = "web1".parse().unwrap();
        let [webroot, other] = ["webroot", "other"].map(|name| name.parse::<SyncName>().unwrap());
        let first = lanes.open(&webroot, &peer(1), &any, &any);
        let way = lanes.find(&webroot, &web1).unwrap();
        assert!(lanes.find(&other, &web1).is_none());
        assert!(lanes.find(&webroot, &"web2".parse().unwrap()).is_none());

        let second = lanes.open(&webroot, &peer(2), &any, &any);
        assert!(way.closed.is_cancelled(), "the peer has changed");
        drop(first);
        let way = lanes.find(&webroot, &web1).unwrap();
        assert_eq!((&way.peer, way.closed.is_cancelled()), (&peer(2), false));
        drop(second);
        assert!(way.closed.is_cancelled() && lanes.find(&webroot, &web1).is_none());
    }
}
