//! Records of mirrors and their runs.

use lockstep_model::mirror::run::RunEnd;
use lockstep_model::mirror::{
    Allow, HopKind, Mirror, MirrorOptions, MirrorState, Pulled, PushToken, REPLICAS_MAX,
    ReplicaState, Run, RunId, Trigger, Wanted,
};
use lockstep_model::record::Secret;
use lockstep_model::setting::{Settings, VALUES_MAX};
use lockstep_model::{Invalid, Timestamp};

use super::field::{check_count, from_option, missing, optional, parse, unknown};
use crate::store_v1 as wire;

pub(super) fn options(settings: Vec<wire::Setting>) -> Result<MirrorOptions, Invalid> {
    check_count("settings", settings.len(), VALUES_MAX)?;
    MirrorOptions::from_values(settings.iter().map(|s| (s.name.as_str(), s.value.as_str())))
}

pub(super) fn settings(options: &MirrorOptions) -> Vec<wire::Setting> {
    let setting = |v: lockstep_model::setting::Value| wire::Setting { name: v.name, value: v.text };
    options.values().into_iter().map(setting).collect()
}

/// 0: never.
fn time(ms: u64) -> Option<Timestamp> {
    Some(Timestamp(ms)).filter(|time| time.0 > 0)
}

fn from_time(time: Option<Timestamp>) -> u64 {
    time.map_or(0, |time| time.0)
}

impl From<&Mirror> for wire::Mirror {
    fn from(mirror: &Mirror) -> Self {
        let Mirror {
            name,
            upstream,
            has_password,
            master,
            dest,
            dir,
            replicas,
            selected,
            options,
            schedule,
            enabled,
            owner,
            push_tokens,
            created_at,
            deleting,
            was,
        } = mirror;
        Self {
            name: name.to_string(),
            upstream: from_option(upstream.as_ref()),
            has_password: *has_password,
            master: master.to_string(),
            dest: dest.to_string(),
            dir: dir.to_string(),
            replicas: replicas.iter().map(Into::into).collect(),
            selected: selected.as_ref().map(Into::into),
            settings: settings(options),
            schedule: schedule.as_ref().map(Into::into),
            enabled: *enabled,
            owner: from_option(owner.as_ref()),
            created_at_ms: created_at.0,
            deleting: *deleting,
            was: from_option(was.as_ref()),
            push_tokens: push_tokens.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Mirror> for Mirror {
    type Error = Invalid;
    fn try_from(mirror: wire::Mirror) -> Result<Self, Invalid> {
        let wire::Mirror {
            name,
            upstream,
            has_password,
            master,
            dest,
            dir,
            replicas,
            selected,
            settings,
            schedule,
            enabled,
            owner,
            created_at_ms,
            deleting,
            was,
            push_tokens,
        } = mirror;
        check_count("push_tokens", push_tokens.len(), PushToken::MAX)?;
        check_count("replicas", replicas.len(), REPLICAS_MAX)?;
        let mirror = Self {
            name: parse("name", &name)?,
            upstream: optional("upstream", &upstream)?,
            has_password,
            master: parse("master", &master)?,
            dest: parse("dest", &dest)?,
            dir: parse("dir", &dir)?,
            replicas: replicas.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            selected: selected.map(TryInto::try_into).transpose()?,
            options: options(settings)?,
            schedule: schedule.map(TryInto::try_into).transpose()?,
            enabled,
            owner: optional("owner", &owner)?,
            created_at: Timestamp(created_at_ms),
            deleting,
            was: optional("was", &was)?,
            push_tokens: push_tokens
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        };
        if !mirror.replicas.is_sorted_by(|a, b| a.node < b.node) {
            return Err(Invalid::new("replicas", "must be sorted by node, each node once"));
        }
        if mirror.replica(&mirror.master).is_some() {
            return Err(Invalid::new("replicas", "must not hold the master"));
        }
        Ok(mirror)
    }
}

impl From<&MirrorState> for wire::MirrorState {
    fn from(state: &MirrorState) -> Self {
        let MirrorState {
            mirror,
            generation,
            generation_at,
            generation_run,
            number,
            wanted,
            current,
            complete_at,
            progress,
            generation_on,
            allow,
            distributed,
        } = state;
        Self {
            mirror: mirror.to_string(),
            generation: *generation,
            generation_at_ms: generation_at.0,
            generation_run: *generation_run,
            number: *number,
            wanted: wanted.as_ref().map(Into::into),
            current: current.unwrap_or(0),
            complete_at_ms: from_time(*complete_at),
            progress: Some(progress.into()),
            generation_on: from_option(generation_on.as_ref()),
            allow: Some(allow.into()),
            distributed: *distributed,
        }
    }
}

impl TryFrom<wire::MirrorState> for MirrorState {
    type Error = Invalid;
    fn try_from(state: wire::MirrorState) -> Result<Self, Invalid> {
        let wire::MirrorState {
            mirror,
            generation,
            generation_at_ms,
            generation_run,
            number,
            wanted,
            current,
            complete_at_ms,
            progress,
            generation_on,
            allow,
            distributed,
        } = state;
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            generation,
            generation_at: Timestamp(generation_at_ms),
            generation_run,
            number,
            wanted: wanted.map(TryInto::try_into).transpose()?,
            current: Some(current).filter(|n| *n > 0),
            complete_at: time(complete_at_ms),
            progress: progress.ok_or_else(|| missing("progress"))?.try_into()?,
            generation_on: optional("generation_on", &generation_on)?,
            allow: allow.unwrap_or_default().into(),
            distributed,
        })
    }
}

impl From<&ReplicaState> for wire::ReplicaState {
    fn from(state: &ReplicaState) -> Self {
        let ReplicaState {
            mirror,
            node,
            generation,
            staged,
            staged_at,
            wanted,
            current,
            complete_at,
        } = state;
        Self {
            mirror: mirror.to_string(),
            node: node.to_string(),
            generation: *generation,
            staged: *staged,
            staged_at_ms: from_time(*staged_at),
            wanted: wanted.as_ref().map(Into::into),
            current: current.unwrap_or(0),
            complete_at_ms: from_time(*complete_at),
        }
    }
}

impl TryFrom<wire::ReplicaState> for ReplicaState {
    type Error = Invalid;
    fn try_from(state: wire::ReplicaState) -> Result<Self, Invalid> {
        let wire::ReplicaState {
            mirror,
            node,
            generation,
            staged,
            wanted,
            current,
            complete_at_ms,
            staged_at_ms,
        } = state;
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            node: parse("node", &node)?,
            generation,
            staged,
            staged_at: time(staged_at_ms),
            wanted: wanted.map(TryInto::try_into).transpose()?,
            current: Some(current).filter(|n| *n > 0),
            complete_at: time(complete_at_ms),
        })
    }
}

impl From<&Wanted> for wire::WantedRun {
    fn from(wanted: &Wanted) -> Self {
        let Wanted { number, trigger, allow, at, from } = wanted;
        Self {
            number: *number,
            trigger: Some(trigger.into()),
            allow: Some(allow.into()),
            at_ms: at.0,
            from: from_option(from.as_ref()),
        }
    }
}

impl TryFrom<wire::WantedRun> for Wanted {
    type Error = Invalid;
    fn try_from(wanted: wire::WantedRun) -> Result<Self, Invalid> {
        let wire::WantedRun { number, trigger, allow, at_ms, from } = wanted;
        Ok(Self {
            number,
            trigger: trigger.ok_or_else(|| missing("trigger"))?.try_into()?,
            allow: allow.unwrap_or_default().into(),
            at: Timestamp(at_ms),
            from: optional("from", &from)?,
        })
    }
}

impl From<&Trigger> for wire::RunTrigger {
    fn from(trigger: &Trigger) -> Self {
        use wire::run_trigger::Kind;
        let kind = match trigger {
            Trigger::Schedule(at) => Kind::ScheduleMs(at.0),
            Trigger::Asked(who) => Kind::Asked(who.clone()),
            Trigger::Push(token) => Kind::Push(token.clone()),
            Trigger::Ready(user) => Kind::Ready(user.to_string()),
            Trigger::Cascade => Kind::Cascade(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::RunTrigger> for Trigger {
    type Error = Invalid;
    fn try_from(trigger: wire::RunTrigger) -> Result<Self, Invalid> {
        use wire::run_trigger::Kind;
        let wire::RunTrigger { kind } = trigger;
        Ok(match kind.ok_or_else(|| missing("trigger"))? {
            Kind::ScheduleMs(ms) => Self::Schedule(Timestamp(ms)),
            Kind::Asked(who) => Self::Asked(who),
            Kind::Push(token) => Self::Push(token),
            Kind::Ready(user) => Self::Ready(parse("ready", &user)?),
            Kind::Cascade(_) => Self::Cascade,
        })
    }
}

impl From<&Allow> for wire::RunAllow {
    fn from(allow: &Allow) -> Self {
        let Allow { empty, delete, space } = *allow;
        Self { empty, delete, space }
    }
}

impl From<wire::RunAllow> for Allow {
    fn from(allow: wire::RunAllow) -> Self {
        let wire::RunAllow { empty, delete, space } = allow;
        Self { empty, delete, space }
    }
}

impl From<HopKind> for wire::Hop {
    fn from(hop: HopKind) -> Self {
        match hop {
            HopKind::Upstream => Self::Upstream,
            HopKind::Replica => Self::Replica,
        }
    }
}

impl TryFrom<wire::Hop> for HopKind {
    type Error = Invalid;
    fn try_from(hop: wire::Hop) -> Result<Self, Invalid> {
        match hop {
            wire::Hop::Unspecified => Err(unknown("hop")),
            wire::Hop::Upstream => Ok(Self::Upstream),
            wire::Hop::Replica => Ok(Self::Replica),
        }
    }
}

impl From<&Run> for wire::Run {
    fn from(run: &Run) -> Self {
        let Run { id, node, hop, trigger, created_at, started_at, attempts, generation, end } = run;
        let RunId { mirror, number } = id;
        Self {
            mirror: mirror.to_string(),
            number: *number,
            node: node.to_string(),
            hop: wire::Hop::from(*hop).into(),
            trigger: Some(trigger.into()),
            created_at_ms: created_at.0,
            started_at_ms: started_at.0,
            attempts: *attempts,
            generation: *generation,
            end: end.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::Run> for Run {
    type Error = Invalid;
    fn try_from(run: wire::Run) -> Result<Self, Invalid> {
        let hop = run.hop().try_into()?;
        let wire::Run {
            mirror,
            number,
            node,
            hop: _,
            trigger,
            created_at_ms,
            started_at_ms,
            attempts,
            generation,
            end,
        } = run;
        Ok(Self {
            id: RunId { mirror: parse("mirror", &mirror)?, number },
            node: parse("node", &node)?,
            hop,
            trigger: trigger.ok_or_else(|| missing("trigger"))?.try_into()?,
            created_at: Timestamp(created_at_ms),
            started_at: Timestamp(started_at_ms),
            attempts,
            generation,
            end: end.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&RunEnd> for wire::RunEnd {
    fn from(end: &RunEnd) -> Self {
        let RunEnd { at, kind, message, pulled } = end;
        Self {
            at_ms: at.0,
            kind: wire::OutcomeKind::from(*kind).into(),
            message: message.clone(),
            pulled: pulled.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::RunEnd> for RunEnd {
    type Error = Invalid;
    fn try_from(end: wire::RunEnd) -> Result<Self, Invalid> {
        let kind = end.kind().try_into()?;
        let wire::RunEnd { at_ms, kind: _, message, pulled } = end;
        let pulled = pulled.map(TryInto::try_into).transpose()?;
        Ok(Self { at: Timestamp(at_ms), kind, message, pulled })
    }
}

impl From<&Pulled> for wire::Pulled {
    fn from(pulled: &Pulled) -> Self {
        let Pulled {
            started_at,
            ended_at,
            exit_code,
            entries,
            tree_bytes,
            files,
            created,
            deleted,
            received_bytes,
            changed,
            permanent,
            free_bytes,
        } = *pulled;
        Self {
            started_at_ms: started_at.0,
            ended_at_ms: ended_at.0,
            exit_code: exit_code.map(u32::from),
            entries,
            tree_bytes,
            files,
            created,
            deleted,
            received_bytes,
            changed,
            permanent,
            free_bytes,
        }
    }
}

impl TryFrom<wire::Pulled> for Pulled {
    type Error = Invalid;
    fn try_from(pulled: wire::Pulled) -> Result<Self, Invalid> {
        let wire::Pulled {
            started_at_ms,
            ended_at_ms,
            exit_code,
            entries,
            tree_bytes,
            files,
            created,
            deleted,
            received_bytes,
            changed,
            permanent,
            free_bytes,
        } = pulled;
        let exit_code = exit_code.map(u8::try_from).transpose();
        Ok(Self {
            started_at: Timestamp(started_at_ms),
            ended_at: Timestamp(ended_at_ms),
            exit_code: exit_code.map_err(|_| Invalid::new("exit_code", "must be at most 255"))?,
            entries,
            tree_bytes,
            files,
            created,
            deleted,
            received_bytes,
            changed,
            permanent,
            free_bytes,
        })
    }
}

impl From<&Secret> for wire::Secret {
    fn from(secret: &Secret) -> Self {
        let Secret { mirror, sealed } = secret;
        Self { mirror: mirror.to_string(), sealed: sealed.clone() }
    }
}

impl TryFrom<wire::Secret> for Secret {
    type Error = Invalid;
    fn try_from(secret: wire::Secret) -> Result<Self, Invalid> {
        let wire::Secret { mirror, sealed } = secret;
        check_count("sealed", sealed.len(), Self::SEALED_MAX)?;
        Ok(Self { mirror: parse("mirror", &mirror)?, sealed })
    }
}
