//! Switchovers: begun when they are wanted and can succeed, carried through, or turned back while
//! the old primary still can serve.

use lockstep_model::cluster::state::{FailoverEnd, Move};
use lockstep_model::cluster::{Cause, Election, Exclusion, MemberState, Stage};
use lockstep_model::{NodeName, Timestamp};

use crate::clusters::exclusion::Permission;
use crate::clusters::rule::{Found, Rule, Turn, Wait};
use crate::clusters::switch::{best_target, check_target};
use crate::clusters::view::View;
use crate::clusters::{draw, history};
use crate::leases::Uptime;

pub(super) const UNDER_WAY: &[Rule] = &[
    Rule {
        name: "handed_over",
        from: &["handing-over"],
        to: &["promoting", "electing"],
        what: "The primary stopped cleanly. The target has all of its log and gets the next term; or \
               it is sealed first, to say how far it is.",
        look: handed_over,
    },
    Rule {
        name: "turn_back",
        from: &["preparing", "handing-over"],
        to: &["steady"],
        what: "The target is lost, or switchover-limit has passed, and the primary did not stop yet: \
               it serves on.",
        look: turn_back,
    },
    Rule {
        name: "prepared",
        from: &["preparing"],
        to: &["handing-over"],
        what: "The primary's checkpoint is through: it is told to stop cleanly.",
        look: prepared,
    },
];

pub(super) const WANTED: &[Rule] = &[Rule {
    name: "switchover",
    from: &["steady"],
    to: &["preparing", "steady"],
    what: "Somebody wants another primary, and its time has come: the target is checked, and the \
           primary writes a checkpoint while it serves. One that is late by switchover-limit is given \
           up.",
    look: wanted,
}];

fn under_way<'a>(view: &View<'a>) -> Option<&'a Move> {
    match &view.state.stage {
        Stage::Preparing(under_way) | Stage::Handing(under_way) => Some(under_way),
        _ => None,
    }
}

/// A switchover begins.
pub(super) fn prepare(view: &View<'_>, cause: Cause, by: &str, to: &NodeName) -> Turn {
    let mut state = view.state.clone();
    state.number = state.number.saturating_add(1);
    state.wanted = None;
    let from = view.holder().cloned();
    let report = history::begin(&state, cause, by, from, Some(to.clone()), view.now);
    let under_way = Move { to: to.clone(), began_at: view.now, number: state.number };
    state.stage = Stage::Preparing(under_way);
    Turn::to(state).report(Some(report))
}

fn wanted(view: &View<'_>) -> Found {
    let Some(wanted) = &view.state.wanted else { return Found::Nothing };
    if let Some(at) = wanted.at.filter(|at| view.now < *at) {
        return Found::wait_until("a switchover is due then", at);
    }
    let serves = view.holder_says().is_some_and(|report| {
        report.state == MemberState::Primary && report.holds == Some(view.state.term)
    });
    let checked = match (&wanted.to, best_target(view)) {
        _ if !serves => Err("the primary does not serve".to_owned()),
        _ if !view.state.is_settled() => {
            Err("who acknowledges commits is being changed".to_owned())
        }
        (Some(to), _) if view.holder() == Some(to) => {
            return give_up(view, format!("{to} is the primary"));
        }
        (Some(to), _) => check_target(view, to).map(|()| to),
        (None, Some(best)) => Ok(best),
        (None, None) => Err("no member follows that may be promoted by itself".to_owned()),
    };
    match checked {
        Ok(to) => prepare(view, Cause::Switchover, &wanted.by, to).fire(),
        Err(why) => {
            let limit = view.cluster.options.failover.switchover_limit;
            match wanted.at.map(|at| at + limit) {
                Some(until) if view.now >= until => give_up(view, why),
                Some(until) => Found::wait_until(format!("a switchover waits: {why}"), until),
                None => Found::wait(format!(
                    "a switchover waits: {why}; lockstepctl cluster switchover {} --cancel",
                    view.cluster.name
                )),
            }
        }
    }
}

/// One that never began leaves a report of why.
fn give_up(view: &View<'_>, why: String) -> Found {
    let mut state = view.state.clone();
    let Some(wanted) = state.wanted.take() else { return Found::Nothing };
    state.number = state.number.saturating_add(1);
    let from = view.holder().cloned();
    let mut report =
        history::begin(&state, Cause::Switchover, &wanted.by, from, wanted.to, view.now);
    report.end = FailoverEnd::TurnedBack;
    report.note = format!("it did not begin: {why}");
    Turn::to(state).report(Some(report)).fire()
}

fn limit(view: &View<'_>, under_way: &Move) -> Timestamp {
    under_way.began_at + view.cluster.options.failover.switchover_limit
}

fn prepared(view: &View<'_>) -> Found {
    let (Some(under_way), Some(holder)) = (under_way(view), view.holder()) else {
        return Found::Nothing;
    };
    let taken_up = view.task(holder).is_some_and(|task| task.succeeded());
    if !taken_up || view.says(holder).is_none_or(|report| !report.prepared) {
        let text = format!("{holder} writes a checkpoint before it hands over to {}", under_way.to);
        return Found::wait_until(text, limit(view, under_way));
    }
    let mut state = view.state.clone();
    state.stage = Stage::Handing(under_way.clone());
    Turn::to(state).fire()
}

fn turn_back(view: &View<'_>) -> Found {
    let Some(under_way) = under_way(view) else { return Found::Nothing };
    let until = limit(view, under_way);
    let why = match check_target(view, &under_way.to) {
        Err(why) => why,
        Ok(()) if view.now >= until => "switchover-limit has passed".to_owned(),
        Ok(()) if matches!(&view.state.stage, Stage::Handing(_)) => {
            let text = format!("the primary stops, and hands over to {}", under_way.to);
            return Found::wait_until(text, until);
        }
        // That it still follows shows only in time.
        Ok(()) => return Found::Watch(until.min(view.now + view.suspect())),
    };
    // A standby ends its stream when the primary is through.
    let stopping = matches!(&view.state.stage, Stage::Handing(_))
        && view.now < until
        && view.is_connected(&under_way.to);
    if stopping {
        return Found::wait_until(
            format!("the primary stops, and hands over to {}", under_way.to),
            until,
        );
    }
    let mut state = view.state.clone();
    state.stage = Stage::Steady;
    Turn::to(state).report(history::end(view, FailoverEnd::TurnedBack, why)).fire()
}

fn handed_over(view: &View<'_>) -> Found {
    let (Some(under_way), Some(holder)) = (under_way(view), view.holder()) else {
        return Found::Nothing;
    };
    let Some(permission) = Permission::released(view, holder, view.state.term) else {
        return Found::Nothing;
    };
    let released = view.last(holder).and_then(|heard| heard.report.released.as_ref());
    let end = released.filter(|released| released.clean).and_then(|released| released.end);
    let to = &under_way.to;
    let reached = view.says(to).and_then(|report| report.lsn);
    if let (Some(end), Some(reached)) = (end, reached)
        && reached >= end
        && check_member(view, to)
    {
        return draw::hand_over(view, under_way.number, to, permission, end).fire();
    }
    // Its word may be older than the end of its stream, which came with all that was sent.
    if let (Some(end), Some(until)) = (end, stream_ends(view, to))
        && view.up() < until
        && check_member(view, to)
    {
        let text = format!("{to} is to say that it has the log of {holder} up to {end}");
        return Found::Stop(Wait::until(text, view.at(until)));
    }
    // What it has is asked for: sealed members answer at once.
    let mut state = view.state.clone();
    let from = state.holder.take().map(|node| (node, state.term));
    state.term = state.term.next();
    let election = Election {
        cause: Cause::Switchover,
        from,
        to: Some(to.clone()),
        allow_loss: false,
        began_at: view.now,
        excluded: Some(Exclusion::Released),
        excluded_at: Some(permission.at()),
        chosen_at: None,
        at_least: lockstep_model::cluster::Lsn(0),
        goal: released.and_then(|released| released.end),
        salvage: None,
        number: under_way.number,
    };
    let report = view.report(under_way.number).cloned().map(|mut report| {
        history::excluded(&mut report, &election, permission);
        report.term = state.term;
        report
    });
    state.stage = Stage::Electing(election);
    Turn::to(state).report(report).fire()
}

/// Until when a word of one that follows may be followed by another, of a stream that has ended.
fn stream_ends(view: &View<'_>, node: &NodeName) -> Option<Uptime> {
    let heard = view.last(node).filter(|_| view.follows(node))?;
    let patience = view.suspect().0.saturating_sub(heard.report.upstream.as_ref()?.age.0);
    Some(Uptime(heard.at.0.saturating_add(patience)))
}

/// By its own word it still is what it was chosen as.
fn check_member(view: &View<'_>, to: &NodeName) -> bool {
    let follows = view.says(to).is_some_and(|report| {
        report.state == MemberState::Standby && report.lineage == view.state.lineage
    });
    follows && view.is_managed(to)
}
