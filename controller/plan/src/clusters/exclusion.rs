//! The four ways to know that the holder of a term acknowledges nothing any more, and no other: a
//! `Permission` comes from one of them, and nobody gets the next term without one.

use std::collections::BTreeSet;

use lockstep_model::cluster::{
    Act, ClusterAct, Election, Exclusion, MemberReport, MemberState, Quorum, Term,
};
use lockstep_model::node::NodeAdmin;
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{NodeName, Timestamp};

use super::rule::Wait;
use super::view::View;

/// Proof that the next holder may be drawn. Its fields are private to this file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permission {
    how: Exclusion,
    at: Timestamp,
}

impl Permission {
    pub fn how(self) -> Exclusion {
        self.how
    }

    /// When it was proven.
    pub fn at(self) -> Timestamp {
        self.at
    }

    /// The old holder may still live on promises of others, and only a member whose promise it would
    /// need is safe from it: that one sealed itself, and promises nothing any more.
    pub fn needs_promisor(self) -> bool {
        self.how == Exclusion::LeaseEnded
    }

    fn new(view: &View<'_>, how: Exclusion) -> Self {
        Self { how, at: view.now }
    }

    /// Of an election: proven earlier, or now by the first way that does.
    pub fn of(view: &View<'_>, election: &Election) -> Result<Self, Wait> {
        if let Some(how) = election.excluded {
            return Ok(Self { how, at: election.excluded_at.unwrap_or(view.now) });
        }
        let Some((old, term)) = &election.from else {
            return Err(Wait::new("no holder of the term before is recorded"));
        };
        let lease_ended = Self::lease_ended(view, old);
        Self::released(view, old, *term)
            .or_else(|| Self::sealed(view))
            .or_else(|| Self::fenced(view, old, election.began_at))
            .map_or(lease_ended, Ok)
    }

    /// Its agent attested that no process is left and none can start writable.
    pub fn released(view: &View<'_>, old: &NodeName, term: Term) -> Option<Self> {
        let report = &view.last(old)?.report;
        let gave_up = report.released.as_ref().is_some_and(|released| released.term >= term);
        (gave_up || is_off(report, term)).then(|| Self::new(view, Exclusion::Released))
    }

    /// So many are sealed that none is left whose word an old holder's commits could wait for.
    fn sealed(view: &View<'_>) -> Option<Self> {
        view.covers(&sealed(view)).then(|| Self::new(view, Exclusion::Sealed))
    }

    /// A program of the site proved the node off after the election began, or people attested that it
    /// is gone for ever.
    fn fenced(view: &View<'_>, old: &NodeName, began_at: Timestamp) -> Option<Self> {
        let off = view.cluster.members.iter().any(|member| {
            let slot = Slot::Act(view.cluster.name.clone());
            view.world.ids(&member.node, &slot).any(|id| {
                view.world.task_at(&member.node, *id).is_some_and(|task| {
                    let is_fence = matches!(&task.spec, TaskSpec::ClusterAct(ClusterAct {
                        act: Act::Fence { node, .. }, ..
                    }) if node == old);
                    is_fence && task.created_at >= began_at && task.succeeded()
                })
            })
        });
        let (leases, state) = (view.world.leases(), view.state);
        let ends = leases.ends(&state.cluster, old, state.longest_lease);
        let gone = view.node(old).is_none_or(|node| node.admin == NodeAdmin::Expelled)
            && ends.is_none_or(|end| leases.now() >= end);
        (off || gone).then(|| Self::new(view, Exclusion::Fenced))
    }

    /// Its longest lease ended, and with synchronous commits nobody is left whose promises would let
    /// it go on.
    fn lease_ended(view: &View<'_>, old: &NodeName) -> Result<Self, Wait> {
        let (leases, state) = (view.world.leases(), view.state);
        let Some(end) = leases.ends(&state.cluster, old, state.longest_lease) else {
            return Err(Wait::new(format!(
                "{old} may hold a lease without end, given while the cluster was paused: it has to \
                 come back, or to be proven off; lockstepctl node expel {old} says that it never \
                 writes again"
            )));
        };
        if leases.now() < end {
            let text = format!("the lease of {old} may last until then");
            return Err(Wait::until(text, view.at(end)));
        }
        if view.last(old).is_some_and(|heard| heard.report.state == MemberState::Unfenced) {
            return Err(Wait::new(format!(
                "processes of {old} do not end, and one of them may write yet: its machine has to be \
                 switched off; lockstepctl node expel {old} says that it is"
            )));
        }
        let promisors = sealed(view);
        let enough = |quorum: &Quorum| {
            let there = quorum.of.iter().filter(|node| promisors.contains(node)).count();
            quorum.seals_needed().is_none_or(|needed| there >= needed)
        };
        match state.quorums.iter().find(|quorum| !enough(quorum)) {
            None => Ok(Self::new(view, Exclusion::LeaseEnded)),
            Some(quorum) => Err(Wait::new(format!(
                "{old} could go on with the standbys that are not sealed ({quorum} acknowledge its \
                 commits): more of them have to come back, or {old} has to be proven off; \
                 lockstepctl node expel {old} says that it never writes again"
            ))),
        }
    }
}

/// It promised a later term, has no process, and what it has cannot start writable: whether or not it
/// ever had the lease of `term`.
pub(super) fn is_off(report: &MemberReport, term: Term) -> bool {
    let off = matches!(report.state, MemberState::Fenced | MemberState::Missing);
    off && report.term > term && report.holds.is_none()
}

/// Those who attested that they receive nothing of an earlier term any more.
pub(super) fn sealed<'a>(view: &View<'a>) -> BTreeSet<&'a NodeName> {
    let is_sealed = |node: &NodeName| {
        let report = view.last(node).map(|heard| &heard.report);
        report.is_some_and(|r| r.state == MemberState::Sealed && r.term >= view.state.term)
    };
    view.cluster.members.iter().map(|member| &member.node).filter(|node| is_sealed(node)).collect()
}
