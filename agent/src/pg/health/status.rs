//! A member's status as JSON, under the names that readers of Patroni's know; what has no such name is
//! below `lockstep`. Pure.

use lockstep_model::cluster::report::StandbyRow;
use lockstep_model::cluster::{MemberReport, MemberState};
use serde_json::{Map, Value, json};

use super::View;
use super::check::{lag, replication_state, tags};

pub fn status(view: &View, node: &str) -> Value {
    let place = &view.place;
    let mut shown = Map::new();
    let mut show = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    let tags: Map<String, Value> =
        tags(&place.member).into_iter().map(|(key, value)| (key, value.into())).collect();
    if !tags.is_empty() {
        show("tags", tags.into());
    }
    if place.paused {
        show("pause", true.into());
    }
    let scope = place.cluster.to_string();
    let mut own = json!({
        "version": env!("CARGO_PKG_VERSION"), "cluster": scope, "node": node, "term": place.term.0,
        "goal": place.goal.as_str(), "may_write": view.may_write, "synchronous": place.sync,
    });
    match view.report.as_deref() {
        None => {
            show("state", "unknown".into());
        }
        Some(report) => {
            show("state", member_state(report).into());
            show("role", role(report).into());
            if let Some(id) = report.system_id {
                show("database_system_identifier", id.to_string().into());
            }
            if let Some(version) = version_number(&report.version) {
                show("server_version", version.into());
            }
            if report.lineage.timeline() > 0 {
                show("timeline", report.lineage.timeline().into());
            }
            show("xlog", xlog(report));
            if report.state == MemberState::Primary {
                let rows = report.standbys.iter().map(replication).collect();
                show("replication", Value::Array(rows));
            } else {
                show("replication_state", replication_state(report).into());
            }
            if place.sync && report.state != MemberState::Primary {
                show("quorum_standby", true.into());
            }
            if !report.pending_restart.is_empty() {
                show("pending_restart", true.into());
            }
            own["state"] = report.state.as_str().into();
            own["holds"] = report.holds.map(|term| term.0).into();
            own["trouble"] = report.trouble.as_str().into();
            own["problem"] = report.problem.as_str().into();
            own["lag_bytes"] = lag(report, false).into();
        }
    }
    show("lockstep", own);
    Value::Object(shown)
}

/// As Patroni names it.
pub fn member_state(report: &MemberReport) -> &'static str {
    use MemberState as S;
    match report.state {
        S::Standby | S::Sealed | S::Promoting | S::Primary | S::Rogue => "running",
        S::Starting => "starting",
        S::Stopping => "stopping",
        S::Copying => "creating replica",
        S::Crashed => "crashed",
        S::Missing
        | S::Rewinding
        | S::Stopped
        | S::Fenced
        | S::Unfenced
        | S::Diverged
        | S::Foreign => "stopped",
    }
}

fn role(report: &MemberReport) -> &'static str {
    if report.state == MemberState::Primary { "primary" } else { "replica" }
}

/// `15.18` is 150018.
pub fn version_number(version: &str) -> Option<u32> {
    let (major, minor) = version.split_once('.')?;
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    major.parse::<u32>().ok()?.checked_mul(10_000)?.checked_add(digits.parse().ok()?)
}

fn xlog(report: &MemberReport) -> Value {
    let at = |lsn: Option<lockstep_model::cluster::Lsn>| lsn.map(|lsn| lsn.0);
    match report.state {
        MemberState::Primary | MemberState::Rogue => json!({ "location": at(report.lsn) }),
        _ => json!({
            "received_location": at(report.lsn), "replayed_location": at(report.replayed),
        }),
    }
}

fn replication(row: &StandbyRow) -> Value {
    json!({
        "application_name": row.node.as_str(),
        "state": if row.streaming { "streaming" } else { "catchup" },
        "sync_state": row.sync_state.as_str(),
        "sent_lsn": row.sent.to_string(),
        "flush_lsn": row.flushed.to_string(),
        "replay_lsn": row.replayed.to_string(),
    })
}
