//! All members of this node as Prometheus reads them: under Patroni's names where there is one, so that
//! dashboards go on, and ours. Pure.

use std::fmt::Write;

use lockstep_model::cluster::report::{Trouble, Verdict};
use lockstep_model::cluster::{MemberReport, MemberState};

use super::View;
use super::check::{lag, replication_state};
use super::status::version_number;

/// Value of one member; None: it has none now.
type Read = fn(&View, &MemberReport) -> Option<f64>;

/// Name, what it is, and how it is read.
const GAUGES: &[(&str, &str, Read)] = &[
    ("patroni_postgres_running", "1 if postgres runs", |_, r| flag(runs(r))),
    ("patroni_primary", "1 if it is the primary and its lease holds", |v, r| flag(leads(v, r))),
    ("patroni_replica", "1 if it is a standby", |_, r| flag(is_replica(r))),
    ("patroni_standby_leader", "Always 0: there are no standby clusters", |_, _| flag(false)),
    ("patroni_sync_standby", "Always 0: commits wait for a quorum", |_, _| flag(false)),
    ("patroni_quorum_standby", "1 if commits wait for it", |v, r| {
        flag(v.place.sync && is_replica(r))
    }),
    ("patroni_xlog_location", "Where a primary's log ends, 0 on a standby", |_, r| {
        r.lsn.map(|lsn| if is_replica(r) { 0.0 } else { number(lsn.0) })
    }),
    ("patroni_xlog_received_location", "What a standby received, 0 on a primary", |_, r| {
        r.lsn.map(|lsn| if is_replica(r) { number(lsn.0) } else { 0.0 })
    }),
    ("patroni_xlog_replayed_location", "What a standby applied, 0 on a primary", |_, r| {
        Some(r.replayed.map_or(0.0, |lsn| number(lsn.0)))
    }),
    ("patroni_postgres_streaming", "1 if a standby streams", |_, r| {
        flag(is_replica(r) && replication_state(r) == "streaming")
    }),
    ("patroni_postgres_in_archive_recovery", "1 if a standby does not stream", |_, r| {
        flag(is_replica(r) && replication_state(r) != "streaming")
    }),
    ("patroni_postgres_server_version", "150018 is 15.18", |_, r| {
        version_number(&r.version).map(f64::from)
    }),
    ("patroni_postgres_timeline", "The timeline of its data", |_, r| {
        Some(f64::from(r.lineage.timeline())).filter(|timeline| *timeline > 0.0)
    }),
    ("patroni_cluster_unlocked", "1 if nobody holds the term", |v, _| {
        flag(v.place.holder.is_none())
    }),
    ("patroni_pending_restart", "1 if settings wait for a restart", |_, r| {
        flag(!r.pending_restart.is_empty())
    }),
    ("patroni_is_paused", "1 if the cluster is paused", |v, _| flag(v.place.paused)),
    ("lockstep_member_term", "The highest term that it promised", |_, r| Some(number(r.term.0))),
    ("lockstep_member_may_write", "1 if its lease holds", |v, _| flag(v.may_write)),
    ("lockstep_member_serves", "1 unless its node is drained or disabled", |v, _| {
        flag(v.place.serve)
    }),
    ("lockstep_member_trouble", "1 if postgres hangs or lacks something", |_, r| {
        flag(r.trouble != Trouble::None)
    }),
    ("lockstep_member_problem", "1 if something keeps it from its goal", |_, r| {
        flag(!r.problem.is_empty())
    }),
    ("lockstep_member_findings", "What cluster check would have mended", |_, r| {
        let wrong = r.findings.iter().filter(|found| found.verdict != Verdict::Ok).count();
        Some(number((wrong + r.warnings.len()) as u64))
    }),
    ("lockstep_member_received_lag_bytes", "What a standby has not received", |_, r| {
        lag(r, true).map(number)
    }),
    ("lockstep_member_replayed_lag_bytes", "What a standby has not applied", |_, r| {
        lag(r, false).map(number)
    }),
];

#[expect(clippy::unnecessary_wraps, reason = "as all readers give it")]
fn flag(is_so: bool) -> Option<f64> {
    Some(f64::from(u8::from(is_so)))
}

/// Prometheus knows no other numbers; positions are exact to 2^53 bytes.
#[expect(clippy::cast_precision_loss, reason = "the format's numbers are so")]
fn number(value: u64) -> f64 {
    value as f64
}

fn runs(report: &MemberReport) -> bool {
    use MemberState as S;
    matches!(report.state, S::Standby | S::Sealed | S::Promoting | S::Primary | S::Rogue)
}

fn leads(view: &View, report: &MemberReport) -> bool {
    report.state == MemberState::Primary && report.holds.is_some() && view.may_write
}

fn is_replica(report: &MemberReport) -> bool {
    matches!(report.state, MemberState::Standby | MemberState::Sealed | MemberState::Starting)
}

/// In the text format 0.0.4.
pub fn text(views: &[View], node: &str) -> String {
    let mut text = String::new();
    for (name, help, read) in GAUGES {
        head(&mut text, name, help);
        for view in views {
            let Some(value) = view.report.as_ref().and_then(|report| read(view, report)) else {
                continue;
            };
            let cluster = &view.place.cluster;
            line(&mut text, name, &format!("scope=\"{cluster}\",name=\"{node}\""), value);
        }
    }
    const STATE: &str = "lockstep_member_state";
    head(&mut text, STATE, "1, with the state as a label");
    const STANDBY: &str = "lockstep_standby_replayed_lag_bytes";
    let mut standbys = String::new();
    for view in views {
        let (cluster, Some(report)) = (&view.place.cluster, &view.report) else { continue };
        let labels = format!("scope=\"{cluster}\",name=\"{node}\"");
        line(&mut text, STATE, &format!("{labels},state=\"{}\"", report.state), 1.0);
        let Some(end) = report.lsn else { continue };
        for row in &report.standbys {
            let labels = format!("{labels},standby=\"{}\"", row.node);
            line(&mut standbys, STANDBY, &labels, number(end.since(row.replayed)));
        }
    }
    head(&mut text, STANDBY, "What a standby that streams from this primary has not applied");
    text + &standbys
}

fn head(text: &mut String, name: &str, help: &str) {
    // Nothing fails to be written to a string.
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge");
}

/// Names of clusters and nodes have nothing that would have to be escaped.
fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}
