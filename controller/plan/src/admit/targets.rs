//! The named targets of a sync: added, removed, set as a whole. Those by label come and go with the
//! labels.

use std::collections::BTreeSet;

use lockstep_model::record::Record;
use lockstep_model::sync::remote::Scheme;
use lockstep_model::sync::{COMMENTS_MAX, Comment, Remote, Sync, TARGETS_MAX, Target, TargetAt};
use lockstep_model::{Invalid, NodeName, Reject, SyncName};

use super::syncs::{check, check_node, find, list};
use super::{Admitted, precondition};
use crate::World;
use crate::members::members_of;

/// A target that is there in the same place gets the limit that is named, if one is.
pub(super) fn add_targets(
    world: &World,
    name: &SyncName,
    targets: &[Target],
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    if targets.is_empty() {
        return Err(Invalid::new("targets", "must name at least one node:/path").into());
    }
    let mut sync = before.clone();
    let limited = |target: &Target| {
        let there = before.target(&target.node).filter(|there| there.at == target.at)?;
        Some(Target { bwlimit: target.bwlimit.or(there.bwlimit), ..there.clone() })
    };
    let wanted: Vec<Target> =
        targets.iter().map(|target| limited(target).unwrap_or_else(|| target.clone())).collect();
    sync.targets.retain(|there| {
        let anew = wanted.iter().find(|target| target.node == there.node);
        anew.is_none_or(|target| target.at != there.at)
    });
    add(&mut sync, &wanted)?;
    if sync == *before {
        return Ok(Admitted::already(format!("sync {name} has these targets already")));
    }
    check(world, &sync)?;
    let nodes = |is_new: bool| {
        let others = sync.targets.iter().filter(|target| !before.targets.contains(target));
        list(others.map(|t| &t.node).filter(|node| before.target(node).is_none() == is_new))
    };
    let (added, limited) = (nodes(true), nodes(false));
    let mut parts = Vec::new();
    if !added.is_empty() {
        parts.push(format!("{added} added to sync {name}"));
    }
    if !limited.is_empty() {
        parts.push(format!("limit of {limited} changed in sync {name}"));
    }
    Ok(Admitted::put(Record::Sync(sync), parts.join("; ")))
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
        if members_of(world, &sync).iter().any(|member| member.node == node) {
            let message = format!(
                "node {node} is a target of sync {name} because of its labels: change those, or \
                 the selector"
            );
            return Err(precondition("selected", format!("sync/{name}/{node}"), message));
        }
        let message =
            format!("node {node} is no target of sync {name}: see lockstepctl sync show {name}");
        return Err(Reject::not_found(format!("sync/{name}/{node}"), message));
    }
    sync.targets.retain(|target| !nodes.contains(&target.node));
    let detail = format!("{} removed from sync {name}; files stay", list(nodes.iter()));
    Ok(Admitted::put(Record::Sync(sync), detail))
}

/// The list as a file has it.
pub(super) fn set_targets(
    world: &World,
    name: &SyncName,
    targets: &[Target],
    comments: &[Comment],
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    if comments.len() > COMMENTS_MAX {
        let problem = format!("must be at most {COMMENTS_MAX}, not {}", comments.len());
        return Err(Invalid::new("comments", problem).into());
    }
    for (at, comment) in comments.iter().enumerate() {
        comment.check().map_err(|problem| problem.within(format_args!("comments[{at}]")))?;
    }
    let mut sync = Sync { targets: Vec::new(), comments: comments.to_vec(), ..before.clone() };
    add(&mut sync, targets)?;
    if sync == *before {
        return Ok(Admitted::already(format!("sync {name} has just this list already")));
    }
    check(world, &sync)?;
    let names = |sync: &Sync| -> BTreeSet<NodeName> {
        sync.targets.iter().map(|target| target.node.clone()).collect()
    };
    let (old, new) = (names(before), names(&sync));
    let mut parts = Vec::new();
    for (what, nodes) in [("added", new.difference(&old)), ("removed", old.difference(&new))] {
        let shown = list(nodes);
        if !shown.is_empty() {
            parts.push(format!("{what} {shown}"));
        }
    }
    let moved = sync
        .targets
        .iter()
        .filter(|target| before.target(&target.node).is_some_and(|there| there != *target));
    let shown = list(moved.map(|target| &target.node));
    if !shown.is_empty() {
        parts.push(format!("changed {shown}"));
    }
    let what = if parts.is_empty() { "comments changed".to_owned() } else { parts.join("; ") };
    Ok(Admitted::put(Record::Sync(sync), format!("targets of sync {name}: {what}")))
}

/// Adds what is new, and keeps the targets sorted. The same target twice is one.
pub(super) fn add(sync: &mut Sync, targets: &[Target]) -> Result<(), Reject> {
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

/// Nodes must have joined; a target without an agent may not be called like one that has.
pub(super) fn check_targets(world: &World, sync: &Sync) -> Result<(), Reject> {
    let before = world.syncs().get(&sync.name).map(|sync| &sync.value);
    for target in &sync.targets {
        let is_new = before.is_none_or(|before| before.target(&target.node) != Some(target));
        match &target.at {
            TargetAt::Node(_) if is_new => check_node(world, "targets", &target.node)?,
            TargetAt::Remote(_) if is_new && world.nodes().contains_key(&target.node) => {
                let problem = format!(
                    "{target}: {0} is a node with an agent: name it {0}:/path, or call this target \
                     otherwise with NAME={1}",
                    target.node, target.at
                );
                return Err(Invalid::new("targets", problem).into());
            }
            TargetAt::Remote(Remote { scheme: Scheme::Ssh, secret: None, .. }) => {
                let problem = format!(
                    "{target}: ssh takes a key here and no password: add ?key=NAME, a file of the \
                     secrets directory on {}",
                    sync.source.node
                );
                return Err(Invalid::new("targets", problem).into());
            }
            _ => {}
        }
    }
    Ok(())
}
