//! What readers of Patroni's API look up beside checks: the cluster as this member knows it, its history
//! and how it is configured, under the names that they know. Pure. Everybody may read it, so it has no
//! value of a parameter and no line of pg_hba.conf.

use lockstep_model::cluster::MemberState;
use lockstep_model::cluster::options::{ClusterOptions, SyncPolicy};
use lockstep_model::cluster::report::SyncState;
use lockstep_model::setting::Settings;
use serde_json::{Map, Value, json};

use super::View;
use super::check::{lag, tags};
use super::status;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    Cluster,
    History,
    Config,
}

/// Paths below a member's.
pub const NAMES: &[(&str, Page)] =
    &[("cluster", Page::Cluster), ("history", Page::History), ("config", Page::Config)];

/// Settings whose values may be somebody's secret.
const PRIVATE: &[&str] = &["parameter", "hba"];

impl Page {
    pub fn find(path: &str) -> Option<Self> {
        NAMES.iter().find(|(name, _)| *name == path).map(|(_, page)| *page)
    }

    pub fn show(self, view: &View, node: &str) -> Value {
        match self {
            Self::Cluster => cluster(view, node),
            Self::History => history(view),
            Self::Config => config(&view.place.options),
        }
    }
}

/// A primary knows who streams; a standby only itself, and who leads.
fn cluster(view: &View, node: &str) -> Value {
    let place = &view.place;
    let report = view.report.as_deref();
    let leads = |name: &str| place.holder.as_ref().is_some_and(|holder| holder.as_str() == name);
    let role = |name: &str, sync: bool| match () {
        () if leads(name) => "leader",
        () if sync => "quorum_standby",
        () => "replica",
    };
    let tags: Map<String, Value> =
        tags(&place.member).into_iter().map(|(key, value)| (key, value.into())).collect();
    let mut own = json!({
        "name": node,
        "role": role(node, place.sync),
        "port": place.member.port.unwrap_or(place.options.instance.port),
        "tags": tags,
    });
    if let Some(host) = &place.member.host {
        own["host"] = host.as_str().into();
    }
    own["state"] = report.map_or("unknown", status::member_state).into();
    if let Some(report) = report {
        if report.lineage.timeline() > 0 {
            own["timeline"] = report.lineage.timeline().into();
        }
        if !leads(node) {
            own["lag"] = lag(report, false).map_or("unknown".into(), Value::from);
        }
    }
    let mut members = vec![own];
    for peer in &place.peers {
        let name = peer.peer.node.as_str();
        let row = report
            .filter(|report| report.state == MemberState::Primary)
            .and_then(|report| report.standbys.iter().find(|row| row.node.as_str() == name));
        let sync = row.is_some_and(|row| row.sync_state != SyncState::Async);
        let mut one = json!({
            "name": name,
            "role": role(name, sync),
            "state": if row.is_some_and(|row| row.streaming) { "streaming" } else { "unknown" },
            "host": peer.postgres.host(),
            "port": peer.postgres.port,
        });
        if let (Some(row), Some(end)) = (row, report.and_then(|report| report.lsn)) {
            one["lag"] = end.since(row.replayed).into();
        }
        members.push(one);
    }
    members.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut all = json!({ "members": members, "scope": place.cluster.as_str() });
    if place.paused {
        all["pause"] = true.into();
    }
    all
}

/// `[timeline, where it was left, why]` for each timeline before the present one.
fn history(view: &View) -> Value {
    let lineage = view.report.as_deref().map_or(&view.place.lineage, |report| &report.lineage);
    let pairs = lineage.0.iter().zip(lineage.0.iter().skip(1));
    let row = |timeline: u32, end: u64| json!([timeline, end, "no recovery target specified"]);
    pairs.map(|(before, after)| row(before.timeline, after.begins.0)).collect()
}

fn config(options: &ClusterOptions) -> Value {
    let all = options.all_values().into_iter().filter(|(name, _)| !PRIVATE.contains(name));
    let own: Map<String, Value> = all
        .map(|(name, values)| match <[String; 1]>::try_from(values) {
            Ok([value]) => (name.to_owned(), value.into()),
            Err(values) => (name.to_owned(), values.into()),
        })
        .collect();
    let seconds = |ms: lockstep_model::Millis| ms.0.div_ceil(1000);
    let count = match options.sync {
        SyncPolicy::Auto | SyncPolicy::Off => 1,
        SyncPolicy::Count(k) => k,
    };
    json!({
        "ttl": seconds(options.lease.length),
        "loop_wait": seconds(options.checks.poll),
        "retry_timeout": seconds(options.checks.timeout),
        "maximum_lag_on_failover": options.failover.max_lag.0,
        "synchronous_mode": if options.sync == SyncPolicy::Off { "off" } else { "quorum" },
        "synchronous_node_count": count,
        "postgresql": {
            "use_pg_rewind": options.rejoin.rewind, "use_slots": options.replication.slots,
        },
        "lockstep": own,
    })
}
