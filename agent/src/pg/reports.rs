//! What each member of this node is like, for whoever tells it on. It finds nothing out.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_model::ClusterName;
use lockstep_model::cluster::MemberReport;
use lockstep_model::cluster::report::Progress;
use tokio::sync::watch;

/// The latest report of each cluster that this node has a part in.
pub type Reports = Arc<BTreeMap<ClusterName, Arc<MemberReport>>>;

/// Clones are the same board.
#[derive(Clone, Default)]
pub struct Board(Arc<watch::Sender<Reports>>);

impl Board {
    pub fn subscribe(&self) -> watch::Receiver<Reports> {
        self.0.subscribe()
    }

    /// Nobody is woken when it is as before.
    pub fn publish(&self, cluster: &ClusterName, report: MemberReport) {
        self.0.send_if_modified(|all| {
            let changed = all.get(cluster).is_none_or(|before| **before != report);
            if changed {
                Arc::make_mut(all).insert(cluster.clone(), Arc::new(report));
            }
            changed
        });
    }

    /// How far something long is; the rest is as it was said.
    pub fn progress(&self, cluster: &ClusterName, progress: Progress) {
        self.amend(cluster, |report| report.progress = Some(progress));
    }

    /// What has just changed, told before everything is looked at again.
    pub fn amend(&self, cluster: &ClusterName, change: impl FnOnce(&mut MemberReport)) {
        let Some(mut report) = self.0.borrow().get(cluster).map(|report| (**report).clone()) else {
            return;
        };
        change(&mut report);
        self.publish(cluster, report);
    }

    pub fn withdraw(&self, cluster: &ClusterName) {
        self.0.send_if_modified(|all| {
            all.contains_key(cluster) && Arc::make_mut(all).remove(cluster).is_some()
        });
    }
}
