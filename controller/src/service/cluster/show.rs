//! A cluster as it is shown: what is wanted, what was decided, what each member says and how far it is
//! behind, and one line on what is not well. Reads only.

mod warnings;

use lockstep_model::cluster::report::StandbyRow;
use lockstep_model::cluster::{Cluster, ClusterState, Lsn, Member, MemberReport};
use lockstep_model::node::NodeHealth;
use lockstep_model::record::Versioned;
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{ClusterName, NodeName, Timestamp};
use lockstep_plan::leases::Uptime;
use lockstep_plan::seen::Heard;
use lockstep_plan::{World, clusters};
use lockstep_proto::convert::cluster::settings;
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::v1;
use lockstep_transport::{boottime, clock};

use crate::driver::DriverHandle;
use crate::identity::vault::Vault;

/// What is looked at.
pub(super) struct Shown<'a> {
    pub world: &'a World,
    vault: &'a Vault,
    now: Timestamp,
    up: Uptime,
}

impl Shown<'_> {
    pub fn of<T>(driver: &DriverHandle, vault: &Vault, look: impl FnOnce(&Shown<'_>) -> T) -> T {
        driver.read(|world| {
            let (now, up) = (clock::now(), boottime::now().into());
            look(&Shown { world, vault, now, up })
        })
    }

    fn planned(&self, cluster: &ClusterName, subject: &str) -> Option<String> {
        let reasons = clusters::reasons(self.world, cluster, self.now);
        let found = reasons.into_iter().find(|reason| reason.subject == subject);
        found.map(|reason| reason.text)
    }
}

pub(super) fn show(shown: &Shown<'_>, cluster: &Versioned<Cluster>) -> v1::Cluster {
    let world = shown.world;
    let Versioned { revision, value: cluster } = cluster;
    let Cluster { name, adopt, members, options, paused, created_at, leaving } = cluster;
    let versioned = world.cluster_states().get(name);
    let state = versioned.map(|state| &state.value);
    let revision = versioned.map_or(*revision, |state| state.revision.max(*revision));
    let primary = state.and_then(|state| said(world, cluster, state.holder.as_ref()?));
    let members: Vec<v1::ClusterMember> =
        members.iter().map(|member| self::member(shown, cluster, state, primary, member)).collect();
    let reason = shown.planned(name, &format!("cluster/{name}")).or_else(|| {
        let troubled = members.iter().find(|member| !member.reason.is_empty())?;
        Some(format!("{}: {}", troubled.node, troubled.reason))
    });
    let last = world.failovers_of(name).next_back().map(|report| (&report.value).into());
    v1::Cluster {
        name: name.to_string(),
        adopt: *adopt,
        settings: settings(options),
        paused: *paused,
        created_at: Some(to_wire_time(*created_at)),
        leaving: leaving.map(|leaving| leaving.to_string()).unwrap_or_default(),
        revision: revision.0,
        state: state.map(Into::into),
        members,
        lease: state.and_then(|state| lease(shown, state)),
        last_failover: last,
        reason: reason.unwrap_or_default(),
        warnings: warnings::of(shown, cluster, state),
    }
}

/// Of the term that counts.
fn lease(shown: &Shown<'_>, state: &ClusterState) -> Option<v1::ClusterLease> {
    let granted = shown.world.leases().get(&state.cluster)?;
    (granted.term == state.term).then(|| v1::ClusterLease {
        holder: granted.holder.to_string(),
        term: granted.term.0,
        heard_age_ms: shown.up.since(granted.heard).0,
        left_ms: granted.until.map(|until| until.since(shown.up).0),
    })
}

fn said<'a>(
    world: &'a World,
    cluster: &Cluster,
    node: &NodeName,
) -> Option<&'a Heard<MemberReport>> {
    world.member_said(&cluster.name, node)
}

fn member(
    shown: &Shown<'_>,
    cluster: &Cluster,
    state: Option<&ClusterState>,
    primary: Option<&Heard<MemberReport>>,
    member: &Member,
) -> v1::ClusterMember {
    let world = shown.world;
    let Member { node, options, admin, copy, leaving } = member;
    let heard = said(world, cluster, node);
    let known = state.and_then(|state| state.members.get(node));
    let (goal, applied) = goal(world, cluster, node);
    let is_primary = state.is_some_and(|state| state.holder.as_ref() == Some(node));
    let lag = Lag::of(primary.filter(|_| !is_primary), heard);
    let row = primary.and_then(|primary| row(&primary.report, node));
    v1::ClusterMember {
        node: node.to_string(),
        settings: settings(options),
        admin: admin.to_string(),
        copy: *copy,
        copied: known.map_or(0, |known| known.copied),
        failed_term: known.and_then(|known| known.failed_term).map_or(0, |term| term.0),
        goal,
        applied,
        postgres: postgres(world, cluster, member),
        connected: world.seen(node).is_some_and(|seen| seen.is_connected()),
        report: heard.map(|heard| heard.report.clone().into()),
        age_ms: heard.map_or(0, |heard| shown.up.since(heard.at).0),
        lag_bytes: lag.received,
        replay_lag_bytes: lag.replayed,
        replay_lag_ms: row.and_then(|row| row.replay_lag).map(|lag| lag.0),
        sync_state: row.map(|row| row.sync_state.to_string()).unwrap_or_default(),
        reason: reason(shown, cluster, member).unwrap_or_default(),
        leaving: leaving.map(|leaving| leaving.to_string()).unwrap_or_default(),
    }
}

/// What it was told last, and whether its agent has taken that up.
fn goal(world: &World, cluster: &Cluster, node: &NodeName) -> (String, bool) {
    match world.newest(node, &Slot::Cluster(cluster.name.clone())) {
        Some(task) => match &task.spec {
            TaskSpec::ClusterPlace(place) => (place.goal.as_str().to_owned(), task.succeeded()),
            _ => (String::new(), task.succeeded()),
        },
        None => (String::new(), false),
    }
}

/// Where its postgres is reached; empty: nobody told an address yet.
fn postgres(world: &World, cluster: &Cluster, member: &Member) -> String {
    let told = || {
        let node = &world.nodes().get(&member.node)?.value;
        node.addresses.first().map(|address| address.at.host().to_owned())
    };
    let host = member.options.host.clone().or_else(told);
    let port = cluster.instance(member).port;
    host.map(|host| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    })
    .unwrap_or_default()
}

/// Its row, while it streams.
fn row<'a>(primary: &'a MemberReport, node: &NodeName) -> Option<&'a StandbyRow> {
    primary.standbys.iter().find(|row| row.node == *node && row.streaming)
}

/// Bytes behind the primary, as far as both positions are known.
#[derive(Default)]
struct Lag {
    received: Option<u64>,
    replayed: Option<u64>,
}

impl Lag {
    fn of(primary: Option<&Heard<MemberReport>>, member: Option<&Heard<MemberReport>>) -> Self {
        let (Some(primary), Some(member)) = (primary, member) else { return Self::default() };
        let behind = |at: Option<Lsn>| Some(primary.report.lsn?.since(at?));
        Self { received: behind(member.report.lsn), replayed: behind(member.report.replayed) }
    }
}

/// What keeps a member from what it is to be.
fn reason(shown: &Shown<'_>, cluster: &Cluster, member: &Member) -> Option<String> {
    let (world, node) = (shown.world, &member.node);
    let heard = said(world, cluster, node).map(|heard| &heard.report);
    let problem = || heard.map(|report| report.problem.clone()).filter(|text| !text.is_empty());
    let planned = || shown.planned(&cluster.name, &format!("cluster/{}/{node}", cluster.name));
    let refused = || {
        let task = world.newest(node, &Slot::Cluster(cluster.name.clone()))?;
        let ended = task.ended.as_ref().filter(|_| !task.succeeded())?;
        Some(format!("{}: {}", ended.outcome.kind, ended.outcome.message))
    };
    let health = || {
        let status = world.node_health(node, shown.now);
        let well = matches!(status.health, NodeHealth::Healthy | NodeHealth::Warning);
        (!well).then(|| format!("{node} is {}: {}", status.health, status.why))
    };
    problem().or_else(planned).or_else(refused).or_else(health)
}
