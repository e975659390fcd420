//! Records of syncs, and what tasks share with them.

use std::collections::BTreeMap;

use lockstep_model::rate::Rate;
use lockstep_model::setting::{Settings, VALUES_MAX};
use lockstep_model::sync::{
    COMMENTS_MAX, Comment, Pass, Place, Selected, Sync, SyncOptions, SyncState, TARGETS_MAX, Target,
};
use lockstep_model::{Invalid, Timestamp};

use super::field::{check_count, missing, parse};
use crate::store_v1 as wire;

impl From<&Sync> for wire::Sync {
    fn from(sync: &Sync) -> Self {
        let Sync {
            name,
            source,
            targets,
            selected,
            options,
            paused,
            generation,
            comments,
            created_at,
        } = sync;
        Self {
            name: name.to_string(),
            source: Some(source.into()),
            targets: Vec::new(),
            options: Some(options.into()),
            created_at_ms: created_at.0,
            named: targets.iter().map(Into::into).collect(),
            selected: selected.as_ref().map(Into::into),
            paused: *paused,
            generation: *generation,
            comments: comments.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Sync> for Sync {
    type Error = Invalid;
    fn try_from(sync: wire::Sync) -> Result<Self, Invalid> {
        let wire::Sync {
            name,
            source,
            targets: _,
            options,
            created_at_ms,
            named,
            selected,
            paused,
            generation,
            comments,
        } = sync;
        check_count("targets", named.len(), TARGETS_MAX)?;
        check_count("comments", comments.len(), COMMENTS_MAX)?;
        let source: Place = source.ok_or_else(|| missing("source"))?.try_into()?;
        let targets: Vec<Target> =
            named.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        if !targets.is_sorted_by(|a, b| a.node < b.node) {
            return Err(Invalid::new("targets", "must be sorted by node, each node once"));
        }
        if targets.iter().any(|target| target.node == source.node) {
            return Err(Invalid::new("targets", "must not hold the source's node"));
        }
        Ok(Self {
            name: parse("name", &name)?,
            source,
            targets,
            selected: selected.map(TryInto::try_into).transpose()?,
            options: options.ok_or_else(|| missing("options"))?.try_into()?,
            paused,
            generation,
            comments: comments.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            created_at: Timestamp(created_at_ms),
        })
    }
}

impl From<&SyncState> for wire::SyncState {
    fn from(state: &SyncState) -> Self {
        let SyncState { sync, target, passes } = state;
        let progress = |pass| passes.get(&pass).map(Into::into);
        Self {
            sync: sync.to_string(),
            node: target.to_string(),
            resync: progress(Pass::Resync),
            scrub: progress(Pass::Scrub),
            verify: progress(Pass::Verify),
        }
    }
}

impl TryFrom<wire::SyncState> for SyncState {
    type Error = Invalid;
    fn try_from(state: wire::SyncState) -> Result<Self, Invalid> {
        let wire::SyncState { sync, node, resync, scrub, verify } = state;
        let mut passes = BTreeMap::new();
        for (pass, progress) in
            [(Pass::Resync, resync), (Pass::Scrub, scrub), (Pass::Verify, verify)]
        {
            if let Some(progress) = progress {
                passes.insert(pass, progress.try_into().map_err(|e: Invalid| e.within(pass))?);
            }
        }
        if passes.is_empty() {
            return Err(missing("verify"));
        }
        Ok(Self { sync: parse("sync", &sync)?, target: parse("node", &node)?, passes })
    }
}

impl From<&Place> for wire::Place {
    fn from(place: &Place) -> Self {
        let Place { node, path } = place;
        Self { node: node.to_string(), path: path.to_string() }
    }
}

impl TryFrom<wire::Place> for Place {
    type Error = Invalid;
    fn try_from(place: wire::Place) -> Result<Self, Invalid> {
        let wire::Place { node, path } = place;
        Ok(Self { node: parse("node", &node)?, path: parse("path", &path)? })
    }
}

impl From<&Target> for wire::Target {
    fn from(target: &Target) -> Self {
        let Target { node, at, bwlimit } = target;
        Self { node: node.to_string(), at: at.to_string(), bwlimit: from_rate(*bwlimit) }
    }
}

impl TryFrom<wire::Target> for Target {
    type Error = Invalid;
    fn try_from(target: wire::Target) -> Result<Self, Invalid> {
        let wire::Target { node, at, bwlimit } = target;
        Ok(Self { bwlimit: Rate::new(bwlimit), ..Self::parse(&node, &at)? })
    }
}

/// 0: none.
pub(super) fn from_rate(rate: Option<Rate>) -> u64 {
    rate.map_or(0, Rate::bytes_per_s)
}

impl From<&Selected> for wire::Selected {
    fn from(selected: &Selected) -> Self {
        let Selected { selector, path } = selected;
        Self { selector: selector.to_string(), path: path.to_string() }
    }
}

impl TryFrom<wire::Selected> for Selected {
    type Error = Invalid;
    fn try_from(selected: wire::Selected) -> Result<Self, Invalid> {
        let wire::Selected { selector, path } = selected;
        Ok(Self { selector: parse("selector", &selector)?, path: parse("path", &path)? })
    }
}

impl From<&Comment> for wire::Comment {
    fn from(comment: &Comment) -> Self {
        let Comment { before, text } = comment;
        let before = before.as_ref().map(ToString::to_string).unwrap_or_default();
        Self { before, text: text.clone() }
    }
}

impl TryFrom<wire::Comment> for Comment {
    type Error = Invalid;
    fn try_from(comment: wire::Comment) -> Result<Self, Invalid> {
        let wire::Comment { before, text } = comment;
        let before = Some(before).filter(|b| !b.is_empty());
        let before = before.map(|b| parse("before", &b)).transpose()?;
        let comment = Self { before, text };
        comment.check()?;
        Ok(comment)
    }
}

impl From<&SyncOptions> for wire::SyncOptions {
    fn from(options: &SyncOptions) -> Self {
        let setting = |value: lockstep_model::setting::Value| wire::Setting {
            name: value.name,
            value: value.text,
        };
        Self {
            delete: wire::DeletePolicy::Unspecified.into(),
            excludes: Vec::new(),
            delay_ms: 0,
            settings: options.values().into_iter().map(setting).collect(),
        }
    }
}

impl TryFrom<wire::SyncOptions> for SyncOptions {
    type Error = Invalid;
    fn try_from(options: wire::SyncOptions) -> Result<Self, Invalid> {
        let wire::SyncOptions { delete: _, excludes: _, delay_ms: _, settings } = options;
        check_count("settings", settings.len(), VALUES_MAX)?;
        let values = settings.iter().map(|s| (s.name.as_str(), s.value.as_str()));
        Self::from_values(values)
    }
}
