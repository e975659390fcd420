//! Who may be promoted by itself, which is also whose promise a primary needs that goes on without
//! the controller: the two must not differ, or two primaries could be. Pure.

use std::collections::BTreeSet;

use lockstep_model::NodeName;
use lockstep_model::cluster::{ClusterPlace, Member, MemberState};

use super::view::View;

/// Those that the primary is told of: all that count, and those that are to count as soon as it has
/// said that it knows them.
pub(super) fn told(view: &View<'_>, before: Option<&ClusterPlace>) -> Vec<NodeName> {
    let counts = |node: &NodeName| view.state.promotable.contains(node);
    let was_told = |node: &NodeName| before.is_some_and(|place| place.promotable.contains(node));
    let fits = |member: &&Member| {
        let node = &member.node;
        counts(node)
            || (view.may_lead(member)
                && (is_there(view, node)
                    || (was_told(node) && view.says(node).is_none() && !view.is_away(node))))
    };
    let listed = view.cluster.members.iter().filter(fits).map(|member| member.node.clone());
    let gone = view.state.promotable.iter().filter(|node| view.cluster.member(node).is_none());
    let all: BTreeSet<NodeName> = listed.chain(gone.cloned()).collect();
    all.into_iter().collect()
}

/// It has the data, and is where it could take over from.
fn is_there(view: &View<'_>, node: &NodeName) -> bool {
    view.holder() == Some(node)
        || view.says(node).is_some_and(|report| {
            matches!(
                report.state,
                MemberState::Standby | MemberState::Sealed | MemberState::Primary
            )
        })
}

/// Those that may be added to the record: the primary's agent has them durably.
pub(super) fn confirmed(view: &View<'_>) -> BTreeSet<NodeName> {
    let Some(report) = view.holder_says() else { return BTreeSet::new() };
    let knows = |node: &NodeName| report.promotable.contains(node);
    let new = |member: &&Member| {
        view.may_lead(member)
            && is_there(view, &member.node)
            && !view.state.promotable.contains(&member.node)
    };
    let members = view.cluster.members.iter().filter(new).map(|member| &member.node);
    members.filter(|node| knows(node)).cloned().collect()
}

/// Those that count and ought not to: taken out by somebody, or away for long.
pub(super) fn spare(view: &View<'_>) -> BTreeSet<NodeName> {
    let stays = |node: &NodeName| {
        view.cluster.member(node).is_some_and(|member| view.may_lead(member)) && !view.is_away(node)
    };
    view.state.promotable.iter().filter(|node| !stays(node)).cloned().collect()
}
