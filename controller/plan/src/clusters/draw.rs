//! How a term changes hands: an election begins, its holder is drawn, or the old one gets it back.
//! The only file that makes a holder.

use lockstep_model::cluster::state::FailoverEnd;
use lockstep_model::cluster::{
    Cause, Cluster, ClusterState, Election, Exclusion, Failover, Lineage, Lsn, MemberReport,
    MemberState, Quorum, Stage,
};
use lockstep_model::{Incarnation, NodeName, Timestamp};

use super::choice::Choice;
use super::exclusion::{Permission, is_off};
use super::reign::{self, newest_timeline, settled_lineage};
use super::rule::Turn;
use super::view::View;
use super::{doubt, history, sync_set};

/// What somebody wants of an election; by default nothing.
#[derive(Clone, Default, Debug)]
pub(crate) struct Asked {
    pub to: Option<NodeName>,
    pub allow_loss: bool,
    /// As the audit log names them; empty: nobody asked.
    pub by: String,
}

/// The next term, which nobody holds yet. From here no lease is granted.
pub(crate) fn elect(
    cluster: &Cluster,
    before: &ClusterState,
    cause: Cause,
    asked: &Asked,
    now: Timestamp,
) -> (ClusterState, Failover) {
    let mut state = before.clone();
    let from = state.holder.take().map(|node| (node, state.term));
    state.term = state.term.next();
    state.number = state.number.saturating_add(1);
    // What nobody else is known to have had of the old holder binds nobody.
    (state.timeline, state.lineage) = (newest_timeline(&state), settled_lineage(&state));
    if cause == Cause::Crash {
        let window = cluster.options.failover.window;
        state.crashes.retain(|at| now.since(*at) < window);
        state.crashes.push(now);
        let spare = state.crashes.len().saturating_sub(ClusterState::CRASHES_MAX);
        state.crashes.drain(..spare);
    }
    if cause == Cause::PromotionFailed
        && let Some((node, _)) = &from
    {
        state.members.entry(node.clone()).or_default().failed_term = Some(state.term);
    }
    // A later one still holds; one for now was about a primary that is none any more.
    state.wanted = state.wanted.filter(|wanted| wanted.at.is_some_and(|at| at > now));
    let old = from.as_ref().map(|(node, _)| node.clone());
    let report = history::begin(&state, cause, &asked.by, old, asked.to.clone(), now);
    state.stage = Stage::Electing(Election {
        cause,
        from,
        to: asked.to.clone(),
        allow_loss: asked.allow_loss,
        began_at: now,
        excluded: None,
        excluded_at: None,
        chosen_at: None,
        at_least: Lsn(0),
        goal: None,
        salvage: None,
        number: state.number,
    });
    (state, report)
}

/// In a store that was accepted as it is: there is nothing that members could know better.
pub(super) fn keep(view: &View<'_>) -> Turn {
    let incarnation = incarnation(view);
    Turn::to(ClusterState { incarnation, ..view.state.clone() })
}

fn incarnation(view: &View<'_>) -> Incarnation {
    view.world.fleet().map(|fleet| fleet.value.incarnation).unwrap_or_default()
}

/// A store that lacks what was decided since it was copied: everything is drawn from what members say,
/// all of whom were heard. `serving`: the primary that nobody else can have taken over from. It gets the
/// new term; otherwise an election begins.
pub(super) fn anew(view: &View<'_>, serving: Option<(&NodeName, &MemberReport)>) -> Turn {
    let led = doubt::said(view).filter(|(_, report)| doubt::led(report).is_some());
    let last = serving.or_else(|| led.max_by_key(|(_, report)| doubt::led(report)));
    let mut before = told_by(view, last);
    let cluster = with_copies(view, &mut before);
    let (mut state, mut report) =
        elect(view.cluster, &before, Cause::NodeLost, &Asked::default(), view.now);
    let note = "the store was an old copy";
    report.note = note.to_owned();
    if let Stage::Electing(election) = &mut state.stage
        && let (Some((_, term)), Some((_, led))) = (&mut election.from, last)
    {
        *term = doubt::led(led).unwrap_or(*term);
    }
    if let (Some((node, _)), Stage::Electing(election)) = (serving, &state.stage) {
        state.stage = Stage::Promoting(Election { chosen_at: Some(view.now), ..election.clone() });
        state.holder = Some(node.clone());
        report.to = Some(node.clone());
        report.chosen_at = Some(view.now);
        report.lossless = Some(true);
        let members = view.cluster.members.iter().map(|member| &member.node);
        let there: Vec<&NodeName> = members.filter(|other| view.says(other).is_some()).collect();
        let quorum = sync_set::for_new_holder(&view.with(&state), node, &there);
        state.quorums.push(quorum);
        state.quorums = bounded(state.quorums);
    }
    let overtaken = history::end(view, FailoverEnd::Overtaken, note);
    let mut turn = Turn::to(state).report(overtaken).report(Some(report));
    turn.cluster = Some(cluster);
    turn
}

/// What is recorded, with what members know better. `last`: who led last, as far as anybody knows.
fn told_by(view: &View<'_>, last: Option<(&NodeName, &MemberReport)>) -> ClusterState {
    let mut before = view.state.clone();
    before.incarnation = incarnation(view);
    before.term = before.term.max(doubt::promised(view));
    // Whatever was asked for was about another primary.
    before.wanted = None;
    before.holder = last.map(|(node, _)| node).or(reign::last_holder(view.state)).cloned();
    if let Some((_, report)) = last {
        before.system_id = before.system_id.or(report.system_id);
        if before.system_id == report.system_id && report.lineage != Default::default() {
            before.lineage.clone_from(&report.lineage);
        }
    }
    let timelines = doubt::said(view).map(|(_, report)| report.lineage.timeline());
    before.timeline = timelines.max().unwrap_or(0).max(before.timeline);
    // Nobody can tell whose reigns the sets belonged to, so they count together.
    let formers = before.formers.drain(..).flat_map(|former| former.quorums);
    let recorded = std::mem::take(&mut before.quorums);
    let known = last.and_then(|(_, report)| report.quorum.clone());
    before.quorums = formers.chain(recorded).chain(known).collect();
    // A primary may have been told other standbys and given another lease than anybody else knows.
    if before.quorums.iter().any(|quorum| !quorum.is_off()) || sync_set::policy(view) > 0 {
        before.quorums.push(Quorum::OFF);
    }
    before.quorums = bounded(before.quorums);
    if let Some((_, report)) = last.filter(|(_, report)| report.holds.is_some()) {
        before.longest_lease = None;
        before.promotable = report.promotable.iter().cloned().collect();
    }
    before
}

/// The cluster with the numbers of the copies that members have; the complete ones are recorded.
fn with_copies(view: &View<'_>, state: &mut ClusterState) -> Cluster {
    let mut cluster = view.cluster.clone();
    for (node, report) in doubt::said(view) {
        let Some(member) = cluster.members.iter_mut().find(|member| member.node == *node) else {
            continue;
        };
        member.copy = member.copy.max(report.copy);
        let complete = matches!(
            report.state,
            MemberState::Standby | MemberState::Sealed | MemberState::Primary
        );
        if complete && report.copy == member.copy {
            state.members.entry(node.clone()).or_default().copied = report.copy;
        }
    }
    cluster
}

/// Each once, the newest last. So many different ones in one unfinished failover: of the oldest,
/// whoever is left to prove them counts all.
fn bounded(all: Vec<Quorum>) -> Vec<Quorum> {
    let mut quorums: Vec<Quorum> = Vec::new();
    for quorum in all {
        quorums.retain(|before| *before != quorum);
        quorums.push(quorum);
    }
    let spare = quorums.len().saturating_sub(ClusterState::QUORUMS_MAX);
    if spare > 0 {
        let merged = reign::merge(quorums.drain(..=spare).collect());
        quorums.insert(0, merged);
    }
    quorums
}

/// An election by a rule; what went on before is overtaken by it. One whose old holder acknowledges
/// nothing any more begins with that: a commit of its own would only take time.
pub(super) fn begin(view: &View<'_>, cause: Cause) -> Turn {
    let (mut state, mut report) =
        elect(view.cluster, view.state, cause, &Asked::default(), view.now);
    if let Stage::Electing(election) = &state.stage {
        let drawn = view.with(&state);
        if let Ok(permission) = Permission::of(&drawn, election) {
            let election = proven(&drawn, election, permission);
            history::excluded(&mut report, &election, permission);
            state.stage = Stage::Electing(election);
        }
    }
    let overtaken =
        history::end(view, FailoverEnd::Overtaken, format!("a failover began: {cause}"));
    Turn::to(state).report(overtaken).report(Some(report))
}

/// The chosen member gets the term, now that the old holder acknowledges nothing any more.
pub(super) fn give(
    view: &View<'_>,
    election: &Election,
    permission: Permission,
    choice: &Choice<'_>,
) -> Turn {
    let to = &choice.best.member.node;
    let mut state = view.state.clone();
    let there: Vec<&NodeName> = choice.positions.keys().collect();
    let from = election.from.as_ref().map(|(old, _)| old);
    take_over(view, &mut state, from, choice.best.lineage, to, &there);
    let chosen = Election {
        excluded: Some(permission.how()),
        excluded_at: Some(permission.at()),
        chosen_at: Some(view.now),
        at_least: choice.best.lsn,
        ..election.clone()
    };
    let report = view.report(election.number).cloned().map(|mut report| {
        history::excluded(&mut report, &chosen, permission);
        report.to = Some(to.clone());
        report.term = state.term;
        report.chosen_at = Some(view.now);
        report.positions.clone_from(&choice.positions);
        report.lossless = choice.lossless.then_some(true);
        report.salvaged_bytes = view.last(to).map_or(0, |heard| heard.report.salvaged_bytes);
        report
    });
    state.stage = Stage::Promoting(chosen);
    Turn::to(state).report(report)
}

/// The target of a switchover has all of the stopped primary's log, and gets the next term.
pub(super) fn hand_over(
    view: &View<'_>,
    number: u64,
    to: &NodeName,
    permission: Permission,
    end: Lsn,
) -> Turn {
    let mut state = view.state.clone();
    let from = state.holder.take().map(|node| (node, state.term));
    state.term = state.term.next();
    let stands_by = |node: &NodeName| {
        view.says(node).is_some_and(|report| report.state == MemberState::Standby)
    };
    let members = view.cluster.members.iter().map(|member| &member.node);
    let there: Vec<&NodeName> = members.filter(|node| stands_by(node)).collect();
    let old = from.as_ref().map(|(old, _)| old);
    take_over(view, &mut state, old, &view.state.lineage, to, &there);
    let election = Election {
        cause: Cause::Switchover,
        from,
        to: Some(to.clone()),
        allow_loss: false,
        began_at: view.report(number).map_or(view.now, |report| report.began_at),
        excluded: Some(permission.how()),
        excluded_at: Some(permission.at()),
        chosen_at: Some(view.now),
        at_least: end,
        goal: Some(end),
        salvage: None,
        number,
    };
    let report = view.report(number).cloned().map(|mut report| {
        history::excluded(&mut report, &election, permission);
        report.to = Some(to.clone());
        report.term = state.term;
        report.chosen_at = Some(view.now);
        report.lossless = Some(true);
        report
    });
    state.stage = Stage::Promoting(election);
    Turn::to(state).report(report)
}

/// The old holder gets the new term: it is the same node, so no other one can write.
pub(super) fn give_back(view: &View<'_>, election: &Election, note: &str) -> Option<Turn> {
    let (old, _) = election.from.as_ref()?;
    let mut state = view.state.clone();
    state.holder = Some(old.clone());
    // The longest lease of the earlier term may still be held, and is told as one of this term.
    let length = view.cluster.options.lease.length;
    state.longest_lease = state.longest_lease.map(|longest| longest.max(length));
    // It may have begun to make the one that it was told before.
    state.timeline = newest_timeline(&state).saturating_add(1);
    let chosen = Election { chosen_at: Some(view.now), at_least: Lsn(0), ..election.clone() };
    let report = view.report(election.number).cloned().map(|mut report| {
        report.to = Some(old.clone());
        report.term = state.term;
        report.chosen_at = Some(view.now);
        report.lossless = Some(true);
        report.note = note.to_owned();
        report
    });
    state.stage = Stage::Promoting(chosen);
    Some(Turn::to(state).report(report))
}

fn take_over(
    view: &View<'_>,
    state: &mut ClusterState,
    from: Option<&NodeName>,
    lineage: &Lineage,
    to: &NodeName,
    there: &[&NodeName],
) {
    let quorum = sync_set::for_new_holder(view, to, there);
    // If the new one fails before it writes, the next election has to honour the earlier ones too.
    reign::succeed(state, from, quorum);
    state.timeline = newest_timeline(state).max(lineage.timeline()).saturating_add(1);
    state.holder = Some(to.clone());
    state.longest_lease = Some(view.cluster.options.lease.length);
}

/// What the election found out of its old holder, written with the exclusion.
pub(super) fn exclude(view: &View<'_>, election: &Election, permission: Permission) -> Turn {
    let election = proven(view, election, permission);
    let report = view.report(election.number).cloned().map(|mut report| {
        history::excluded(&mut report, &election, permission);
        report
    });
    let mut state = view.state.clone();
    state.stage = Stage::Electing(election);
    Turn::to(state).report(report)
}

fn proven(view: &View<'_>, election: &Election, permission: Permission) -> Election {
    Election {
        excluded: Some(permission.how()),
        excluded_at: Some(permission.at()),
        goal: end_of(view, election, permission),
        ..election.clone()
    }
}

/// Where the old holder's log ended, as its agent attested.
pub(super) fn end_of(view: &View<'_>, election: &Election, permission: Permission) -> Option<Lsn> {
    let (old, term) = election.from.as_ref()?;
    if permission.how() != Exclusion::Released {
        return election.goal;
    }
    let report = &view.last(old)?.report;
    let released = report.released.as_ref().filter(|released| released.term >= *term);
    let end = released.map_or_else(|| report.lsn.filter(|_| is_off(report, *term)), |r| r.end);
    election.goal.or(end)
}
