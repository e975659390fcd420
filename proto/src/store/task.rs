//! Task records with their specs and outcomes.

use lockstep_model::node::ADDRESSES_MAX;
use lockstep_model::rate::Rate;
use lockstep_model::sync::TARGETS_MAX;
use lockstep_model::task::{
    Ended, Outcome, OutcomeKind, Peer, Receiver, Route, SyncBarrier, SyncSource, SyncTarget,
    SyncVerify, Task, TaskSpec,
};
use lockstep_model::{Invalid, Millis, Revision, TaskId, Timestamp};

use super::field::{
    check_count, from_all, from_key_hash, key_hash, missing, parse, parse_all, unknown,
};
use super::sync::from_rate;
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
            TaskSpec::SyncSource(source) => Self::SyncSource(source.into()),
            TaskSpec::SyncTarget(target) => Self::SyncTarget(target.into()),
            TaskSpec::SyncRelease { sync } => {
                Self::SyncRelease(wire::SyncRelease { sync: sync.to_string() })
            }
            TaskSpec::SyncResync { sync, target } => Self::SyncResync(wire::SyncResync {
                sync: sync.to_string(),
                target: target.to_string(),
            }),
            TaskSpec::SyncVerify(SyncVerify { sync, target, content, repair, paths }) => {
                Self::SyncVerify(wire::SyncVerify {
                    sync: sync.to_string(),
                    target: target.to_string(),
                    content: *content,
                    repair: *repair,
                    paths: paths.clone(),
                })
            }
            TaskSpec::SyncUnhold { sync, target } => Self::SyncUnhold(wire::SyncUnhold {
                sync: sync.to_string(),
                target: target.to_string(),
            }),
            TaskSpec::SyncBarrier(SyncBarrier { sync, at_least, hook }) => {
                Self::SyncBarrier(wire::SyncBarrier {
                    sync: sync.to_string(),
                    at_least: at_least.unwrap_or(0),
                    hook: hook.as_ref().map(ToString::to_string).unwrap_or_default(),
                })
            }
            TaskSpec::MirrorPlace(place) => Self::MirrorPlace(place.into()),
            TaskSpec::MirrorRelease(release) => Self::MirrorRelease(release.into()),
            TaskSpec::MirrorPull(pull) => Self::MirrorPull(pull.into()),
            TaskSpec::MirrorHooks(hooks) => Self::MirrorHooks(hooks.into()),
            TaskSpec::ClusterPlace(place) => Self::ClusterPlace(place.as_ref().into()),
            TaskSpec::ClusterRelease(release) => Self::ClusterRelease(release.into()),
            TaskSpec::ClusterAct(act) => Self::ClusterAct(act.into()),
        }
    }
}

impl TryFrom<Spec> for TaskSpec {
    type Error = Invalid;
    fn try_from(spec: Spec) -> Result<Self, Invalid> {
        Ok(match spec {
            Spec::SyncSource(source) => Self::SyncSource(source.try_into()?),
            Spec::SyncTarget(target) => Self::SyncTarget(target.try_into()?),
            Spec::SyncRelease(wire::SyncRelease { sync }) => {
                Self::SyncRelease { sync: parse("sync", &sync)? }
            }
            Spec::SyncResync(wire::SyncResync { sync, target }) => {
                Self::SyncResync { sync: parse("sync", &sync)?, target: parse("target", &target)? }
            }
            Spec::SyncVerify(wire::SyncVerify { sync, target, content, repair, paths }) => {
                check_count("paths", paths.len(), SyncVerify::PATHS_MAX)?;
                Self::SyncVerify(SyncVerify {
                    sync: parse("sync", &sync)?,
                    target: parse("target", &target)?,
                    content,
                    repair,
                    paths,
                })
            }
            Spec::SyncUnhold(wire::SyncUnhold { sync, target }) => {
                Self::SyncUnhold { sync: parse("sync", &sync)?, target: parse("target", &target)? }
            }
            Spec::SyncBarrier(wire::SyncBarrier { sync, at_least, hook }) => {
                let hook = Some(hook).filter(|hook| !hook.is_empty());
                Self::SyncBarrier(SyncBarrier {
                    sync: parse("sync", &sync)?,
                    at_least: Some(at_least).filter(|n| *n > 0),
                    hook: hook.map(|hook| parse("hook", &hook)).transpose()?,
                })
            }
            Spec::MirrorPlace(place) => Self::MirrorPlace(place.try_into()?),
            Spec::MirrorRelease(release) => Self::MirrorRelease(release.try_into()?),
            Spec::MirrorPull(pull) => Self::MirrorPull(pull.try_into()?),
            Spec::MirrorHooks(hooks) => Self::MirrorHooks(hooks.try_into()?),
            Spec::ClusterPlace(place) => Self::ClusterPlace(Box::new(place.try_into()?)),
            Spec::ClusterRelease(release) => Self::ClusterRelease(release.try_into()?),
            Spec::ClusterAct(act) => Self::ClusterAct(act.try_into()?),
        })
    }
}

impl From<&SyncSource> for wire::SyncSource {
    fn from(source: &SyncSource) -> Self {
        let SyncSource { sync, path, receivers, others, options, paused, generation } = source;
        Self {
            sync: sync.to_string(),
            path: path.to_string(),
            targets: Vec::new(),
            options: Some(options.into()),
            receivers: receivers.iter().map(Into::into).collect(),
            others: from_all(others),
            paused: *paused,
            generation: *generation,
        }
    }
}

impl TryFrom<wire::SyncSource> for SyncSource {
    type Error = Invalid;
    fn try_from(source: wire::SyncSource) -> Result<Self, Invalid> {
        let wire::SyncSource {
            sync,
            path,
            targets: _,
            options,
            receivers,
            others,
            paused,
            generation,
        } = source;
        check_count("receivers", receivers.len(), TARGETS_MAX)?;
        let receivers = receivers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(Self {
            sync: parse("sync", &sync)?,
            path: parse("path", &path)?,
            receivers,
            others: parse_all("others", others, TARGETS_MAX)?,
            options: options.ok_or_else(|| missing("options"))?.try_into()?,
            paused,
            generation,
        })
    }
}

impl From<&SyncTarget> for wire::SyncTarget {
    fn from(target: &SyncTarget) -> Self {
        let SyncTarget { sync, path, source, serve, options, receivers, paused, generation } =
            target;
        Self {
            sync: sync.to_string(),
            path: path.to_string(),
            source: source.as_ref().map(Into::into),
            serve: *serve,
            options: Some(options.into()),
            receivers: receivers.iter().map(Into::into).collect(),
            paused: *paused,
            generation: *generation,
        }
    }
}

impl TryFrom<wire::SyncTarget> for SyncTarget {
    type Error = Invalid;
    fn try_from(target: wire::SyncTarget) -> Result<Self, Invalid> {
        let wire::SyncTarget { sync, path, source, serve, options, receivers, paused, generation } =
            target;
        check_count("receivers", receivers.len(), TARGETS_MAX)?;
        Ok(Self {
            sync: parse("sync", &sync)?,
            path: parse("path", &path)?,
            source: source.map(TryInto::try_into).transpose()?,
            serve,
            options: options.ok_or_else(|| missing("options"))?.try_into()?,
            receivers: receivers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            paused,
            generation,
        })
    }
}

impl From<&Receiver> for wire::Receiver {
    fn from(receiver: &Receiver) -> Self {
        let Receiver { node, route, bwlimit } = receiver;
        let route = match route {
            Route::Agent(peer) => wire::receiver::Route::Agent(peer.into()),
            Route::Remote(remote) => wire::receiver::Route::Remote(remote.to_string()),
        };
        let bwlimit = from_rate(*bwlimit);
        Self { node: node.to_string(), route: Some(route), bwlimit, is_relay: false }
    }
}

impl TryFrom<wire::Receiver> for Receiver {
    type Error = Invalid;
    fn try_from(receiver: wire::Receiver) -> Result<Self, Invalid> {
        let wire::Receiver { node, route, bwlimit, is_relay: _ } = receiver;
        let route = match route.ok_or_else(|| missing("route"))? {
            wire::receiver::Route::Agent(peer) => Route::Agent(peer.try_into()?),
            wire::receiver::Route::Remote(text) => Route::Remote(parse("remote", &text)?),
        };
        Ok(Self { node: parse("node", &node)?, route, bwlimit: Rate::new(bwlimit) })
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
        let Ended { at, outcome: Outcome { kind, message, pulled } } = ended;
        Self {
            at_ms: at.0,
            kind: wire::OutcomeKind::from(*kind).into(),
            message: message.clone(),
            pulled: pulled.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::Ended> for Ended {
    type Error = Invalid;
    fn try_from(ended: wire::Ended) -> Result<Self, Invalid> {
        let kind = ended.kind().try_into()?;
        let wire::Ended { at_ms, kind: _, message, pulled } = ended;
        let pulled = pulled.map(TryInto::try_into).transpose()?;
        let outcome = Outcome { pulled, ..Outcome::new(kind, message) };
        Ok(Self { at: Timestamp(at_ms), outcome })
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
