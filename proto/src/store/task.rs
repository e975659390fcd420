//! Task records with their specs and outcomes.

use lockstep_model::node::ADDRESSES_MAX;
use lockstep_model::sync::TARGETS_MAX;
use lockstep_model::task::{
    Ended, Outcome, OutcomeKind, Peer, SyncSource, SyncTarget, Task, TaskSpec,
};
use lockstep_model::{Invalid, Millis, Revision, TaskId, Timestamp};

use super::field::{
    check_count, from_all, from_key_hash, key_hash, missing, parse, parse_all, unknown,
};
use crate::store_v1::{self as wire, task::Spec};

impl From<&Task> for wire::Task {
    fn from(task: &Task) -> Self {
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
        let TaskId { revision, n } = *id;
        Self {
            id: Some(wire::TaskId { revision: revision.0, n }),
            node: node.to_string(),
            spec: Some(spec.into()),
            attempt: *attempt,
            created_at_ms: created_at.0,
            run_limit_ms: run_limit.0,
            cancel_requested: *cancel_requested,
            ended: ended.as_ref().map(Into::into),
            traceparent: traceparent.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::Task> for Task {
    type Error = Invalid;
    fn try_from(task: wire::Task) -> Result<Self, Invalid> {
        let wire::Task {
            id,
            node,
            spec,
            attempt,
            created_at_ms,
            run_limit_ms,
            cancel_requested,
            ended,
            traceparent,
        } = task;
        let wire::TaskId { revision, n } = id.ok_or_else(|| missing("id"))?;
        Ok(Self {
            id: TaskId { revision: Revision(revision), n },
            node: parse("node", &node)?,
            spec: spec.ok_or_else(|| missing("spec"))?.try_into()?,
            attempt,
            created_at: Timestamp(created_at_ms),
            run_limit: Millis(run_limit_ms),
            cancel_requested,
            ended: ended.map(TryInto::try_into).transpose()?,
            traceparent: Some(traceparent).filter(|text| !text.is_empty()),
        })
    }
}

impl From<&TaskSpec> for Spec {
    fn from(spec: &TaskSpec) -> Self {
        match spec {
            TaskSpec::SyncSource(SyncSource { sync, path, targets, options }) => {
                Self::SyncSource(wire::SyncSource {
                    sync: sync.to_string(),
                    path: path.to_string(),
                    targets: targets.iter().map(Into::into).collect(),
                    options: Some(options.into()),
                })
            }
            TaskSpec::SyncTarget(SyncTarget { sync, path, source, serve }) => {
                Self::SyncTarget(wire::SyncTarget {
                    sync: sync.to_string(),
                    path: path.to_string(),
                    source: source.as_ref().map(Into::into),
                    serve: *serve,
                })
            }
            TaskSpec::SyncRelease { sync } => {
                Self::SyncRelease(wire::SyncRelease { sync: sync.to_string() })
            }
            TaskSpec::SyncResync { sync, target } => Self::SyncResync(wire::SyncResync {
                sync: sync.to_string(),
                target: target.to_string(),
            }),
        }
    }
}

impl TryFrom<Spec> for TaskSpec {
    type Error = Invalid;
    fn try_from(spec: Spec) -> Result<Self, Invalid> {
        match spec {
            Spec::SyncSource(wire::SyncSource { sync, path, targets, options }) => {
                check_count("targets", targets.len(), TARGETS_MAX)?;
                Ok(Self::SyncSource(SyncSource {
                    sync: parse("sync", &sync)?,
                    path: parse("path", &path)?,
                    targets: targets
                        .into_iter()
                        .map(TryInto::try_into)
                        .collect::<Result<_, _>>()?,
                    options: options.ok_or_else(|| missing("options"))?.try_into()?,
                }))
            }
            Spec::SyncTarget(wire::SyncTarget { sync, path, source, serve }) => {
                Ok(Self::SyncTarget(SyncTarget {
                    sync: parse("sync", &sync)?,
                    path: parse("path", &path)?,
                    source: source.map(TryInto::try_into).transpose()?,
                    serve,
                }))
            }
            Spec::SyncRelease(wire::SyncRelease { sync }) => {
                Ok(Self::SyncRelease { sync: parse("sync", &sync)? })
            }
            Spec::SyncResync(wire::SyncResync { sync, target }) => Ok(Self::SyncResync {
                sync: parse("sync", &sync)?,
                target: parse("target", &target)?,
            }),
        }
    }
}

impl From<&Peer> for wire::Peer {
    fn from(peer: &Peer) -> Self {
        let Peer { node, key_hash, addresses } = peer;
        Self {
            node: node.to_string(),
            key_hash: from_key_hash(*key_hash),
            addresses: from_all(addresses),
        }
    }
}

impl TryFrom<wire::Peer> for Peer {
    type Error = Invalid;
    fn try_from(peer: wire::Peer) -> Result<Self, Invalid> {
        let wire::Peer { node, key_hash: key, addresses } = peer;
        Ok(Self {
            node: parse("node", &node)?,
            key_hash: key_hash("key_hash", &key)?,
            addresses: parse_all("addresses", addresses, ADDRESSES_MAX)?,
        })
    }
}

impl From<&Ended> for wire::Ended {
    fn from(ended: &Ended) -> Self {
        let Ended { at, outcome: Outcome { kind, message } } = ended;
        Self { at_ms: at.0, kind: wire::OutcomeKind::from(*kind).into(), message: message.clone() }
    }
}

impl TryFrom<wire::Ended> for Ended {
    type Error = Invalid;
    fn try_from(ended: wire::Ended) -> Result<Self, Invalid> {
        let kind = ended.kind().try_into()?;
        let wire::Ended { at_ms, kind: _, message } = ended;
        Ok(Self { at: Timestamp(at_ms), outcome: Outcome::new(kind, message) })
    }
}

impl From<OutcomeKind> for wire::OutcomeKind {
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

impl TryFrom<wire::OutcomeKind> for OutcomeKind {
    type Error = Invalid;
    fn try_from(kind: wire::OutcomeKind) -> Result<Self, Invalid> {
        match kind {
            wire::OutcomeKind::Unspecified => Err(unknown("ended.kind")),
            wire::OutcomeKind::Ok => Ok(Self::Ok),
            wire::OutcomeKind::Failed => Ok(Self::Failed),
            wire::OutcomeKind::Cancelled => Ok(Self::Cancelled),
            wire::OutcomeKind::Interrupted => Ok(Self::Interrupted),
            wire::OutcomeKind::Unknown => Ok(Self::Unknown),
            wire::OutcomeKind::Superseded => Ok(Self::Superseded),
            wire::OutcomeKind::Lost => Ok(Self::Lost),
            wire::OutcomeKind::Unsupported => Ok(Self::Unsupported),
        }
    }
}
