//! Who becomes primary: the positions of sealed members, which of them counts most, and whether it
//! has for certain every commit that a client heard of. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use lockstep_model::cluster::{Cause, Election, Lineage, Lsn, Member, MemberState, Quorum};
use lockstep_model::{NodeName, Timestamp};

use super::exclusion::Permission;
use super::reign::{Reign, reigns};
use super::rule::Wait;
use super::view::View;
use crate::clusters::sync_set;

/// A sealed member, and where its log ends.
#[derive(Clone, Debug)]
pub(super) struct Sealed<'a> {
    pub member: &'a Member,
    pub lineage: &'a Lineage,
    pub lsn: Lsn,
}

impl Sealed<'_> {
    /// A higher timeline was given to somebody who was chosen later, with all that counted before.
    fn position(&self) -> (u32, Lsn) {
        (self.lineage.timeline(), self.lsn)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Choice<'a> {
    pub best: Sealed<'a>,
    /// It has everything that was acknowledged.
    pub lossless: bool,
    pub positions: BTreeMap<NodeName, Lsn>,
}

/// The members that are sealed in this term with data that counts: of one history, the newest that
/// any of them is on.
pub(super) fn sealed<'a>(view: &View<'a>) -> Vec<Sealed<'a>> {
    let of = |member: &'a Member| {
        let report = &view.last(&member.node)?.report;
        let counts = report.state == MemberState::Sealed
            && report.term == view.state.term
            && report.copy == member.copy
            && view.is_copied(member)
            && (view.state.system_id.is_none() || report.system_id == view.state.system_id);
        let lsn = report.lsn?;
        counts.then_some(Sealed { member, lineage: &report.lineage, lsn })
    };
    let found: Vec<Sealed<'a>> = view.cluster.members.iter().filter_map(of).collect();
    let recorded = &view.state.lineage;
    // A failed promotion may have made a timeline that is not recorded.
    let grown = |one: &&Sealed<'a>| one.lineage.0.starts_with(&recorded.0);
    let newest = found.iter().filter(grown).max_by_key(|one| one.position());
    let newest = newest.map_or_else(|| recorded.clone(), |one| one.lineage.clone());
    found.into_iter().filter(|one| one.lineage.is_part_of(one.lsn, &newest)).collect()
}

/// The best of those that may be chosen; none, and why.
pub(super) fn choose<'a>(
    view: &View<'a>,
    election: &Election,
    permission: Permission,
) -> Result<Choice<'a>, Wait> {
    let sealed = sealed(view);
    let mut refused = Vec::new();
    let mut best: Option<&Sealed<'a>> = None;
    for one in &sealed {
        let fits = check(view, election, permission, one.member)
            .and_then(|()| check_history(view, election, one));
        if let Err(why) = fits {
            refused.push(format!("{} {why}", one.member.node));
            continue;
        }
        if best.is_none_or(|before| order(view, election, one, before) == Ordering::Greater) {
            best = Some(one);
        }
    }
    let Some(best) = best else {
        let whom = election.to.as_ref().map_or("no member".to_owned(), |to| format!("not {to}"));
        let refused = refused.iter().map(|why| format!("; {why}")).collect::<String>();
        return Err(Wait::new(format!(
            "{whom} is sealed in term {} and may be promoted{refused}",
            view.state.term
        )));
    };
    let lossless = has_all(view, election, &sealed, best);
    let positions = sealed.iter().map(|one| (one.member.node.clone(), one.lsn)).collect();
    Ok(Choice { best: best.clone(), lossless, positions })
}

fn check(
    view: &View<'_>,
    election: &Election,
    permission: Permission,
    member: &Member,
) -> Result<(), &'static str> {
    let node = &member.node;
    let named = match &election.to {
        // The target of a switchover was to be the best; without it another one is.
        Some(to)
            if to != node && (election.cause != Cause::Switchover || view.is_connected(to)) =>
        {
            return Err("is not the one that was named");
        }
        to => to.as_ref() == Some(node),
    };
    let record = view.state.members.get(node);
    let failed = record.is_some_and(|record| record.failed_term == Some(view.state.term));
    if !view.is_managed(node) {
        return Err("is taken out by somebody");
    }
    if !view.is_connected(node) {
        return Err("is not connected");
    }
    if failed {
        return Err("failed to be promoted just now");
    }
    if !named && !view.may_lead(member) {
        return Err("is never promoted by itself");
    }
    if permission.needs_promisor() && !view.state.promotable.contains(node) {
        return Err("is not one whose promise the old primary needs");
    }
    let gets_salvage = election.salvage.as_ref().is_none_or(|(to, _)| to == node);
    if !gets_salvage && !named {
        return Err("is not the one that gets the dead instance's log");
    }
    Ok(())
}

/// A member that has nothing of the newest timeline whose log others had for certain lacks what was
/// written there.
fn check_history(
    view: &View<'_>,
    election: &Election,
    one: &Sealed<'_>,
) -> Result<(), &'static str> {
    match election.allow_loss || one.lineage.0.starts_with(&view.state.lineage.0) {
        true => Ok(()),
        false => Err("has nothing of the newest timeline"),
    }
}

/// The history, then the log, then the priority, then a group other than the old primary's, as that may
/// be about to fail as a whole, then the first name.
fn order(view: &View<'_>, election: &Election, one: &Sealed<'_>, other: &Sealed<'_>) -> Ordering {
    let priority = |sealed: &Sealed<'_>| sealed.member.options.priority;
    let old = election.from.as_ref().and_then(|(old, _)| view.group(old));
    let is_elsewhere = |sealed: &Sealed<'_>| view.group(&sealed.member.node) != old;
    one.position()
        .cmp(&other.position())
        .then_with(|| priority(one).cmp(&priority(other)))
        .then_with(|| is_elsewhere(one).cmp(&is_elsewhere(other)))
        .then_with(|| other.member.node.cmp(&one.member.node))
}

/// Proof that no commit which a client heard of is missing: it reaches the attested end of the dead
/// instance's log, or for each holder that may have acknowledged some it is not behind that one's own
/// copy, or not behind any of so many sealed members that each commit is on one of them.
fn has_all(view: &View<'_>, election: &Election, sealed: &[Sealed<'_>], best: &Sealed<'_>) -> bool {
    let follows =
        best.lineage.0.starts_with(&view.state.lineage.0) && is_alike(view, election, best);
    if election.goal.is_some_and(|end| follows && best.lsn >= end) {
        return true;
    }
    let is_ahead = |one: &Sealed<'_>| one.position() > best.position();
    let is_covered = |quorum: &Quorum| {
        let of = || sealed.iter().filter(|one| quorum.of.contains(&one.member.node));
        let needed = quorum.seals_needed();
        !of().any(is_ahead) && needed.is_some_and(|needed| of().count() >= needed)
    };
    let is_told = |reign: &Reign<'_>| {
        sealed.iter().any(|one| reign.is_copy(&one.member.node, one.member.copy) && !is_ahead(one))
    };
    // Whoever has a timeline has everything that was acknowledged before it was made.
    let count = |reign: &&Reign<'_>| reign.timeline >= best.lineage.timeline();
    reigns(view)
        .iter()
        .filter(count)
        .all(|reign| is_told(reign) || reign.quorums.iter().all(is_covered))
}

/// Whether the dead instance's end can be compared with the position of `one`: while the histories of
/// lost members may differ from the recorded one, its agent has to say that it is of the same.
pub(super) fn is_alike(view: &View<'_>, election: &Election, one: &Sealed<'_>) -> bool {
    let said = election.from.as_ref().and_then(|(old, _)| view.last(old));
    view.state.formers.is_empty() || said.is_some_and(|heard| heard.report.lineage == *one.lineage)
}

/// Whether a choice that is not proven complete may be made all the same.
pub(super) fn may_lose(
    view: &View<'_>,
    election: &Election,
    choice: &Choice<'_>,
) -> Result<(), Wait> {
    if election.allow_loss {
        return Ok(());
    }
    let node = &choice.best.member.node;
    let next = format!(
        "lockstepctl cluster failover {} --allow-data-loss --yes promotes {node} all the same",
        view.cluster.name
    );
    if view.state.all_quorums().any(|quorum| !quorum.is_off()) {
        return Err(Wait::new(format!(
            "{node} may lack commits that other synchronous standbys have, which are not sealed yet; \
             {next}"
        )));
    }
    if sync_set::policy(view) > 0 {
        return Err(Wait::new(format!(
            "commits were not protected when the primary was lost, and {node} may lack some; {next}"
        )));
    }
    let most = view.cluster.options.failover.max_lag;
    let known = election.from.as_ref().and_then(|(old, _)| view.last(old)?.report.lsn);
    let known = election.goal.max(known);
    match known.map(|end| end.since(choice.best.lsn)).filter(|lag| *lag > most.0) {
        Some(lag) => Err(Wait::new(format!(
            "{node} lacks {lag} bytes of log, more than max-lag {most}; {next}"
        ))),
        None => Ok(()),
    }
}

/// Members that could still report: connected, and on their way to be sealed.
pub(super) fn is_awaited(view: &View<'_>) -> bool {
    let reported = sealed(view);
    let old = match &view.state.stage {
        lockstep_model::cluster::Stage::Electing(election) => election.from.as_ref(),
        _ => None,
    };
    view.cluster.members.iter().any(|member| {
        let node = &member.node;
        old.is_none_or(|(old, _)| old != node)
            && view.is_managed(node)
            && view.is_copied(member)
            && view.is_connected(node)
            && !reported.iter().any(|one| one.member.node == *node)
    })
}

/// How long members that are connected and not sealed yet are waited for after the exclusion. A seal
/// takes some 10 ms; one that takes longer than this has something else to do.
pub(super) fn grace_ends(view: &View<'_>, permission: Permission) -> Timestamp {
    const GRACE: lockstep_model::Millis = lockstep_model::Millis(2000);
    permission.at() + GRACE.max(view.suspect())
}
