//! Syncs: places, options, reports.

use lockstep_model::Invalid;
use lockstep_model::Millis;
use lockstep_model::sync::{
    DeletePolicy, Delivery, DeliveryState, EXCLUDES_MAX, EngineState, Place, SourceReport,
    SyncOptions, SyncReport, TARGETS_MAX, TargetReport,
};

use super::{each, from_wire_time, one_line, parse, parse_each, to_wire_time};
use crate::v1;

/// Longest problem or error line kept of a report, in bytes.
const LINE_MAX: usize = 512;

impl TryFrom<v1::Place> for Place {
    type Error = Invalid;
    fn try_from(place: v1::Place) -> Result<Self, Invalid> {
        let v1::Place { node, path } = place;
        Ok(Self { node: node.parse()?, path: path.parse()? })
    }
}

impl From<Place> for v1::Place {
    fn from(place: Place) -> Self {
        let Place { node, path } = place;
        Self { node: node.to_string(), path: path.to_string() }
    }
}

impl From<DeletePolicy> for v1::DeletePolicy {
    fn from(policy: DeletePolicy) -> Self {
        match policy {
            DeletePolicy::Always => Self::Always,
            DeletePolicy::Never => Self::Never,
            DeletePolicy::Startup => Self::Startup,
            DeletePolicy::Running => Self::Running,
        }
    }
}

impl TryFrom<v1::SyncOptions> for SyncOptions {
    type Error = Invalid;
    fn try_from(options: v1::SyncOptions) -> Result<Self, Invalid> {
        let v1::SyncOptions { delete, excludes, delay_ms } = options;
        // Not `options.delete()`: that reads a value newer than this binary as the default.
        let delete = match v1::DeletePolicy::try_from(delete) {
            Ok(v1::DeletePolicy::Unspecified | v1::DeletePolicy::Always) => DeletePolicy::Always,
            Ok(v1::DeletePolicy::Never) => DeletePolicy::Never,
            Ok(v1::DeletePolicy::Startup) => DeletePolicy::Startup,
            Ok(v1::DeletePolicy::Running) => DeletePolicy::Running,
            Err(_) => return Err(Invalid::new("options.delete", "is unknown to this version")),
        };
        let delay = delay_ms.map_or(Self::DELAY_DEFAULT, Millis);
        if delay > Self::DELAY_MAX || delay.0 % 1000 != 0 {
            let problem = "must be whole seconds from 0 to 600";
            return Err(Invalid::new("options.delay_ms", problem));
        }
        Ok(Self {
            delete,
            excludes: parse_each("options.excludes", EXCLUDES_MAX, &excludes)?,
            delay,
        })
    }
}

impl From<SyncOptions> for v1::SyncOptions {
    fn from(options: SyncOptions) -> Self {
        let SyncOptions { delete, excludes, delay } = options;
        Self {
            delete: v1::DeletePolicy::from(delete).into(),
            excludes: excludes.iter().map(ToString::to_string).collect(),
            delay_ms: Some(delay.0),
        }
    }
}

impl TryFrom<v1::sync_report::Role> for SyncReport {
    type Error = Invalid;
    fn try_from(role: v1::sync_report::Role) -> Result<Self, Invalid> {
        Ok(match role {
            v1::sync_report::Role::Source(report) => Self::Source(report.try_into()?),
            v1::sync_report::Role::Target(report) => {
                let v1::TargetReport { filled, problem } = report;
                Self::Target(TargetReport { filled, problem: one_line(&problem, LINE_MAX) })
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
        let TargetReport { filled, problem } = report;
        Self { filled, problem }
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
        };
        let v1::SourceReport { engine: _, problem, head, deliveries } = report;
        Ok(Self {
            engine,
            problem: one_line(&problem, LINE_MAX),
            head,
            deliveries: each("deliveries", TARGETS_MAX, deliveries)?,
        })
    }
}

impl From<SourceReport> for v1::SourceReport {
    fn from(report: SourceReport) -> Self {
        let SourceReport { engine, problem, head, deliveries } = report;
        let engine = match engine {
            EngineState::Starting => v1::EngineState::Starting,
            EngineState::Watching => v1::EngineState::Watching,
            EngineState::Failing => v1::EngineState::Failing,
            EngineState::Held => v1::EngineState::Held,
        };
        Self {
            engine: engine.into(),
            problem,
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
        };
        let v1::Delivery {
            target,
            state: _,
            acked,
            lag_ms,
            last_success_at,
            last_error,
            sent_bytes,
        } = delivery;
        Ok(Self {
            target: parse("target", &target)?,
            state,
            acked,
            lag: Millis(lag_ms),
            last_success_at: last_success_at.as_ref().map(from_wire_time),
            last_error: one_line(&last_error, LINE_MAX),
            sent_bytes,
        })
    }
}

impl From<Delivery> for v1::Delivery {
    fn from(delivery: Delivery) -> Self {
        let Delivery { target, state, acked, lag, last_success_at, last_error, sent_bytes } =
            delivery;
        let state = match state {
            DeliveryState::Initial => v1::DeliveryState::Initial,
            DeliveryState::Filling => v1::DeliveryState::Filling,
            DeliveryState::Dirty => v1::DeliveryState::Dirty,
            DeliveryState::Syncing => v1::DeliveryState::Syncing,
            DeliveryState::Idle => v1::DeliveryState::Idle,
            DeliveryState::Failing => v1::DeliveryState::Failing,
            DeliveryState::Held => v1::DeliveryState::Held,
        };
        Self {
            target: target.to_string(),
            state: state.into(),
            acked,
            lag_ms: lag.0,
            last_success_at: last_success_at.map(to_wire_time),
            last_error,
            sent_bytes,
        }
    }
}
