//! Before records are believed: right after a controller's start, and after an old copy of a store was
//! accepted.

use lockstep_model::cluster::Stage;

use crate::clusters::rule::{Found, Rule, Wait};
use crate::clusters::view::View;
use crate::clusters::{doubt, draw};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "returning",
        from: &["steady", "preparing", "handing-over", "electing", "promoting"],
        to: &[],
        what: "The controller just started, and its store may be an old copy: for one lease it decides \
               nothing until everyone who could be primary has said how it is.",
        look: returning,
    },
    Rule {
        name: "old_copy",
        from: &["creating", "steady", "preparing", "handing-over", "electing", "promoting"],
        to: &["electing", "promoting"],
        what: "An old copy of the store was accepted, or members promised a later term than is recorded: \
               nothing is decided and nobody told anything until everyone who could be primary has said \
               what it knows. Then all is drawn anew from that, in a term above all.",
        look: old_copy,
    },
];

fn returning(view: &View<'_>) -> Found {
    match doubt::returning(view) {
        Some((wait, until)) => Found::Freeze(Wait::until(
            format!("the controller just started: {}", wait.text),
            wait.until.map_or(until, |earlier| until.min(earlier)),
        )),
        None => Found::Nothing,
    }
}

fn old_copy(view: &View<'_>) -> Found {
    if !doubt::is_old(view) {
        return Found::Nothing;
    }
    let nobody_led = doubt::said(view).all(|(_, report)| doubt::led(report).is_none());
    let wait = |wait: Wait| {
        let text = format!("the store was an old copy, and nothing is decided: {}", wait.text);
        Found::Freeze(Wait { text, ..wait })
    };
    if let Some(silent) = doubt::awaited(view) {
        return wait(silent);
    }
    if nobody_led && view.state.stage == Stage::Creating {
        return draw::keep(view).fire();
    }
    match (doubt::serving(view), doubt::leases_end(view)) {
        (None, Some(until)) => {
            wait(Wait::until("a lease that it does not know of may last until then", until))
        }
        (serving, _) => draw::anew(view, serving).fire(),
    }
}
