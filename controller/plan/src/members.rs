//! Who belongs to a sync or a mirror: those named, and the nodes whose labels match; and who uses
//! which directory. Reads only.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lockstep_model::cluster::{self, Cluster, Instance};
use lockstep_model::mirror::{Mirror, REPLICAS_MAX};
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::path::DirPath;
use lockstep_model::rate::Rate;
use lockstep_model::sync::{Place, Sync, TARGETS_MAX, TargetAt};
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{ClusterName, MirrorName, NodeName, SyncName, Timestamp};

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

/// Who uses a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    Sync(SyncName),
    Mirror(MirrorName),
    Cluster(ClusterName),
}

impl Owner {
    /// As it stands in reasons and refusals: `sync/webroot`.
    pub fn subject(&self) -> String {
        match self {
            Self::Sync(sync) => format!("sync/{sync}"),
            Self::Mirror(mirror) => format!("mirror/{mirror}"),
            Self::Cluster(cluster) => format!("cluster/{cluster}"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync(sync) => write!(f, "sync {sync}"),
            Self::Mirror(mirror) => write!(f, "mirror {mirror}"),
            Self::Cluster(cluster) => write!(f, "cluster {cluster}"),
        }
    }
}

/// The directories that syncs, mirrors and clusters use, by node; made once for many questions.
#[derive(Clone, Default, Debug)]
pub struct Uses {
    by_node: BTreeMap<NodeName, Vec<Use>>,
}

#[derive(Clone, Debug)]
struct Use {
    owner: Owner,
    age: Timestamp,
    path: DirPath,
    written: bool,
    selected: bool,
}

impl Use {
    /// Two syncs may read one directory, and no sync may write what another reads, so that there are
    /// no loops of syncs. A sync may read what a mirror writes. A running database's files are for
    /// nobody else.
    fn clashes(&self, owner: &Owner, path: &DirPath, written: bool) -> bool {
        let in_one = match (&self.owner, owner) {
            (Owner::Mirror(_), _) | (_, Owner::Mirror(_)) => self.written && written,
            (Owner::Sync(_) | Owner::Cluster(_), Owner::Sync(_) | Owner::Cluster(_)) => {
                self.written || written
            }
        };
        in_one && self.owner != *owner && self.path.overlaps(path)
    }
}

impl Uses {
    pub(crate) fn of(world: &World) -> Self {
        let mut uses = Self::default();
        for sync in world.syncs().values() {
            uses.note_sync(world, &sync.value);
        }
        for mirror in world.mirrors().values() {
            uses.note_mirror(world, &mirror.value);
        }
        for cluster in world.clusters().values() {
            uses.note_cluster(&cluster.value);
        }
        uses
    }

    pub(crate) fn forget(&mut self, owner: &Owner) {
        self.by_node.values_mut().for_each(|used| used.retain(|used| used.owner != *owner));
    }

    fn note(&mut self, node: &NodeName, used: Use) {
        match self.by_node.get_mut(node) {
            Some(all) => all.push(used),
            None => drop(self.by_node.insert(node.clone(), vec![used])),
        }
    }

    fn note_sync(&mut self, world: &World, sync: &Sync) {
        let used = |path: &DirPath, written, selected| Use {
            owner: Owner::Sync(sync.name.clone()),
            age: sync.created_at,
            path: path.clone(),
            written,
            selected,
        };
        self.note(&sync.source.node, used(&sync.source.path, false, false));
        for target in &sync.targets {
            if let TargetAt::Node(path) = &target.at {
                self.note(&target.node, used(path, true, false));
            }
        }
        let Some(selected) = &sync.selected else { return };
        let nodes = world.nodes().values().map(|node| &node.value);
        for node in nodes.filter(|node| is_selected(sync, node)) {
            self.note(&node.name, used(&selected.path, true, true));
        }
    }

    pub(crate) fn note_mirror(&mut self, world: &World, mirror: &Mirror) {
        let used = |dest: &DirPath, selected| Use {
            owner: Owner::Mirror(mirror.name.clone()),
            age: mirror.created_at,
            path: dest.join(&mirror.dir),
            written: true,
            selected,
        };
        self.note(&mirror.master, used(&mirror.dest, false));
        for place in &mirror.replicas {
            self.note(&place.node, used(&place.path, false));
        }
        let Some(selected) = &mirror.selected else { return };
        let nodes = world.nodes().values().map(|node| &node.value);
        for node in nodes.filter(|node| mirror.selects(node) && is_there(node)) {
            self.note(&node.name, used(&selected.path, true));
        }
    }

    fn note_cluster(&mut self, cluster: &Cluster) {
        for member in &cluster.members {
            for path in dirs(cluster, member) {
                let owner = Owner::Cluster(cluster.name.clone());
                let age = cluster.created_at;
                self.note(&member.node, Use { owner, age, path, written: true, selected: false });
            }
        }
    }

    /// Another one that `owner` may not share the directory with that it writes. What is selected
    /// gives way to what is named, and to what is older.
    pub(crate) fn in_the_way(
        &self,
        owner: &Owner,
        age: Timestamp,
        node: &NodeName,
        path: &DirPath,
    ) -> Option<&Owner> {
        let mut others = self.by_node.get(node).into_iter().flatten();
        let clash = |other: &&Use| {
            other.clashes(owner, path, true)
                && (!other.selected || (other.age, &other.owner) < (age, owner))
        };
        others.find(clash).map(|other| &other.owner)
    }

    /// Another one that uses a directory of this node that overlaps, and may not. What gave way
    /// already does not count.
    pub(crate) fn clash(
        &self,
        owner: &Owner,
        place: &Place,
        written: bool,
    ) -> Option<(&Owner, &DirPath, bool)> {
        let mut others = self.by_node.get(&place.node).into_iter().flatten();
        let clash = |other: &&Use| {
            other.clashes(owner, &place.path, written)
                && !(other.selected
                    && self.in_the_way(&other.owner, other.age, &place.node, &other.path).is_some())
        };
        let found = others.find(clash)?;
        Some((&found.owner, &found.path, found.written))
    }
}

/// A member's directories: of its data, and of its log when that is elsewhere.
pub(crate) fn dirs(cluster: &Cluster, member: &cluster::Member) -> impl Iterator<Item = DirPath> {
    let Instance { data_dir, wal_dir, .. } = cluster.instance(member);
    data_dir.into_iter().chain(wal_dir)
}

fn is_there(node: &Node) -> bool {
    node.admin != NodeAdmin::Expelled
}

/// The targets sorted by name, and the nodes that match and cannot be one.
pub fn members<'a>(
    world: &'a World,
    uses: &Uses,
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
        let me = Owner::Sync(sync.name.clone());
        if let Some(other) = uses.in_the_way(&me, sync.created_at, name, &selected.path) {
            let why = format!(
                "{name} matches {}, but {other} uses a directory there that overlaps {}: \
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
        None => members(world, &Uses::default(), sync).0,
        Some(_) => members(world, world.uses(), sync).0,
    }
}

/// The nodes that have a part in a sync.
pub fn nodes<'a>(world: &'a World, uses: &Uses, sync: &'a Sync) -> BTreeSet<&'a NodeName> {
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

/// A replica of a mirror that is told something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy<'a> {
    pub node: &'a Node,
    pub tree: DirPath,
    /// Because of its labels.
    pub selected: bool,
}

/// The replicas sorted by name, and those that cannot be one.
pub fn copies<'a>(world: &'a World, mirror: &'a Mirror) -> (Vec<Copy<'a>>, Vec<LeftOut<'a>>) {
    let (mut copies, mut left_out) = (Vec::new(), Vec::new());
    for place in &mirror.replicas {
        let name = &mirror.name;
        let why = match world.nodes().get(&place.node).map(|node| &node.value) {
            Some(node) if is_there(node) => {
                copies.push(Copy { node, tree: place.path.join(&mirror.dir), selected: false });
                continue;
            }
            Some(_) => "was expelled",
            None => "is not there",
        };
        let why = format!(
            "{} {why} and is left out: lockstepctl mirror update {name} names other replicas",
            place.node
        );
        left_out.push(LeftOut { node: &place.node, why });
    }
    let Some(selected) = &mirror.selected else { return (copies, left_out) };
    let me = Owner::Mirror(mirror.name.clone());
    let tree = selected.path.join(&mirror.dir);
    let nodes = world.nodes().values().map(|node| &node.value);
    for node in nodes.filter(|node| mirror.selects(node) && is_there(node)) {
        let name = &node.name;
        if let Some(other) = world.uses().in_the_way(&me, mirror.created_at, name, &tree) {
            let why = format!(
                "{name} matches {}, but {other} uses a directory there that overlaps {tree}: change \
                 one of them, or the label",
                selected.selector
            );
            left_out.push(LeftOut { node: name, why });
        } else if copies.len() >= REPLICAS_MAX {
            let why = format!("{name} matches, but the mirror has {REPLICAS_MAX} replicas already");
            left_out.push(LeftOut { node: name, why });
        } else {
            copies.push(Copy { node, tree: tree.clone(), selected: true });
        }
    }
    copies.sort_by(|a, b| a.node.name.cmp(&b.node.name));
    (copies, left_out)
}
