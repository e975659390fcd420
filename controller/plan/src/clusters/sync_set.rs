//! Who ought to acknowledge commits, by the policy and by who is there. Pure; the change itself is
//! a rule's.

use std::collections::BTreeSet;

use lockstep_model::cluster::options::Shortage;
use lockstep_model::cluster::{Member, MemberState, Quorum};
use lockstep_model::{Millis, NodeName};

use super::view::View;
use lockstep_model::cluster::options::SyncPolicy;

/// How many standbys are to have each commit.
pub(super) fn policy(view: &View<'_>) -> u32 {
    match view.cluster.options.sync {
        SyncPolicy::Off => 0,
        SyncPolicy::Count(k) => k,
        SyncPolicy::Auto => u32::from(view.cluster.members.len() > 2),
    }
}

/// By its records, a commit may wait for it: what it has could be promoted, and it has it from the
/// primary itself.
fn may_acknowledge(view: &View<'_>, member: &Member) -> bool {
    let direct = member.options.upstream.as_ref().is_none_or(|up| Some(up) == view.holder());
    view.may_lead(member)
        && !member.options.no_sync
        && direct
        && view.holder() != Some(&member.node)
}

/// What is to be in force while a primary serves.
pub(super) fn wanted(view: &View<'_>) -> Quorum {
    let now = view.quorum();
    let able = |member: &&Member| may_acknowledge(view, member);
    let members = || view.cluster.members.iter().filter(able).map(|member| &member.node);
    let there: BTreeSet<NodeName> = members()
        .filter(|node| view.streams(node) || (now.of.contains(*node) && !is_gone(view, node)))
        .cloned()
        .collect();
    let k = policy(view);
    if k == 0 {
        return Quorum::OFF;
    }
    if there.len() >= k as usize {
        return Quorum { k, of: elsewhere(view, view.holder(), there, k as usize) };
    }
    match view.cluster.options.on_sync_shortage {
        Shortage::Degrade => Quorum::OFF,
        // Nothing was promised yet, and a set without standbys stops even the first tables.
        Shortage::Wait if now.is_off() => Quorum::OFF,
        Shortage::Wait => {
            let remain = now.of.iter().filter(|node| Some(*node) != view.holder()).cloned();
            let of: BTreeSet<NodeName> = there.into_iter().chain(remain).collect();
            Quorum { k: if of.len() < k as usize { now.k } else { k }, of }
        }
    }
}

/// Those in other groups than the primary when they are enough alone: then each commit is in another
/// group when the primary's is lost as a whole, and the members that are left can prove it.
fn elsewhere(
    view: &View<'_>,
    holder: Option<&NodeName>,
    all: BTreeSet<NodeName>,
    k: usize,
) -> BTreeSet<NodeName> {
    let home = holder.and_then(|holder| view.group(holder));
    let others: BTreeSet<NodeName> =
        all.iter().filter(|node| view.group(node) != home).cloned().collect();
    if others.len() >= k { others } else { all }
}

/// What a new primary has in force before it writes: those that are there, and by the policy that
/// does without them, nobody.
pub(super) fn for_new_holder(view: &View<'_>, holder: &NodeName, there: &[&NodeName]) -> Quorum {
    let policy = policy(view);
    if policy == 0 {
        return Quorum::OFF;
    }
    let fits = |member: &&Member| {
        let direct = member.options.upstream.as_ref().is_none_or(|up| up == holder);
        member.node != *holder && view.may_lead(member) && !member.options.no_sync && direct
    };
    let able: Vec<&NodeName> =
        view.cluster.members.iter().filter(fits).map(|member| &member.node).collect();
    let of = able.iter().filter(|node| there.contains(node)).map(|node| (*node).clone()).collect();
    let k = policy as usize;
    let mut of = elsewhere(view, Some(holder), of, k);
    if of.len() < k && view.cluster.options.on_sync_shortage == Shortage::Degrade {
        return Quorum::OFF;
    }
    // Writes wait until enough of them are back: those that will be first, so the old primary last.
    let mut others = able;
    others.sort_by_key(|node| match view.says(node).map(|report| report.state) {
        Some(MemberState::Standby | MemberState::Sealed) => 0,
        Some(_) => 1,
        None => 2,
    });
    for node in others {
        if of.len() < k {
            of.insert(node.clone());
        }
    }
    // Where nobody ever was asked to acknowledge, nobody is now.
    let was_off = view.state.all_quorums().all(Quorum::is_off);
    if of.is_empty() || (was_off && of.len() < k) {
        return Quorum::OFF;
    }
    Quorum { k: policy.min(u32::try_from(of.len()).unwrap_or(policy)), of }
}

/// Not heard of, or without the primary's log, for longer than a primary may be silent.
fn is_gone(view: &View<'_>, node: &NodeName) -> bool {
    let gone_after = Millis(2 * view.suspect().0);
    if view.streams(node) {
        return false;
    }
    match view.last(node) {
        // Connected and not streaming: its own word is the proof, and the primary's.
        Some(heard) if heard.current && !view.follows(node) => !view.sends_to(node),
        Some(heard) => view.up().since(heard.at) > gone_after || heard.current,
        None => {
            let since = view.up().since(view.world.leases().started());
            since > Millis(gone_after.0.max(view.cluster.options.lease.length.0))
        }
    }
}

/// When the next one counts as gone, if nothing is heard of it.
pub(super) fn next_gone(view: &View<'_>) -> Option<lockstep_model::Timestamp> {
    let gone_after = 2 * view.suspect().0 + 1;
    let started = view.world.leases().started().0;
    let grace = gone_after.max(view.cluster.options.lease.length.0 + 1);
    let ends = |node: &NodeName| match view.last(node) {
        Some(heard) => heard.at.0 + gone_after,
        None => started + grace,
    };
    let ends = view.quorum().of.iter().map(ends).filter(|end| *end > view.up().0).min();
    ends.map(|end| view.at(crate::leases::Uptime(end)))
}
