//! Task specs, states and outcomes.

use lockstep_model::node::ADDRESSES_MAX;
use lockstep_model::sync::TARGETS_MAX;
use lockstep_model::task::{
    Outcome, OutcomeKind, Peer, Receiver, Route, Slot, SyncBarrier, SyncSource, SyncTarget,
    SyncVerify, Task, TaskPhase, TaskSpec,
};
use lockstep_model::{Invalid, KeyHash, Revision};

use super::sync::{from_rate, rate};
use super::{each, one_line, optional, parse, parse_each, required, to_wire_time};
use crate::v1;

impl TryFrom<v1::TaskSpec> for TaskSpec {
    type Error = Invalid;
    fn try_from(spec: v1::TaskSpec) -> Result<Self, Invalid> {
        use v1::task_spec::Kind;
        let v1::TaskSpec { kind } = spec;
        Ok(match required("spec.kind", kind)? {
            Kind::SyncSource(s) => Self::SyncSource(s.try_into()?),
            Kind::SyncTarget(s) => Self::SyncTarget(s.try_into()?),
            Kind::SyncRelease(v1::SyncRelease { sync }) => {
                Self::SyncRelease { sync: parse("sync", &sync)? }
            }
            Kind::SyncResync(v1::SyncResync { sync, target }) => {
                Self::SyncResync { sync: parse("sync", &sync)?, target: parse("target", &target)? }
            }
            Kind::SyncVerify(v1::SyncVerify { sync, target, content, repair, paths }) => {
                Self::SyncVerify(SyncVerify {
                    sync: parse("sync", &sync)?,
                    target: parse("target", &target)?,
                    content,
                    repair,
                    paths: verify_paths(paths)?,
                })
            }
            Kind::SyncUnhold(v1::SyncUnhold { sync, target }) => {
                Self::SyncUnhold { sync: parse("sync", &sync)?, target: parse("target", &target)? }
            }
            Kind::SyncBarrier(v1::SyncBarrier { sync, at_least, hook }) => {
                Self::SyncBarrier(SyncBarrier {
                    sync: parse("sync", &sync)?,
                    at_least: Some(at_least).filter(|n| *n > 0),
                    hook: optional("hook", &hook)?,
                })
            }
            Kind::MirrorPlace(place) => Self::MirrorPlace(place.try_into()?),
            Kind::MirrorRelease(release) => Self::MirrorRelease(release.try_into()?),
            Kind::MirrorPull(pull) => Self::MirrorPull(pull.try_into()?),
            Kind::MirrorHooks(hooks) => Self::MirrorHooks(hooks.try_into()?),
            Kind::ClusterPlace(place) => Self::ClusterPlace(Box::new(place.try_into()?)),
            Kind::ClusterRelease(release) => Self::ClusterRelease(release.try_into()?),
            Kind::ClusterAct(act) => Self::ClusterAct(act.try_into()?),
        })
    }
}

impl From<TaskSpec> for v1::TaskSpec {
    fn from(spec: TaskSpec) -> Self {
        use v1::task_spec::Kind;
        let kind = match spec {
            TaskSpec::SyncSource(s) => Kind::SyncSource(s.into()),
            TaskSpec::SyncTarget(s) => Kind::SyncTarget(s.into()),
            TaskSpec::SyncRelease { sync } => {
                Kind::SyncRelease(v1::SyncRelease { sync: sync.to_string() })
            }
            TaskSpec::SyncResync { sync, target } => Kind::SyncResync(v1::SyncResync {
                sync: sync.to_string(),
                target: target.to_string(),
            }),
            TaskSpec::SyncVerify(SyncVerify { sync, target, content, repair, paths }) => {
                let (sync, target) = (sync.to_string(), target.to_string());
                Kind::SyncVerify(v1::SyncVerify { sync, target, content, repair, paths })
            }
            TaskSpec::SyncUnhold { sync, target } => Kind::SyncUnhold(v1::SyncUnhold {
                sync: sync.to_string(),
                target: target.to_string(),
            }),
            TaskSpec::SyncBarrier(SyncBarrier { sync, at_least, hook }) => {
                Kind::SyncBarrier(v1::SyncBarrier {
                    sync: sync.to_string(),
                    at_least: at_least.unwrap_or(0),
                    hook: hook.map(|hook| hook.to_string()).unwrap_or_default(),
                })
            }
            TaskSpec::MirrorPlace(place) => Kind::MirrorPlace(place.into()),
            TaskSpec::MirrorRelease(release) => Kind::MirrorRelease(release.into()),
            TaskSpec::MirrorPull(pull) => Kind::MirrorPull(pull.into()),
            TaskSpec::MirrorHooks(hooks) => Kind::MirrorHooks(hooks.into()),
            TaskSpec::ClusterPlace(place) => Kind::ClusterPlace((*place).into()),
            TaskSpec::ClusterRelease(release) => Kind::ClusterRelease(release.into()),
            TaskSpec::ClusterAct(act) => Kind::ClusterAct(act.into()),
        };
        Self { kind: Some(kind) }
    }
}

/// Relative to a sync's directory, from outside.
pub fn verify_paths(paths: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Invalid> {
    if paths.len() > SyncVerify::PATHS_MAX {
        let most = SyncVerify::PATHS_MAX;
        let problem = format!("has {} entries, at most {most} fit", paths.len());
        return Err(Invalid::new("paths", problem));
    }
    let fits = |path: &Vec<u8>| {
        path.len() <= lockstep_model::path::PATH_MAX
            && !path.contains(&0)
            && path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
    };
    match paths.iter().position(|path| !fits(path)) {
        None => Ok(paths),
        Some(at) => {
            let problem = "must be relative to the sync's directory, without '//', '.' and '..'";
            Err(Invalid::new(format!("paths[{at}]"), problem))
        }
    }
}

impl TryFrom<v1::SyncSource> for SyncSource {
    type Error = Invalid;
    fn try_from(source: v1::SyncSource) -> Result<Self, Invalid> {
        let v1::SyncSource { sync, path, receivers, others, options, paused, generation } = source;
        Ok(Self {
            sync: parse("sync", &sync)?,
            path: parse("path", &path)?,
            receivers: each("receivers", TARGETS_MAX, receivers)?,
            others: parse_each("others", TARGETS_MAX, &others)?,
            options: options.unwrap_or_default().try_into()?,
            paused,
            generation,
        })
    }
}

impl From<SyncSource> for v1::SyncSource {
    fn from(source: SyncSource) -> Self {
        let SyncSource { sync, path, receivers, others, options, paused, generation } = source;
        Self {
            sync: sync.to_string(),
            path: path.to_string(),
            receivers: receivers.into_iter().map(Into::into).collect(),
            others: others.iter().map(ToString::to_string).collect(),
            options: Some(options.into()),
            paused,
            generation,
        }
    }
}

impl TryFrom<v1::SyncTarget> for SyncTarget {
    type Error = Invalid;
    fn try_from(target: v1::SyncTarget) -> Result<Self, Invalid> {
        let v1::SyncTarget { sync, path, source, serve, options, receivers, paused, generation } =
            target;
        Ok(Self {
            sync: parse("sync", &sync)?,
            path: parse("path", &path)?,
            source: source.map(TryInto::try_into).transpose()?,
            serve,
            options: options.unwrap_or_default().try_into()?,
            receivers: each("receivers", TARGETS_MAX, receivers)?,
            paused,
            generation,
        })
    }
}

impl From<SyncTarget> for v1::SyncTarget {
    fn from(target: SyncTarget) -> Self {
        let SyncTarget { sync, path, source, serve, options, receivers, paused, generation } =
            target;
        Self {
            sync: sync.to_string(),
            path: path.to_string(),
            source: source.map(Into::into),
            serve,
            options: Some(options.into()),
            receivers: receivers.into_iter().map(Into::into).collect(),
            paused,
            generation,
        }
    }
}

impl TryFrom<v1::Receiver> for Receiver {
    type Error = Invalid;
    fn try_from(receiver: v1::Receiver) -> Result<Self, Invalid> {
        let v1::Receiver { node, route, bwlimit } = receiver;
        let route = match required("route", route)? {
            v1::receiver::Route::Agent(peer) => Route::Agent(peer.try_into()?),
            v1::receiver::Route::Remote(text) => Route::Remote(parse("remote", &text)?),
        };
        let bwlimit = rate("bwlimit", bwlimit)?;
        Ok(Self { node: parse("node", &node)?, route, bwlimit })
    }
}

impl From<Receiver> for v1::Receiver {
    fn from(receiver: Receiver) -> Self {
        let Receiver { node, route, bwlimit } = receiver;
        let route = match route {
            Route::Agent(peer) => v1::receiver::Route::Agent(peer.into()),
            Route::Remote(remote) => v1::receiver::Route::Remote(remote.to_string()),
        };
        let bwlimit = from_rate(bwlimit);
        Self { node: node.to_string(), route: Some(route), bwlimit }
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
        let v1::TaskOutcome { kind: _, message, pulled } = outcome;
        let pulled = pulled.map(TryInto::try_into).transpose()?;
        Ok(Self { pulled, ..Self::new(kind, one_line(&message, Self::MESSAGE_MAX)) })
    }
}

impl From<Outcome> for v1::TaskOutcome {
    fn from(outcome: Outcome) -> Self {
        let Outcome { kind, message, pulled } = outcome;
        let pulled = pulled.map(Into::into);
        Self { kind: v1::OutcomeKind::from(kind).into(), message, pulled }
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
    /// A stored task as its agent is told of it, without a password.
    pub fn of(task: &Task, revision: Revision) -> Self {
        Self {
            id: task.id.to_string(),
            attempt: task.attempt,
            run_limit_ms: task.run_limit.0,
            traceparent: task.traceparent.clone().unwrap_or_default(),
            revision: revision.0,
            spec: Some(task.spec.clone().into()),
            password: String::new(),
            replication_password: String::new(),
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
