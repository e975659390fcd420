//! A holder asks for its lease anew. Answered from what is recorded and nothing else, so that no
//! grant can follow the record of an election. Writes no record.

use std::fmt;

use lockstep_model::cluster::{Stage, Term};
use lockstep_model::{ClusterName, Millis, NodeName};

use super::Uptime;
use crate::World;
use crate::clusters::doubt;

/// Why a lease is not granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoLease {
    /// The store is an old copy: who holds what is not known.
    StoreBehind,
    /// Members may know better than the records, and have not said yet.
    InDoubt,
    Unknown(ClusterName),
    /// The term that is recorded.
    OtherTerm(Term),
    /// Who holds the term; None: nobody yet.
    OtherHolder(Option<NodeName>),
    /// No length is recorded for the term yet.
    NotYet,
}

impl NoLease {
    /// For programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::StoreBehind => "store-behind",
            Self::InDoubt => "in-doubt",
            Self::Unknown(_) => "unknown-cluster",
            Self::OtherTerm(_) => "other-term",
            Self::OtherHolder(_) => "other-holder",
            Self::NotYet => "not-yet",
        }
    }
}

impl fmt::Display for NoLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreBehind => f.write_str("the controller's store is an old copy"),
            Self::InDoubt => f.write_str("the controller has to hear the other members first"),
            Self::Unknown(cluster) => write!(f, "there is no cluster {cluster}"),
            Self::OtherTerm(term) => write!(f, "the term is {term}"),
            Self::OtherHolder(Some(holder)) => write!(f, "{holder} holds the term"),
            Self::OtherHolder(None) => f.write_str("nobody holds the term: a primary is chosen"),
            Self::NotYet => f.write_str("no lease was recorded for the term yet"),
        }
    }
}

impl World {
    /// `node` asks at `now` for the lease of `term`. What it gets is noted with this process's grants:
    /// a length from when it asked, or None, without end.
    ///
    /// # Errors
    /// It does not hold the term, as far as is recorded; nothing is noted.
    pub fn renew_lease(
        &mut self,
        node: &NodeName,
        cluster: &ClusterName,
        term: Term,
        now: Uptime,
    ) -> Result<Option<Millis>, NoLease> {
        self.leases_mut().tick(now);
        let length = self.lease_for(node, cluster, term)?;
        self.leases_mut().grant(cluster, term, node, length, now);
        Ok(length)
    }

    /// With its renewal `node` says that its agent is about to be stopped, or that it is not. True: that
    /// is to be planned for.
    pub fn note_away(
        &mut self,
        node: &NodeName,
        cluster: &ClusterName,
        away: Option<Millis>,
    ) -> bool {
        let holds =
            self.cluster_state(cluster).is_some_and(|now| now.holder.as_ref() == Some(node));
        let is_news = holds && self.leases_mut().note_away(cluster, node, away);
        if is_news {
            self.touch_cluster(cluster);
        }
        is_news
    }

    fn lease_for(
        &self,
        node: &NodeName,
        cluster: &ClusterName,
        term: Term,
    ) -> Result<Option<Millis>, NoLease> {
        if self.store_behind().is_some() {
            return Err(NoLease::StoreBehind);
        }
        let there = self.clusters().get(cluster).zip(self.cluster_state(cluster));
        let Some((definition, state)) = there else {
            return Err(NoLease::Unknown(cluster.clone()));
        };
        if state.term != term {
            return Err(NoLease::OtherTerm(state.term));
        }
        if !doubt::lets_hold(self, &definition.value, state, (node, term)) {
            return Err(NoLease::InDoubt);
        }
        if state.holder.as_ref() != Some(node) || matches!(state.stage, Stage::Electing(_)) {
            return Err(NoLease::OtherHolder(state.holder.clone()));
        }
        // Never longer than was recorded before.
        let away = self.leases().away(cluster, node).unwrap_or_default();
        let wanted = definition.value.options.lease.length.max(away);
        match state.longest_lease {
            Some(Millis(0)) => Err(NoLease::NotYet),
            Some(longest) => Ok(Some(wanted.min(longest))),
            None if definition.value.paused => Ok(None),
            None => Ok(Some(wanted)),
        }
    }
}
