//! What each node has to do for each sync, from the sync's record and its nodes'. A node that is
//! disabled is told to do nothing; one that is expelled is told nothing.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::sync::{Place, Sync};
use lockstep_model::task::{Peer, Slot, SyncSource, SyncTarget, TaskSpec};
use lockstep_model::{HostPort, NodeName};

use crate::draft::Draft;

/// What every slot of every node should hold. Slots that are missing here are to be released.
pub(crate) type Desired = BTreeMap<(NodeName, Slot), TaskSpec>;

pub(crate) fn desired(draft: &mut Draft<'_>) -> Desired {
    let world = draft.world;
    let mut desired = Desired::new();
    for sync in world.syncs().values().map(|sync| &sync.value) {
        let slot = Slot::Sync(sync.name.clone());
        let source = explain_place(draft, sync, &sync.source);
        if let Some(source) = source {
            let spec = TaskSpec::SyncSource(source_spec(draft, sync, source));
            desired.insert((source.name.clone(), slot.clone()), spec);
        }
        for place in &sync.targets {
            let Some(target) = explain_place(draft, sync, place) else { continue };
            let spec = TaskSpec::SyncTarget(target_spec(sync, source, target, place));
            desired.insert((target.name.clone(), slot.clone()), spec);
        }
    }
    desired
}

fn source_spec(draft: &mut Draft<'_>, sync: &Sync, source: &Node) -> SyncSource {
    let mut targets = Vec::new();
    if works(source) {
        for place in &sync.targets {
            let Some(target) = draft.world.nodes().get(&place.node).map(|node| &node.value) else {
                continue;
            };
            let addresses = addresses(source, target);
            if !works(target) {
                continue;
            }
            if addresses.is_empty() {
                let text = format!(
                    "{0} has not announced an address for data; {1} delivers to it once {0} connects",
                    target.name, source.name
                );
                draft.wait(part(sync, &target.name), "no_address", text, None);
                continue;
            }
            targets.push(Peer { node: target.name.clone(), key_hash: target.key_hash, addresses });
        }
    }
    SyncSource {
        sync: sync.name.clone(),
        path: sync.source.path.clone(),
        targets,
        options: sync.options.clone(),
    }
}

fn target_spec(sync: &Sync, source: Option<&Node>, target: &Node, place: &Place) -> SyncTarget {
    let source = source.filter(|source| works(source) && works(target));
    SyncTarget {
        sync: sync.name.clone(),
        path: place.path.clone(),
        // The source only calls, so a change of its addresses is nothing to its targets.
        source: source.map(|source| Peer {
            node: source.name.clone(),
            key_hash: source.key_hash,
            addresses: Vec::new(),
        }),
        serve: target.admin == NodeAdmin::Enabled,
    }
}

fn works(node: &Node) -> bool {
    matches!(node.admin, NodeAdmin::Enabled | NodeAdmin::Draining)
}

/// The place's node, unless it is expelled; says what its state does to the sync.
fn explain_place<'a>(draft: &mut Draft<'a>, sync: &Sync, place: &Place) -> Option<&'a Node> {
    let name = &place.node;
    let node = &draft.world.nodes().get(name)?.value;
    let is_source = sync.source.node == *name;
    let (rule, text) = match (node.admin, is_source) {
        (NodeAdmin::Enabled, _) | (NodeAdmin::Draining, true) => return Some(node),
        (NodeAdmin::Draining, false) => {
            let what = "its copy stays in step and load balancers are told NOT_SERVING";
            ("node_draining", format!("{name} is draining: {what}; lockstepctl node resume {name}"))
        }
        (NodeAdmin::Disabled, true) => {
            let what = "targets keep and serve what they have, changes wait";
            ("node_disabled", format!("{name} is disabled: {what}; lockstepctl node enable {name}"))
        }
        (NodeAdmin::Disabled, false) => {
            let what = "nothing is delivered to it, load balancers are told NOT_SERVING";
            ("node_disabled", format!("{name} is disabled: {what}; lockstepctl node enable {name}"))
        }
        (NodeAdmin::Expelled, true) => {
            let what = "the sync has no source any more, targets keep and serve what they have";
            let next = format!("lockstepctl sync delete {}", sync.name);
            ("node_expelled", format!("{name} was expelled: {what}; {next}"))
        }
        (NodeAdmin::Expelled, false) => {
            let next = format!("lockstepctl sync remove-target {} {name}", sync.name);
            ("node_expelled", format!("{name} was expelled and is left out: {next}"))
        }
    };
    draft.wait(part(sync, name), rule, text, None);
    (node.admin != NodeAdmin::Expelled).then_some(node)
}

/// `sync/webroot/web1`: a node's part in a sync.
fn part(sync: &Sync, node: &NodeName) -> String {
    format!("sync/{}/{node}", sync.name)
}

/// Best first: networks that both are on, then the addresses for everywhere, then the rest, which may
/// be routed after all.
fn addresses(from: &Node, to: &Node) -> Vec<HostPort> {
    let shared: BTreeSet<&str> = from.addresses.iter().map(|a| a.network.as_str()).collect();
    let rank = |network: &str| match network {
        "" => 1,
        name if shared.contains(name) => 0,
        _ => 2,
    };
    let mut sorted: Vec<_> = to.addresses.iter().collect();
    sorted.sort_by_key(|address| rank(&address.network));
    sorted.into_iter().map(|address| address.at.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::dsl::node;

    #[test]
    fn addresses_on_shared_networks_come_first() {
        for (from, to, chosen) in [
            ("", "10.0.0.1:1", "10.0.0.1:1"),
            ("", "", ""),
            ("lan=10.0.0.9:1", "h:1 lan=10.0.0.1:1", "10.0.0.1:1 h:1"),
            ("wan=9.9.9.9:1", "lan=10.0.0.1:1 h:1 wan=8.8.8.8:1", "8.8.8.8:1 h:1 10.0.0.1:1"),
            // The order of the node's own list is kept within a rank.
            ("lan=a:1 dmz=a:2", "dmz=b:1 lan=b:2", "b:1 b:2"),
            ("x:1", "lan=b:2 y:1 z:1", "y:1 z:1 b:2"),
        ] {
            let shown: Vec<_> = addresses(&node("a", from), &node("b", to))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(shown.join(" "), chosen, "from {from:?} to {to:?}");
        }
    }
}
