//! From the draw of a term to the choice of its holder.

use lockstep_model::cluster::options::SalvageFailure;
use lockstep_model::cluster::{Act, Cause, Election, Exclusion, Goal, Lineage, MemberState, Stage};
use lockstep_model::{Millis, NodeName, Timestamp};

use crate::clusters::choice::{self, Choice};
use crate::clusters::draw;
use crate::clusters::exclusion::{Permission, is_off};
use crate::clusters::rule::{Found, Rule, Turn, Wait};
use crate::clusters::view::View;
use lockstep_model::task::{Slot, TaskSpec};

const ELECTING: &[&str] = &["electing"];
const PROMOTING: &[&str] = &["promoting"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "holder_is_well",
        from: ELECTING,
        to: PROMOTING,
        what: "The old primary was only not heard, says that it serves, and nobody is chosen yet: the \
               new term is its own.",
        look: holder_is_well,
    },
    Rule {
        name: "restart_in_place",
        from: ELECTING,
        to: PROMOTING,
        what: "Failover is manual, or there were too many: the old primary gets the new term and \
               starts again.",
        look: restart_in_place,
    },
    Rule {
        name: "choose",
        from: ELECTING,
        to: PROMOTING,
        what: "The old primary is excluded, and a sealed member has every acknowledged commit for \
               certain: it gets the term.",
        look: choose,
    },
    Rule {
        name: "excluded",
        from: ELECTING,
        to: &[],
        what: "It is proven that the old primary acknowledges nothing any more.",
        look: excluded,
    },
    Rule {
        name: "external_fence",
        from: ELECTING,
        to: &[],
        what: "Another member's agent is to prove the old node off by the site's program.",
        look: external_fence,
    },
    Rule {
        name: "salvage",
        from: ELECTING,
        to: &[],
        what: "The dead instance has log that the best member lacks: it is brought there, and its \
               position is asked for again.",
        look: salvage,
    },
    Rule {
        name: "choose_with_loss",
        from: ELECTING,
        to: PROMOTING,
        what: "No member is proven to have everything, and the policy or a person allows what may be \
               lost: the best one gets the term.",
        look: choose_with_loss,
    },
    Rule {
        name: "give_back",
        from: ELECTING,
        to: PROMOTING,
        what: "Nobody can take over without losing something, and the old node is there with all the \
               data: it gets the term and starts again.",
        look: give_back,
    },
];

fn election<'a>(view: &View<'a>) -> Option<&'a Election> {
    match &view.state.stage {
        Stage::Electing(election) => Some(election),
        _ => None,
    }
}

fn holder_is_well(view: &View<'_>) -> Found {
    let Some(election) = election(view) else { return Found::Nothing };
    let Some((old, term)) = &election.from else { return Found::Nothing };
    let well = view
        .says_since(old, election.began_at)
        .is_some_and(|r| r.state == MemberState::Primary && r.holds == Some(*term));
    // Once it was told to end its processes, its word may be older than that.
    let told = view
        .told(old)
        .is_some_and(|place| place.term == view.state.term && matches!(place.goal, Goal::Fenced));
    if election.cause != Cause::NodeLost || !well || told || !view.is_managed(old) {
        return Found::Nothing;
    }
    let turn = draw::give_back(view, election, "the old primary was well, and only not heard");
    turn.map_or(Found::Nothing, Turn::fire)
}

/// The old holder, when it is there, gave the term up, and can start again with all its data.
fn old_is_ready<'a>(view: &View<'a>, election: &'a Election) -> Option<&'a NodeName> {
    let (old, term) = election.from.as_ref()?;
    let report = view.says(old)?;
    let gave_up = report.released.as_ref().is_some_and(|released| released.term >= *term);
    let released = gave_up || is_off(report, *term);
    let has_data =
        matches!(report.state, MemberState::Stopped | MemberState::Crashed | MemberState::Fenced);
    (released && has_data && view.is_managed(old)).then_some(old)
}

/// One that just failed is not started again at once, and neither is one that crashes again and
/// again.
fn rest_ends(view: &View<'_>, election: &Election) -> Option<Timestamp> {
    const REST: Millis = Millis::from_secs(10);
    let (old, _) = election.from.as_ref()?;
    let record = view.state.members.get(old);
    let failed = record.is_some_and(|record| record.failed_term == Some(view.state.term));
    let until = election.began_at + REST;
    ((failed || is_spent(view)) && view.now < until).then_some(until)
}

/// More crashes than failovers are allowed for.
fn is_spent(view: &View<'_>) -> bool {
    let failover = &view.cluster.options.failover;
    let recent = view.state.crashes.iter().filter(|at| view.now.since(**at) < failover.window);
    recent.count() > usize::try_from(failover.budget).unwrap_or(usize::MAX)
}

fn restart_in_place(view: &View<'_>) -> Found {
    let Some(election) = election(view) else { return Found::Nothing };
    let by_itself = matches!(election.cause, Cause::Crash | Cause::NodeLost | Cause::Hung);
    let automatic = view.cluster.options.failover.automatic;
    let spent = election.cause == Cause::Crash && is_spent(view);
    if !by_itself || (automatic && !spent) {
        return Found::Nothing;
    }
    let Some(old) = old_is_ready(view, election) else { return Found::Nothing };
    if let Some(until) = rest_ends(view, election) {
        return Found::wait_until(
            format!("{old} crashed again: it is started after a rest"),
            until,
        );
    }
    let note = match automatic {
        true => "too many failovers after crashes: restarted in place",
        false => "failover is manual: restarted in place",
    };
    draw::give_back(view, election, note).map_or(Found::Nothing, Turn::fire)
}

/// The election with what is known of the old log's end, and the proof.
fn proven<'a>(view: &View<'a>) -> Result<Option<(Election, Permission)>, Wait> {
    let Some(election) = election(view) else { return Ok(None) };
    let permission = Permission::of(view, election)?;
    let goal = draw::end_of(view, election, permission);
    Ok(Some((Election { goal, ..election.clone() }, permission)))
}

fn choose(view: &View<'_>) -> Found {
    let (election, permission) = match proven(view) {
        Ok(Some(proven)) => proven,
        Ok(None) | Err(_) => return Found::Nothing,
    };
    match choice::choose(view, &election, permission) {
        Ok(choice) if choice.lossless => draw::give(view, &election, permission, &choice).fire(),
        Ok(choice) => Found::wait(format!(
            "{} is the best sealed member; it is not proven to have every commit",
            choice.best.member.node
        )),
        Err(wait) => Found::Wait(wait),
    }
}

fn excluded(view: &View<'_>) -> Found {
    let Some(election) = election(view) else { return Found::Nothing };
    match Permission::of(view, election) {
        Err(wait) => Found::Wait(wait),
        Ok(_) if election.excluded.is_some() => Found::Nothing,
        Ok(permission) => draw::exclude(view, election, permission).fire(),
    }
}

fn external_fence(view: &View<'_>) -> Found {
    let Some(election) = election(view) else { return Found::Nothing };
    let failover = &view.cluster.options.failover;
    let (None, Some(hook), Some((old, _))) =
        (election.excluded, &failover.external_fence, &election.from)
    else {
        return Found::Nothing;
    };
    let act = Act::Fence { node: old.clone(), timeout: failover.external_fence_timeout };
    let slot = Slot::Act(view.cluster.name.clone());
    let newest = |node: &NodeName| view.world.newest(node, &slot);
    let is_it = |node: &NodeName| {
        newest(node).is_some_and(|task| {
            task.created_at >= election.began_at
                && matches!(&task.spec, TaskSpec::ClusterAct(given) if given.act == act)
        })
    };
    let others: Vec<&NodeName> = view
        .others(old)
        .map(|member| &member.node)
        .filter(|node| view.is_connected(node) && view.is_managed(node))
        .collect();
    if let Some(node) =
        others.iter().find(|node| is_it(node) && newest(node).is_some_and(|t| t.is_live()))
    {
        return Found::wait(format!("{hook} on {node} is to prove {old} off"));
    }
    const AGAIN: Millis = Millis::from_secs(5);
    let tried =
        others.iter().filter(|node| is_it(node)).filter_map(|node| newest(node)?.ended.as_ref());
    if let Some(last) = tried.map(|ended| ended.at).max()
        && view.now < last + AGAIN
    {
        return Found::wait_until(
            format!("{hook} did not prove {old} off; it is tried again"),
            last + AGAIN,
        );
    }
    let free = |node: &&&NodeName| newest(node).is_none_or(|task| !task.is_live());
    // Not the one that tried last, when there is another.
    let node = others.iter().filter(free).min_by_key(|node| is_it(node));
    match node {
        None => Found::wait(format!("no other member's agent is there to run {hook}")),
        Some(node) => {
            let mut turn = Turn::to(view.state.clone());
            turn.act = Some(((*node).clone(), act));
            turn.fire()
        }
    }
}

/// Who lacks how much of the dead instance's log.
fn lacking<'a>(view: &View<'a>, election: &Election, choice: &Choice<'a>) -> Option<u64> {
    let (old, _) = election.from.as_ref()?;
    let one_history = |lineage: &Lineage| *lineage == view.state.lineage;
    let there = view.says(old).is_some() && election.excluded == Some(Exclusion::Released);
    let alike = one_history(choice.best.lineage) && choice::is_alike(view, election, &choice.best);
    let end = election.goal.filter(|_| there && alike)?;
    Some(end.since(choice.best.lsn)).filter(|bytes| *bytes > 0)
}

fn salvage(view: &View<'_>) -> Found {
    let Some(election) = election(view) else { return Found::Nothing };
    let options = &view.cluster.options.salvage;
    let Ok(permission) = Permission::of(view, election) else { return Found::Nothing };
    let Ok(choice) = choice::choose(view, election, permission) else { return Found::Nothing };
    let Some(bytes) = lacking(view, election, &choice) else { return Found::Nothing };
    let node = &choice.best.member.node;
    match &election.salvage {
        Some((to, since)) => {
            let until = *since + options.timeout;
            match view.now < until {
                true => Found::Stop(Wait::until(
                    format!("{to} gets {bytes} bytes of log of the dead instance"),
                    until,
                )),
                false => Found::wait(format!(
                    "{to} did not get the dead instance's log within salvage-timeout {}",
                    options.timeout
                )),
            }
        }
        None if !options.enabled => Found::wait(format!(
            "{node} lacks {bytes} bytes of log that the dead instance has, and salvage is off"
        )),
        None if bytes > options.max_bytes.0 => Found::wait(format!(
            "{node} lacks {bytes} bytes of log that the dead instance has, more than \
             salvage-max {}",
            options.max_bytes
        )),
        None if choice::is_awaited(view) && view.now < choice::grace_ends(view, permission) => {
            // Another one may have it all.
            let until = choice::grace_ends(view, permission);
            Found::wait_until("others are being sealed", until)
        }
        None => {
            let salvage = Some((node.clone(), view.now));
            let election = Election { salvage, ..election.clone() };
            let mut state = view.state.clone();
            state.stage = Stage::Electing(election);
            Turn::to(state).fire()
        }
    }
}

/// Until when members that are not sealed yet are waited for; None: for nobody.
fn grace(view: &View<'_>, permission: Permission) -> Option<Timestamp> {
    let until = choice::grace_ends(view, permission);
    (choice::is_awaited(view) && view.now < until).then_some(until)
}

fn choose_with_loss(view: &View<'_>) -> Found {
    let (election, permission) = match proven(view) {
        Ok(Some(proven)) => proven,
        Ok(None) | Err(_) => return Found::Nothing,
    };
    let Ok(choice) = choice::choose(view, &election, permission) else { return Found::Nothing };
    if let Some(until) = grace(view, permission) {
        return Found::wait_until("other members are being sealed", until);
    }
    if !election.allow_loss
        && let Some(wait) = prefers_old(view, &election, permission)
    {
        return wait;
    }
    match choice::may_lose(view, &election, &choice) {
        Ok(()) => draw::give(view, &election, permission, &choice).fire(),
        Err(wait) => Found::Wait(wait),
    }
}

/// The dead instance has everything: nothing is lost while it may come back.
fn prefers_old(view: &View<'_>, election: &Election, permission: Permission) -> Option<Found> {
    let (old, _) = election.from.as_ref()?;
    if permission.how() != Exclusion::Released || !view.is_managed(old) {
        return None;
    }
    let restarts = view.cluster.options.salvage.on_failure == SalvageFailure::Restart;
    if view.says(old).is_some() {
        return restarts.then_some(Found::Nothing);
    }
    let until = permission.at() + view.cluster.options.lease.length;
    let text = format!("{old} has everything, and may be back soon");
    (view.now < until).then(|| Found::wait_until(text, until))
}

fn give_back(view: &View<'_>) -> Found {
    let Some(election) = election(view) else { return Found::Nothing };
    let Ok(permission) = Permission::of(view, election) else { return Found::Nothing };
    let Some(old) = old_is_ready(view, election) else { return Found::Nothing };
    if election.cause == Cause::Withdrawn && view.cluster.member(old).is_none() {
        return Found::Nothing;
    }
    if let Some(until) = grace(view, permission).or(rest_ends(view, election)) {
        return Found::wait_until(
            format!("{old} starts again unless another can take over"),
            until,
        );
    }
    let end = election.goal.map(|end| format!(" from {end}")).unwrap_or_default();
    let note = format!("nobody could take over without loss: {old} goes on{end}");
    draw::give_back(view, election, &note).map_or(Found::Nothing, Turn::fire)
}
