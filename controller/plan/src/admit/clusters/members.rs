//! Members of a cluster: added, removed, stopped and fenced by hand, copied anew. None leaves while
//! the cluster needs it.

use lockstep_model::cluster::{Leaving, Member, MemberAdmin};
use lockstep_model::node::NodeAdmin;
use lockstep_model::setting::Value;
use lockstep_model::{NodeName, Reject};

use super::{At, definition, of_member, part, precondition, put};
use crate::admit::Admitted;

pub(super) fn add(at: &At<'_>, node: &NodeName, values: &[Value]) -> Result<Admitted, Reject> {
    let name = at.name();
    let options = of_member(node, values)?;
    if at.cluster.member(node).is_some() {
        let there = at.member(node)?;
        if there.options == options {
            let detail = format!("{node} is a member of cluster {name} already");
            return Ok(Admitted::already(detail));
        }
        let message = format!(
            "{node} is a member of cluster {name}, with other settings: lockstepctl cluster edit \
             {name} --member {node}:NAME=VALUE changes them"
        );
        return Err(Reject::exists(part(name, node), message));
    }
    let mut cluster = at.cluster.clone();
    definition::add(&mut cluster, node, options)?;
    definition::check(at.world, &cluster, Some(at.cluster))?;
    let detail = format!("{node} becomes a standby of cluster {name}");
    Ok(Admitted { writes: vec![put(cluster)], detail, ..Admitted::default() })
}

/// The planner takes it out of quorums and elections first, then has its node let go of it.
pub(super) fn remove(at: &At<'_>, node: &NodeName, delete: bool) -> Result<Admitted, Reject> {
    let name = at.name();
    let Some(there) = at.cluster.member(node) else {
        return Ok(Admitted::already(format!("{node} is no member of cluster {name}")));
    };
    let leaving = if delete { Leaving::Delete } else { Leaving::Release };
    if there.leaving == Some(leaving) {
        return Ok(Admitted::already(format!("{node} is leaving cluster {name} already")));
    }
    let member = at.member(node)?;
    if at.is_holder(node) {
        let message = format!(
            "{node} is the primary: lockstepctl cluster switchover {name} makes another one first; \
             lockstepctl cluster release {name}, or delete, is for the whole cluster"
        );
        return Err(precondition("is_primary", part(name, node), message));
    }
    at.check_quiet("remove a member")?;
    let follows = |other: &&Member| other.options.upstream.as_ref() == Some(node);
    if let Some(below) = at.cluster.members.iter().find(follows) {
        let message = format!(
            "{0} follows {node}: lockstepctl cluster edit {name} --member {0}:upstream=none first",
            below.node
        );
        return Err(precondition("in_use", part(name, &below.node), message));
    }
    at.check_needed(node, "remove it")?;
    let data = if delete { "with its data" } else { "its data stays" };
    let member = Member { leaving: Some(leaving), ..member.clone() };
    Ok(at.with(member, format!("{node} leaves cluster {name}; {data}")))
}

pub(super) fn set_admin(
    at: &At<'_>,
    node: &NodeName,
    admin: MemberAdmin,
) -> Result<Admitted, Reject> {
    let name = at.name();
    let member = at.member(node)?;
    if member.admin == admin {
        return Ok(Admitted::already(format!("{node} is {admin} already")));
    }
    // A fence is for emergencies, and waits for nothing.
    if admin == MemberAdmin::Stopped && !at.is_holder(node) && primary_is_up(at) {
        at.check_needed(node, "stop it")?;
    }
    let then = match admin {
        MemberAdmin::Managed => format!("{node} is managed again"),
        MemberAdmin::Fenced => format!("{node} is fenced until lockstepctl cluster unfence"),
        MemberAdmin::Stopped => format!("{node} is stopped until lockstepctl cluster start"),
        MemberAdmin::Maintenance => format!("{node} is left alone, and only reported on"),
    };
    let moves = at.is_holder(node)
        && matches!(admin, MemberAdmin::Fenced | MemberAdmin::Stopped)
        && at.cluster.members.len() > 1;
    let and = match (moves, at.cluster.paused) {
        (true, true) => format!("; cluster {name} is paused, so nobody takes over"),
        (true, false) => "; another member takes over if one can".to_owned(),
        (false, _) => String::new(),
    };
    Ok(at.with(Member { admin, ..member.clone() }, format!("{then}{and}")))
}

/// Nobody waits for commits of a primary that is to be down.
fn primary_is_up(at: &At<'_>) -> bool {
    let holder = at.state.holder.as_ref().and_then(|holder| at.cluster.member(holder));
    holder.is_some_and(|holder| holder.admin == MemberAdmin::Managed)
}

pub(super) fn reclone(at: &At<'_>, node: &NodeName) -> Result<Admitted, Reject> {
    let name = at.name();
    let member = at.member(node)?;
    let here = || part(name, node);
    if at.is_holder(node) {
        let message = format!(
            "{node} is the primary, whose data is what others copy: lockstepctl cluster switchover \
             {name} makes another one first"
        );
        return Err(precondition("is_primary", here(), message));
    }
    if member.admin != MemberAdmin::Managed {
        let message = format!(
            "{node} is {}: lockstepctl cluster start, unfence or maintenance --off first",
            member.admin
        );
        return Err(precondition("wrong_state", here(), message));
    }
    let enabled = |admin| matches!(admin, NodeAdmin::Enabled | NodeAdmin::Draining);
    if !at.world.nodes().get(node).is_some_and(|node| enabled(node.value.admin)) {
        let message = format!("node {node} is not enabled: lockstepctl node enable {node} first");
        return Err(precondition("wrong_state", format!("node/{node}"), message));
    }
    let copied = at.state.members.get(node).map_or(0, |known| known.copied);
    if copied != member.copy {
        let message = format!(
            "a new copy of {node} is on its way already: lockstepctl explain cluster/{name}/{node}"
        );
        return Ok(Admitted::already(message));
    }
    at.check_quiet("copy a member anew")?;
    let acknowledges = at.state.all_quorums().any(|quorum| quorum.of.contains(node));
    if acknowledges {
        at.check_needed(node, "copy it anew")?;
    }
    let member = Member { copy: member.copy.saturating_add(1), ..member.clone() };
    Ok(at.with(member, format!("the data of {node} is copied anew")))
}
