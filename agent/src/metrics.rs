//! Syncs and mirrors of this node as Prometheus reads them: what `sync show` tells, in the text format
//! 0.0.4. Pure.

use std::fmt::Write;

use lockstep_model::mirror::MirrorReport;
use lockstep_model::sync::{Delivery, SourceReport};
use lockstep_model::{Millis, Timestamp};

use crate::link::SyncReports;
use crate::mirror::MirrorReports;

/// A row per target of what this node delivers. Name, kind, what it is, and how it is read; None: it
/// has no value now.
type Row = (&'static str, &'static str, &'static str, fn(&SourceReport, &Delivery) -> Option<f64>);

const DELIVERIES: &[Row] = &[
    ("lockstep_sync_lag_seconds", "gauge", "Age of the oldest change that it lacks", |_, d| {
        Some(seconds(d.lag))
    }),
    ("lockstep_sync_queue_entries", "gauge", "Entries of the journal that it lacks", |s, d| {
        Some(number(s.head.saturating_sub(d.acked)))
    }),
    (
        "lockstep_sync_waiting_paths",
        "gauge",
        "Paths that it lacks; absent while a complete pass is due",
        |_, d| d.waiting_paths.map(number),
    ),
    ("lockstep_sync_sent_bytes_total", "counter", "Sent since the agent started", |_, d| {
        Some(number(d.sent_bytes))
    }),
    (
        "lockstep_sync_last_success_timestamp_seconds",
        "gauge",
        "When a delivery last succeeded",
        |_, d| d.last_success_at.map(instant),
    ),
    (
        "lockstep_sync_verified_timestamp_seconds",
        "gauge",
        "When it was last compared and found equal or repaired",
        |_, d| d.verified_at.map(instant),
    ),
    ("lockstep_sync_drift_entries", "gauge", "Entries that the last comparison found", |_, d| {
        Some(number(d.drift))
    }),
    ("lockstep_sync_failing", "gauge", "1 if the last try failed", |_, d| {
        Some(flag(!d.last_error.is_empty()))
    }),
];

/// Of all syncs and mirrors of the node.
pub fn text(syncs: &SyncReports, mirrors: &MirrorReports) -> String {
    let mut text = String::new();
    let sources = || syncs.iter().filter_map(|(name, report)| Some((name, report.source()?)));
    for (metric, kind, help, read) in DELIVERIES {
        head(&mut text, metric, kind, help);
        for (sync, source) in sources() {
            for delivery in &source.deliveries {
                let Some(value) = read(source, delivery) else { continue };
                let labels = format!("sync=\"{sync}\",target=\"{}\"", delivery.target);
                line(&mut text, metric, &labels, value);
            }
        }
    }
    const STATE: &str = "lockstep_sync_state";
    head(&mut text, STATE, "gauge", "1, with the target's state as a label");
    for (sync, source) in sources() {
        for Delivery { target, state, .. } in &source.deliveries {
            let labels = format!("sync=\"{sync}\",target=\"{target}\",state=\"{state}\"");
            line(&mut text, STATE, &labels, 1.0);
        }
    }
    const ENGINE: &str = "lockstep_sync_engine_state";
    head(&mut text, ENGINE, "gauge", "1, with the state of its watching as a label");
    for (sync, source) in sources() {
        line(&mut text, ENGINE, &format!("sync=\"{sync}\",state=\"{}\"", source.engine), 1.0);
    }
    const FILLED: &str = "lockstep_sync_filled";
    head(&mut text, FILLED, "gauge", "1 if the copy here is complete");
    for (sync, report) in syncs {
        let Some(target) = report.target() else { continue };
        line(&mut text, FILLED, &format!("sync=\"{sync}\""), flag(target.filled));
    }
    for (metric, help, read) in MIRRORS {
        head(&mut text, metric, "gauge", help);
        for (mirror, report) in mirrors {
            let Some(value) = read(report) else { continue };
            line(&mut text, metric, &format!("mirror=\"{mirror}\""), value);
        }
    }
    text
}

/// Name, what it is, and how it is read.
type OfMirror = (&'static str, &'static str, fn(&MirrorReport) -> Option<f64>);

const MIRRORS: &[OfMirror] = &[
    ("lockstep_mirror_filled", "1 if a complete tree is here", |m| Some(flag(m.filled))),
    ("lockstep_mirror_problem", "1 if something keeps the node from its part", |m| {
        Some(flag(!m.problem.is_empty()))
    }),
    ("lockstep_mirror_pulling", "1 while it is pulled", |m| Some(flag(m.pull.is_some()))),
    ("lockstep_mirror_pull_done_bytes", "What the pull under way has brought", |m| {
        m.pull.map(|pull| number(pull.done_bytes))
    }),
];

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// Prometheus knows no other numbers.
#[expect(clippy::cast_precision_loss, reason = "the format's numbers are so")]
fn number(value: u64) -> f64 {
    value as f64
}

fn seconds(time: Millis) -> f64 {
    number(time.0) / 1000.0
}

fn instant(at: Timestamp) -> f64 {
    number(at.0) / 1000.0
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Nothing fails to be written to a string.
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

/// Names of syncs, mirrors and nodes have nothing that would have to be escaped.
fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_model::sync::{DeliveryState, EngineState, SyncReport, TargetReport};

    #[test]
    fn every_target_has_its_rows() {
        let delivery = |target: &str, acked| Delivery {
            target: target.parse().unwrap(),
            state: if acked == 7 { DeliveryState::Idle } else { DeliveryState::Failing },
            acked,
            waiting_paths: (acked == 7).then_some(0),
            lag: Millis((7 - acked) * 1500),
            eta: None,
            done_percent: None,
            last_success_at: (acked == 7).then_some(Timestamp(1_700_000_000_250)),
            last_error: if acked == 7 { String::new() } else { "disk full".to_owned() },
            sent_bytes: 4096,
            verified_at: None,
            drift: 0,
        };
        let source = SourceReport {
            engine: EngineState::Watching,
            problem: String::new(),
            warnings: Vec::new(),
            head: 7,
            deliveries: vec![delivery("web1", 7), delivery("web2", 4)],
        };
        let copy = TargetReport { filled: true, ..TargetReport::default() };
        let syncs = SyncReports::from([
            ("www".parse().unwrap(), SyncReport::Source(source)),
            ("docs".parse().unwrap(), SyncReport::Target(copy)),
        ]);
        let tree = MirrorReport {
            filled: false,
            problem: "no room".to_owned(),
            warnings: Vec::new(),
            pull: None,
        };
        let mirrors = MirrorReports::from([("fedora".parse().unwrap(), tree)]);
        let text = text(&syncs, &mirrors);
        for line in [
            "# TYPE lockstep_sync_sent_bytes_total counter",
            "lockstep_sync_lag_seconds{sync=\"www\",target=\"web1\"} 0",
            "lockstep_sync_lag_seconds{sync=\"www\",target=\"web2\"} 4.5",
            "lockstep_sync_queue_entries{sync=\"www\",target=\"web2\"} 3",
            "lockstep_sync_waiting_paths{sync=\"www\",target=\"web1\"} 0",
            "lockstep_sync_last_success_timestamp_seconds{sync=\"www\",target=\"web1\"} 1700000000.25",
            "lockstep_sync_failing{sync=\"www\",target=\"web2\"} 1",
            "lockstep_sync_state{sync=\"www\",target=\"web2\",state=\"failing\"} 1",
            "lockstep_sync_engine_state{sync=\"www\",state=\"watching\"} 1",
            "lockstep_sync_filled{sync=\"docs\"} 1",
            "lockstep_mirror_filled{mirror=\"fedora\"} 0",
            "lockstep_mirror_problem{mirror=\"fedora\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("waiting_paths{sync=\"www\",target=\"web2\""), "{text}");
    }
}
