//! Runs of mirrors that somebody asks for: of the master with all that follows, or of single
//! replicas. What is wanted already is joined, so that a trigger during a run is one run more.

use std::collections::BTreeSet;

use lockstep_model::mirror::{Allow, Mirror, MirrorState, ReplicaState, RunId, Trigger, Wanted};
use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Actor, Record, TXN_WRITES_MAX, Write};
use lockstep_model::{Invalid, MirrorName, NodeName, Reject, Timestamp};

use super::mirror_owner::check_owner;
use super::mirrors::find;
use super::syncs::list;
use super::{Admitted, precondition};
use crate::World;
use crate::members::copies;

/// Most replicas of one request: its rows, the state and the request's own record are one transaction.
pub const ONLY_MAX: usize = TXN_WRITES_MAX - 2;

/// What is asked for.
pub(super) struct Ask<'a> {
    pub only: &'a [NodeName],
    pub from: Option<&'a NodeName>,
    pub allow: Allow,
    pub trigger: &'a Trigger,
}

pub(super) fn sync(
    world: &World,
    who: &Actor,
    name: &MirrorName,
    ask: &Ask<'_>,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let mirror = find(world, name)?;
    check_caller(world, who, mirror, ask)?;
    check_trigger(mirror, ask)?;
    let (copies, _) = copies(world, mirror);
    let is_replica = |node: &NodeName| copies.iter().any(|copy| copy.node.name == *node);
    if let Some(node) = ask.only.iter().chain(ask.from).find(|node| !is_replica(node)) {
        let message = format!(
            "node {node} is no replica of mirror {name}: see lockstepctl mirror show {name}"
        );
        return Err(Reject::not_found(format!("mirror/{name}/{node}"), message));
    }
    check_enabled(world, &mirror.master)?;
    let mut state = state_of(world, name, now);
    if !ask.only.is_empty() {
        return of_replicas(world, mirror, &state, ask, now);
    }
    if let Some(from) = ask.from {
        check_enabled(world, from)?;
        let has = world.replica(name, from).map_or(0, |row| row.value.generation);
        if has == 0 && !ask.allow.empty {
            let message = format!(
                "{from} has no complete tree: choose another replica, or add --allow empty if what \
                 it has is all there is"
            );
            return Err(precondition("no_tree", format!("mirror/{name}/{from}"), message));
        }
    }
    let before = state.clone();
    let trigger = ask.trigger.clone();
    let number = want(&mut state.wanted, &mut state.number, trigger, ask.allow, ask.from, now);
    // Who asks last says where it comes from.
    if let (Some(wanted), Trigger::Asked(_)) = (&mut state.wanted, ask.trigger) {
        wanted.from = ask.from.cloned();
    }
    let mut admitted = Admitted { runs: vec![run_id(name, number)], ..Admitted::default() };
    admitted.detail = match (&before.wanted, before.current) {
        (Some(_), _) => format!("run {name}/{number} is to begin already, and stands for this one"),
        (None, Some(current)) => format!("run {name}/{number} follows run {name}/{current}"),
        (None, None) => format!("run {name}/{number} asked for"),
    };
    if state != before {
        admitted.writes.push(Write::Put(Record::MirrorState(state)));
    }
    Ok(admitted)
}

/// Who pushes has shown a token, which must be this mirror's still.
fn check_caller(world: &World, who: &Actor, mirror: &Mirror, ask: &Ask<'_>) -> Result<(), Reject> {
    match (who, ask.trigger) {
        (Actor::Anonymous, Trigger::Push(id))
            if mirror.push_tokens.iter().any(|token| token.id.as_str() == id) =>
        {
            Ok(())
        }
        _ => check_owner(world, who, mirror),
    }
}

fn check_trigger(mirror: &Mirror, ask: &Ask<'_>) -> Result<(), Reject> {
    let name = &mirror.name;
    let Ask { only, from, allow: _, trigger } = ask;
    if !only.is_empty() && from.is_some() {
        let problem = "cannot be given with --only: the master pulls from it, and no replica does";
        return Err(Invalid::new("from", problem).into());
    }
    if only.len() > ONLY_MAX {
        let problem = format!("are {}, at most {ONLY_MAX} are allowed at once", only.len());
        return Err(Invalid::new("only", problem).into());
    }
    let refused =
        |reason, message: String| Err(precondition(reason, format!("mirror/{name}"), message));
    let plain = only.is_empty() && from.is_none();
    match (trigger, &mirror.upstream) {
        (Trigger::Schedule(_) | Trigger::Cascade, _) => {
            Err(Invalid::new("trigger", "is not for anybody to ask for").into())
        }
        (Trigger::Ready(_), Some(upstream)) => refused(
            "has_upstream",
            format!(
                "mirror {name} comes from {upstream}: lockstepctl mirror sync {name} pulls from there"
            ),
        ),
        (Trigger::Ready(_), None) if !plain => {
            Err(Invalid::new("trigger", "ready is for the whole mirror").into())
        }
        (Trigger::Asked(_) | Trigger::Push(_), None) if plain => refused(
            "no_upstream",
            format!(
                "mirror {name} has no upstream: when its tree is complete, say so with lockstepctl \
                 mirror ready {name}; --only NODE brings single replicas up to date"
            ),
        ),
        (Trigger::Push(_), _) if !mirror.enabled => refused(
            "disabled",
            format!("mirror {name} is disabled: lockstepctl mirror enable {name} first"),
        ),
        _ => Ok(()),
    }
}

fn of_replicas(
    world: &World,
    mirror: &Mirror,
    state: &MirrorState,
    ask: &Ask<'_>,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let name = &mirror.name;
    if state.generation == 0 || state.generation_on.as_ref() != Some(&mirror.master) {
        let message = format!(
            "the master {} has no complete tree yet: lockstepctl mirror sync {name} first",
            mirror.master
        );
        return Err(precondition("no_tree", format!("mirror/{name}"), message));
    }
    let nodes: BTreeSet<&NodeName> = ask.only.iter().collect();
    let mut admitted = Admitted::default();
    let mut state = state.clone();
    let fresh = state.number.saturating_add(1);
    let mut numbers = BTreeSet::new();
    for node in &nodes {
        check_enabled(world, node)?;
        let row = world.replica(name, node).map(|row| row.value.clone());
        let mut row = row.unwrap_or_else(|| ReplicaState::new(name.clone(), (*node).clone()));
        let before = row.clone();
        // One number for all that begin with this request.
        let mut counter = fresh - 1;
        let trigger = ask.trigger.clone();
        numbers.insert(want(&mut row.wanted, &mut counter, trigger, ask.allow, None, now));
        state.number = state.number.max(counter);
        if row != before {
            admitted.writes.push(Write::Put(Record::Replica(row)));
        }
    }
    if state.number >= fresh {
        admitted.writes.push(Write::Put(Record::MirrorState(state)));
    }
    let runs: Vec<String> =
        numbers.iter().map(|number| run_id(name, *number).to_string()).collect();
    admitted.detail = format!("run {} of {} asked for", runs.join(", "), list(nodes.into_iter()));
    admitted.runs = numbers.into_iter().map(|number| run_id(name, number)).collect();
    Ok(admitted)
}

/// One run more, unless one is to begin already: its number.
pub(super) fn want(
    wanted: &mut Option<Wanted>,
    newest: &mut u64,
    trigger: Trigger,
    allow: Allow,
    from: Option<&NodeName>,
    now: Timestamp,
) -> u64 {
    if let Some(wanted) = wanted {
        let there = &mut wanted.allow;
        there.empty |= allow.empty;
        there.delete |= allow.delete;
        there.space |= allow.space;
        return wanted.number;
    }
    *newest = newest.saturating_add(1);
    *wanted = Some(Wanted { number: *newest, trigger, allow, at: now, from: from.cloned() });
    *newest
}

pub(super) fn run_id(mirror: &MirrorName, number: u64) -> RunId {
    RunId { mirror: mirror.clone(), number }
}

pub(super) fn state_of(world: &World, name: &MirrorName, now: Timestamp) -> MirrorState {
    let state = world.mirror_states().get(name).map(|state| state.value.clone());
    state.unwrap_or_else(|| MirrorState::new(name.clone(), now))
}

pub(super) fn asked_by(who: &Actor) -> String {
    let mut text = who.to_string();
    text.truncate(text.floor_char_boundary(Trigger::WHO_MAX));
    text
}

fn check_enabled(world: &World, name: &NodeName) -> Result<(), Reject> {
    let admin = world.nodes().get(name).map(|node| node.value.admin);
    let (state, next) = match admin {
        Some(NodeAdmin::Enabled | NodeAdmin::Draining) => return Ok(()),
        Some(NodeAdmin::Disabled) => ("disabled", "enable it first"),
        Some(NodeAdmin::Expelled) => ("expelled", "name another node in its place"),
        None => ("not there", "join it first"),
    };
    let message = format!("node {name} is {state}: {next}");
    Err(precondition("wrong_state", format!("node/{name}"), message))
}
