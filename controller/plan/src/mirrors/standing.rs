//! How a run stands, its cascade included: for those who wait for it. Reads only.

use lockstep_model::mirror::{HopKind, Mirror, ReplicaState, Run, RunId, Trigger};
use lockstep_model::node::Node;
use lockstep_model::task::{OutcomeKind, Slot};
use lockstep_model::{NodeName, Timestamp};

use super::{pulls, works};
use crate::World;
use crate::members::copies;
use crate::seen::Away;

/// So many tries to take up its part of the mirror a node is waited for.
const PLACE_TRIES: u32 = 3;

/// A run with all its parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing<'a> {
    /// The head first; none before it begins.
    pub parts: Vec<&'a Run>,
    /// Replicas that are behind what the run brought, also those that are away.
    pub behind: Vec<&'a NodeName>,
    /// Nothing more will come of it by itself.
    pub done: bool,
    /// All parts succeeded, and nobody is behind.
    pub ok: bool,
}

/// None: no such run, or it is forgotten.
pub fn standing<'a>(world: &'a World, id: &RunId, now: Timestamp) -> Option<Standing<'a>> {
    let mirror = &world.mirrors().get(&id.mirror)?.value;
    let mut parts: Vec<&Run> = world.run(id).map(|row| &row.value).collect();
    parts.sort_by_key(|part| part.hop != HopKind::Upstream);
    let is_wanted = is_wanted(world, id);
    if parts.is_empty() && !is_wanted {
        return None;
    }
    let brought = parts.first().and_then(|head| {
        let is_ok = head.end.as_ref().is_some_and(|end| end.kind == OutcomeKind::Ok);
        (head.hop == HopKind::Upstream && is_ok).then_some(*head)
    });
    let mut behind = Vec::new();
    let mut waits = is_wanted || parts.iter().any(|part| part.end.is_none());
    if let Some(head) = brought {
        for copy in copies(world, mirror).0 {
            let replica = world.replica(&mirror.name, &copy.node.name).map(|row| &row.value);
            if replica.is_some_and(|replica| replica.generation >= head.generation) {
                continue;
            }
            behind.push(&copy.node.name);
            waits |= will_come(world, mirror, head, copy.node, replica, now);
        }
    }
    let done = !waits;
    let is_ok = |part: &&Run| {
        let caught_up = part.hop == HopKind::Replica
            && world
                .replica(&mirror.name, &part.node)
                .is_some_and(|row| row.value.generation >= part.generation);
        caught_up || part.end.as_ref().is_some_and(|end| end.kind == OutcomeKind::Ok)
    };
    let ok = done && behind.is_empty() && parts.iter().all(is_ok);
    Some(Standing { parts, behind, done, ok })
}

/// Asked for, and not begun.
fn is_wanted(world: &World, id: &RunId) -> bool {
    let state = world.mirror_states().get(&id.mirror);
    let of_master = state.and_then(|state| state.value.wanted.as_ref());
    let of_replicas =
        world.replicas_of(&id.mirror).filter_map(|replica| replica.value.wanted.as_ref());
    of_master.into_iter().chain(of_replicas).any(|wanted| wanted.number == id.number)
}

/// Whether a replica that is behind will have it soon: it is not away, can have the tree, and has not
/// given up.
fn will_come(
    world: &World,
    mirror: &Mirror,
    head: &Run,
    node: &Node,
    replica: Option<&ReplicaState>,
    now: Timestamp,
) -> bool {
    if !works(node) || world.away(&node.name, now) == Away::Yes {
        return false;
    }
    // It cannot have its tree where that is to be, which a person has to mend.
    let place = world.newest(&node.name, &Slot::Mirror(mirror.name.clone()));
    if place.is_some_and(|task| task.attempt > PLACE_TRIES && !task.succeeded()) {
        return false;
    }
    if replica.is_some_and(|replica| replica.current.is_some() || replica.wanted.is_some()) {
        return true;
    }
    if !mirror.enabled && matches!(head.trigger, Trigger::Schedule(_)) {
        return false;
    }
    let last = pulls::newest(world, mirror, &node.name);
    !last.is_some_and(|(task, pull)| {
        let failed = task.ended.as_ref().is_some_and(|end| end.outcome.kind != OutcomeKind::Ok);
        failed && pull.generation >= head.generation
    })
}
