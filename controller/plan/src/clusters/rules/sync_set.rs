//! Changes of who acknowledges commits: recorded first, told then, and what was before counts until
//! the primary says that the new is in force.

use lockstep_model::cluster::MemberState;

use crate::clusters::rule::{Found, Rule, Turn};
use crate::clusters::sync_set::{next_gone, policy, wanted};
use crate::clusters::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "sync_set_in_force",
        from: &["steady"],
        to: &[],
        what: "The primary says that the newest set is in force and has what was written before: \
               elections need no earlier one any more.",
        look: in_force,
    },
    Rule {
        name: "sync_set",
        from: &["steady"],
        to: &[],
        what: "Standbys came or went, or the policy changed: the new set is recorded beside the one \
               in force, and the primary is told.",
        look: change,
    },
    Rule {
        name: "unprotected",
        from: &["steady"],
        to: &[],
        what: "Too few standbys follow, and commits wait for nobody though they are to.",
        look: unprotected,
    },
];

fn in_force(view: &View<'_>) -> Found {
    if view.state.is_settled() {
        return Found::Nothing;
    }
    let newest = view.quorum();
    let knows = view.holder().is_some_and(|holder| {
        let place = view.told(holder).filter(|place| place.term == view.state.term);
        view.task(holder).is_some_and(|task| task.succeeded()) && place.is_some()
    });
    let said = view.holder_says().filter(|report| report.holds == Some(view.state.term));
    if !knows || said.is_none_or(|report| report.quorum.as_ref() != Some(newest)) {
        let text = format!("the primary has not said yet that {newest} acknowledge commits");
        return Found::wait(text);
    }
    let mut state = view.state.clone();
    state.quorums = vec![newest.clone()];
    state.formers.clear();
    Turn::to(state).fire()
}

fn change(view: &View<'_>) -> Found {
    let serves = view.holder_says().is_some_and(|report| {
        report.state == MemberState::Primary && report.holds == Some(view.state.term)
    });
    let wanted = wanted(view);
    if wanted == *view.quorum() {
        // Time alone may make one of them gone.
        return match next_gone(view).filter(|_| serves) {
            Some(at) => Found::Watch(at),
            None => Found::Nothing,
        };
    }
    if !serves {
        return Found::wait(format!(
            "{wanted} are to acknowledge commits, once the primary serves"
        ));
    }
    // The same set twice would make an old word of the primary count for the new one.
    let again = view.state.quorums.contains(&wanted) && !wanted.is_off();
    if again {
        return Found::wait(format!("{wanted} are to acknowledge commits, after the last change"));
    }
    let mut state = view.state.clone();
    state.quorums.retain(|before| *before != wanted);
    state.quorums.push(wanted);
    if state.quorums.len() > lockstep_model::cluster::ClusterState::QUORUMS_MAX {
        return Found::wait("too many changes of who acknowledges commits are unconfirmed");
    }
    Turn::to(state).fire()
}

fn unprotected(view: &View<'_>) -> Found {
    let k = policy(view);
    if k == 0 || !view.quorum().is_off() {
        return Found::Nothing;
    }
    Found::wait(format!(
        "UNPROTECTED: commits are to wait for {k} of the standbys, and too few follow: what is written \
         now may be lost in a failover, which does not happen by itself"
    ))
}
