//! Holds what each member is to be against the newest task of its slot. Decides nothing.

use lockstep_model::cluster::{ClusterAct, Member};
use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Record, Write};
use lockstep_model::task::{Slot, TaskSpec};

use super::goal::place_of;
use super::remains;
use super::rule::Turn;
use super::view::View;
use crate::draft::{Draft, NewTask};
use crate::seen::Away;
use crate::tasks;

/// A decision with all tasks that it changes, or none of it.
pub(super) fn write(draft: &mut Draft<'_>, view: &View<'_>, rule: &'static str, turn: Turn) {
    let cluster = turn.cluster.as_ref().unwrap_or(view.cluster);
    let after = View { cluster, state: &turn.state, ..*view };
    let mut group: Vec<Write> = Vec::new();
    for member in &cluster.members {
        let released = matches!(
            view.task(&member.node).map(|task| &task.spec),
            Some(TaskSpec::ClusterRelease(_))
        );
        if view.member(&member.node).is_none() || (released && member.leaving.is_some()) {
            continue;
        }
        let Some(spec) = place_of(&after, member).map(|p| TaskSpec::ClusterPlace(Box::new(p)))
        else {
            continue;
        };
        let newest = view.task(&member.node);
        if newest.is_some_and(|task| task.spec == spec) {
            continue;
        }
        let old = newest.and_then(|task| tasks::superseded(task, draft.now));
        group.extend(old.map(|old| Write::Put(Record::Task(old))));
        group.push(draft.born(new(member, spec)));
    }
    if let Some((node, act)) = turn.act {
        let spec = TaskSpec::ClusterAct(ClusterAct { cluster: view.cluster.name.clone(), act });
        let run_limit = tasks::run_limit(&spec);
        group.push(draft.born(NewTask { node, spec, attempt: 1, run_limit, traceparent: None }));
    }
    group.extend(turn.reports.into_iter().map(|r| Write::Put(Record::Failover(Box::new(r)))));
    if let Some(cluster) = turn.cluster.filter(|cluster| cluster != view.cluster) {
        group.push(Write::Put(Record::Cluster(Box::new(cluster))));
    }
    if turn.state != *view.state {
        group.push(Write::Put(Record::ClusterState(Box::new(turn.state))));
    }
    draft.write(rule, group);
}

fn new(member: &Member, spec: TaskSpec) -> NewTask {
    let run_limit = tasks::run_limit(&spec);
    NewTask { node: member.node.clone(), spec, attempt: 1, run_limit, traceparent: None }
}

/// Without a decision: what follows from the one before, and from settings and addresses.
pub(super) fn bring(draft: &mut Draft<'_>, view: &View<'_>) {
    let slot = Slot::Cluster(view.cluster.name.clone());
    for member in &view.cluster.members {
        let node = &member.node;
        match view.node(node).map(|node| node.admin) {
            None => tasks::forget(draft, "node_removed", node, &slot),
            Some(NodeAdmin::Expelled) => {
                tasks::lose(draft, node, &slot);
                remains::lets_go(draft, view, member);
            }
            Some(_) if remains::lets_go(draft, view, member) => {}
            Some(_) => bring_one(draft, view, member, &slot),
        }
        forget_older(draft, view, member, &slot);
        // Who is away for long is no longer one to be promoted, and none to follow.
        if let Away::Soon(at) = view.world.away(node, draft.now) {
            draft.wake(at);
        }
    }
}

fn bring_one(draft: &mut Draft<'_>, view: &View<'_>, member: &Member, slot: &Slot) {
    let node = &member.node;
    match place_of(view, member) {
        Some(place) => {
            let spec = TaskSpec::ClusterPlace(Box::new(place));
            tasks::bring(draft, "cluster_place", node, slot, &spec);
        }
        None => {
            let text = format!("{node} is told nothing new until it says how it is");
            draft.wait(view.part(node), "unheard", text, None);
        }
    }
}

/// Only the newest task of a place says anything.
fn forget_older(draft: &mut Draft<'_>, view: &View<'_>, member: &Member, slot: &Slot) {
    let world = draft.world;
    let ids: Vec<_> = world.ids(&member.node, slot).collect();
    let Some((_, older)) = ids.split_last() else { return };
    for id in older {
        let ended = world.task_at(&member.node, **id).is_some_and(|task| !task.is_live());
        if ended && view.node(&member.node).is_some() {
            draft.delete_task("forget_task", &member.node, **id);
        }
    }
}
