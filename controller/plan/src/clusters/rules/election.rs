//! When a primary that serves is lost: what draws the next term.

use lockstep_model::cluster::report::Trouble;
use lockstep_model::cluster::{Cause, MemberState, Quorum};
use lockstep_model::{Millis, NodeName, Timestamp};

use crate::clusters::draw;
use crate::clusters::rule::{Found, Rule, Wait};
use crate::clusters::switch::can_elect;
use crate::clusters::sync_set::policy;
use crate::clusters::view::View;
use crate::leases::Uptime;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "released",
        from: &["steady", "preparing"],
        to: &["electing"],
        what: "The primary's agent gave the term up, and attests that no process is left: a new term \
               is drawn at once.",
        look: released,
    },
    Rule {
        name: "node_lost",
        from: &["steady", "preparing", "handing-over"],
        to: &["electing"],
        what: "The primary's agent is silent for longer than suspect-after, and no standby receives \
               anything from it.",
        look: node_lost,
    },
    Rule {
        name: "hung",
        from: &["steady", "preparing"],
        to: &["electing"],
        what: "The primary's processes exist and answer nothing, or storage hangs: another member \
               can take over, and its agent is told to end them.",
        look: hung,
    },
];

fn released(view: &View<'_>) -> Found {
    let Some(holder) = view.holder() else { return Found::Nothing };
    let report = view.last(holder).map(|heard| &heard.report);
    let released = report.and_then(|report| report.released.as_ref());
    if released.is_none_or(|released| released.term < view.state.term) {
        return Found::Nothing;
    }
    if !view.is_managed(holder) {
        // Somebody took it out: `withdrawn` says what follows.
        return Found::Nothing;
    }
    // It gave up because it was alone for so long, or because its postgres died.
    let silent = silence(view, holder) > view.suspect();
    draw::begin(view, if silent { Cause::NodeLost } else { Cause::Crash }).fire()
}

/// How long the holder has not asked for its lease.
fn silence(view: &View<'_>, holder: &NodeName) -> Millis {
    let leases = view.world.leases();
    let heard = leases.get(&view.cluster.name).filter(|granted| granted.holder == *holder);
    view.up().since(heard.map_or(leases.started(), |granted| granted.heard))
}

/// When the holder counts as silent, if it does not ask; a controller that just started waits for
/// one lease.
pub(super) fn silent_at(view: &View<'_>, holder: &NodeName) -> Timestamp {
    let leases = view.world.leases();
    let granted = leases.get(&view.cluster.name).filter(|granted| granted.holder == *holder);
    let (since, patience) = match granted {
        Some(granted) => (granted.heard, view.suspect()),
        None => (leases.started(), view.suspect().max(view.cluster.options.lease.length)),
    };
    view.at(Uptime(since.0.saturating_add(patience.0 + 1)))
}

/// When a standby counts as one that receives nothing from the holder, if it does not. Where nothing
/// is written it asks for a sign of life after `suspect`: half as long again, and it would have told.
/// Until it said itself that it got nothing, it may be the controller that is cut off.
fn quiet_at(view: &View<'_>, node: &NodeName) -> Option<Uptime> {
    let heard = view.last(node).filter(|_| view.follows(node))?;
    let age = heard.report.upstream.as_ref()?.age;
    let suspect = view.suspect();
    let patience = match age >= suspect {
        true => (suspect.0 * 3 / 2).saturating_sub(age.0),
        false => 2 * suspect.0 + 1,
    };
    Some(Uptime(heard.at.0.saturating_add(patience)))
}

fn node_lost(view: &View<'_>) -> Found {
    let Some(holder) = view.holder() else { return Found::Nothing };
    // One that was told to have nothing to do with it asks for no lease.
    if !view.is_managed(holder) && view.is_connected(holder) {
        return Found::Nothing;
    }
    let at = silent_at(view, holder);
    if view.now < at {
        return Found::Watch(at);
    }
    let again = view.now + Millis((view.suspect().0 / 2).max(1));
    // One whose agent is stopped for a while writes nothing by itself, so that what a standby has of it
    // may be old.
    let away = view.world.leases().away(&view.cluster.name, holder).is_some();
    let standbys = view.cluster.members.iter().map(|member| &member.node);
    let heard = standbys.filter_map(|node| Some((quiet_at(view, node)?, node)));
    if let Some((until, standby)) = heard.max().filter(|(until, _)| away || view.up() < *until) {
        return Found::wait_until(
            format!(
                "{holder} is not heard of, but {standby} still receives from it: it serves on, with \
                 the promises of its peers"
            ),
            if away { again } else { view.at(until) },
        );
    }
    if !view.cluster.options.failover.automatic {
        return Found::wait(format!(
            "{holder} is not heard of, and failover is manual: lockstepctl cluster failover {}",
            view.cluster.name
        ));
    }
    match can_elect(view).and_then(|()| is_decidable(view)) {
        Ok(()) => draw::begin(view, Cause::NodeLost).fire(),
        Err(wait) => Found::wait_until(format!("{holder} is not heard of: {}", wait.text), again),
    }
}

/// Without a word of the old primary's agent nobody could be chosen by itself, and the election would only
/// disturb one that is not heard for a moment.
fn is_decidable(view: &View<'_>) -> Result<(), Wait> {
    match policy(view) > 0 && view.state.quorums.iter().all(Quorum::is_off) {
        true => Err(Wait::new(format!(
            "commits were not protected, and another member may lack some: it is waited for; \
             lockstepctl cluster failover {} --allow-data-loss --yes promotes one all the same",
            view.cluster.name
        ))),
        false => Ok(()),
    }
}

fn hung(view: &View<'_>) -> Found {
    let (Some(holder), Some(report)) = (view.holder(), view.holder_says()) else {
        return Found::Nothing;
    };
    let stuck = report.trouble == Trouble::Hung || report.state == MemberState::Unfenced;
    if !stuck || report.holds.is_none() {
        return Found::Nothing;
    }
    if !view.cluster.options.failover.automatic {
        return Found::wait(format!(
            "{holder} answers nothing, and failover is manual: lockstepctl cluster failover {}",
            view.cluster.name
        ));
    }
    match can_elect(view) {
        Ok(()) => draw::begin(view, Cause::Hung).fire(),
        Err(wait) => Found::wait(format!("{holder} answers nothing: {}", wait.text)),
    }
}
