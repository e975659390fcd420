//! What is decided of a member beside the ladder's table: the word for what was found, the facts that
//! count, and what the lease's end overrides. Pure, and all that a model of an agent needs.

use lockstep_model::cluster::{
    ClusterPlace, Goal, Lineage, Lsn, MemberPeer, MemberState, Quorum, Term,
};

use super::ladder::{self, Facts, Step};
use crate::pg::books::Books;
use crate::pg::boottime::Boottime;
use crate::pg::divergence::{Relation, compare};
use crate::pg::instance::Role;
use crate::pg::lease::Held;

/// What is known of the instance, beside books, lease and place.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub state: MemberState,
    /// A postmaster lives.
    pub runs: bool,
    /// Configured for its goal.
    pub configured: bool,
    /// History and end of data without processes, when they were looked for.
    pub end: Option<(&'a Lineage, Lsn)>,
    /// The term in which it got a dead instance's log.
    pub salvaged: Option<Term>,
    /// A restart in place in this term led nowhere.
    pub restart_failed: Option<Term>,
    /// The end of its log was offered to others, or cannot be found.
    pub attested: bool,
    /// By its control file it was in recovery when it was last written.
    pub in_recovery: bool,
}

/// The next step.
pub fn decide(
    place: &ClusterPlace,
    known: &Known<'_>,
    books: &Books,
    held: &Held,
    now: Boottime,
) -> Step {
    let is_writable = matches!(
        known.state,
        MemberState::Primary
            | MemberState::Promoting
            | MemberState::Starting
            | MemberState::Stopping
    );
    if books.holding.is_some() && is_writable && now >= held.fence_at {
        return Step::Fence;
    }
    ladder::step(known.state, &place.goal, facts(place, known, books, held, now))
}

fn facts(
    place: &ClusterPlace,
    known: &Known<'_>,
    books: &Books,
    held: &Held,
    now: Boottime,
) -> Facts {
    Facts {
        holds: books.holding.is_some(),
        holds_this: books.holding == Some(place.term),
        gave_up: books.gave_up(place.term),
        leased: held.is_good(place.term, now),
        copy_due: place.copy != books.copy,
        upstream: upstream(place).is_some(),
        configured: known.configured,
        salvage_due: matches!(place.goal, Goal::Sealed { salvage: Some(_) })
            && known.salvaged != Some(place.term),
        mendable: place.options.rejoin.rewind || place.options.rejoin.clone,
        restartable: known.restart_failed != Some(place.term),
        first: place.system_id.is_none() && books.released.is_none(),
        runs: known.runs,
        unclear: books.led
            && matches!(place.goal, Goal::Standby { .. })
            && known.end.is_none_or(|(lineage, end)| {
                compare(lineage, end, &place.lineage) == Relation::Same
            }),
        unattested: books.led && books.released.is_some() && !known.attested,
        in_recovery: known.in_recovery,
    }
}

/// Whether the end of a dead instance's log has to be known to judge it.
pub fn needs_end(place: &ClusterPlace, books: &Books) -> bool {
    matches!(place.goal, Goal::Standby { .. }) && books.holding.is_none()
}

/// Data without processes. `end`: as far as it was looked for.
pub fn judge_dead(
    place: &ClusterPlace,
    books: &Books,
    is_clean: bool,
    end: Option<(&Lineage, Lsn)>,
) -> MemberState {
    let died = if is_clean { MemberState::Stopped } else { MemberState::Crashed };
    match (&place.goal, end) {
        // One that has no term and is known to its end is as good as one that runs.
        (Goal::Sealed { .. }, Some(_)) if books.holding.is_none() => MemberState::Sealed,
        (Goal::Standby { .. }, Some((lineage, end)))
            if books.holding.is_none() && !place.lineage.0.is_empty() =>
        {
            match compare(lineage, end, &place.lineage) {
                Relation::CanFollow | Relation::Same => died,
                Relation::Ahead | Relation::Diverged { .. } | Relation::Stranger => {
                    MemberState::Diverged
                }
            }
        }
        _ => died,
    }
}

/// An instance in recovery. `sealed`: the term since which it receives nothing, by its
/// configuration; `lineage`: of its data, None where it cannot be read.
pub fn judge_recovery(
    place: &ClusterPlace,
    sealed: Option<Term>,
    receives: bool,
    lineage: Option<&Lineage>,
    lsn: Lsn,
) -> MemberState {
    if sealed == Some(place.term) && !receives {
        return MemberState::Sealed;
    }
    if let Goal::Standby { .. } = place.goal
        && !place.lineage.0.is_empty()
        && let Some(lineage) = lineage
    {
        let relation = compare(lineage, lsn, &place.lineage);
        if matches!(relation, Relation::Diverged { .. } | Relation::Stranger) {
            return MemberState::Diverged;
        }
    }
    MemberState::Standby
}

/// An instance that takes writes.
pub fn judge_writable(place: &ClusterPlace, books: &Books) -> MemberState {
    let may = books.holding.is_some() || place.paused;
    if may { MemberState::Primary } else { MemberState::Rogue }
}

/// Which term's lease is to be kept.
pub fn leased_term(place: &ClusterPlace, books: &Books) -> Option<Term> {
    match &place.goal {
        Goal::Primary(_) if !books.gave_up(place.term) && !books.fenced => Some(place.term),
        Goal::HandOver | Goal::Stopped | Goal::Maintenance => books.holding,
        _ => None,
    }
}

/// What the goal asks of a running primary is in force. `quorum`: read back; None: it does not answer,
/// and one that does not is not told anything.
pub fn is_in_force(place: &ClusterPlace, books: &Books, quorum: Option<Option<&Quorum>>) -> bool {
    match &place.goal {
        Goal::Primary(primary) => {
            let is_same = quorum.is_none_or(|quorum| quorum == Some(&primary.quorum));
            books.holding == Some(place.term) && is_same
        }
        _ => true,
    }
}

/// Whom the goal names, when it is known how to reach them.
pub fn upstream(place: &ClusterPlace) -> Option<&MemberPeer> {
    let Goal::Standby { upstream: Some(node) } = &place.goal else { return None };
    place.peers.iter().find(|peer| peer.peer.node == *node)
}

/// What an instance is configured for under a goal.
pub fn role(place: &ClusterPlace) -> Role<'_> {
    match &place.goal {
        Goal::Primary(primary) => Role::Primary(&primary.quorum),
        Goal::Standby { .. } => Role::Standby(upstream(place)),
        _ => Role::Sealed,
    }
}

/// Every quorum that may be in force on a primary.
pub fn quorums(place: &ClusterPlace, books: &Books) -> Vec<Quorum> {
    let mut all = vec![books.quorum.clone()];
    if let Goal::Primary(primary) = &place.goal
        && primary.quorum != books.quorum
    {
        all.push(primary.quorum.clone());
    }
    all
}
