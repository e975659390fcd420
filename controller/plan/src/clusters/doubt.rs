//! Whether what is recorded of a cluster may be believed: not after an old copy of the store was
//! accepted, until its members said what they know; and not right after a controller's start, when the
//! store may be an old copy that nobody noticed yet. Pure.

use std::collections::BTreeSet;

use lockstep_model::cluster::{
    Cluster, ClusterState, Member, MemberReport, MemberState, Stage, Term,
};
use lockstep_model::node::NodeAdmin;
use lockstep_model::{Millis, NodeName, Timestamp};

use super::rule::Wait;
use super::view::View;
use crate::World;
use crate::leases::{Uptime, with_drift};
use crate::seen::{DOWN_AFTER, Stream};

/// The records are of another history than the members: an old copy was accepted since they were
/// drawn, or somebody promised a term that they lack.
pub(super) fn is_old(view: &View<'_>) -> bool {
    let drawn = view.state.incarnation;
    let adopted = view.world.fleet().is_some_and(|fleet| fleet.value.incarnation != drawn);
    // What is only being made may be made of members of an earlier cluster.
    adopted || (view.state.stage != Stage::Creating && promised(view) > view.state.term)
}

/// Whether `node` may get the lease of `term` for all that is known of others.
pub(crate) fn lets_hold(
    world: &World,
    cluster: &Cluster,
    state: &ClusterState,
    (node, term): (&NodeName, Term),
) -> bool {
    let view = View { world, cluster, state, now: Timestamp(0) };
    let serves =
        |report: &MemberReport| report.state == MemberState::Primary && report.holds == Some(term);
    // One that serves by its lease cannot have been replaced.
    !is_old(&view) && (view.says(node).is_some_and(serves) || returning(&view).is_none())
}

/// What is to be heard before anybody may have it decided something; None: nothing.
pub(crate) fn silence(
    world: &World,
    cluster: &Cluster,
    state: &ClusterState,
    now: Timestamp,
) -> Option<String> {
    let view = View { world, cluster, state, now };
    let old = is_old(&view)
        .then(|| awaited(&view).map_or("it is being drawn anew".to_owned(), |wait| wait.text));
    old.or_else(|| returning(&view).map(|(wait, _)| wait.text))
}

/// The highest term that any member promised.
pub(super) fn promised(view: &View<'_>) -> Term {
    said(view).map(|(_, report)| report.term).max().unwrap_or_default()
}

/// What members said last.
pub(super) fn said<'a>(
    view: &View<'a>,
) -> impl Iterator<Item = (&'a NodeName, &'a MemberReport)> + use<'a> {
    let view = *view;
    let members = view.cluster.members.iter().map(|member| &member.node);
    members.filter_map(move |node| Some((node, &view.last(node)?.report)))
}

/// The newest term that a member was primary in, as far as it knows.
pub(super) fn led(report: &MemberReport) -> Option<Term> {
    report.holds.max(report.released.as_ref().map(|released| released.term))
}

/// Who has to say how it is before anything is decided from records that may be old; None: all did.
pub(super) fn awaited(view: &View<'_>) -> Option<Wait> {
    let mut named: BTreeSet<&NodeName> = BTreeSet::new();
    for (_, report) in said(view) {
        if report.holds.is_some() {
            named.extend(&report.promotable);
            named.extend(report.quorum.iter().flat_map(|quorum| &quorum.of));
        }
        named.extend(report.upstream.as_ref().map(|upstream| &upstream.from));
    }
    let could_lead = |member: &&Member| {
        let options = &member.options;
        named.contains(&member.node)
            || view.state.promotable.contains(&member.node)
            || view.holder() == Some(&member.node)
            || (!options.never_promote && options.delay.is_none())
    };
    let silent = view.cluster.members.iter().filter(could_lead).find_map(|member| {
        let node = &member.node;
        let until = answers_until(view, node)?;
        let text = format!(
            "{node} has not said yet what it knows: bring it back; or lockstepctl node expel {node} says \
             that it never writes again"
        );
        Some(Wait { text, until })
    });
    silent.or_else(|| {
        let stranger = named.iter().find(|node| {
            let expelled = view.node(node).is_some_and(|node| node.admin == NodeAdmin::Expelled);
            view.cluster.member(node).is_none() && !expelled
        })?;
        let cluster = &view.cluster.name;
        Some(Wait::new(format!(
            "members name {stranger}, which is none by this store, and may be primary: lockstepctl \
             cluster add-standby {cluster} {stranger} makes it a member again; or lockstepctl node expel \
             {stranger} says that it never writes again"
        )))
    })
}

/// Some: it has not answered, and time alone may count as an answer then.
fn answers_until(view: &View<'_>, node: &NodeName) -> Option<Option<Timestamp>> {
    if view.member(node).is_none() || view.says(node).is_some() {
        return None;
    }
    // One that has no part in the cluster says nothing of it.
    match view.world.seen(node).map(|seen| &seen.stream) {
        Some(Stream::Open { since }) if view.now >= *since + DOWN_AFTER => None,
        Some(Stream::Open { since }) => Some(Some(*since + DOWN_AFTER)),
        _ => Some(None),
    }
}

/// A primary that serves by a lease of the newest term that anybody knows of: nothing can be wrong
/// about it.
pub(super) fn serving<'a>(view: &View<'a>) -> Option<(&'a NodeName, &'a MemberReport)> {
    let promised = promised(view);
    let (node, report) = said(view).max_by_key(|(_, report)| led(report))?;
    let serves = report.state == MemberState::Primary && report.holds == Some(promised);
    (serves && view.says(node).is_some() && view.is_managed(node)).then_some((node, report))
}

/// When every lease that an earlier controller may have granted has ended, if nobody carried it on.
pub(super) fn leases_end(view: &View<'_>) -> Option<Timestamp> {
    let longest = view.state.longest_lease.unwrap_or_default();
    let length = longest.max(view.cluster.options.lease.length).max(DOWN_AFTER);
    ends(view, length)
}

/// Right after its start a controller may be on an old copy that nobody told it of yet: until then it
/// waits for those who could.
pub(super) fn returning(view: &View<'_>) -> Option<(Wait, Timestamp)> {
    let is_made = view.state.stage != Stage::Creating;
    if !view.world.leases().has_started() || !is_made {
        return None;
    }
    let until = ends(view, view.cluster.options.lease.length)?;
    Some((awaited(view)?, until))
}

/// None: so long since the controller's start is over.
fn ends(view: &View<'_>, length: Millis) -> Option<Timestamp> {
    let end = Uptime(view.world.leases().started().0.saturating_add(with_drift(length).0));
    (view.up() < end).then(|| view.at(end))
}
