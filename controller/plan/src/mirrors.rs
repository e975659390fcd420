//! What each mirror needs next: its tree's place on every node, the runs of its master, and pulls of
//! replicas that are behind. Looks only at mirrors that changed or whose time has come.

mod agenda;
mod limits;
mod master;
mod places;
mod pulls;
mod remains;
mod replicas;
mod spread;
mod stages;
mod standing;

use std::collections::BTreeSet;

use lockstep_model::mirror::{Mirror, MirrorState, Run, RunId};
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::reason::Reason;
use lockstep_model::record::{Key, Record, TXN_WRITES_MAX, Write};
use lockstep_model::{MirrorName, NodeName, Revision, Timestamp};

pub use self::agenda::Rest;
pub(crate) use self::agenda::{Agenda, Queued};
pub use self::limits::Limits;
use self::limits::Room;
pub use self::standing::{Standing, standing};
use crate::World;
use crate::draft::Draft;
use crate::members::{Copy, copies};

pub(crate) fn plan(draft: &mut Draft<'_>) {
    let world = draft.world;
    let mut room = Room::of(world);
    let mut looked = BTreeSet::new();
    // Those that waited longest go first.
    for (name, queued) in world.agenda.queued() {
        if room.is_full() || draft.is_cut() {
            break;
        }
        if room.has(&queued.hosts) {
            looked.insert(name);
            look_silently(draft, &mut room, name);
        }
    }
    for name in world.agenda.due(draft.now) {
        if draft.is_cut() {
            break;
        }
        if looked.contains(name) {
            continue;
        }
        look_silently(draft, &mut room, name);
    }
    if let Some(at) = world.agenda.next_after(draft.now) {
        draft.wake(at);
    }
}

fn look_silently(draft: &mut Draft<'_>, room: &mut Room, name: &MirrorName) {
    let mut queued = None;
    let (until, is_quiet) = draft.apart(true, |draft| queued = look(draft, room, name));
    if is_quiet {
        let is_known = draft.world.mirrors().contains_key(name);
        draft.rest(name.clone(), Rest { until, queued, is_known });
    }
}

/// Why this mirror is as it is, and what it waits for.
pub fn reasons(world: &World, name: &MirrorName, now: Timestamp) -> Vec<Reason> {
    let mut draft = Draft::new(world, now, TXN_WRITES_MAX);
    let mut room = Room::of(world);
    look(&mut draft, &mut room, name);
    draft.finish().reasons
}

/// What one mirror needs now; where it stands in the queue if others' pulls go first.
fn look(draft: &mut Draft<'_>, room: &mut Room, name: &MirrorName) -> Option<Queued> {
    let world = draft.world;
    let Some(mirror) = world.mirrors().get(name) else {
        remains::clear(draft, name);
        return None;
    };
    if mirror.value.deleting {
        remains::delete(draft, &mirror.value);
        return None;
    }
    let parts = Parts::of(draft, &mirror.value, mirror.revision);
    let placed = places::bring(draft, &parts);
    remains::leave(draft, &parts);
    if placed.forgot {
        return None;
    }
    let state = world.mirror_states().get(name).map(|state| &state.value);
    let before = state.cloned().unwrap_or_else(|| MirrorState::new(name.clone(), draft.now));
    let mut replicas = replicas::record(draft, &parts, &placed);
    let mut master = master::advance(draft, &parts, &placed, room, &before, &replicas);
    replicas::start(draft, &parts, &placed, room, &mut master, &mut replicas);
    spread::follow(draft, &parts, &mut master, &replicas);
    if master.state != before {
        master.group.push(Write::Put(Record::MirrorState(master.state)));
    }
    if !master.group.is_empty() && !draft.write("mirror_run", master.group) {
        return None;
    }
    for replica in replicas {
        replica.write(draft);
    }
    prune(draft, &mirror.value);
    master.queued
}

/// One mirror with all that take part in it.
struct Parts<'a> {
    mirror: &'a Mirror,
    revision: Revision,
    /// None: expelled or gone.
    master: Option<&'a Node>,
    copies: Vec<Copy<'a>>,
}

impl<'a> Parts<'a> {
    fn of(draft: &mut Draft<'a>, mirror: &'a Mirror, revision: Revision) -> Self {
        let world = draft.world;
        let (copies, left_out) = copies(world, mirror);
        for out in left_out {
            draft.wait(part(&mirror.name, out.node), "left_out", out.why, None);
        }
        let master = world.nodes().get(&mirror.master).map(|node| &node.value);
        let master = master.filter(|node| node.admin != NodeAdmin::Expelled);
        if master.is_none() {
            let text = format!(
                "the master {0} was expelled or removed: lockstepctl mirror update {1} --master \
                 names another; replicas keep and serve what they have",
                mirror.master, mirror.name
            );
            draft.wait(part(&mirror.name, &mirror.master), "no_master", text, None);
        }
        for node in copies.iter().map(|copy| copy.node).chain(master) {
            explain_admin(draft, mirror, node);
        }
        Self { mirror, revision, master, copies }
    }

    /// Whether the master may pull from there: the upstream, or a replica.
    fn has_source(&self, from: Option<&NodeName>) -> bool {
        from.is_none_or(|from| self.copies.iter().any(|copy| copy.node.name == *from))
    }

    fn involves(&self, node: &NodeName) -> bool {
        self.master.is_some_and(|master| master.name == *node)
            || self.copies.iter().any(|copy| copy.node.name == *node)
    }
}

fn explain_admin(draft: &mut Draft<'_>, mirror: &Mirror, node: &Node) {
    let name = &node.name;
    let (rule, what, next) = match node.admin {
        NodeAdmin::Enabled | NodeAdmin::Expelled => return,
        NodeAdmin::Draining => {
            ("node_draining", "draining: it stays in step, load balancers are told", "resume")
        }
        NodeAdmin::Disabled => {
            ("node_disabled", "disabled: nothing is pulled, load balancers are told", "enable")
        }
    };
    let text = format!("{name} is {what} NOT_SERVING; lockstepctl node {next} {name}");
    draft.wait(part(&mirror.name, name), rule, text, None);
}

fn works(node: &Node) -> bool {
    matches!(node.admin, NodeAdmin::Enabled | NodeAdmin::Draining)
}

fn run_id(mirror: &Mirror, number: u64) -> RunId {
    RunId { mirror: mirror.name.clone(), number }
}

/// `mirror/fedora`
fn subject(mirror: &MirrorName) -> String {
    format!("mirror/{mirror}")
}

/// `mirror/fedora/web1`: a node's part in a mirror.
fn part(mirror: &MirrorName, node: &NodeName) -> String {
    format!("mirror/{mirror}/{node}")
}

/// Keeps the newest numbers, and the run that the replicas' generation is of.
fn prune(draft: &mut Draft<'_>, mirror: &Mirror) {
    let world = draft.world;
    let Some(state) = world.mirror_states().get(&mirror.name).map(|state| &state.value) else {
        return;
    };
    for (id, rows) in world.runs_of(&mirror.name) {
        if id.number.saturating_add(Run::KEPT) > state.number {
            return;
        }
        for node in rows.keys().filter(|_| id.number != state.generation_run) {
            let key = Key::Run(id.clone(), node.clone());
            if !draft.writes(&key) && !draft.write("prune_runs", [Write::Delete(key)]) {
                return;
            }
        }
    }
}
