//! What agents report of syncs.

use lockstep_model::sync::TARGETS_MAX;
use lockstep_model::sync::report::{
    Delivery, DeliveryState, EngineState, SourceReport, SyncReport, TargetReport,
};
use lockstep_model::{Invalid, Millis};

use super::{each, from_wire_time, one_line, parse, to_wire_time};
use crate::v1;

/// Longest problem or error line kept of a report, in bytes.
const LINE_MAX: usize = 512;

impl TryFrom<v1::sync_report::Role> for SyncReport {
    type Error = Invalid;
    fn try_from(role: v1::sync_report::Role) -> Result<Self, Invalid> {
        Ok(match role {
            v1::sync_report::Role::Source(report) => Self::Source(report.try_into()?),
            v1::sync_report::Role::Target(report) => {
                let v1::TargetReport { filled, problem, relay, behind } = report;
                Self::Target(TargetReport {
                    filled,
                    behind,
                    problem: one_line(&problem, LINE_MAX),
                    relay: relay.map(TryInto::try_into).transpose()?,
                })
            }
        })
    }
}

impl From<SyncReport> for v1::sync_report::Role {
    fn from(report: SyncReport) -> Self {
        match report {
            SyncReport::Source(report) => Self::Source(report.into()),
            SyncReport::Target(report) => Self::Target(report.into()),
        }
    }
}

impl From<TargetReport> for v1::TargetReport {
    fn from(report: TargetReport) -> Self {
        let TargetReport { filled, behind, problem, relay } = report;
        Self { filled, problem, relay: relay.map(Into::into), behind }
    }
}

impl TryFrom<v1::SourceReport> for SourceReport {
    type Error = Invalid;
    fn try_from(report: v1::SourceReport) -> Result<Self, Invalid> {
        let engine = match report.engine() {
            v1::EngineState::Unspecified => {
                return Err(Invalid::new("engine", "is missing or unknown"));
            }
            v1::EngineState::Starting => EngineState::Starting,
            v1::EngineState::Watching => EngineState::Watching,
            v1::EngineState::Failing => EngineState::Failing,
            v1::EngineState::Held => EngineState::Held,
            v1::EngineState::Paused => EngineState::Paused,
            v1::EngineState::Still => EngineState::Still,
        };
        let v1::SourceReport { engine: _, problem, head, deliveries, warnings } = report;
        let warnings = warnings.iter().take(SourceReport::WARNINGS_MAX);
        Ok(Self {
            engine,
            problem: one_line(&problem, LINE_MAX),
            warnings: warnings.map(|text| one_line(text, LINE_MAX)).collect(),
            head,
            deliveries: each("deliveries", TARGETS_MAX, deliveries)?,
        })
    }
}

impl From<SourceReport> for v1::SourceReport {
    fn from(report: SourceReport) -> Self {
        let SourceReport { engine, problem, warnings, head, deliveries } = report;
        let engine = match engine {
            EngineState::Starting => v1::EngineState::Starting,
            EngineState::Watching => v1::EngineState::Watching,
            EngineState::Failing => v1::EngineState::Failing,
            EngineState::Held => v1::EngineState::Held,
            EngineState::Paused => v1::EngineState::Paused,
            EngineState::Still => v1::EngineState::Still,
        };
        Self {
            engine: engine.into(),
            problem,
            warnings,
            head,
            deliveries: deliveries.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Delivery> for Delivery {
    type Error = Invalid;
    fn try_from(delivery: v1::Delivery) -> Result<Self, Invalid> {
        let state = match delivery.state() {
            v1::DeliveryState::Unspecified => {
                return Err(Invalid::new("state", "is missing or unknown"));
            }
            v1::DeliveryState::Initial => DeliveryState::Initial,
            v1::DeliveryState::Filling => DeliveryState::Filling,
            v1::DeliveryState::Dirty => DeliveryState::Dirty,
            v1::DeliveryState::Syncing => DeliveryState::Syncing,
            v1::DeliveryState::Idle => DeliveryState::Idle,
            v1::DeliveryState::Failing => DeliveryState::Failing,
            v1::DeliveryState::Held => DeliveryState::Held,
            v1::DeliveryState::Paused => DeliveryState::Paused,
        };
        let v1::Delivery {
            target,
            state: _,
            acked,
            lag_ms,
            last_success_at,
            last_error,
            sent_bytes,
            waiting_paths,
            eta_ms,
            verified_at,
            drift,
            done_percent,
        } = delivery;
        Ok(Self {
            target: parse("target", &target)?,
            state,
            acked,
            lag: Millis(lag_ms),
            last_success_at: last_success_at.as_ref().map(from_wire_time),
            last_error: one_line(&last_error, LINE_MAX),
            sent_bytes,
            waiting_paths,
            eta: eta_ms.map(Millis),
            done_percent: done_percent.map(|percent| percent.min(100) as u8),
            verified_at: verified_at.as_ref().map(from_wire_time),
            drift,
        })
    }
}

impl From<Delivery> for v1::Delivery {
    fn from(delivery: Delivery) -> Self {
        let Delivery {
            target,
            state,
            acked,
            waiting_paths,
            lag,
            eta,
            done_percent,
            last_success_at,
            last_error,
            sent_bytes,
            verified_at,
            drift,
        } = delivery;
        let state = match state {
            DeliveryState::Initial => v1::DeliveryState::Initial,
            DeliveryState::Filling => v1::DeliveryState::Filling,
            DeliveryState::Dirty => v1::DeliveryState::Dirty,
            DeliveryState::Syncing => v1::DeliveryState::Syncing,
            DeliveryState::Idle => v1::DeliveryState::Idle,
            DeliveryState::Failing => v1::DeliveryState::Failing,
            DeliveryState::Held => v1::DeliveryState::Held,
            DeliveryState::Paused => v1::DeliveryState::Paused,
        };
        Self {
            target: target.to_string(),
            state: state.into(),
            acked,
            lag_ms: lag.0,
            last_success_at: last_success_at.map(to_wire_time),
            last_error,
            sent_bytes,
            waiting_paths,
            eta_ms: eta.map(|eta| eta.0),
            verified_at: verified_at.map(to_wire_time),
            drift,
            done_percent: done_percent.map(u32::from),
        }
    }
}
