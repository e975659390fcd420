//! Things to be done once to instances: a task each, on nodes that are there to do it now.

use std::collections::BTreeSet;

use lockstep_model::cluster::{Act, ClusterAct, MemberAdmin};
use lockstep_model::task::TaskSpec;
use lockstep_model::{Invalid, NodeName, Reject};

use super::{At, part, precondition, subject};
use crate::admit::Admitted;
use crate::admit::syncs::list;
use crate::admit::tasks::{check_traceparent, start};

/// One task per node, standbys first. Without nodes: all that are there.
pub(super) fn act(
    at: &At<'_>,
    nodes: &[NodeName],
    act: &Act,
    traceparent: Option<&String>,
) -> Result<Admitted, Reject> {
    let name = at.name();
    check_traceparent(traceparent)?;
    let what = match act {
        Act::Restart { .. } => "restart",
        Act::Reload => "reload",
        Act::Checkpoint => "checkpoint",
        Act::Rewind => "rewind",
        Act::Verify => "verify",
        Act::Fence { .. } => {
            let problem = "fence is the rules' own: lockstepctl cluster fence stops a member";
            return Err(Invalid::new("act", problem).into());
        }
    };
    let ready = |node: &&NodeName| check_ready(at, node, what).is_ok();
    let mut wanted: Vec<&NodeName> = match nodes {
        [] => at.cluster.members.iter().map(|member| &member.node).filter(ready).collect(),
        _ => nodes.iter().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    wanted.sort_by_key(|node| at.is_holder(node));
    if wanted.is_empty() {
        let message = format!("no member of cluster {name} is connected and managed");
        return Err(precondition("node_not_connected", subject(name), message));
    }
    if matches!(act, Act::Restart { .. } | Act::Rewind) {
        at.check_quiet(&format!("{what} members"))?;
        if wanted.len() > 1 {
            let problem =
                format!("must be one: a {what} goes from member to member, the primary last");
            return Err(Invalid::new("nodes", problem).into());
        }
    }
    let mut admitted = Admitted::default();
    let mut begun = Vec::new();
    for node in wanted {
        check_ready(at, node, what)?;
        if *act == Act::Rewind && at.is_holder(node) {
            let message =
                format!("{node} is the primary, whose way is the one that others are held against");
            return Err(precondition("is_primary", part(name, node), message));
        }
        let spec = TaskSpec::ClusterAct(ClusterAct { cluster: name.clone(), act: act.clone() });
        if start(at.world, &mut admitted, node, spec, traceparent, at.now)? {
            begun.push(node);
        }
    }
    admitted.detail = match begun.is_empty() {
        true => format!("a {what} is under way already"),
        false => format!("{what} of {} asked for", list(begun.into_iter())),
    };
    Ok(admitted)
}

/// Nobody wants a restart hours later, when a node is back.
fn check_ready(at: &At<'_>, node: &NodeName, what: &str) -> Result<(), Reject> {
    let name = at.name();
    let member = at.member(node)?;
    if member.admin != MemberAdmin::Managed {
        let message = format!(
            "{node} is {}, by an operator: no {what} of it until lockstepctl cluster start, unfence \
             or maintenance --off",
            member.admin
        );
        return Err(precondition("wrong_state", part(name, node), message));
    }
    if !at.world.seen(node).is_some_and(|seen| seen.is_connected()) {
        let message = format!(
            "node {node} is not connected: see lockstepctl node show {node}, or name others"
        );
        return Err(precondition("node_not_connected", format!("node/{node}"), message));
    }
    Ok(())
}
