//! After an old copy of a store was accepted: members know of terms that the records lack.

use lockstep_model::NodeName;
use lockstep_model::cluster::state::FailoverEnd;
use lockstep_model::cluster::{Cause, MemberReport, Stage, Term};

use crate::clusters::rule::{Found, Rule, Turn};
use crate::clusters::view::View;
use crate::clusters::{draw, history};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "terms_behind",
    from: &["steady", "preparing", "handing-over", "electing", "promoting"],
    to: &["electing"],
    what: "Members promised a later term than is recorded: the store was an old copy. A term above all \
           is drawn, once every member has said what it knows or is away for long.",
    look: behind,
}];

fn behind(view: &View<'_>) -> Found {
    let members = || view.cluster.members.iter().map(|member| &member.node);
    let said = |node: &NodeName| view.last(node).map(|heard| &heard.report);
    let highest = members().filter_map(|node| Some(said(node)?.term)).max();
    let Some(highest) = highest.filter(|highest| *highest > view.state.term) else {
        return Found::Nothing;
    };
    let silent = |node: &&NodeName| view.says(node).is_none() && !view.is_away(node);
    if let Some(node) = members().find(silent) {
        return Found::wait(format!(
            "term {highest} was promised, and {} is recorded: {node} has to say what it knows first",
            view.state.term
        ));
    }
    // Who had the newest term, as far as anybody knows.
    let had = |report: &MemberReport| {
        report.holds.max(report.released.as_ref().map(|released| released.term))
    };
    let holder = members().max_by_key(|node| said(node).and_then(had).unwrap_or(Term(0)));
    let known = said_quorum(view, holder);
    let mut before = view.state.clone();
    let recorded = match &view.state.stage {
        Stage::Electing(election) => election.from.as_ref().map(|(old, _)| old.clone()),
        _ => view.state.holder.clone(),
    };
    before.holder = holder.filter(|node| said(node).and_then(had).is_some()).cloned().or(recorded);
    before.term = highest;
    before.longest_lease =
        before.longest_lease.map(|longest| longest.max(view.cluster.options.lease.length));
    before.quorums.extend(known.filter(|quorum| !view.state.quorums.contains(quorum)));
    let timelines = members().filter_map(|node| Some(said(node)?.lineage.timeline()));
    before.timeline = timelines.max().unwrap_or(0).max(before.timeline);
    let asked = draw::Asked::default();
    let (mut state, report) = draw::elect(view.cluster, &before, Cause::NodeLost, &asked, view.now);
    if let Stage::Electing(election) = &mut state.stage
        && let Some((old, term)) = &mut election.from
    {
        *term = said(old).and_then(had).unwrap_or(*term);
    }
    let overtaken = history::end(view, FailoverEnd::Overtaken, "the store was an old copy");
    Turn::to(state).report(overtaken).report(Some(report)).fire()
}

fn said_quorum(
    view: &View<'_>,
    holder: Option<&NodeName>,
) -> Option<lockstep_model::cluster::Quorum> {
    view.last(holder?)?.report.quorum.clone()
}
