//! What each node has to do for each sync, from the sync's record and its nodes'. A node that is
//! disabled is told to do nothing; one that is expelled is told nothing.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::sync::report::DeliveryState;
use lockstep_model::sync::{Sync, TargetAt};
use lockstep_model::task::{Peer, Receiver, Route, Slot, SyncSource, SyncTarget, TaskSpec};
use lockstep_model::{HostPort, Millis, NodeName, Timestamp};

use crate::World;
use crate::draft::Draft;
use crate::members::{Member, Uses, feeder_now, members};
use crate::relays::{Wanted, tree};
use crate::seen::Stream;

/// What every slot of every node should hold. Slots that are missing here are to be released.
pub(crate) type Desired = BTreeMap<(NodeName, Slot), TaskSpec>;

/// A relay that is away for so long gives up those it feeds.
const RELAY_AWAY_MAX: Millis = Millis::from_secs(15);
/// A relay whose own copy fails feeds nobody any more once it is so far behind.
const RELAY_LAG_MAX: Millis = Millis::from_secs(60);

pub(crate) fn desired(draft: &mut Draft<'_>) -> Desired {
    let world = draft.world;
    let mut desired = Desired::new();
    for sync in world.syncs().values().map(|sync| &sync.value) {
        let part = Part::of(draft, world.uses(), sync);
        let slot = Slot::Sync(sync.name.clone());
        if let Some(source) = part.source {
            let receivers = part.receivers(draft, source);
            let spec = TaskSpec::SyncSource(SyncSource {
                sync: sync.name.clone(),
                path: sync.source.path.clone(),
                others: part.others(&receivers),
                receivers,
                options: sync.options.for_nodes(),
                paused: sync.paused,
                generation: sync.generation,
            });
            desired.insert((source.name.clone(), slot.clone()), spec);
        }
        for (node, member) in &part.nodes {
            let Some(path) = member.path() else { continue };
            let spec = TaskSpec::SyncTarget(SyncTarget {
                sync: sync.name.clone(),
                path: path.clone(),
                source: part.feeder(world, node),
                serve: node.admin == NodeAdmin::Enabled,
                options: sync.options.for_nodes(),
                receivers: part.receivers(draft, node),
                paused: sync.paused,
                generation: sync.generation,
            });
            desired.insert((node.name.clone(), slot.clone()), spec);
        }
    }
    desired
}

/// One sync with all that take part in it.
struct Part<'a> {
    sync: &'a Sync,
    /// None: expelled or gone.
    source: Option<&'a Node>,
    members: Vec<Member<'a>>,
    /// The targets that have an agent and are told something.
    nodes: Vec<(&'a Node, Member<'a>)>,
    /// Who feeds whom, of those that work.
    parents: BTreeMap<&'a NodeName, &'a NodeName>,
    /// The same from above, as places in `members`; those without an agent are the source's.
    fed: BTreeMap<&'a NodeName, Vec<usize>>,
}

impl<'a> Part<'a> {
    fn of(draft: &mut Draft<'a>, uses: &Uses, sync: &'a Sync) -> Self {
        let world = draft.world;
        let (members, left_out) = members(world, uses, sync);
        for out in left_out {
            draft.wait(part(sync, out.node), "overlap", out.why, None);
        }
        let source = explain_node(draft, sync, &sync.source.node);
        let mut nodes = Vec::new();
        for member in members.iter().filter(|member| member.path().is_some()) {
            if let Some(node) = explain_node(draft, sync, member.node) {
                nodes.push((node, member.clone()));
            }
        }
        if sync.paused {
            let text = format!(
                "paused: changes wait in the journal; lockstepctl sync resume {}",
                sync.name
            );
            draft.wait(format!("sync/{}", sync.name), "paused", text, None);
        }
        let working: Vec<&NodeName> =
            nodes.iter().filter(|(node, _)| works(node)).map(|(node, _)| &node.name).collect();
        let parents = match sync.options.fanout {
            None => working.iter().map(|node| (*node, &sync.source.node)).collect(),
            Some(fanout) => {
                let unsound: BTreeSet<&NodeName> =
                    working.iter().copied().filter(|node| !is_sound(draft, sync, node)).collect();
                let known: BTreeSet<&NodeName> =
                    working.iter().copied().chain([&sync.source.node]).collect();
                tree(&Wanted {
                    source: &sync.source.node,
                    targets: &working,
                    fanout: usize::try_from(fanout).unwrap_or(usize::MAX),
                    now: &|node| known.get(feeder_now(world, sync, node)?).copied(),
                    sound: &|node| !unsound.contains(node),
                })
            }
        };
        let mut fed: BTreeMap<&NodeName, Vec<usize>> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            let feeder = match member.path() {
                Some(_) => parents.get(member.node).copied(),
                None => Some(&sync.source.node),
            };
            if let Some(feeder) = feeder {
                fed.entry(feeder).or_default().push(at);
            }
        }
        Self { sync, source, members, nodes, parents, fed }
    }

    /// Who may write this target.
    fn feeder(&self, world: &World, target: &Node) -> Option<Peer> {
        let parent = self.parents.get(&target.name)?;
        let parent = &world.nodes().get(*parent)?.value;
        // A feeder only calls, so a change of its addresses is nothing to its targets.
        works(parent).then(|| Peer {
            node: parent.name.clone(),
            key_hash: parent.key_hash,
            addresses: Vec::new(),
        })
    }

    /// Whom this node feeds.
    fn receivers(&self, draft: &mut Draft<'_>, feeder: &Node) -> Vec<Receiver> {
        if !works(feeder) {
            return Vec::new();
        }
        let mut receivers = Vec::new();
        for at in self.fed.get(&feeder.name).into_iter().flatten() {
            let member = &self.members[*at];
            let route = match &*member.at {
                TargetAt::Remote(remote) => Route::Remote(remote.clone()),
                TargetAt::Node(_) => match self.peer(draft, feeder, member.node) {
                    Some(peer) => Route::Agent(peer),
                    None => continue,
                },
            };
            receivers.push(Receiver { node: member.node.clone(), route, bwlimit: member.bwlimit });
        }
        receivers
    }

    /// Targets to be kept in step that none of these is.
    fn others(&self, receivers: &[Receiver]) -> Vec<NodeName> {
        let is_fed = |node: &NodeName| receivers.iter().any(|receiver| receiver.node == *node);
        self.parents.keys().filter(|node| !is_fed(node)).map(|node| (*node).clone()).collect()
    }

    fn peer(&self, draft: &mut Draft<'_>, feeder: &Node, target: &NodeName) -> Option<Peer> {
        let target = &draft.world.nodes().get(target)?.value;
        let addresses = addresses(feeder, target);
        if addresses.is_empty() {
            let text = format!(
                "{0} has not announced an address for data; {1} delivers to it once {0} connects",
                target.name, feeder.name
            );
            draft.wait(part(self.sync, &target.name), "no_address", text, None);
            return None;
        }
        Some(Peer { node: target.name.clone(), key_hash: target.key_hash, addresses })
    }
}

/// Whether a node may feed others: not known to be away for long, and its own copy gets on.
fn is_sound(draft: &mut Draft<'_>, sync: &Sync, node: &NodeName) -> bool {
    let world = draft.world;
    if let Some(Stream::Closed { since, .. }) = world.seen(node).map(|seen| &seen.stream) {
        let until: Timestamp = *since + RELAY_AWAY_MAX;
        if draft.now >= until {
            return false;
        }
        draft.wake(until);
    }
    let Some(feeder) = feeder_now(world, sync, node) else { return true };
    let report = world.seen(feeder).and_then(|seen| seen.sync(&sync.name));
    let deliveries = report.and_then(|r| r.report.source()).map_or(&[][..], |r| &r.deliveries);
    !deliveries.iter().any(|delivery| {
        delivery.target == *node
            && matches!(delivery.state, DeliveryState::Failing | DeliveryState::Held)
            && delivery.lag >= RELAY_LAG_MAX
    })
}

fn works(node: &Node) -> bool {
    matches!(node.admin, NodeAdmin::Enabled | NodeAdmin::Draining)
}

/// The node, unless it is expelled; says what its state does to the sync.
fn explain_node<'a>(draft: &mut Draft<'a>, sync: &Sync, name: &NodeName) -> Option<&'a Node> {
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
pub(crate) fn addresses(from: &Node, to: &Node) -> Vec<HostPort> {
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
