//! Clusters as a whole: made, changed, paused, released. What each request may not do is refused
//! here, before anything is written; what follows from a change is the planner's.

mod acts;
mod definition;
mod members;
mod moves;

use lockstep_model::cluster::{
    Cluster, ClusterSecret, ClusterState, Leaving, Member, MemberAdmin, MemberOptions, Stage,
    options::SyncPolicy,
};
use lockstep_model::record::{Actor, Record, Write};
use lockstep_model::request::{NewCluster, Request};
use lockstep_model::setting::{Settings, Value};
use lockstep_model::{ClusterName, Invalid, NodeName, Reject, Timestamp};

use super::{Admitted, check_room, precondition};
use crate::World;
use crate::clusters::doubt;

pub(super) fn create(world: &World, new: &NewCluster, now: Timestamp) -> Result<Admitted, Reject> {
    let NewCluster { name, primary, members, options, adopt, superuser, replication } = new;
    let mut cluster = Cluster {
        name: name.clone(),
        adopt: *adopt,
        members: Vec::new(),
        options: options.clone(),
        paused: false,
        created_at: now,
        leaving: None,
    };
    for (node, values) in members {
        definition::add(&mut cluster, node, of_member(node, values)?)?;
    }
    if cluster.member(primary).is_none() {
        definition::add(&mut cluster, primary, MemberOptions::default())?;
    }
    if let Some(there) = world.clusters().get(name).map(|cluster| &cluster.value) {
        if is_same(&cluster, there) {
            let detail = format!("cluster {name} is just so already; its passwords stay");
            return Ok(Admitted::already(detail));
        }
        let message = format!(
            "cluster {name} exists and differs: see lockstepctl cluster show {name}, change it with \
             lockstepctl cluster edit {name}, or choose another name"
        );
        return Err(Reject::exists(format!("cluster/{name}"), message));
    }
    check_room("clusters", world.clusters().len(), Cluster::COUNT_MAX)?;
    check_free(world, name)?;
    definition::check(world, &cluster, None)?;
    definition::check_first(&cluster, primary)?;
    let verb = if *adopt { "takes over" } else { "begins on" };
    let detail =
        format!("cluster {name} created: {verb} {primary}, {} members", cluster.members.len());
    let secret = ClusterSecret {
        cluster: name.clone(),
        superuser: superuser.clone(),
        replication: replication.clone(),
    };
    let incarnation = world.fleet().map(|fleet| fleet.value.incarnation).unwrap_or_default();
    let state = ClusterState::new(name.clone(), primary.clone(), incarnation);
    let writes = vec![put(cluster), put_state(state), Write::Put(Record::ClusterSecret(secret))];
    Ok(Admitted { writes, detail, ..Admitted::default() })
}

/// Apart from what time and the planner made of it.
fn is_same(new: &Cluster, there: &Cluster) -> bool {
    let plain = |member: &Member| (member.node.clone(), member.options.clone());
    let of = |cluster: &Cluster| cluster.members.iter().map(plain).collect::<Vec<_>>();
    (&new.options, new.adopt, of(new)) == (&there.options, there.adopt, of(there))
        && there.leaving.is_none()
}

/// Rows of an earlier cluster of that name are about to go.
fn check_free(world: &World, name: &ClusterName) -> Result<(), Reject> {
    let has_rows = world.cluster_states().contains_key(name)
        || world.cluster_secrets().contains_key(name)
        || world.failovers_of(name).next().is_some();
    if !has_rows {
        return Ok(());
    }
    let message =
        format!("an earlier cluster {name} is just being forgotten: try again in a moment");
    Err(precondition("being_deleted", subject(name), message))
}

/// The settings of a new member.
fn of_member(node: &NodeName, values: &[Value]) -> Result<MemberOptions, Reject> {
    let values = values.iter().map(|v| (v.name.as_str(), v.text.as_str()));
    MemberOptions::from_values(values).map_err(|e| e.within(node).into())
}

pub(super) fn change(
    world: &World,
    who: &Actor,
    name: &ClusterName,
    request: &Request,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let Some(cluster) = world.clusters().get(name).map(|cluster| &cluster.value) else {
        let message = format!("cluster {name} does not exist: see lockstepctl cluster list");
        // To have it gone is what was wanted.
        return match request {
            Request::RemoveCluster { .. } => Ok(Admitted::already(message)),
            _ => Err(Reject::not_found(subject(name), message)),
        };
    };
    let Some(state) = world.cluster_state(name) else {
        let message = format!("cluster {name} has no state in the store: restore a copy of it");
        return Err(precondition("no_state", subject(name), message));
    };
    if let Request::RemoveCluster { leaving, .. } = request {
        return remove(cluster, *leaving);
    }
    if let Some(leaving) = cluster.leaving {
        let message = format!(
            "cluster {name} is on its way out ({leaving}): lockstepctl explain cluster/{name} says \
             what it waits for"
        );
        return Err(precondition("being_deleted", subject(name), message));
    }
    let at = At { world, cluster, state, now };
    if let Request::Switchover { .. } | Request::Failover { .. } = request
        && let Some(silence) = doubt::silence(world, cluster, state, now)
    {
        let message = format!(
            "what is recorded of cluster {name} may be old, and is not decided from yet: {silence}; \
             lockstepctl explain cluster/{name} says what it waits for"
        );
        return Err(precondition("in_doubt", subject(name), message));
    }
    match request {
        Request::EditCluster { values, members, .. } => edit(&at, values, members),
        Request::SetClusterPaused { paused, .. } => set_paused(&at, *paused),
        Request::AddStandby { node, values, .. } => members::add(&at, node, values),
        Request::RemoveMember { node, delete, .. } => members::remove(&at, node, *delete),
        Request::SetMemberAdmin { node, admin, .. } => members::set_admin(&at, node, *admin),
        Request::Reclone { node, .. } => members::reclone(&at, node),
        Request::Switchover { to, at: when, .. } => moves::switchover(&at, who, to.as_ref(), *when),
        Request::CancelSwitchover { .. } => moves::cancel(&at),
        Request::Failover { to, allow_loss, .. } => {
            moves::failover(&at, who, to.as_ref(), *allow_loss)
        }
        Request::ActOnCluster { nodes, act, traceparent, .. } => {
            acts::act(&at, nodes, act, traceparent.as_ref())
        }
        _ => Err(Invalid::new("request", "is not about a cluster").into()),
    }
}

/// A cluster as a request finds it.
struct At<'a> {
    world: &'a World,
    cluster: &'a Cluster,
    state: &'a ClusterState,
    now: Timestamp,
}

impl<'a> At<'a> {
    fn name(&self) -> &'a ClusterName {
        &self.cluster.name
    }

    /// A member that is not on its way out.
    fn member(&self, node: &NodeName) -> Result<&'a Member, Reject> {
        let (name, here) = (self.name(), part(self.name(), node));
        let Some(member) = self.cluster.member(node) else {
            let message = format!(
                "node {node} is no member of cluster {name}: see lockstepctl cluster show {name}"
            );
            return Err(Reject::not_found(here, message));
        };
        if member.leaving.is_some() {
            let message = format!(
                "{node} is leaving cluster {name}: lockstepctl explain cluster/{name} says what it \
                 waits for"
            );
            return Err(precondition("being_deleted", here, message));
        }
        Ok(member)
    }

    fn is_holder(&self, node: &NodeName) -> bool {
        self.state.holder.as_ref() == Some(node)
    }

    /// Nobody changes who takes part while somebody is made primary.
    fn check_quiet(&self, what: &str) -> Result<(), Reject> {
        let how = match self.state.stage {
            Stage::Creating | Stage::Steady => return Ok(()),
            Stage::Preparing(_) | Stage::Handing(_) => "a switchover",
            Stage::Electing(_) | Stage::Promoting(_) => "a failover",
        };
        let name = self.name();
        let message = format!(
            "{how} is under way ({}): wait for its end before you {what}; lockstepctl explain \
             cluster/{name} says what it waits for",
            self.state.stage.as_str()
        );
        Err(precondition("under_way", subject(name), message))
    }

    /// Standbys that commits may wait for, but for `without`.
    fn may_acknowledge(&self, without: Option<&NodeName>) -> usize {
        let counts = |member: &&Member| {
            !self.is_holder(&member.node)
                && without != Some(&member.node)
                && member.admin == MemberAdmin::Managed
                && definition::is_sync(member)
        };
        self.cluster.members.iter().filter(counts).count()
    }

    /// Refuses to do without `node` what commits wait for.
    fn check_needed(&self, node: &NodeName, what: &str) -> Result<(), Reject> {
        let SyncPolicy::Count(k) = self.cluster.options.sync else { return Ok(()) };
        let left = self.may_acknowledge(Some(node));
        if left >= k as usize || self.may_acknowledge(None) == left {
            return Ok(());
        }
        let name = self.name();
        let message = format!(
            "commits wait for {k} standbys, and without {node} there are {left}: before you {what}, \
             add another one (lockstepctl cluster add-standby {name} NODE), or promise less \
             (lockstepctl cluster edit {name} --sync {})",
            if left == 0 { "off".to_owned() } else { left.to_string() }
        );
        Err(precondition("needed", part(name, node), message))
    }

    /// With one member anew.
    fn with(&self, member: Member, detail: String) -> Admitted {
        let mut cluster = self.cluster.clone();
        cluster.members.iter_mut().filter(|m| m.node == member.node).for_each(|m| {
            m.clone_from(&member);
        });
        Admitted { writes: vec![put(cluster)], detail, ..Admitted::default() }
    }
}

fn edit(
    at: &At<'_>,
    values: &[Value],
    members: &[(NodeName, Vec<Value>)],
) -> Result<Admitted, Reject> {
    let mut cluster = at.cluster.clone();
    set(&mut cluster.options, values)?;
    for (node, values) in members {
        at.member(node)?;
        let mut found = cluster.members.iter_mut();
        let Some(member) = found.find(|member| member.node == *node) else { continue };
        set(&mut member.options, values).map_err(|e| e.within(node))?;
    }
    let name = at.name();
    if cluster == *at.cluster {
        return Ok(Admitted::already(format!("cluster {name} is just so already")));
    }
    definition::check_unchanged(at, &cluster)?;
    definition::check(at.world, &cluster, Some(at.cluster))?;
    let detail = format!("cluster {name} changed");
    Ok(Admitted { writes: vec![put(cluster)], detail, ..Admitted::default() })
}

fn set<O: Settings>(options: &mut O, values: &[Value]) -> Result<(), Invalid> {
    options.set(values.iter().map(|v| (v.name.as_str(), v.text.as_str())))
}

fn set_paused(at: &At<'_>, paused: bool) -> Result<Admitted, Reject> {
    let name = at.name();
    let state = if paused { "paused" } else { "running" };
    if at.cluster.paused == paused {
        return Ok(Admitted::already(format!("cluster {name} is {state} already")));
    }
    if paused {
        at.check_quiet("pause the cluster")?;
    }
    let detail = match paused {
        true => format!("cluster {name} is paused: no failover happens until it is resumed"),
        false => format!("cluster {name} is running now"),
    };
    let cluster = Cluster { paused, ..at.cluster.clone() };
    Ok(Admitted { writes: vec![put(cluster)], detail, ..Admitted::default() })
}

/// The planner then has every node let go of it; the record goes when all have.
fn remove(cluster: &Cluster, leaving: Leaving) -> Result<Admitted, Reject> {
    let name = &cluster.name;
    match cluster.leaving {
        Some(now) if now == leaving => {
            return Ok(Admitted::already(format!("cluster {name} is on its way out already")));
        }
        // Members may have let go of it, and their data is nobody's by now.
        Some(now) => {
            let message = format!(
                "cluster {name} is on its way out already, by {now}: lockstepctl explain \
                 cluster/{name} says what it waits for"
            );
            return Err(precondition("being_deleted", subject(name), message));
        }
        None => {}
    }
    let detail = match leaving {
        Leaving::Release => format!("cluster {name} is being released; its databases run on"),
        Leaving::Delete => format!("cluster {name} is being deleted with its data on all members"),
    };
    let cluster = Cluster { leaving: Some(leaving), ..cluster.clone() };
    Ok(Admitted { writes: vec![put(cluster)], detail, ..Admitted::default() })
}

fn put(cluster: Cluster) -> Write {
    Write::Put(Record::Cluster(Box::new(cluster)))
}

fn put_state(state: ClusterState) -> Write {
    Write::Put(Record::ClusterState(Box::new(state)))
}

fn subject(name: &ClusterName) -> String {
    format!("cluster/{name}")
}

fn part(name: &ClusterName, node: &NodeName) -> String {
    format!("cluster/{name}/{node}")
}
