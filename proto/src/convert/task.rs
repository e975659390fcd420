//! Task specs, states and outcomes.

use lockstep_model::node::ADDRESSES_MAX;
use lockstep_model::sync::TARGETS_MAX;
use lockstep_model::task::{
    Outcome, OutcomeKind, Peer, Slot, SyncSource, SyncTarget, Task, TaskPhase, TaskSpec,
};
use lockstep_model::{Invalid, KeyHash, Revision};

use super::{each, one_line, parse, parse_each, required, to_wire_time};
use crate::v1;

impl TryFrom<v1::TaskSpec> for TaskSpec {
    type Error = Invalid;
    fn try_from(spec: v1::TaskSpec) -> Result<Self, Invalid> {
        let v1::TaskSpec { kind } = spec;
        Ok(match required("spec.kind", kind)? {
            v1::task_spec::Kind::SyncSource(s) => Self::SyncSource(s.try_into()?),
            v1::task_spec::Kind::SyncTarget(s) => Self::SyncTarget(s.try_into()?),
            v1::task_spec::Kind::SyncRelease(v1::SyncRelease { sync }) => {
                Self::SyncRelease { sync: parse("sync", &sync)? }
            }
            v1::task_spec::Kind::SyncResync(v1::SyncResync { sync, target }) => {
                Self::SyncResync { sync: parse("sync", &sync)?, target: parse("target", &target)? }
            }
        })
    }
}

impl From<TaskSpec> for v1::TaskSpec {
    fn from(spec: TaskSpec) -> Self {
        let kind = match spec {
            TaskSpec::SyncSource(s) => v1::task_spec::Kind::SyncSource(s.into()),
            TaskSpec::SyncTarget(s) => v1::task_spec::Kind::SyncTarget(s.into()),
            TaskSpec::SyncRelease { sync } => {
                v1::task_spec::Kind::SyncRelease(v1::SyncRelease { sync: sync.to_string() })
            }
            TaskSpec::SyncResync { sync, target } => {
                v1::task_spec::Kind::SyncResync(v1::SyncResync {
                    sync: sync.to_string(),
                    target: target.to_string(),
                })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::SyncSource> for SyncSource {
    type Error = Invalid;
    fn try_from(source: v1::SyncSource) -> Result<Self, Invalid> {
        let v1::SyncSource { sync, path, targets, options } = source;
        Ok(Self {
            sync: parse("sync", &sync)?,
            path: parse("path", &path)?,
            targets: each("targets", TARGETS_MAX, targets)?,
            options: options.unwrap_or_default().try_into()?,
        })
    }
}

impl From<SyncSource> for v1::SyncSource {
    fn from(source: SyncSource) -> Self {
        let SyncSource { sync, path, targets, options } = source;
        Self {
            sync: sync.to_string(),
            path: path.to_string(),
            targets: targets.into_iter().map(Into::into).collect(),
            options: Some(options.into()),
        }
    }
}

impl TryFrom<v1::SyncTarget> for SyncTarget {
    type Error = Invalid;
    fn try_from(target: v1::SyncTarget) -> Result<Self, Invalid> {
        let v1::SyncTarget { sync, path, source, serve } = target;
        Ok(Self {
            sync: parse("sync", &sync)?,
            path: parse("path", &path)?,
            source: source.map(TryInto::try_into).transpose()?,
            serve,
        })
    }
}

impl From<SyncTarget> for v1::SyncTarget {
    fn from(target: SyncTarget) -> Self {
        let SyncTarget { sync, path, source, serve } = target;
        Self {
            sync: sync.to_string(),
            path: path.to_string(),
            source: source.map(Into::into),
            serve,
        }
    }
}

impl TryFrom<v1::Peer> for Peer {
    type Error = Invalid;
    fn try_from(peer: v1::Peer) -> Result<Self, Invalid> {
        let v1::Peer { node, key_sha256, addresses } = peer;
        let hash = <[u8; 32]>::try_from(key_sha256.as_slice())
            .map_err(|_| Invalid::new("key_sha256", "must have 32 bytes"))?;
        Ok(Self {
            node: parse("node", &node)?,
            key_hash: KeyHash(hash),
            addresses: parse_each("addresses", ADDRESSES_MAX, &addresses)?,
        })
    }
}

impl From<Peer> for v1::Peer {
    fn from(peer: Peer) -> Self {
        let Peer { node, key_hash, addresses } = peer;
        Self {
            node: node.to_string(),
            key_sha256: key_hash.0.to_vec(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<OutcomeKind> for v1::OutcomeKind {
    fn from(kind: OutcomeKind) -> Self {
        match kind {
            OutcomeKind::Ok => Self::Ok,
            OutcomeKind::Failed => Self::Failed,
            OutcomeKind::Cancelled => Self::Cancelled,
            OutcomeKind::Interrupted => Self::Interrupted,
            OutcomeKind::Unknown => Self::Unknown,
            OutcomeKind::Superseded => Self::Superseded,
            OutcomeKind::Lost => Self::Lost,
            OutcomeKind::Unsupported => Self::Unsupported,
        }
    }
}

impl TryFrom<v1::OutcomeKind> for OutcomeKind {
    type Error = Invalid;
    fn try_from(kind: v1::OutcomeKind) -> Result<Self, Invalid> {
        Ok(match kind {
            v1::OutcomeKind::Unspecified => {
                return Err(Invalid::new("outcome.kind", "is missing or unknown"));
            }
            v1::OutcomeKind::Ok => Self::Ok,
            v1::OutcomeKind::Failed => Self::Failed,
            v1::OutcomeKind::Cancelled => Self::Cancelled,
            v1::OutcomeKind::Interrupted => Self::Interrupted,
            v1::OutcomeKind::Unknown => Self::Unknown,
            v1::OutcomeKind::Superseded => Self::Superseded,
            v1::OutcomeKind::Lost => Self::Lost,
            v1::OutcomeKind::Unsupported => Self::Unsupported,
        })
    }
}

impl TryFrom<v1::TaskOutcome> for Outcome {
    type Error = Invalid;
    fn try_from(outcome: v1::TaskOutcome) -> Result<Self, Invalid> {
        let kind = outcome.kind().try_into()?;
        let v1::TaskOutcome { kind: _, message } = outcome;
        Ok(Self::new(kind, one_line(&message, Self::MESSAGE_MAX)))
    }
}

impl From<Outcome> for v1::TaskOutcome {
    fn from(outcome: Outcome) -> Self {
        let Outcome { kind, message } = outcome;
        Self { kind: v1::OutcomeKind::from(kind).into(), message }
    }
}

impl From<TaskPhase> for v1::TaskState {
    fn from(phase: TaskPhase) -> Self {
        match phase {
            TaskPhase::Accepted => Self::Accepted,
            TaskPhase::Running => Self::Running,
        }
    }
}

impl TryFrom<v1::TaskState> for TaskPhase {
    type Error = Invalid;
    fn try_from(state: v1::TaskState) -> Result<Self, Invalid> {
        match state {
            v1::TaskState::Accepted => Ok(Self::Accepted),
            v1::TaskState::Running => Ok(Self::Running),
            v1::TaskState::Unspecified | v1::TaskState::Pending | v1::TaskState::Ended => {
                Err(Invalid::new("state", "must be ACCEPTED or RUNNING"))
            }
        }
    }
}

impl v1::OfferTask {
    /// A stored task as its agent is told of it.
    pub fn of(task: &Task, revision: Revision) -> Self {
        Self {
            id: task.id.to_string(),
            attempt: task.attempt,
            run_limit_ms: task.run_limit.0,
            traceparent: task.traceparent.clone().unwrap_or_default(),
            revision: revision.0,
            spec: Some(task.spec.clone().into()),
        }
    }
}

impl v1::Task {
    /// A stored task as a person is shown it; `phase` is what its agent last said.
    pub fn of(task: &Task, revision: Revision, phase: Option<TaskPhase>) -> Self {
        let slot: Slot = task.slot();
        let state = match (&task.ended, phase) {
            (Some(_), _) => v1::TaskState::Ended,
            (None, Some(phase)) => phase.into(),
            (None, None) => v1::TaskState::Pending,
        };
        let Task {
            id,
            node,
            spec,
            attempt,
            created_at,
            run_limit,
            cancel_requested,
            ended,
            traceparent,
        } = task;
        Self {
            id: id.to_string(),
            node: node.to_string(),
            slot: slot.to_string(),
            kind: spec.kind().to_owned(),
            attempt: *attempt,
            created_at: Some(to_wire_time(*created_at)),
            run_limit_ms: run_limit.0,
            cancel_requested: *cancel_requested,
            state: state.into(),
            outcome: ended.as_ref().map(|e| e.outcome.clone().into()),
            ended_at: ended.as_ref().map(|e| to_wire_time(e.at)),
            traceparent: traceparent.clone().unwrap_or_default(),
            revision: revision.0,
        }
    }
}
