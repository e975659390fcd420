//! What holds for every cluster's definition, and what may not be changed any more once its data is
//! made. Looks at nothing that agents say.

use std::collections::BTreeSet;

use lockstep_model::cluster::{
    Cluster, Instance, MEMBERS_MAX, Member, MemberAdmin, MemberOptions,
    options::{Manager, SyncPolicy},
};
use lockstep_model::node::NodeAdmin;
use lockstep_model::setting::Settings;
use lockstep_model::sync::Place;
use lockstep_model::{Invalid, NodeName, Reject};

use super::{At, part, precondition};
use crate::World;
use crate::admit::syncs::check_node;
use crate::members::{Owner, dirs};

/// One member more, in its place by name.
pub(super) fn add(
    cluster: &mut Cluster,
    node: &NodeName,
    options: MemberOptions,
) -> Result<(), Reject> {
    let Err(at) = cluster.members.binary_search_by(|member| member.node.cmp(node)) else {
        return Err(Invalid::new("members", format!("{node} is given twice")).into());
    };
    if cluster.members.len() >= MEMBERS_MAX {
        let problem = format!("at most {MEMBERS_MAX} are allowed in one cluster");
        return Err(Invalid::new("members", problem).into());
    }
    let admin = MemberAdmin::Managed;
    let member = Member { node: node.clone(), options, admin, copy: 1, leaving: None };
    cluster.members.insert(at, member);
    Ok(())
}

/// Commits may wait for it: what it has could be promoted, and it has it from the primary itself.
pub(super) fn is_sync(member: &Member) -> bool {
    let MemberOptions { no_sync, never_promote, upstream, delay, .. } = &member.options;
    let may = !no_sync && !never_promote && upstream.is_none() && delay.is_none();
    may && member.leaving.is_none()
}

pub(super) fn check(
    world: &World,
    cluster: &Cluster,
    before: Option<&Cluster>,
) -> Result<(), Reject> {
    cluster.options.check()?;
    for member in &cluster.members {
        member.options.check().map_err(|e| e.within(&member.node))?;
        let is_new = before.is_none_or(|before| before.member(&member.node).is_none());
        if is_new {
            check_new(world, &member.node)?;
        }
        check_place(world, cluster, member)?;
        check_upstream(cluster, member)?;
    }
    check_count(cluster)
}

/// Of the first primary.
pub(super) fn check_first(cluster: &Cluster, primary: &NodeName) -> Result<(), Reject> {
    let Some(member) = cluster.member(primary) else { return Ok(()) };
    let MemberOptions { never_promote, upstream, delay, data_dir, .. } = &member.options;
    let wrong = match () {
        () if *never_promote => Some(("never-promote", "it is the first primary")),
        () if upstream.is_some() => Some(("upstream", "the first primary follows nobody")),
        () if delay.is_some() => Some(("delay", "the first primary cannot be late")),
        () if cluster.adopt
            && data_dir.is_none()
            && cluster.options.instance.data_dir.is_none() =>
        {
            Some(("data-dir", "name the data directory of the primary that is taken over"))
        }
        () => None,
    };
    wrong
        .map_or(Ok(()), |(field, problem)| Err(Invalid::new(field, problem).within(primary).into()))
}

fn check_new(world: &World, node: &NodeName) -> Result<(), Reject> {
    check_node(world, "members", node)?;
    let disabled = |admin| admin == NodeAdmin::Disabled;
    if world.nodes().get(node).is_some_and(|node| disabled(node.value.admin)) {
        let message = format!("members: node {node} is disabled: lockstepctl node enable {node}");
        return Err(precondition("wrong_state", format!("node/{node}"), message));
    }
    Ok(())
}

/// Directories and port are nobody else's on the node.
fn check_place(world: &World, cluster: &Cluster, member: &Member) -> Result<(), Reject> {
    let node = &member.node;
    let here = cluster.instance(member);
    if let (Some(data), Some(wal)) = (&here.data_dir, &here.wal_dir)
        && data.overlaps(wal)
    {
        let problem = format!("{wal} overlaps the data directory {data}: they must be apart");
        return Err(Invalid::new("wal-dir", problem).within(node).into());
    }
    let named = member.options.data_dir.is_some() || cluster.options.instance.data_dir.is_some();
    if here.manager != Manager::Agent && !named {
        let problem = format!("name the data directory that {} starts", here.manager);
        return Err(Invalid::new("data-dir", problem).within(node).into());
    }
    let me = Owner::Cluster(cluster.name.clone());
    for path in dirs(cluster, member) {
        let place = Place { node: node.clone(), path };
        let Some((other, path, _)) = world.uses().clash(&me, &place, true) else { continue };
        let message = format!(
            "{place} overlaps {node}:{path}, which is {other}'s: name another directory with \
             data-dir or wal-dir"
        );
        return Err(precondition("overlap", other.subject(), message));
    }
    let others = world.clusters().values().map(|other| &other.value);
    for other in others.filter(|other| other.name != cluster.name) {
        let Some(theirs) = other.member(node).map(|member| other.instance(member)) else {
            continue;
        };
        if theirs.port == here.port {
            let message = format!(
                "port {} of {node} is cluster {}'s: give {node} another one (port)",
                here.port, other.name
            );
            return Err(precondition("overlap", part(&other.name, node), message));
        }
        if here.manager != Manager::Agent && theirs.manager == here.manager {
            let message = format!(
                "{} of {node} is cluster {}'s: name another (manager)",
                here.manager, other.name
            );
            return Err(precondition("overlap", part(&other.name, node), message));
        }
    }
    Ok(())
}

/// A member follows another one, and in the end the primary.
fn check_upstream(cluster: &Cluster, member: &Member) -> Result<(), Reject> {
    let mut above = BTreeSet::from([&member.node]);
    let mut at = member;
    while let Some(upstream) = &at.options.upstream {
        let wrong = |problem: String| {
            Err(Reject::from(Invalid::new("upstream", problem).within(&member.node)))
        };
        if !above.insert(upstream) {
            let problem = format!("{upstream} follows it already: a member cannot follow itself");
            return wrong(problem);
        }
        match cluster.member(upstream).filter(|next| next.leaving.is_none()) {
            Some(next) => at = next,
            None => return wrong(format!("{upstream} is no member: name one, or none")),
        }
    }
    Ok(())
}

/// What is promised must be possible with all members there.
fn check_count(cluster: &Cluster) -> Result<(), Reject> {
    let SyncPolicy::Count(k) = cluster.options.sync else { return Ok(()) };
    // A primary does not wait for itself.
    let standbys = cluster.members.iter().filter(|m| is_sync(m)).count().saturating_sub(1);
    if standbys >= k as usize {
        return Ok(());
    }
    let problem = format!(
        "takes {k} standbys that acknowledge, and there are {standbys}: add some, or promise less; \
         those with no-sync, never-promote, upstream or delay do not count"
    );
    Err(Invalid::new("sync", problem).into())
}

/// What is fixed when the data of the cluster, or of a member, is made.
pub(super) fn check_unchanged(at: &At<'_>, after: &Cluster) -> Result<(), Reject> {
    let before = at.cluster;
    if at.state.system_id.is_none() {
        return Ok(());
    }
    let name = at.name();
    let fixed = |field: &str, next: String| {
        let problem = format!("is fixed when a cluster is made: {next}");
        Err(Reject::from(Invalid::new(field, problem)))
    };
    if before.options.initdb != after.options.initdb {
        return fixed("initdb-option", "make another cluster".to_owned());
    }
    if before.options.checksums != after.options.checksums {
        let next = "pg_checksums changes it while the cluster is stopped".to_owned();
        return fixed("checksums", next);
    }
    for member in &after.members {
        let Some(there) = before.member(&member.node) else { continue };
        let (was, is) = (before.instance(there), after.instance(member));
        let Some(field) = moved(&was, &is) else { continue };
        let node = &member.node;
        let problem = format!(
            "of {node} is fixed when its data is made: remove it (lockstepctl cluster remove {name} \
             {node}) and add it with another"
        );
        return Err(Invalid::new(field, problem).into());
    }
    Ok(())
}

/// The setting that a running instance cannot take up.
fn moved(was: &Instance, is: &Instance) -> Option<&'static str> {
    let Instance { bin: _, data_dir, wal_dir, port, socket_dir, manager } = is;
    [
        ("data-dir", was.data_dir != *data_dir),
        ("wal-dir", was.wal_dir != *wal_dir),
        ("port", was.port != *port),
        ("socket-dir", was.socket_dir != *socket_dir),
        ("manager", was.manager != *manager),
    ]
    .into_iter()
    .find_map(|(name, differs)| differs.then_some(name))
}
