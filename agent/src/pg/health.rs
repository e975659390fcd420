//! What load balancers are told of members: every path, alias and parameter that checks of Patroni's
//! API are configured with, and gRPC's names. Answered from memory at the moment of asking; it asks no
//! database and decides nothing.

mod board;
mod check;
mod http;
mod metrics;
mod pages;
mod query;
mod status;

use std::sync::Arc;

use lockstep_model::cluster::{ClusterPlace, MemberReport};
use lockstep_model::task::TaskSpec;
use lockstep_model::{ClusterName, Millis};
use tokio::sync::watch;

use super::boottime::{self, Boottime};
use super::{ClusterEngine, Reports};

pub use board::keep;
pub use check::Check;
pub use http::{Further, routes};

/// Who looks after the members, and holds their leases.
pub trait Leases: Send + Sync {
    /// Until when the cluster's member here may write; the beginning of time: it may not.
    fn writes_until(&self, cluster: &ClusterName) -> Boottime;
    /// When the cluster's member here was looked at last; None: nobody looks after it.
    fn looked_at(&self, cluster: &ClusterName) -> Option<Boottime>;
}

impl Leases for ClusterEngine {
    fn writes_until(&self, cluster: &ClusterName) -> Boottime {
        Self::writes_until(self, cluster)
    }

    fn looked_at(&self, cluster: &ClusterName) -> Option<Boottime> {
        Self::looked_at(self, cluster)
    }
}

/// What answers are made from.
#[derive(Clone)]
pub struct Sources {
    pub in_force: watch::Receiver<Arc<[TaskSpec]>>,
    pub reports: watch::Receiver<Reports>,
    pub leases: Arc<dyn Leases>,
}

/// One member as it is now.
pub struct View {
    pub place: Box<ClusterPlace>,
    /// None: it said nothing yet.
    pub report: Option<Arc<MemberReport>>,
    /// Its lease holds, or it needs none.
    pub may_write: bool,
    /// How long it was not looked at; None: nobody looks after it.
    pub unseen: Option<Millis>,
}

impl Sources {
    /// None: this node has no member of it.
    fn view(&self, cluster: &ClusterName) -> Option<View> {
        let places = self.in_force.borrow().clone();
        let of = |spec: &TaskSpec| match spec {
            TaskSpec::ClusterPlace(place) if place.cluster == *cluster => Some(place.clone()),
            _ => None,
        };
        let place = places.iter().find_map(of)?;
        let report = self.reports.borrow().get(cluster).cloned();
        let now = boottime::now();
        let may_write = now < self.leases.writes_until(cluster);
        let unseen = self.leases.looked_at(cluster).map(|at| now.since(at));
        Some(View { place, report, may_write, unseen })
    }

    /// In the order of the ledger.
    fn clusters(&self) -> Vec<ClusterName> {
        let of = |spec: &TaskSpec| match spec {
            TaskSpec::ClusterPlace(place) => Some(place.cluster.clone()),
            _ => None,
        };
        self.in_force.borrow().iter().filter_map(of).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
