//! Who belongs to a sync: those named, and the nodes whose labels match. Reads only.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::path::DirPath;
use lockstep_model::rate::Rate;
use lockstep_model::sync::{Place, Sync, TARGETS_MAX, TargetAt};
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{NodeName, SyncName};

use crate::World;

/// One target of a sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member<'a> {
    pub node: &'a NodeName,
    pub at: Cow<'a, TargetAt>,
    pub bwlimit: Option<Rate>,
    /// Because of its labels.
    pub selected: bool,
}

impl Member<'_> {
    /// None for one without an agent.
    pub fn path(&self) -> Option<&DirPath> {
        match &*self.at {
            TargetAt::Node(path) => Some(path),
            TargetAt::Remote(_) => None,
        }
    }
}

/// A node whose labels match, and why it is no target all the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut<'a> {
    pub node: &'a NodeName,
    pub why: String,
}

/// Whether the labels of `node` make it a target, unless something is in the way.
pub fn is_selected(sync: &Sync, node: &Node) -> bool {
    sync.selected.as_ref().is_some_and(|selected| {
        selected.selector.matches(&node.labels)
            && !sync.names(&node.name)
            && node.admin != NodeAdmin::Expelled
    })
}

/// The source, a named target or a selected one.
pub fn involves(world: &World, sync: &Sync, node: &NodeName) -> bool {
    let by_label = || world.nodes().get(node).is_some_and(|node| is_selected(sync, &node.value));
    sync.names(node) || by_label()
}

/// The directories that syncs use, by node; made once for many questions.
pub struct Uses<'a> {
    by_node: BTreeMap<&'a NodeName, Vec<Use<'a>>>,
}

struct Use<'a> {
    sync: &'a Sync,
    path: &'a DirPath,
    written: bool,
    selected: bool,
}

impl<'a> Uses<'a> {
    pub fn of(world: &'a World) -> Self {
        let mut by_node: BTreeMap<&NodeName, Vec<Use>> = BTreeMap::new();
        for sync in world.syncs().values().map(|sync| &sync.value) {
            let mut note = |node, path, written, selected| {
                by_node.entry(node).or_default().push(Use { sync, path, written, selected });
            };
            note(&sync.source.node, &sync.source.path, false, false);
            for target in &sync.targets {
                if let TargetAt::Node(path) = &target.at {
                    note(&target.node, path, true, false);
                }
            }
            let Some(selected) = &sync.selected else { continue };
            let nodes = world.nodes().values().map(|node| &node.value);
            for node in nodes.filter(|node| is_selected(sync, node)) {
                note(&node.name, &selected.path, true, true);
            }
        }
        Self { by_node }
    }

    /// Another sync that `sync` may not share the directory with. Selected targets give way to what
    /// is named, and to those of older syncs.
    fn in_the_way(&self, sync: &Sync, node: &NodeName, path: &DirPath) -> Option<&'a SyncName> {
        let age = |sync: &'a Sync| (sync.created_at, &sync.name);
        let others = self.by_node.get(node).into_iter().flatten();
        let clash = |other: &&Use<'a>| {
            other.sync.name != sync.name
                && other.path.overlaps(path)
                && (!other.selected || age(other.sync) < (sync.created_at, &sync.name))
        };
        others.into_iter().find(clash).map(|other| &other.sync.name)
    }

    /// A sync that uses a directory of this node that overlaps, where one of the two writes. What
    /// gave way already does not count.
    pub fn clash(
        &self,
        sync: &SyncName,
        place: &Place,
        written: bool,
    ) -> Option<(&'a SyncName, &'a DirPath, bool)> {
        let others = self.by_node.get(&place.node).into_iter().flatten();
        let clash = |other: &&Use<'a>| {
            other.sync.name != *sync
                && (written || other.written)
                && other.path.overlaps(&place.path)
                && !(other.selected
                    && self.in_the_way(other.sync, &place.node, other.path).is_some())
        };
        let found = others.into_iter().find(clash)?;
        Some((&found.sync.name, found.path, found.written))
    }
}

/// The targets sorted by name, and the nodes that match and cannot be one.
pub fn members<'a>(
    world: &'a World,
    uses: &Uses<'_>,
    sync: &'a Sync,
) -> (Vec<Member<'a>>, Vec<LeftOut<'a>>) {
    let mut members: Vec<Member> = sync
        .targets
        .iter()
        .map(|target| Member {
            node: &target.node,
            at: Cow::Borrowed(&target.at),
            bwlimit: target.bwlimit,
            selected: false,
        })
        .collect();
    let mut left_out = Vec::new();
    let Some(selected) = &sync.selected else { return (members, left_out) };
    let nodes = world.nodes().values().map(|node| &node.value);
    for node in nodes.filter(|node| is_selected(sync, node)) {
        let name = &node.name;
        if let Some(other) = uses.in_the_way(sync, name, &selected.path) {
            let why = format!(
                "{name} matches {}, but sync {other} uses a directory there that overlaps {}: \
                 change one of them, or the label",
                selected.selector, selected.path
            );
            left_out.push(LeftOut { node: name, why });
        } else if members.len() >= TARGETS_MAX {
            let why = format!("{name} matches, but the sync has {TARGETS_MAX} targets already");
            left_out.push(LeftOut { node: name, why });
        } else {
            let at = Cow::Owned(TargetAt::Node(selected.path.clone()));
            members.push(Member { node: name, at, bwlimit: None, selected: true });
        }
    }
    members.sort_by(|a, b| a.node.cmp(b.node));
    (members, left_out)
}

/// As `members`, for one sync alone.
pub fn members_of<'a>(world: &'a World, sync: &'a Sync) -> Vec<Member<'a>> {
    match sync.selected {
        None => members(world, &Uses { by_node: BTreeMap::new() }, sync).0,
        Some(_) => members(world, &Uses::of(world), sync).0,
    }
}

/// The nodes that have a part in a sync.
pub fn nodes<'a>(world: &'a World, uses: &Uses<'_>, sync: &'a Sync) -> BTreeSet<&'a NodeName> {
    let targets = members(world, uses, sync).0.into_iter().map(|member| member.node);
    targets.chain([&sync.source.node]).collect()
}

/// The node that feeds a target, or is about to.
pub fn feeder<'a>(world: &'a World, sync: &'a Sync, target: &NodeName) -> &'a NodeName {
    feeder_now(world, sync, target).unwrap_or(&sync.source.node)
}

/// Who feeds a target as it was last told.
pub(crate) fn feeder_now<'a>(
    world: &'a World,
    sync: &Sync,
    target: &NodeName,
) -> Option<&'a NodeName> {
    match &world.newest(target, &Slot::Sync(sync.name.clone()))?.spec {
        TaskSpec::SyncTarget(target) => target.source.as_ref().map(|peer| &peer.node),
        _ => None,
    }
}
