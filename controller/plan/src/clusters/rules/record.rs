//! What is found out of members and must be known over restarts: copies that are complete, the
//! primary's history, who may be promoted.

use std::collections::BTreeSet;

use lockstep_model::NodeName;
use lockstep_model::cluster::{Member, MemberState};

use crate::clusters::rule::{Found, Rule, Turn};
use crate::clusters::view::View;
use crate::clusters::{goal, promotable};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "copied",
        from: &["steady", "preparing", "handing-over", "electing", "promoting"],
        to: &[],
        what: "A member has a complete copy of the data.",
        look: copied,
    },
    Rule {
        name: "lineage",
        from: &["steady"],
        to: &[],
        what: "The primary's history went on.",
        look: lineage,
    },
    Rule {
        name: "promotable",
        from: &["steady"],
        to: &[],
        what: "The primary's agent knows that it needs a member's promise: the member may be \
               promoted by itself.",
        look: promotable,
    },
    Rule {
        name: "not_promotable",
        from: &["steady"],
        to: &[],
        what: "A member was taken out, or is away for long: it is promoted no more, and then the \
               primary does without its promise.",
        look: not_promotable,
    },
    Rule {
        name: "rogue",
        from: &[],
        to: &[],
        what: "A member takes writes and has no right to: its agent ends it.",
        look: rogue,
    },
    Rule {
        name: "crash_budget",
        from: &["steady"],
        to: &[],
        what: "So many failovers after crashes are enough for now: postgres is restarted where it \
               crashes.",
        look: crash_budget,
    },
];

fn copied(view: &View<'_>) -> Found {
    let has_copied = |member: &&Member| {
        view.says(&member.node).is_some_and(|report| {
            let runs = matches!(
                report.state,
                MemberState::Standby | MemberState::Sealed | MemberState::Primary
            );
            let own = report.system_id.is_some() && report.system_id == view.state.system_id;
            runs && own && report.copy == member.copy && !view.is_copied(member)
        })
    };
    let new: Vec<&Member> = view.cluster.members.iter().filter(has_copied).collect();
    if new.is_empty() {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    for member in new {
        state.members.entry(member.node.clone()).or_default().copied = member.copy;
    }
    Turn::to(state).fire()
}

fn lineage(view: &View<'_>) -> Found {
    let Some(report) = view.holder_says() else { return Found::Nothing };
    let writes = report.state == MemberState::Primary && report.holds == Some(view.state.term);
    let grown =
        report.lineage.0.starts_with(&view.state.lineage.0) && report.lineage != view.state.lineage;
    if !writes || !grown {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    state.lineage.clone_from(&report.lineage);
    Turn::to(state).fire()
}

fn promotable(view: &View<'_>) -> Found {
    let new = promotable::confirmed(view);
    if new.is_empty() {
        let told = view.holder().and_then(|holder| view.told(holder));
        let asked = told.map_or(&[][..], |place| &place.promotable);
        let open: Vec<&str> = asked
            .iter()
            .filter(|node| !view.state.promotable.contains(*node))
            .map(NodeName::as_str)
            .collect();
        return match open.is_empty() {
            true => Found::Nothing,
            false => Found::wait(format!(
                "the primary's agent has not confirmed that {} may be promoted",
                open.join(", ")
            )),
        };
    }
    let mut state = view.state.clone();
    state.promotable.extend(new);
    Turn::to(state).fire()
}

fn not_promotable(view: &View<'_>) -> Found {
    let spare: BTreeSet<NodeName> = promotable::spare(view);
    if spare.is_empty() || view.holder_says().is_none() {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    state.promotable.retain(|node| !spare.contains(node));
    Turn::to(state).fire()
}

fn rogue(view: &View<'_>) -> Found {
    let writes = |node: &NodeName| {
        view.says(node)
            .is_some_and(|r| matches!(r.state, MemberState::Rogue | MemberState::Primary))
    };
    let others = view.cluster.members.iter().map(|member| &member.node);
    let rogues: Vec<&str> = others
        .filter(|node| view.holder() != Some(*node) && writes(node))
        .map(NodeName::as_str)
        .collect();
    match rogues.is_empty() {
        true => Found::Nothing,
        false => Found::wait(format!(
            "{} takes writes and has no right to: its agent is ending it",
            rogues.join(", ")
        )),
    }
}

fn crash_budget(view: &View<'_>) -> Found {
    let failover = &view.cluster.options.failover;
    match goal::budget_ends(view).filter(|_| failover.automatic && failover.budget > 0) {
        None => Found::Nothing,
        Some(until) => Found::wait_until(
            format!(
                "{} failovers after crashes within {}: postgres is restarted where it crashes",
                failover.budget, failover.window
            ),
            until,
        ),
    }
}
