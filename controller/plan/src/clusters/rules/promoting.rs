//! From the choice of a holder until it writes.

use lockstep_model::cluster::state::FailoverEnd;
use lockstep_model::cluster::{Cause, Election, MemberState, Stage};
use lockstep_model::{Millis, NodeName};

use crate::clusters::draw;
use crate::clusters::reign::newest_timeline;
use crate::clusters::rule::{Found, Rule, Turn};
use crate::clusters::rules::election::silent_at;
use crate::clusters::switch::can_elect;
use crate::clusters::view::View;

const PROMOTING: &[&str] = &["promoting"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "promoted",
        from: PROMOTING,
        to: &["steady"],
        what: "The new primary writes, on a timeline of its own: its history is recorded, and the \
               others follow it.",
        look: promoted,
    },
    Rule {
        name: "timeline_begun",
        from: PROMOTING,
        to: &[],
        what: "A promotion of the chosen member ended before it wrote, and left a timeline of its number: \
               it gets another one.",
        look: timeline_begun,
    },
    Rule {
        name: "promotion_failed",
        from: PROMOTING,
        to: &["electing"],
        what: "The chosen member gave the term up, is lost, or has a problem for 10 s: another one is \
               looked for in the next term.",
        look: promotion_failed,
    },
    Rule {
        name: "promoting",
        from: PROMOTING,
        to: &[],
        what: "The chosen member is on its way.",
        look: promoting,
    },
];

fn parts<'a>(view: &View<'a>) -> Option<(&'a Election, &'a NodeName)> {
    match &view.state.stage {
        Stage::Promoting(election) => Some((election, view.holder()?)),
        _ => None,
    }
}

/// It had the term before.
fn is_old(election: &Election, holder: &NodeName) -> bool {
    election.from.as_ref().is_some_and(|(old, _)| old == holder)
}

fn promoted(view: &View<'_>) -> Found {
    let Some((election, holder)) = parts(view) else { return Found::Nothing };
    let Some(report) = view.says(holder) else { return Found::Nothing };
    let recorded = &view.state.lineage;
    let writes = report.state == MemberState::Primary && report.holds == Some(view.state.term);
    let continues = report.lineage.0.starts_with(&recorded.0);
    // Where loss was allowed, it left the recorded history before its end.
    let left = report.lineage.timeline() > recorded.timeline()
        && report.lineage.common_until(recorded).is_some();
    let grown = (continues || left) && report.lineage != *recorded;
    let old = is_old(election, holder);
    if !writes || !(grown || (old && continues)) {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    state.stage = Stage::Steady;
    state.lineage.clone_from(&report.lineage);
    // One that had the term before goes on as it was, and does not need the number that it was given.
    state.timeline = report.lineage.timeline();
    let written = view.report(election.number).cloned().map(|mut written| {
        written.end = if old { FailoverEnd::TurnedBack } else { FailoverEnd::Done };
        written.writable_at = Some(view.now);
        written.timeline = report.lineage.timeline();
        written
    });
    Turn::to(state).report(written).fire()
}

fn timeline_begun(view: &View<'_>) -> Found {
    let Some((_, holder)) = parts(view) else { return Found::Nothing };
    let waits = view.says(holder).filter(|report| {
        let in_recovery = matches!(report.state, MemberState::Standby | MemberState::Sealed);
        in_recovery && report.term == view.state.term
    });
    let given = newest_timeline(view.state);
    let begun = waits.map(|report| report.lineage.timeline()).filter(|begun| *begun >= given);
    let Some(begun) = begun else { return Found::Nothing };
    let mut state = view.state.clone();
    state.timeline = begun.saturating_add(1);
    Turn::to(state).fire()
}

fn promotion_failed(view: &View<'_>) -> Found {
    const PATIENCE: Millis = Millis::from_secs(10);
    let Some((election, holder)) = parts(view) else { return Found::Nothing };
    let chosen_at = election.chosen_at.unwrap_or(election.began_at);
    let cause = match is_old(election, holder) {
        true => Cause::NodeLost,
        false => Cause::PromotionFailed,
    };
    let said = view.last(holder).map(|heard| &heard.report);
    let released = said.and_then(|report| report.released.as_ref());
    if released.is_some_and(|released| released.term >= view.state.term) {
        let cause = if is_old(election, holder) { Cause::Crash } else { cause };
        return draw::begin(view, cause).fire();
    }
    let Some(report) = view.says(holder) else {
        let at = silent_at(view, holder).max(chosen_at + view.suspect());
        if view.now < at {
            return Found::wait_until(
                format!("{holder} is to be primary, and is not heard of"),
                at,
            );
        }
        return match can_elect(view) {
            Ok(()) => draw::begin(view, cause).fire(),
            Err(wait) => {
                let text = format!("{holder} is to be primary, and is lost: {}", wait.text);
                Found::wait_until(text, view.now + view.suspect())
            }
        };
    };
    let on_its_way = matches!(
        report.state,
        MemberState::Promoting | MemberState::Primary | MemberState::Starting
    );
    let refused = view.task(holder).is_some_and(|task| !task.is_live() && !task.succeeded());
    if !refused && (report.problem.is_empty() || on_its_way) {
        return Found::Nothing;
    }
    let until = chosen_at + PATIENCE;
    let text = format!("{holder} is to be primary: {}", report.problem);
    if view.now < until {
        return Found::wait_until(text, until);
    }
    match can_elect(view) {
        Ok(()) => draw::begin(view, cause).fire(),
        Err(wait) => Found::wait(format!("{text}; {}", wait.text)),
    }
}

fn promoting(view: &View<'_>) -> Found {
    let Some((_, holder)) = parts(view) else { return Found::Nothing };
    let state = view.says(holder).map_or("not heard of", |report| report.state.as_str());
    Found::wait(format!("{holder} becomes primary in term {} ({state})", view.state.term))
}
