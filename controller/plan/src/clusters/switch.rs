//! Who could take over from a primary that serves, and whether an election could come to an end.
//! Pure.

use std::collections::BTreeSet;

use lockstep_model::NodeName;
use lockstep_model::cluster::{Lsn, Member, MemberState, Quorum};

use super::reign;
use super::rule::Wait;
use super::view::View;

/// Whether a member could be handed the cluster over now; else why not.
pub(super) fn check_target(view: &View<'_>, node: &NodeName) -> Result<(), String> {
    let Some(member) = view.member(node) else { return Err(format!("{node} is no member")) };
    if view.holder() == Some(node) {
        return Err(format!("{node} is primary already"));
    }
    if member.options.never_promote {
        return Err(format!("{node} is never promoted: its setting never-promote says so"));
    }
    if !view.is_managed(node) {
        return Err(format!("{node} is taken out by somebody"));
    }
    if !view.is_copied(member) {
        return Err(format!("{node} has no complete copy of the data"));
    }
    if !view.streams(node) {
        return Err(format!("{node} does not follow the primary"));
    }
    let most = view.cluster.options.failover.max_lag;
    match lag(view, node) {
        Some(lag) if lag > most.0 => {
            Err(format!("{node} is {lag} bytes behind, more than max-lag {most}"))
        }
        _ => Ok(()),
    }
}

fn lag(view: &View<'_>, node: &NodeName) -> Option<u64> {
    let end = view.holder_says()?.lsn?;
    Some(end.since(view.says(node)?.lsn?))
}

/// The best of those that could be handed it over.
pub(super) fn best_target<'a>(view: &View<'a>) -> Option<&'a NodeName> {
    let able = |member: &&Member| view.may_lead(member) && check_target(view, &member.node).is_ok();
    let rank = |member: &&Member| {
        let lsn = view.says(&member.node).and_then(|report| report.lsn).unwrap_or(Lsn(0));
        (member.options.priority, lsn)
    };
    let members = view.cluster.members.iter().rev().filter(able);
    members.max_by_key(rank).map(|member| &member.node)
}

/// Whether enough members could be sealed, and one of them promoted, without the holder's help.
pub(super) fn can_elect(view: &View<'_>) -> Result<(), Wait> {
    let reachable: BTreeSet<&NodeName> = view
        .cluster
        .members
        .iter()
        .filter(|member| {
            let states = [MemberState::Standby, MemberState::Sealed, MemberState::Starting];
            let there = view.says(&member.node).is_some_and(|r| states.contains(&r.state));
            view.holder() != Some(&member.node)
                && view.may_lead(member)
                && view.is_heard(&member.node)
                && there
        })
        .map(|member| &member.node)
        .collect();
    if view.state.all_quorums().any(|quorum| !quorum.is_off()) {
        let is_enough = |quorum: &Quorum| {
            let there = quorum.of.iter().filter(|node| reachable.contains(node)).count();
            quorum.seals_needed().is_none_or(|needed| there >= needed)
        };
        let enough = view.state.quorums.iter().all(is_enough)
            && reign::former(view)
                .all(|reign| reign.is_back(view) || reign.quorums.iter().all(is_enough));
        return match enough {
            true => Ok(()),
            false => Err(Wait::new(format!(
                "too few of those that acknowledge commits are reachable ({}): a failover could lose \
                 some",
                view.quorum()
            ))),
        };
    }
    match reachable.iter().any(|node| view.state.promotable.contains(*node)) {
        true => Ok(()),
        false => Err(Wait::new("no member that may be promoted by itself is reachable")),
    }
}
