//! Why a cluster is as it is: the rules' own words, what its members say is not well, and the nodes
//! that are away.

use lockstep_model::cluster::report::{Progress, Trouble};
use lockstep_model::cluster::{Cluster, MemberReport};
use lockstep_model::reason::Reason;
use lockstep_model::{ClusterName, NodeName, Reject, Timestamp};

use super::{health, reason};
use crate::{World, clusters};

pub(super) fn of_cluster(
    world: &World,
    name: &ClusterName,
    now: Timestamp,
) -> Result<Vec<Reason>, Reject> {
    let mut found = clusters::reasons(world, name, now);
    let Some(cluster) = world.clusters().get(name).map(|cluster| &cluster.value) else {
        // It is gone, and some nodes have yet to let go of it.
        return if found.is_empty() { Err(unknown(name)) } else { Ok(found) };
    };
    found.extend(reported(world, cluster));
    let nodes = cluster.members.iter().map(|member| &member.node);
    found.extend(nodes.filter_map(|node| health(world, node, now)));
    Ok(found)
}

pub(super) fn of_member(
    world: &World,
    name: &ClusterName,
    node: &NodeName,
    now: Timestamp,
) -> Result<Vec<Reason>, Reject> {
    let subject = format!("cluster/{name}/{node}");
    let mut found = clusters::reasons(world, name, now);
    found.retain(|reason| reason.subject == subject);
    match world.clusters().get(name).map(|cluster| &cluster.value) {
        Some(cluster) => {
            found.extend(reported(world, cluster).into_iter().filter(|r| r.subject == subject));
            if cluster.member(node).is_none() && found.is_empty() {
                let message = format!(
                    "node {node} is no member of cluster {name}: see lockstepctl cluster show {name}"
                );
                return Err(Reject::not_found(subject, message));
            }
        }
        None if found.is_empty() => return Err(unknown(name)),
        None => {}
    }
    found.extend(health(world, node, now));
    Ok(found)
}

/// The rules' words and the members'.
pub(super) fn of_itself(world: &World, cluster: &Cluster, now: Timestamp) -> Vec<Reason> {
    let mut found = clusters::reasons(world, &cluster.name, now);
    found.extend(reported(world, cluster));
    found
}

/// What members say is not as it should be.
fn reported(world: &World, cluster: &Cluster) -> Vec<Reason> {
    let mut found = Vec::new();
    for member in &cluster.members {
        let node = &member.node;
        let Some(heard) = world.member_said(&cluster.name, node) else { continue };
        let subject = format!("cluster/{}/{node}", cluster.name);
        let say = |text: String| reason(subject.clone(), "reported", format!("{node}: {text}"));
        found.extend(of_report(&heard.report).into_iter().map(say));
    }
    found
}

fn of_report(report: &MemberReport) -> Vec<String> {
    let mut said = Vec::new();
    if !report.problem.is_empty() {
        said.push(report.problem.clone());
    }
    if report.trouble != Trouble::None {
        said.push(format!("it is {}, with {}", report.state, report.trouble));
    }
    if let Some(Progress { what, done_bytes, total_bytes, for_ms }) = &report.progress {
        let of = total_bytes.map_or(String::new(), |total| format!(" of {total}"));
        said.push(format!("{what}: {done_bytes}{of} bytes in {for_ms}"));
    }
    for pending in &report.pending_restart {
        let (name, now, then) = (&pending.name, &pending.now, &pending.then);
        said.push(format!("{name} is {now}, and {then} after a restart"));
    }
    said.extend(report.warnings.iter().cloned());
    said
}

fn unknown(name: &ClusterName) -> Reject {
    let message = format!("cluster {name} does not exist: see lockstepctl cluster list");
    Reject::not_found(format!("cluster/{name}"), message)
}
