//! Who feeds whom when a sync has a fanout: a tree that changes as little as it can. Pure: what is
//! up and who feeds whom now come in, the tree comes out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_model::NodeName;

/// What a tree is made of.
pub(crate) struct Wanted<'a, 'b> {
    pub source: &'a NodeName,
    /// Sorted.
    pub targets: &'b [&'a NodeName],
    /// Most that one node feeds.
    pub fanout: usize,
    /// Who feeds a target now.
    pub now: &'b dyn Fn(&NodeName) -> Option<&'a NodeName>,
    /// May feed others: up, and not failing itself.
    pub sound: &'b dyn Fn(&NodeName) -> bool,
}

/// The parent of every target. Every target is reached from the source through sound nodes alone.
pub(crate) fn tree<'a>(wanted: &Wanted<'a, '_>) -> BTreeMap<&'a NodeName, &'a NodeName> {
    let Wanted { source, targets, fanout, now, sound } = *wanted;
    let feeds = |node: &NodeName| node == source || sound(node);
    let (alive, rest): (Vec<_>, Vec<_>) = targets.iter().copied().partition(|node| sound(node));
    let mut kept: BTreeMap<&NodeName, Vec<&NodeName>> = BTreeMap::new();
    for target in &alive {
        if let Some(parent) = now(target).filter(|parent| feeds(parent)) {
            kept.entry(parent).or_default().push(target);
        }
    }
    let mut tree = Tree { parents: BTreeMap::new(), room: VecDeque::new() };
    let mut walk = VecDeque::from([source]);
    let mut left: BTreeSet<&NodeName> = alive.into_iter().collect();
    while let Some(node) = walk.pop_front() {
        let mut room = fanout;
        for child in kept.remove(node).unwrap_or_default().into_iter().take(fanout) {
            if left.remove(child) {
                room -= 1;
                tree.parents.insert(child, node);
                walk.push_back(child);
            }
        }
        tree.room.extend(std::iter::repeat_n(node, room));
    }
    // Breadth first, so the tree stays shallow. Each brings more room than it takes, and the walk has
    // left some.
    for node in left {
        tree.attach(node, None);
        tree.room.extend(std::iter::repeat_n(node, fanout));
    }
    // The others feed nobody, so they come last. Where so many are away that the rest has no room, the
    // source takes more than its share rather than leave them without anybody.
    for node in rest {
        tree.attach(node, now(node));
        tree.parents.entry(node).or_insert(source);
    }
    tree.parents
}

struct Tree<'a> {
    parents: BTreeMap<&'a NodeName, &'a NodeName>,
    /// Each node as often as it may take another child, those near the source first.
    room: VecDeque<&'a NodeName>,
}

impl<'a> Tree<'a> {
    /// Where it was, if there is room, else as near to the source as may be.
    fn attach(&mut self, node: &'a NodeName, before: Option<&'a NodeName>) {
        let same = before.and_then(|before| self.room.iter().position(|room| *room == before));
        if let Some(parent) = self.room.remove(same.unwrap_or(0)) {
            self.parents.insert(node, parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn depth(parents: &BTreeMap<&NodeName, &NodeName>, node: &NodeName) -> usize {
        let mut at = node;
        let mut depth = 0;
        while let Some(parent) = parents.get(at) {
            at = parent;
            depth += 1;
            assert!(depth <= parents.len(), "a loop at {node}");
        }
        assert_eq!(at.as_str(), "m", "{node} hangs off {at}");
        depth
    }

    fn name(n: usize) -> NodeName {
        format!("w{n:03}").parse().unwrap()
    }

    fn make<'a>(
        source: &'a NodeName,
        targets: &'a [&'a NodeName],
        fanout: usize,
        now: &BTreeMap<NodeName, NodeName>,
        all: &'a [NodeName],
        down: &BTreeSet<usize>,
    ) -> BTreeMap<&'a NodeName, &'a NodeName> {
        let find = |parent: &NodeName| all.iter().chain([source]).find(|node| *node == parent);
        tree(&Wanted {
            source,
            targets,
            fanout,
            now: &|node| now.get(node).and_then(find),
            sound: &|node| !down.iter().any(|n| name(*n) == *node),
        })
    }

    fn owned(tree: &BTreeMap<&NodeName, &NodeName>) -> BTreeMap<NodeName, NodeName> {
        tree.iter().map(|(child, parent)| ((*child).clone(), (*parent).clone())).collect()
    }

    #[test]
    fn twelve_targets_by_three_are_two_deep() {
        let (source, all) = ("m".parse().unwrap(), (0..12).map(name).collect::<Vec<_>>());
        let targets: Vec<&NodeName> = all.iter().collect();
        let tree = make(&source, &targets, 3, &BTreeMap::new(), &all, &BTreeSet::new());
        let depths: Vec<_> = targets.iter().map(|node| depth(&tree, node)).collect();
        assert_eq!(depths, [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    }

    proptest! {
        #[test]
        fn every_target_is_fed_through_sound_nodes_and_little_moves(
            count in 1usize..60, fanout in 2usize..6,
            down in proptest::collection::btree_set(0usize..60, 0..30),
            then in proptest::collection::btree_set(0usize..60, 0..30),
        ) {
            let (source, all) = ("m".parse().unwrap(), (0..count).map(name).collect::<Vec<_>>());
            let targets: Vec<&NodeName> = all.iter().collect();
            let mut now = BTreeMap::new();
            for down in [&down, &down, &then, &then] {
                let tree = make(&source, &targets, fanout, &now, &all, down);
                prop_assert_eq!(tree.len(), count);
                let mut fed: BTreeMap<&NodeName, usize> = BTreeMap::new();
                for (child, parent) in &tree {
                    depth(&tree, child);
                    *fed.entry(parent).or_default() += 1;
                    prop_assert!(!down.iter().any(|n| name(*n) == **parent), "{child} at {parent}");
                }
                let sound = count - down.iter().filter(|n| **n < count).count();
                let scarce = (sound + 1) * fanout < count;
                let fits = |(node, fed): (&&NodeName, &usize)| {
                    *fed <= fanout || (scarce && **node == source)
                };
                prop_assert!(fed.iter().all(fits));
                now = owned(&tree);
            }
            // At rest nothing moves.
            let again = make(&source, &targets, fanout, &now, &all, &then);
            prop_assert_eq!(owned(&again), now);
        }
    }
}
