//! What is done once to instances: restart, reload, rewind, and a new copy.

use lockstep_model::cluster::MemberAdmin;
use lockstep_model::{ClusterName, NodeName};
use lockstep_proto::v1;

use super::{changed, follow, get, switch};
use crate::args::Change;
use crate::args::cluster::{Of, On, Patience};
use crate::client::Client;
use crate::cmd::{task, tell};
use crate::error::Failure;
use crate::{render, wait};

const RESTART: &str = "restart";

/// Settings of which a standby needs at least what the primary's log was written with.
const FLOORS: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// One member after the other, each of which is back before the next one goes; the primary last, unless
/// it lowers what its standbys have to have, and with `over` when another one is primary already.
pub async fn restart(client: &Client, on: On, pending: bool, over: bool) -> Result<(), Failure> {
    let On { name, nodes, change } = on;
    if pending && !change.dry_run {
        // What was set just before waits for a restart once members have taken it up.
        verify(client, &name).await?;
    }
    if let ([_], false) = (&nodes[..], over) {
        return act(client, On { name, nodes, change }, RESTART, pending, true).await;
    }
    let order = order(&get(client, name.as_str()).await?, &nodes, pending);
    if order.is_empty() {
        render::note("nothing waits for a restart");
    }
    for (at, node) in order.iter().enumerate() {
        render::note(&format!("{node}:"));
        // What it waited for is in force after its second restart alone.
        let is_second = order[..at].contains(node);
        let (pending, round) = (pending && !is_second, if is_second { "-2" } else { "" });
        // An id stands for one request.
        let request_id = change.request_id.as_ref().map(|id| format!("{id}-{node}{round}"));
        let (dry_run, if_revision) = (change.dry_run, change.if_revision);
        let cluster = get(client, name.as_str()).await?;
        if over && cluster.state.is_some_and(|state| state.holder == *node) {
            switch::away(client, &name, dry_run).await?;
            if !dry_run {
                // It comes back by a start, with all that waited for one.
                follow::until_back(client, name.as_str(), node).await?;
            }
            continue;
        }
        let change = Change { dry_run, if_revision, request_id };
        let on = On { name: name.clone(), nodes: vec![node.parse()?], change };
        act(client, on, RESTART, pending, true).await?;
        if !dry_run {
            // Its standbys too, when it was the primary.
            for node in &order {
                follow::until_back(client, name.as_str(), node).await?;
            }
        }
    }
    Ok(())
}

/// Those that are named, or all that are managed; with `pending` only those that wait for it.
fn order(cluster: &v1::Cluster, nodes: &[NodeName], pending: bool) -> Vec<String> {
    let holder = cluster.state.as_ref().map_or("", |state| &state.holder);
    let named = |member: &&v1::ClusterMember| match nodes.is_empty() {
        true => member.admin == MemberAdmin::Managed.as_str() && member.connected,
        false => nodes.iter().any(|node| node.as_str() == member.node),
    };
    let waits = |member: &&v1::ClusterMember| {
        let report = member.report.as_ref();
        !pending || report.is_some_and(|report| !report.pending_restart.is_empty())
    };
    let found = cluster.members.iter().filter(named).filter(waits);
    let (primary, standbys): (Vec<_>, Vec<_>) = found.partition(|member| member.node == holder);
    let lowers = primary.first().is_some_and(|member| changes(member, |now, then| then < now));
    let raises = primary.first().is_some_and(|member| changes(member, |now, then| then > now));
    let parts = match (raises, lowers) {
        (_, false) => vec![&standbys, &primary],
        (false, true) => vec![&primary, &standbys],
        // Standbys keep what the log needs until the primary has been restarted.
        (true, true) => vec![&standbys, &primary, &standbys],
    };
    parts.into_iter().flatten().map(|member| member.node.clone()).collect()
}

/// A restart changes a setting that a standby may not have lower, in that direction.
fn changes(member: &v1::ClusterMember, is_so: impl Fn(u64, u64) -> bool) -> bool {
    let mut rows = member.report.iter().flat_map(|report| &report.pending_restart);
    rows.any(|row| {
        let values = row.now.parse().ok().zip(row.then.parse().ok());
        FLOORS.contains(&row.name.as_str()) && values.is_some_and(|(now, then)| is_so(now, then))
    })
}

pub async fn reload(client: &Client, on: On) -> Result<(), Failure> {
    act(client, on, "reload", false, true).await
}

/// Has all members that are there look at everything now, and waits until they have said what they see.
pub async fn verify(client: &Client, name: &ClusterName) -> Result<(), Failure> {
    let request = v1::ActOnClusterRequest {
        mutation: Change::default().mutation()?,
        name: name.to_string(),
        act: "verify".to_owned(),
        ..Default::default()
    };
    let begun = client.clusters().act_on_cluster(request).await?.into_inner();
    for task in &begun.tasks {
        let ended = task::outcome(client, &task.id).await?;
        if !task::is_ok(&ended) {
            let why = ended.outcome.map(|outcome| outcome.message).unwrap_or_default();
            render::note(&format!("{} could not look: {why}", task.node));
        }
    }
    let nodes: Vec<String> = begun.tasks.into_iter().map(|task| task.node).collect();
    follow::until_said(client, name.as_str(), &nodes).await
}

pub async fn rewind(client: &Client, of: Of, wait: Patience) -> Result<(), Failure> {
    let Of { name, node, change } = of;
    act(client, On { name, nodes: vec![node], change }, "rewind", false, wait.waits()).await
}

async fn act(
    client: &Client,
    on: On,
    what: &str,
    pending: bool,
    waits: bool,
) -> Result<(), Failure> {
    let On { name, nodes, change } = on;
    let request = v1::ActOnClusterRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        nodes: nodes.iter().map(ToString::to_string).collect(),
        act: what.to_owned(),
        pending,
    };
    let mut answer = client.clusters().act_on_cluster(request).await?.into_inner();
    tell(answer.result.as_ref(), change.dry_run);
    if !waits || change.dry_run {
        return render::show(client.format, &answer, || task::table(&answer.tasks));
    }
    for begun in &mut answer.tasks {
        *begun = task::outcome(client, &begun.id).await?;
    }
    render::show(client.format, &answer, || task::table(&answer.tasks))?;
    let failed: Vec<&str> =
        answer.tasks.iter().filter(|t| !task::is_ok(t)).map(|t| t.node.as_str()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(format!("{what} failed on {}", failed.join(", ")))),
    }
}

pub async fn reclone(client: &Client, of: Of, yes: bool, wait: Patience) -> Result<(), Failure> {
    let Of { name, node, change } = of;
    let what = format!("The data of {node} in cluster {name} will be copied anew.");
    wait::confirm(yes || change.dry_run, &what)?;
    let request = v1::RecloneRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        node: node.to_string(),
    };
    let answer = client.clusters().reclone(request).await?.into_inner();
    if change.dry_run || !wait.waits() {
        return changed(client, &change, answer.result.as_ref(), answer.cluster);
    }
    tell(answer.result.as_ref(), false);
    follow::until_follows(client, name.as_str(), node.as_str()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_comes_last_and_only_those_that_wait_when_asked_so() {
        let member = |node: &str, waits: bool| {
            let pending =
                v1::PendingRestart { name: "max_connections".into(), ..Default::default() };
            let pending_restart = if waits { vec![pending] } else { Vec::new() };
            v1::ClusterMember {
                node: node.to_owned(),
                admin: "managed".to_owned(),
                connected: true,
                report: Some(v1::MemberReport { pending_restart, ..Default::default() }),
                ..Default::default()
            }
        };
        let state = v1::ClusterState { holder: "db1".to_owned(), ..Default::default() };
        let mut cluster = v1::Cluster {
            state: Some(state),
            members: vec![member("db1", true), member("db2", false), member("db3", true)],
            ..Default::default()
        };
        assert_eq!(order(&cluster, &[], false), ["db2", "db3", "db1"]);
        assert_eq!(order(&cluster, &[], true), ["db3", "db1"]);
        let named = ["db1", "db2"].map(|node| node.parse().unwrap());
        assert_eq!(order(&cluster, &named, false), ["db2", "db1"]);
        // A lowered setting goes to the primary first; when another one is raised, standbys go twice.
        let row = |name: &str, now: &str, then: &str| v1::PendingRestart {
            name: name.into(),
            now: now.into(),
            then: then.into(),
        };
        let lowered = row("max_connections", "200", "100");
        let raised = row("max_wal_senders", "10", "20");
        let with = |rows: Vec<v1::PendingRestart>| {
            let mut cluster = cluster.clone();
            cluster.members[0].report.as_mut().unwrap().pending_restart = rows;
            order(&cluster, &[], false)
        };
        assert_eq!(with(vec![lowered.clone()]), ["db1", "db2", "db3"]);
        assert_eq!(with(vec![raised.clone()]), ["db2", "db3", "db1"]);
        assert_eq!(with(vec![row("shared_buffers", "2", "1")]), ["db2", "db3", "db1"]);
        assert_eq!(with(vec![raised, lowered]), ["db2", "db3", "db1", "db2", "db3"]);
        cluster.members[1].admin = "stopped".to_owned();
        cluster.members[2].connected = false;
        assert_eq!(order(&cluster, &[], false), ["db1"]);
    }
}
