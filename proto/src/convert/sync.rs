//! Syncs: places, targets, options.

use lockstep_model::label::Selector;
use lockstep_model::rate::Rate;
use lockstep_model::setting::{Settings, VALUES_MAX, Value};
use lockstep_model::sync::{Comment, Place, Selected, SyncOptions, Target};
use lockstep_model::{Invalid, NodeName};

use super::parse;
use crate::v1;

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

impl TryFrom<v1::Target> for Target {
    type Error = Invalid;
    fn try_from(target: v1::Target) -> Result<Self, Invalid> {
        let v1::Target { node, at, bwlimit } = target;
        Ok(Self { bwlimit: rate("bwlimit", bwlimit)?, ..Self::parse(&node, &at)? })
    }
}

impl From<Target> for v1::Target {
    fn from(target: Target) -> Self {
        let Target { node, at, bwlimit } = target;
        Self { node: node.to_string(), at: at.to_string(), bwlimit: from_rate(bwlimit) }
    }
}

/// 0: none.
pub(super) fn rate(field: &str, bytes_per_s: u64) -> Result<Option<Rate>, Invalid> {
    match (bytes_per_s, Rate::new(bytes_per_s)) {
        (0, _) => Ok(None),
        (_, Some(rate)) => Ok(Some(rate)),
        (_, None) => {
            Err(Invalid::new(field, format!("must be at least {} bytes per second", Rate::MIN)))
        }
    }
}

pub(super) fn from_rate(rate: Option<Rate>) -> u64 {
    rate.map_or(0, Rate::bytes_per_s)
}

impl TryFrom<v1::Selected> for Selected {
    type Error = Invalid;
    fn try_from(selected: v1::Selected) -> Result<Self, Invalid> {
        let v1::Selected { selector, path } = selected;
        let selector: Selector = parse("selector", &selector)?;
        Ok(Self { selector, path: path.parse()? })
    }
}

impl From<Selected> for v1::Selected {
    fn from(selected: Selected) -> Self {
        let Selected { selector, path } = selected;
        Self { selector: selector.to_string(), path: path.to_string() }
    }
}

impl TryFrom<v1::Comment> for Comment {
    type Error = Invalid;
    fn try_from(comment: v1::Comment) -> Result<Self, Invalid> {
        let v1::Comment { before, text } = comment;
        let before: Option<NodeName> =
            Some(before).filter(|b| !b.is_empty()).map(|b| parse("before", &b)).transpose()?;
        let comment = Self { before, text };
        comment.check()?;
        Ok(comment)
    }
}

impl From<Comment> for v1::Comment {
    fn from(comment: Comment) -> Self {
        let Comment { before, text } = comment;
        Self { before: before.map(|b| b.to_string()).unwrap_or_default(), text }
    }
}

impl From<Value> for v1::Setting {
    fn from(value: Value) -> Self {
        let Value { name, text } = value;
        Self { name, value: text }
    }
}

impl From<v1::Setting> for Value {
    fn from(setting: v1::Setting) -> Self {
        let v1::Setting { name, value } = setting;
        Self { name, text: value }
    }
}

impl TryFrom<v1::SyncOptions> for SyncOptions {
    type Error = Invalid;
    fn try_from(options: v1::SyncOptions) -> Result<Self, Invalid> {
        let v1::SyncOptions { settings } = options;
        if settings.len() > VALUES_MAX {
            let problem = format!("has {} entries, at most {VALUES_MAX} fit", settings.len());
            return Err(Invalid::new("options", problem));
        }
        Self::from_values(settings.iter().map(|s| (s.name.as_str(), s.value.as_str())))
            .map_err(|problem| problem.within("options"))
    }
}

impl From<SyncOptions> for v1::SyncOptions {
    fn from(options: SyncOptions) -> Self {
        Self { settings: options.values().into_iter().map(Into::into).collect() }
    }
}
