//! Members and whole clusters that go: their nodes are released first, then the records.

use lockstep_model::cluster::state::Stage;
use lockstep_model::cluster::{Cluster, ClusterRelease, Leaving, Member};
use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Key, Record, Write};
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{ClusterName, NodeName};

use super::view::View;
use crate::draft::Draft;
use crate::tasks;

/// Of a cluster without a record: what agents still have.
pub(super) fn clear(draft: &mut Draft<'_>, name: &ClusterName) {
    let slots: Vec<(NodeName, Slot)> =
        draft.world.cluster_slots(name).map(|(node, slot)| (node.clone(), slot.clone())).collect();
    let slot = Slot::Cluster(name.clone());
    let strays = draft.world.strays().filter(|(_, stray)| *stray == slot);
    for (node, slot) in slots.into_iter().chain(strays.collect::<Vec<_>>()) {
        release(draft, name, &node, &slot, None);
    }
}

/// Of a cluster that goes.
pub(super) fn leave(draft: &mut Draft<'_>, cluster: &Cluster, leaving: Leaving) {
    let (world, name) = (draft.world, &cluster.name);
    let delete = leaving == Leaving::Delete;
    let slots: Vec<(NodeName, Slot)> =
        world.cluster_slots(name).map(|(node, slot)| (node.clone(), slot.clone())).collect();
    if !slots.is_empty() {
        for (node, slot) in &slots {
            release(draft, name, node, slot, Some(delete));
        }
        let text = format!("it goes ({leaving}): its nodes have to take that up first");
        return draft.wait(format!("cluster/{name}"), "leaving", text, None);
    }
    for report in world.failovers_of(name).map(|report| report.value.number) {
        if !draft.write("cluster_gone", [Write::Delete(Key::Failover(name.clone(), report))]) {
            return;
        }
    }
    draft.write(
        "cluster_gone",
        [
            Write::Delete(Key::ClusterSecret(name.clone())),
            Write::Delete(Key::ClusterState(name.clone())),
            Write::Delete(Key::Cluster(name.clone())),
        ],
    );
}

/// Whether a member that is to leave is on its way out: released, and then no member any more.
pub(super) fn lets_go(draft: &mut Draft<'_>, view: &View<'_>, member: &Member) -> bool {
    let Some(leaving) = member.leaving else { return false };
    let (node, name) = (&member.node, &view.cluster.name);
    if let Some(why) = is_needed(view, node) {
        draft.wait(view.part(node), "removing", why, None);
        return false;
    }
    let slot = Slot::Cluster(name.clone());
    if draft.world.newest(node, &slot).is_some() {
        release(draft, name, node, &slot, Some(leaving == Leaving::Delete));
        return true;
    }
    let key = Key::Cluster(name.clone());
    if draft.writes(&key) {
        return true;
    }
    let mut cluster = view.cluster.clone();
    cluster.members.retain(|other| other.node != *node);
    let mut state = view.state.clone();
    state.members.remove(node);
    state.promotable.remove(node);
    draft.write(
        "member_gone",
        [
            Write::Put(Record::Cluster(Box::new(cluster))),
            Write::Put(Record::ClusterState(Box::new(state))),
        ],
    );
    true
}

/// Nodes that are no members any more, once nothing needs them.
pub(super) fn release_others(draft: &mut Draft<'_>, view: &View<'_>) {
    let name = &view.cluster.name;
    let slots: Vec<(NodeName, Slot)> =
        draft.world.cluster_slots(name).map(|(node, slot)| (node.clone(), slot.clone())).collect();
    let own = Slot::Cluster(name.clone());
    let strays = draft.world.strays().filter(|(_, stray)| *stray == own).collect::<Vec<_>>();
    for (node, slot) in slots.into_iter().chain(strays) {
        if view.cluster.member(&node).is_some() {
            continue;
        }
        if let Some(why) = is_needed(view, &node) {
            draft.wait(view.part(&node), "removing", why, None);
            continue;
        }
        release(draft, name, &node, &slot, None);
    }
}

fn is_needed(view: &View<'_>, node: &NodeName) -> Option<String> {
    if view.node(node).is_none_or(|node| node.admin == NodeAdmin::Expelled) {
        return None;
    }
    let electing = matches!(&view.state.stage, Stage::Electing(_) | Stage::Promoting(_));
    if view.holder() == Some(node) || electing {
        return Some(format!("{node} is removed once another member is primary"));
    }
    if view.state.all_quorums().any(|quorum| quorum.of.contains(node)) {
        return Some(format!("{node} is removed once no commit waits for it any more"));
    }
    let promotable = view.state.promotable.contains(node);
    promotable.then(|| format!("{node} is removed once the primary knows that it is none to ask"))
}

/// With `delete` unset: as it was told already, else the data stays.
fn release(
    draft: &mut Draft<'_>,
    name: &ClusterName,
    node: &NodeName,
    slot: &Slot,
    delete: Option<bool>,
) {
    let world = draft.world;
    let admin = world.nodes().get(node).map(|node| node.value.admin);
    let newest = world.newest(node, slot);
    match (slot, admin) {
        (_, None | Some(NodeAdmin::Expelled)) => tasks::forget(draft, "node_removed", node, slot),
        (Slot::Act(_), _) => {
            if newest.is_none_or(|task| !task.is_live()) {
                tasks::forget(draft, "released", node, slot);
            } else if let Some(task) = newest {
                tasks::wait_for_node(draft, "cluster_act", task);
            }
        }
        _ => {
            let before = match newest.map(|task| &task.spec) {
                Some(TaskSpec::ClusterRelease(release)) => release.delete,
                _ => false,
            };
            let delete = delete.unwrap_or(before);
            let spec = ClusterRelease { cluster: name.clone(), delete };
            tasks::clear(draft, node, slot, &TaskSpec::ClusterRelease(spec));
        }
    }
}
