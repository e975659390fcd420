//! What people and agents change about nodes.

use lockstep_model::label::{LABELS_MAX, LabelKey};
use lockstep_model::node::{ADDRESSES_MAX, Node, NodeAddress, NodeAdmin};
use lockstep_model::record::{Actor, Key, Record, Write};
use lockstep_model::request::NodeAction;
use lockstep_model::{Code, Invalid, NodeName, Reject};

use super::{Admitted, check_speaks_for, precondition};
use crate::World;

pub(super) fn label(
    world: &World,
    name: &NodeName,
    set: &[(LabelKey, String)],
    remove: &[LabelKey],
) -> Result<Admitted, Reject> {
    let node = find(world, name)?;
    if let Some((key, _)) = set.iter().find(|(key, _)| remove.contains(key)) {
        let problem = format!("{key} is set and removed at once");
        return Err(Invalid::new("labels", problem).into());
    }
    let mut labels = node.labels.clone();
    labels.retain(|key, _| !remove.contains(key));
    labels.extend(set.iter().cloned());
    if labels.len() > LABELS_MAX {
        let problem = format!("would be {} of at most {LABELS_MAX}: remove some", labels.len());
        return Err(Invalid::new("labels", problem).into());
    }
    if labels == node.labels {
        return Ok(Admitted::already(format!("node {name} has these labels already")));
    }
    let node = Node { labels, ..node.clone() };
    Ok(Admitted::put(Record::Node(node), format!("labels of node {name} changed")))
}

pub(super) fn change(
    world: &World,
    name: &NodeName,
    action: NodeAction,
) -> Result<Admitted, Reject> {
    let node = find(world, name)?;
    let admin = match after(node.admin, action) {
        Ok(admin) if admin == node.admin => {
            return Ok(Admitted::already(format!("node {name} is {admin} already")));
        }
        Ok(admin) => admin,
        Err(next) => {
            let action = action.as_str();
            let message = format!("cannot {action} node {name}, which is {}: {next}", node.admin);
            return Err(precondition("wrong_state", format!("node/{name}"), message));
        }
    };
    let node = Node { admin, ..node.clone() };
    Ok(Admitted::put(Record::Node(node), format!("node {name} is {admin}")))
}

/// Where an action leads, or what to do instead.
fn after(admin: NodeAdmin, action: NodeAction) -> Result<NodeAdmin, &'static str> {
    use NodeAdmin::{Disabled, Draining, Enabled, Expelled};
    match (admin, action) {
        (_, NodeAction::Expel) => Ok(Expelled),
        (Expelled, _) => Err("that is final; remove it, then join again with a new token"),
        (_, NodeAction::Disable) => Ok(Disabled),
        (Enabled | Draining, NodeAction::Drain) => Ok(Draining),
        (Enabled | Draining, NodeAction::Resume) => Ok(Enabled),
        (Enabled | Disabled, NodeAction::Enable) => Ok(Enabled),
        (Disabled, NodeAction::Drain | NodeAction::Resume) => Err("enable it first"),
        (Draining, NodeAction::Enable) => Err("resume it"),
    }
}

/// Forgets the record; the planner then forgets the node's tasks.
pub(super) fn remove(world: &World, name: &NodeName) -> Result<Admitted, Reject> {
    let node = find(world, name)?;
    let subject = || format!("node/{name}");
    if !matches!(node.admin, NodeAdmin::Disabled | NodeAdmin::Expelled) {
        let message = format!("node {name} is {}: disable or expel it first", node.admin);
        return Err(precondition("wrong_state", subject(), message));
    }
    let syncs = world.syncs().values().map(|sync| &sync.value);
    if let Some(sync) = syncs.into_iter().find(|sync| sync.names(name)) {
        let (part, next) = if sync.source.node == *name {
            ("the source", format!("lockstepctl sync delete {}", sync.name))
        } else {
            ("a target", format!("lockstepctl sync remove-target {} {name}", sync.name))
        };
        let message = format!("node {name} is {part} of sync {}: first {next}", sync.name);
        return Err(precondition("in_use", subject(), message));
    }
    let mut mirrors = world.mirrors().values().map(|mirror| &mirror.value);
    let named = mirrors.find(|mirror| mirror.master == *name || mirror.replica(name).is_some());
    if let Some(mirror) = named {
        let (part, next) = match mirror.master == *name {
            true => ("the master", "--master NODE names another"),
            false => ("a replica", "--replica names the others"),
        };
        let message = format!(
            "node {name} is {part} of mirror {0}: first lockstepctl mirror update {0} {next}, or \
             lockstepctl mirror delete {0}",
            mirror.name
        );
        return Err(precondition("in_use", subject(), message));
    }
    let mut clusters = world.clusters().values().map(|cluster| &cluster.value);
    if let Some(cluster) = clusters.find(|cluster| cluster.member(name).is_some()) {
        let message = format!(
            "node {name} is a member of cluster {0}: first lockstepctl cluster remove {0} {name}, or \
             lockstepctl cluster release {0}",
            cluster.name
        );
        return Err(precondition("in_use", subject(), message));
    }
    let writes = vec![Write::Delete(Key::Node(name.clone()))];
    Ok(Admitted { writes, detail: format!("node {name} removed"), ..Admitted::default() })
}

pub(super) fn announce(
    world: &World,
    who: &Actor,
    name: &NodeName,
    addresses: &[NodeAddress],
) -> Result<Admitted, Reject> {
    check_speaks_for(who, name)?;
    let node = find(world, name)?;
    if node.admin == NodeAdmin::Expelled {
        let message = format!("node {name} was expelled");
        return Err(Reject::new(
            Code::PermissionDenied,
            "node_expelled",
            format!("node/{name}"),
            message,
        ));
    }
    if addresses.len() > ADDRESSES_MAX {
        let problem = format!("must be at most {ADDRESSES_MAX}, not {}", addresses.len());
        return Err(Invalid::new("addresses", problem).into());
    }
    if node.addresses == addresses {
        return Ok(Admitted::already("addresses are known"));
    }
    let node = Node { addresses: addresses.to_vec(), ..node.clone() };
    Ok(Admitted::put(Record::Node(node), format!("addresses of node {name} changed")))
}

fn find<'a>(world: &'a World, name: &NodeName) -> Result<&'a Node, Reject> {
    world.nodes().get(name).map(|node| &node.value).ok_or_else(|| {
        let message = format!("node {name} does not exist: see lockstepctl node list");
        Reject::not_found(format!("node/{name}"), message)
    })
}
