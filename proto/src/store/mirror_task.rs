//! Specs of mirrors' tasks.

use lockstep_model::Invalid;
use lockstep_model::mirror::REPLICAS_MAX;
use lockstep_model::task::{MirrorHooks, MirrorPlace, MirrorPull, MirrorRelease, PullFrom};

use super::field::{check_count, from_option, optional, parse};
use super::mirror::{options, settings};
use crate::store_v1 as wire;

impl From<&MirrorPlace> for wire::MirrorPlace {
    fn from(place: &MirrorPlace) -> Self {
        let MirrorPlace { mirror, tree, moved_from, hop, readers, serve, options } = place;
        Self {
            mirror: mirror.to_string(),
            tree: tree.to_string(),
            moved_from: from_option(moved_from.as_ref()),
            hop: wire::Hop::from(*hop).into(),
            readers: readers.iter().map(Into::into).collect(),
            serve: *serve,
            settings: settings(options),
        }
    }
}

impl TryFrom<wire::MirrorPlace> for MirrorPlace {
    type Error = Invalid;
    fn try_from(place: wire::MirrorPlace) -> Result<Self, Invalid> {
        let hop = place.hop().try_into()?;
        let wire::MirrorPlace { mirror, tree, moved_from, hop: _, readers, serve, settings } =
            place;
        check_count("readers", readers.len(), REPLICAS_MAX)?;
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            tree: parse("tree", &tree)?,
            moved_from: optional("moved_from", &moved_from)?,
            hop,
            readers: readers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            serve,
            options: options(settings)?,
        })
    }
}

impl From<&MirrorRelease> for wire::MirrorRelease {
    fn from(release: &MirrorRelease) -> Self {
        let MirrorRelease { mirror, delete } = release;
        Self { mirror: mirror.to_string(), delete: from_option(delete.as_ref()) }
    }
}

impl TryFrom<wire::MirrorRelease> for MirrorRelease {
    type Error = Invalid;
    fn try_from(release: wire::MirrorRelease) -> Result<Self, Invalid> {
        let wire::MirrorRelease { mirror, delete } = release;
        Ok(Self { mirror: parse("mirror", &mirror)?, delete: optional("delete", &delete)? })
    }
}

impl From<&MirrorPull> for wire::MirrorPull {
    fn from(pull: &MirrorPull) -> Self {
        use wire::mirror_pull::From;
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
            PullFrom::Agent(peer) => Some(From::Agent(peer.into())),
            PullFrom::Remote(remote) => Some(From::Remote(remote.to_string())),
        };
        Self {
            mirror: mirror.to_string(),
            number: *number,
            generation: *generation,
            tree: tree.to_string(),
            hop: wire::Hop::from(*hop).into(),
            from,
            stage: stage.to_string(),
            settings: settings(options),
            allow: Some(allow.into()),
            has_password: *has_password,
        }
    }
}

impl TryFrom<wire::MirrorPull> for MirrorPull {
    type Error = Invalid;
    fn try_from(pull: wire::MirrorPull) -> Result<Self, Invalid> {
        use wire::mirror_pull::From;
        let hop = pull.hop().try_into()?;
        let wire::MirrorPull {
            mirror,
            number,
            generation,
            tree,
            hop: _,
            from,
            stage,
            settings,
            allow,
            has_password,
        } = pull;
        let from = match from {
            None => PullFrom::Here,
            Some(From::Agent(peer)) => PullFrom::Agent(peer.try_into()?),
            Some(From::Remote(url)) => PullFrom::Remote(parse("remote", &url)?),
        };
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            number,
            generation,
            tree: parse("tree", &tree)?,
            hop,
            from,
            stage: parse("stage", &stage)?,
            options: options(settings)?,
            allow: allow.unwrap_or_default().into(),
            has_password,
        })
    }
}

impl From<&MirrorHooks> for wire::MirrorHooks {
    fn from(hooks: &MirrorHooks) -> Self {
        let MirrorHooks { mirror, number, generation, tree, options } = hooks;
        Self {
            mirror: mirror.to_string(),
            number: *number,
            generation: *generation,
            tree: tree.to_string(),
            settings: settings(options),
        }
    }
}

impl TryFrom<wire::MirrorHooks> for MirrorHooks {
    type Error = Invalid;
    fn try_from(hooks: wire::MirrorHooks) -> Result<Self, Invalid> {
        let wire::MirrorHooks { mirror, number, generation, tree, settings } = hooks;
        Ok(Self {
            mirror: parse("mirror", &mirror)?,
            number,
            generation,
            tree: parse("tree", &tree)?,
            options: options(settings)?,
        })
    }
}
