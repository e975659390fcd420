//! Whose acknowledged commits an election has to honour, and who can tell of them. Pure.
//!
//! A chosen member may be lost before anybody has what it wrote, or before it wrote at all. Until its
//! own set is known to be in force, the holders before it count too, each by itself:
//!
//! * Each holder was chosen from members that had, together, all that was acknowledged before it. So
//!   data that has its timeline, whose number nobody else ever gets, has all of that, and the holders
//!   before it need no proof any more.
//! * Whatever a holder acknowledged it has itself, flushed, before its standbys have it. So the copy
//!   that it wrote proves as much as all of its standbys. Without the holder's timeline in it, it
//!   proves that nothing was written at all.
//! * A holder was excluded before the next one was chosen, for ever: those that were sealed receive
//!   from nobody but later holders. So only the last one is to be excluded, by its own sets.

use lockstep_model::NodeName;
use lockstep_model::cluster::{ClusterState, Former, Lineage, MemberState, Quorum, Stage};

use super::view::View;

/// One holder's, from its choice on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reign<'a> {
    node: Option<&'a NodeName>,
    copy: u64,
    /// Nothing that it wrote is on a higher one.
    pub timeline: u32,
    pub quorums: &'a [Quorum],
}

impl<'a> Reign<'a> {
    fn before(former: &'a Former) -> Self {
        Self {
            node: former.node.as_ref(),
            copy: former.copy,
            timeline: former.timeline,
            quorums: &former.quorums,
        }
    }

    /// Whether this copy of a member's data is the one that the holder wrote.
    pub fn is_copy(&self, node: &NodeName, copy: u64) -> bool {
        self.node == Some(node) && self.copy == copy
    }

    /// Its holder's agent is there, and the data may be sealed.
    pub fn is_back(&self, view: &View<'_>) -> bool {
        const HAVE_DATA: [MemberState; 6] = [
            MemberState::Standby,
            MemberState::Sealed,
            MemberState::Starting,
            MemberState::Stopped,
            MemberState::Crashed,
            MemberState::Fenced,
        ];
        self.node.is_some_and(|node| {
            view.is_managed(node)
                && view.is_heard(node)
                && view.says(node).is_some_and(|report| {
                    report.copy == self.copy && HAVE_DATA.contains(&report.state)
                })
        })
    }
}

/// Of all holders whose commits count, the oldest first; the last one's is the holder's, or of an
/// election the one's that is replaced.
pub(super) fn reigns<'a>(view: &View<'a>) -> Vec<Reign<'a>> {
    let state = view.state;
    let node = last_holder(state);
    let last = Reign {
        node,
        copy: copy_of(state, node),
        timeline: newest_timeline(state),
        quorums: &state.quorums,
    };
    former(view).chain([last]).collect()
}

/// The holder, or of an election the one that is replaced.
pub(super) fn last_holder(state: &ClusterState) -> Option<&NodeName> {
    match &state.stage {
        Stage::Electing(election) => election.from.as_ref().map(|(old, _)| old),
        _ => state.holder.as_ref(),
    }
}

pub(super) fn former<'a>(view: &View<'a>) -> impl Iterator<Item = Reign<'a>> + use<'a> {
    view.state.formers.iter().map(Reign::before)
}

fn copy_of(state: &ClusterState, node: Option<&NodeName>) -> u64 {
    node.and_then(|node| state.members.get(node)).map_or(0, |record| record.copied)
}

/// The highest number that was given to anybody.
pub(super) fn newest_timeline(state: &ClusterState) -> u32 {
    state.timeline.max(state.lineage.timeline())
}

/// What the data of any candidate has to go on from: the recorded history, without what the holder alone
/// may have.
pub(super) fn settled_lineage(state: &ClusterState) -> Lineage {
    let until = state.formers.first().map_or(u32::MAX, |oldest| oldest.timeline);
    Lineage(state.lineage.0.iter().copied().take_while(|fork| fork.timeline <= until).collect())
}

/// The holder `node` is about to be replaced by another one: until that one's set is in force its own
/// ones count.
pub(super) fn succeed(state: &mut ClusterState, node: Option<&NodeName>, quorum: Quorum) {
    let quorums = std::mem::replace(&mut state.quorums, vec![quorum]);
    let (copy, timeline) = (copy_of(state, node), newest_timeline(state));
    state.formers.push(Former { node: node.cloned(), copy, timeline, quorums });
    if state.formers.len() > ClusterState::FORMERS_MAX {
        // So many in one unfinished failover: whoever is left to prove it counts all.
        let of: Vec<Former> = state.formers.drain(..2).collect();
        let quorums = of.iter().flat_map(|former| former.quorums.iter().cloned()).collect();
        let timeline = of.iter().map(|former| former.timeline).max().unwrap_or_default();
        let quorums = vec![merge(quorums)];
        state.formers.insert(0, Former { node: None, copy: 0, timeline, quorums });
    }
}

/// One that is proven only by every member of all of them.
pub(super) fn merge(quorums: Vec<Quorum>) -> Quorum {
    if quorums.iter().any(Quorum::is_off) {
        return Quorum::OFF;
    }
    Quorum { k: 1, of: quorums.into_iter().flat_map(|quorum| quorum.of).collect() }
}
