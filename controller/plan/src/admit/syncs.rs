//! Syncs as a whole: made, changed, paused, deleted. The rule that matters: nothing writes a
//! directory that another sync reads or writes, so no loop of syncs can exist.

use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Key, Record, Write};
use lockstep_model::request::SelectedChange;
use lockstep_model::setting::{Settings, Value};
use lockstep_model::sync::{Place, Selected, Sync, SyncOptions, Target};
use lockstep_model::{Invalid, NodeName, Reject, SyncName, Timestamp};

use super::targets::{add, check_targets};
use super::{Admitted, SYNCS_MAX, check_room, precondition};
use crate::World;
use crate::members::{Owner, Uses, is_selected};
use crate::schedule::Zone;

/// What a sync is made of.
pub(super) struct New<'a> {
    pub name: &'a SyncName,
    pub source: &'a Place,
    pub targets: &'a [Target],
    pub selected: Option<&'a Selected>,
    pub options: &'a SyncOptions,
    pub paused: bool,
}

pub(super) fn create(world: &World, new: &New<'_>, now: Timestamp) -> Result<Admitted, Reject> {
    let New { name, source, targets, selected, options, paused } = *new;
    if targets.is_empty() && selected.is_none() {
        let problem = "must name at least one node:/path, or select nodes by label";
        return Err(Invalid::new("targets", problem).into());
    }
    let mut sync = Sync {
        name: name.clone(),
        source: source.clone(),
        targets: Vec::new(),
        selected: selected.cloned(),
        options: in_known_zone(options.clone())?,
        paused,
        generation: 0,
        comments: Vec::new(),
        created_at: now,
    };
    add(&mut sync, targets)?;
    if let Some(there) = world.syncs().get(name).map(|sync| &sync.value) {
        let Sync { generation, comments, created_at, .. } = there.clone();
        if (Sync { generation, comments, created_at, ..sync }) == *there {
            return Ok(Admitted::already(format!("sync {name} is just so already")));
        }
        let message = format!(
            "sync {name} exists and differs: see lockstepctl sync show {name}, change it with \
             lockstepctl sync update {name}, or choose another name"
        );
        return Err(Reject::exists(format!("sync/{name}"), message));
    }
    check_room("syncs", world.syncs().len(), SYNCS_MAX)?;
    check_node(world, "source", &source.node)?;
    check(world, &sync)?;
    let mut to = list(sync.targets.iter().map(|target| &target.node));
    if let Some(Selected { selector, path }) = &sync.selected {
        let and = if to.is_empty() { "" } else { " and " };
        to = format!("{to}{and}nodes with {selector} at {path}");
    }
    Ok(Admitted::put(Record::Sync(sync), format!("sync {name} created: {source} to {to}")))
}

pub(super) fn update(
    world: &World,
    name: &SyncName,
    values: &[Value],
    selected: Option<&SelectedChange>,
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    let mut sync = before.clone();
    sync.options.set(values.iter().map(|v| (v.name.as_str(), v.text.as_str())))?;
    sync.options = in_known_zone(sync.options)?;
    match selected {
        None => {}
        Some(SelectedChange::To(selected)) => sync.selected = Some(selected.clone()),
        Some(SelectedChange::Nobody) => sync.selected = None,
    }
    if sync == *before {
        return Ok(Admitted::already(format!("sync {name} is just so already")));
    }
    check(world, &sync)?;
    Ok(Admitted::put(Record::Sync(sync), format!("sync {name} changed")))
}

/// As the tables of zones spell it.
fn in_known_zone(mut options: SyncOptions) -> Result<SyncOptions, Invalid> {
    let zone = &mut options.schedules.zone;
    let known = Zone::find(zone).map_err(|e| Invalid::new("schedule-timezone", e.problem))?;
    *zone = known.name().clone();
    Ok(options)
}

/// What holds for every definition, a new one or a changed one.
pub(super) fn check(world: &World, sync: &Sync) -> Result<(), Reject> {
    sync.options.check()?;
    check_targets(world, sync)?;
    let named = sync.places().map(|place| (place, true));
    for (place, written) in std::iter::once((sync.source.clone(), false)).chain(named) {
        check_overlap(world.uses(), sync, &place, written)?;
    }
    let Some(selected) = &sync.selected else { return Ok(()) };
    if let Some(source) = world.nodes().get(&sync.source.node)
        && selected.selector.matches(&source.value.labels)
    {
        let problem = format!(
            "{} matches the source {}: add a term that leaves it out",
            selected.selector, sync.source.node
        );
        return Err(Invalid::new("selector", problem).into());
    }
    let nodes = world.nodes().values().map(|node| &node.value);
    for node in nodes.filter(|node| is_selected(sync, node)) {
        let place = Place { node: node.name.clone(), path: selected.path.clone() };
        check_overlap(world.uses(), sync, &place, true)?;
    }
    Ok(())
}

/// Two syncs may read one directory; as soon as one of them writes it, they must be apart.
fn check_overlap(uses: &Uses, sync: &Sync, here: &Place, written: bool) -> Result<(), Reject> {
    let me = Owner::Sync(sync.name.clone());
    let Some((other, path, written_there)) = uses.clash(&me, here, written) else {
        return Ok(());
    };
    let part = if written_there { "writes" } else { "reads" };
    let message = format!(
        "{here} overlaps {}:{path}, which {other} {part}: nothing may write a directory of \
         another; choose another directory",
        here.node
    );
    Err(precondition("overlap", other.subject(), message))
}

pub(super) fn set_paused(world: &World, name: &SyncName, paused: bool) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    let state = if paused { "paused" } else { "running" };
    if before.paused == paused {
        return Ok(Admitted::already(format!("sync {name} is {state} already")));
    }
    let sync = Sync { paused, ..before.clone() };
    Ok(Admitted::put(Record::Sync(sync), format!("sync {name} is {state} now")))
}

/// Slavemaster's "restart": every node is told its part anew, whatever it confirmed before.
pub(super) fn reapply(world: &World, name: &SyncName) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    let sync = Sync { generation: before.generation.wrapping_add(1), ..before.clone() };
    Ok(Admitted::put(
        Record::Sync(sync),
        format!("every node of sync {name} takes up its part anew"),
    ))
}

/// The planner then has every node release its part.
pub(super) fn delete(world: &World, name: &SyncName) -> Result<Admitted, Reject> {
    find(world, name)?;
    let writes = vec![Write::Delete(Key::Sync(name.clone()))];
    let detail = format!("sync {name} deleted; files stay");
    Ok(Admitted { writes, detail, ..Admitted::default() })
}

pub(super) fn find<'a>(world: &'a World, name: &SyncName) -> Result<&'a Sync, Reject> {
    world.syncs().get(name).map(|sync| &sync.value).ok_or_else(|| {
        let message = format!("sync {name} does not exist: see lockstepctl sync list");
        Reject::not_found(format!("sync/{name}"), message)
    })
}

pub(super) fn check_node(world: &World, field: &str, name: &NodeName) -> Result<(), Reject> {
    let Some(node) = world.nodes().get(name) else {
        let message = format!(
            "{field}: node {name} has not joined: make a token for it with lockstepctl token \
             create --node {name}"
        );
        return Err(Reject::not_found(format!("node/{name}"), message));
    };
    if node.value.admin == NodeAdmin::Expelled {
        let message = format!("{field}: node {name} was expelled: choose another");
        return Err(precondition("node_expelled", format!("node/{name}"), message));
    }
    Ok(())
}

/// The first few names, and how many more.
pub(super) fn list<'a>(nodes: impl Iterator<Item = &'a NodeName>) -> String {
    const SHOWN_MAX: usize = 5;
    let mut names: Vec<String> = nodes.map(ToString::to_string).collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    names.truncate(SHOWN_MAX);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", names.join(", "))
}
