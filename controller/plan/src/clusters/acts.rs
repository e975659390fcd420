//! Tasks that are done once to an instance: ended ones are kept for people for a while, those of
//! nodes that are gone are given up.

use lockstep_model::node::NodeAdmin;
use lockstep_model::task::Slot;
use lockstep_model::{ClusterName, Millis};

use crate::draft::Draft;
use crate::tasks;

/// Ended ones that are kept per node, for a day.
const KEPT_MAX: usize = 20;
const KEPT: Millis = Millis::from_secs(24 * 3600);

pub(super) fn keep(draft: &mut Draft<'_>, name: &ClusterName) {
    let world = draft.world;
    let slot = Slot::Act(name.clone());
    let nodes = world.cluster_slots(name).filter(|(_, of)| **of == slot).map(|(node, _)| node);
    for node in nodes {
        match world.nodes().get(node).map(|node| node.value.admin) {
            None => {
                tasks::forget(draft, "node_removed", node, &slot);
                continue;
            }
            Some(NodeAdmin::Expelled) => tasks::lose(draft, node, &slot),
            Some(_) => {}
        }
        let ids: Vec<_> = world.ids(node, &slot).collect();
        for (age, id) in ids.into_iter().rev().enumerate() {
            let Some(task) = world.task_at(node, *id) else { continue };
            let Some(ended) = &task.ended else {
                tasks::wait_for_node(draft, "cluster_act", task);
                continue;
            };
            let until = ended.at + KEPT;
            if age >= KEPT_MAX || draft.now >= until {
                draft.delete_task("prune_tasks", node, *id);
            } else {
                draft.wake(until);
            }
        }
    }
}
