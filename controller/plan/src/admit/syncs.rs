//! Syncs and their targets. The rule that matters: nothing writes a directory that another sync
//! reads or writes, so no loop of syncs can exist.

use std::collections::BTreeSet;

use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Key, Record, Write};
use lockstep_model::sync::{EXCLUDES_MAX, Place, Sync, SyncOptions, TARGETS_MAX};
use lockstep_model::{Invalid, NodeName, Reject, SyncName, Timestamp};

use super::{Admitted, SYNCS_MAX, check_room, precondition};
use crate::World;

pub(super) fn create(
    world: &World,
    name: &SyncName,
    source: &Place,
    targets: &[Place],
    options: &SyncOptions,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    check_options(options)?;
    if targets.is_empty() {
        return Err(Invalid::new("targets", "must name at least one node:/path").into());
    }
    let mut sync = Sync {
        name: name.clone(),
        source: source.clone(),
        targets: Vec::new(),
        options: options.clone(),
        created_at: now,
    };
    add(&mut sync, targets)?;
    if let Some(there) = world.syncs().get(name).map(|sync| &sync.value) {
        if (Sync { created_at: there.created_at, ..sync }) == *there {
            return Ok(Admitted::already(format!("sync {name} is just so already")));
        }
        let message = format!(
            "sync {name} exists and differs: see lockstepctl sync show {name}, choose another name \
             or delete it first"
        );
        return Err(Reject::exists(format!("sync/{name}"), message));
    }
    check_room("syncs", world.syncs().len(), SYNCS_MAX)?;
    check_node(world, "source", &source.node)?;
    check_overlaps(world, &sync)?;
    for target in &sync.targets {
        check_node(world, "targets", &target.node)?;
    }
    let to = list(sync.targets.iter().map(|target| &target.node));
    Ok(Admitted::put(Record::Sync(sync), format!("sync {name} created: {source} to {to}")))
}

pub(super) fn add_targets(
    world: &World,
    name: &SyncName,
    targets: &[Place],
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    if targets.is_empty() {
        return Err(Invalid::new("targets", "must name at least one node:/path").into());
    }
    let mut sync = before.clone();
    add(&mut sync, targets)?;
    let added: Vec<&Place> =
        sync.targets.iter().filter(|target| before.target(&target.node).is_none()).collect();
    if added.is_empty() {
        return Ok(Admitted::already(format!("sync {name} has these targets already")));
    }
    for target in &added {
        check_node(world, "targets", &target.node)?;
    }
    check_overlaps(world, &sync)?;
    let detail = format!("{} added to sync {name}", list(added.iter().map(|target| &target.node)));
    Ok(Admitted::put(Record::Sync(sync), detail))
}

pub(super) fn remove_targets(
    world: &World,
    name: &SyncName,
    nodes: &[NodeName],
) -> Result<Admitted, Reject> {
    let mut sync = find(world, name)?.clone();
    if nodes.is_empty() {
        return Err(Invalid::new("nodes", "must name at least one target").into());
    }
    if let Some(node) = nodes.iter().find(|node| sync.target(node).is_none()) {
        let message =
            format!("node {node} is no target of sync {name}: see lockstepctl sync show {name}");
        return Err(Reject::not_found(format!("sync/{name}/{node}"), message));
    }
    sync.targets.retain(|target| !nodes.contains(&target.node));
    let detail = format!("{} removed from sync {name}; files stay", list(nodes.iter()));
    Ok(Admitted::put(Record::Sync(sync), detail))
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

/// Adds what is new, and keeps the targets sorted. The same place twice is one target.
fn add(sync: &mut Sync, targets: &[Place]) -> Result<(), Reject> {
    for (at, target) in targets.iter().enumerate() {
        let wrong = |problem: String| Reject::from(Invalid::new(format!("targets[{at}]"), problem));
        if target.node == sync.source.node {
            let node = &target.node;
            return Err(wrong(format!("{node} is the source: a sync is between different nodes")));
        }
        match sync.targets.binary_search_by(|there| there.node.cmp(&target.node)) {
            Err(place) => sync.targets.insert(place, target.clone()),
            Ok(place) if sync.targets[place] == *target => {}
            Ok(place) => {
                let there = &sync.targets[place];
                let problem = format!(
                    "{target}: {there} is a target already, and a node has one directory per sync; \
                     remove the old one first"
                );
                return Err(wrong(problem));
            }
        }
    }
    if sync.targets.len() > TARGETS_MAX {
        let problem = format!("would be {}, at most {TARGETS_MAX} are allowed", sync.targets.len());
        return Err(Invalid::new("targets", problem).into());
    }
    Ok(())
}

fn check_node(world: &World, field: &str, name: &NodeName) -> Result<(), Reject> {
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

fn check_options(options: &SyncOptions) -> Result<(), Reject> {
    let SyncOptions { delete: _, excludes, delay } = options;
    if excludes.len() > EXCLUDES_MAX {
        let problem = format!("must be at most {EXCLUDES_MAX}, not {}", excludes.len());
        return Err(Invalid::new("excludes", problem).into());
    }
    if *delay > SyncOptions::DELAY_MAX || delay.0 % 1000 != 0 {
        let max = SyncOptions::DELAY_MAX;
        let problem = format!("must be whole seconds from 0s to {max}, not {} ms", delay.0);
        return Err(Invalid::new("delay", problem).into());
    }
    Ok(())
}

/// Two syncs may read one directory; as soon as one of them writes it, they must be apart.
fn check_overlaps(world: &World, sync: &Sync) -> Result<(), Reject> {
    let nodes: BTreeSet<&NodeName> = places(sync).map(|(place, _)| &place.node).collect();
    let others = world.syncs().values().map(|other| &other.value).filter(|o| o.name != sync.name);
    for other in others {
        for (there, written_there) in places(other).filter(|(p, _)| nodes.contains(&p.node)) {
            let Some((here, written_here)) =
                places(sync).find(|(place, _)| place.node == there.node)
            else {
                continue;
            };
            if (written_here || written_there) && here.path.overlaps(&there.path) {
                let part = if written_there { "writes" } else { "reads" };
                let message = format!(
                    "{here} overlaps {there}, which sync {} {part}: nothing may write a directory \
                     of another sync; choose another directory",
                    other.name
                );
                return Err(precondition("overlap", format!("sync/{}", other.name), message));
            }
        }
    }
    Ok(())
}

/// Each place of a sync, and whether it is written there.
fn places(sync: &Sync) -> impl Iterator<Item = (&Place, bool)> {
    std::iter::once((&sync.source, false)).chain(sync.targets.iter().map(|place| (place, true)))
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
