//! A primary that somebody took out: another member takes over first, where one can.

use lockstep_model::cluster::{Cause, MemberAdmin};
use lockstep_model::node::NodeAdmin;

use super::switchover::prepare;
use crate::clusters::draw;
use crate::clusters::rule::{Found, Rule};
use crate::clusters::switch::{best_target, can_elect};
use crate::clusters::view::View;

pub(super) const RULES: &[Rule] = &[Rule {
    name: "withdrawn",
    from: &["steady"],
    to: &["preparing", "electing"],
    what: "The primary was fenced, stopped, disabled, expelled or put into maintenance: another member \
           takes over first, by a switchover where it can be one.",
    look: withdrawn,
}];

fn withdrawn(view: &View<'_>) -> Found {
    let Some(holder) = view.holder().filter(|holder| !view.is_managed(holder)) else {
        return Found::Nothing;
    };
    let admin = view.cluster.member(holder).map(|member| member.admin);
    let gone = view.node(holder).is_none_or(|node| node.admin == NodeAdmin::Expelled);
    let released = view.last(holder).and_then(|heard| heard.report.released.as_ref());
    let is_released = released.is_some_and(|released| released.term >= view.state.term);
    let urgent = gone || is_released || admin.is_none() || admin == Some(MemberAdmin::Fenced);
    if !urgent && let Some(to) = best_target(view).filter(|_| view.state.is_settled()) {
        return prepare(view, Cause::Withdrawn, "", to).fire();
    }
    match can_elect(view) {
        Ok(()) if urgent => draw::begin(view, Cause::Withdrawn).fire(),
        Ok(()) => {
            Found::wait(format!("{holder} was taken out, and nobody follows it closely enough"))
        }
        Err(wait) => {
            Found::wait(format!("{holder} was taken out, and nobody takes over: {}", wait.text))
        }
    }
}
