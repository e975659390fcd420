//! The first primary: made or taken over.

use lockstep_model::cluster::state::MemberRecord;
use lockstep_model::cluster::{MemberState, Stage};

use crate::clusters::rule::{Found, Rule, Turn};
use crate::clusters::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "created",
        from: &["creating"],
        to: &["steady"],
        what: "The first primary writes: its system identifier, version and history are recorded, \
               and standbys are copied from it.",
        look: created,
    },
    Rule {
        name: "create_again",
        from: &["creating"],
        to: &[],
        what: "The first primary gave its term up before it wrote: it gets the next one.",
        look: create_again,
    },
];

fn created(view: &View<'_>) -> Found {
    let Some(holder) = view.holder() else { return Found::Nothing };
    let Some(report) = view.says(holder) else {
        return Found::wait(format!("{holder} is to make the first copy, and is not heard of"));
    };
    let writes = report.state == MemberState::Primary && report.holds == Some(view.state.term);
    let (true, Some(system_id)) = (writes, report.system_id) else {
        let (state, problem) = (report.state, &report.problem);
        let colon = if problem.is_empty() { "" } else { ": " };
        return Found::wait(format!("{holder} makes the first copy ({state}){colon}{problem}"));
    };
    let mut state = view.state.clone();
    state.stage = Stage::Steady;
    state.system_id = Some(system_id);
    state.major = major(&report.version);
    state.lineage.clone_from(&report.lineage);
    let record = MemberRecord { copied: report.copy, failed_term: None };
    state.members.insert(holder.clone(), record);
    state.promotable.insert(holder.clone());
    Turn::to(state).fire()
}

fn create_again(view: &View<'_>) -> Found {
    let released = view.holder_says().and_then(|report| report.released.as_ref());
    if released.is_none_or(|released| released.term < view.state.term) {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    state.term = state.term.next();
    Turn::to(state).fire()
}

/// `15` of `15.18`.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
