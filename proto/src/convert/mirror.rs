//! Mirrors: their tasks, reports, and the parts of their runs.

use lockstep_model::mirror::push::PushToken;
use lockstep_model::mirror::report::{MirrorReport, PullPhase, PullProgress};
use lockstep_model::mirror::run::RunEnd;
use lockstep_model::mirror::{Allow, HopKind, MirrorOptions, Pulled, REPLICAS_MAX, Run, Trigger};
use lockstep_model::observation::Observation;
use lockstep_model::setting::{Settings, VALUES_MAX};
use lockstep_model::task::{MirrorHooks, MirrorPlace, MirrorPull, MirrorRelease, PullFrom, Stage};
use lockstep_model::{Invalid, Millis};

use super::{each, from_wire_time, one_line, optional, parse, to_wire_time};
use crate::v1;

/// Longest problem or warning of a report, in bytes.
const LINE_MAX: usize = 512;

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

pub fn mirror_options(settings: Vec<v1::Setting>) -> Result<MirrorOptions, Invalid> {
    if settings.len() > VALUES_MAX {
        let problem = format!("has {} entries, at most {VALUES_MAX} fit", settings.len());
        return Err(Invalid::new("settings", problem));
    }
    MirrorOptions::from_values(settings.iter().map(|s| (s.name.as_str(), s.value.as_str())))
}

pub fn mirror_settings(options: &MirrorOptions) -> Vec<v1::Setting> {
    options.values().into_iter().map(Into::into).collect()
}

impl TryFrom<v1::MirrorPlace> for MirrorPlace {
    type Error = Invalid;
    fn try_from(place: v1::MirrorPlace) -> Result<Self, Invalid> {
        let hop = place.hop().try_into()?;
        let v1::MirrorPlace { mirror, tree, moved_from, hop: _, readers, serve, settings } = place;
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            tree: parse("tree", &tree)?,
            moved_from: optional("moved_from", &moved_from)?,
            hop,
            readers: each("readers", REPLICAS_MAX, readers)?,
            serve,
            options: mirror_options(settings)?,
        })
    }
}

impl From<MirrorPlace> for v1::MirrorPlace {
    fn from(place: MirrorPlace) -> Self {
        let MirrorPlace { mirror, tree, moved_from, hop, readers, serve, options } = place;
        Self {
            mirror: mirror.to_string(),
            tree: tree.to_string(),
            moved_from: text(moved_from),
            hop: v1::HopKind::from(hop).into(),
            readers: readers.into_iter().map(Into::into).collect(),
            serve,
            settings: mirror_settings(&options),
        }
    }
}

impl TryFrom<v1::MirrorRelease> for MirrorRelease {
    type Error = Invalid;
    fn try_from(release: v1::MirrorRelease) -> Result<Self, Invalid> {
        let v1::MirrorRelease { mirror, delete } = release;
        Ok(Self { mirror: parse("mirror", &mirror)?, delete: optional("delete", &delete)? })
    }
}

impl From<MirrorRelease> for v1::MirrorRelease {
    fn from(release: MirrorRelease) -> Self {
        let MirrorRelease { mirror, delete } = release;
        Self { mirror: mirror.to_string(), delete: text(delete) }
    }
}

impl TryFrom<v1::MirrorPull> for MirrorPull {
    type Error = Invalid;
    fn try_from(pull: v1::MirrorPull) -> Result<Self, Invalid> {
        let (hop, stage) = (pull.hop().try_into()?, pull.stage().try_into()?);
        let v1::MirrorPull {
            mirror,
            number,
            generation,
            tree,
            hop: _,
            from,
            stage: _,
            settings,
            allow,
            has_password,
        } = pull;
        let from = match from {
            None => PullFrom::Here,
            Some(v1::mirror_pull::From::Agent(peer)) => PullFrom::Agent(peer.try_into()?),
            Some(v1::mirror_pull::From::Remote(url)) => PullFrom::Remote(parse("remote", &url)?),
        };
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            number,
            generation,
            tree: parse("tree", &tree)?,
            hop,
            from,
            stage,
            options: mirror_options(settings)?,
            allow: allow.unwrap_or_default().into(),
            has_password,
        })
    }
}

impl From<MirrorPull> for v1::MirrorPull {
    fn from(pull: MirrorPull) -> Self {
        let MirrorPull {
            mirror,
            number,
            generation,
            tree,
            hop,
            from,
            stage,
            options,
            allow,
            has_password,
        } = pull;
        let from = match from {
            PullFrom::Here => None,
            PullFrom::Agent(peer) => Some(v1::mirror_pull::From::Agent(peer.into())),
            PullFrom::Remote(remote) => Some(v1::mirror_pull::From::Remote(remote.to_string())),
        };
        Self {
            mirror: mirror.to_string(),
            number,
            generation,
            tree: tree.to_string(),
            hop: v1::HopKind::from(hop).into(),
            from,
            stage: v1::PullStage::from(stage).into(),
            settings: mirror_settings(&options),
            allow: Some(allow.into()),
            has_password,
        }
    }
}

impl TryFrom<v1::MirrorHooks> for MirrorHooks {
    type Error = Invalid;
    fn try_from(hooks: v1::MirrorHooks) -> Result<Self, Invalid> {
        let v1::MirrorHooks { mirror, number, generation, tree, settings } = hooks;
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            number,
            generation,
            tree: parse("tree", &tree)?,
            options: mirror_options(settings)?,
        })
    }
}

impl From<MirrorHooks> for v1::MirrorHooks {
    fn from(hooks: MirrorHooks) -> Self {
        let MirrorHooks { mirror, number, generation, tree, options } = hooks;
        let (mirror, tree) = (mirror.to_string(), tree.to_string());
        Self { mirror, number, generation, tree, settings: mirror_settings(&options) }
    }
}

impl From<v1::Allow> for Allow {
    fn from(allow: v1::Allow) -> Self {
        let v1::Allow { empty, delete, space } = allow;
        Self { empty, delete, space }
    }
}

impl From<Allow> for v1::Allow {
    fn from(allow: Allow) -> Self {
        let Allow { empty, delete, space } = allow;
        Self { empty, delete, space }
    }
}

macro_rules! pairs {
    ($model:ident = $wire:ident, $field:literal, { $($variant:ident),+ }) => {
        impl From<$model> for v1::$wire {
            fn from(value: $model) -> Self {
                match value { $($model::$variant => Self::$variant),+ }
            }
        }
        impl TryFrom<v1::$wire> for $model {
            type Error = Invalid;
            fn try_from(value: v1::$wire) -> Result<Self, Invalid> {
                match value {
                    v1::$wire::Unspecified => {
                        Err(Invalid::new($field, "is missing or unknown"))
                    }
                    $(v1::$wire::$variant => Ok(Self::$variant)),+
                }
            }
        }
    };
}

pairs!(HopKind = HopKind, "hop", { Upstream, Replica });
pairs!(PullPhase = PullPhase, "phase", { Queued, Before, Counting, Content, Deleting, Finishing, After });
pairs!(Stage = PullStage, "stage", { Whole, First, Second });

impl TryFrom<v1::Pulled> for Pulled {
    type Error = Invalid;
    fn try_from(pulled: v1::Pulled) -> Result<Self, Invalid> {
        let v1::Pulled {
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
        } = pulled;
        let exit_code = exit_code.map(u8::try_from).transpose();
        Ok(Self {
            started_at: started_at.map(|t| from_wire_time(&t)).unwrap_or_default(),
            ended_at: ended_at.map(|t| from_wire_time(&t)).unwrap_or_default(),
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

impl From<Pulled> for v1::Pulled {
    fn from(pulled: Pulled) -> Self {
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
        } = pulled;
        Self {
            started_at: Some(to_wire_time(started_at)),
            ended_at: Some(to_wire_time(ended_at)),
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

/// What an agent says of a mirror.
pub fn mirror_update(update: v1::MirrorUpdate) -> Result<Observation, Invalid> {
    let v1::MirrorUpdate { mirror, report } = update;
    Ok(Observation::Mirror {
        mirror: parse("mirror", &mirror)?,
        report: report.map(TryInto::try_into).transpose()?,
    })
}

impl TryFrom<v1::MirrorReport> for MirrorReport {
    type Error = Invalid;
    fn try_from(report: v1::MirrorReport) -> Result<Self, Invalid> {
        let v1::MirrorReport { mirror: _, filled, problem, warnings, pull } = report;
        let lines = warnings.iter().take(Self::WARNINGS_MAX);
        Ok(Self {
            filled,
            problem: one_line(&problem, LINE_MAX),
            warnings: lines.map(|line| one_line(line, LINE_MAX)).collect(),
            pull: pull.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<MirrorReport> for v1::MirrorReport {
    /// The mirror's name is not in it, and is set by who sends it.
    fn from(report: MirrorReport) -> Self {
        let MirrorReport { filled, problem, warnings, pull } = report;
        Self { mirror: String::new(), filled, problem, warnings, pull: pull.map(Into::into) }
    }
}

impl TryFrom<v1::PullProgress> for PullProgress {
    type Error = Invalid;
    fn try_from(progress: v1::PullProgress) -> Result<Self, Invalid> {
        let phase = progress.phase().try_into()?;
        let v1::PullProgress {
            number,
            phase: _,
            started_at,
            percent,
            done_bytes,
            done_files,
            rate_bytes_per_s,
            eta_ms,
        } = progress;
        Ok(Self {
            number,
            phase,
            started_at: started_at.map(|t| from_wire_time(&t)).unwrap_or_default(),
            percent: percent.map(|percent| percent.min(100) as u8),
            done_bytes,
            done_files,
            rate_bytes_per_s,
            eta: eta_ms.map(Millis),
        })
    }
}

impl From<PullProgress> for v1::PullProgress {
    fn from(progress: PullProgress) -> Self {
        let PullProgress {
            number,
            phase,
            started_at,
            percent,
            done_bytes,
            done_files,
            rate_bytes_per_s,
            eta,
        } = progress;
        Self {
            number,
            phase: v1::PullPhase::from(phase).into(),
            started_at: Some(to_wire_time(started_at)),
            percent: percent.map(u32::from),
            done_bytes,
            done_files,
            rate_bytes_per_s,
            eta_ms: eta.map(|eta| eta.0),
        }
    }
}

impl From<&PushToken> for v1::PushToken {
    fn from(token: &PushToken) -> Self {
        let PushToken { id, secret_sha256: _, created_at } = token;
        Self { id: id.to_string(), created_at: Some(to_wire_time(*created_at)) }
    }
}

impl From<&Run> for v1::Run {
    /// Without its task and progress, which are not in the record.
    fn from(run: &Run) -> Self {
        let Run { id, node, hop, trigger, created_at, started_at, attempts, generation, end } = run;
        let outcome = end.as_ref().map_or(v1::OutcomeKind::Unspecified, |end| end.kind.into());
        let (ended_at, message, pulled) = match end.clone() {
            None => (None, String::new(), None),
            Some(RunEnd { at, kind: _, message, pulled }) => {
                (Some(to_wire_time(at)), message, pulled.map(Into::into))
            }
        };
        Self {
            id: id.to_string(),
            mirror: id.mirror.to_string(),
            number: id.number,
            node: node.to_string(),
            hop: v1::HopKind::from(*hop).into(),
            trigger: trigger.to_string(),
            created_at: Some(to_wire_time(*created_at)),
            started_at: Some(to_wire_time(*started_at)),
            attempts: *attempts,
            generation: *generation,
            ended_at,
            outcome: outcome.into(),
            message,
            pulled,
            task: String::new(),
            progress: None,
            scheduled_at: match trigger {
                Trigger::Schedule(instant) => Some(to_wire_time(*instant)),
                Trigger::Asked(_) | Trigger::Push(_) | Trigger::Ready(_) | Trigger::Cascade => None,
            },
        }
    }
}
