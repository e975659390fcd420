//! What more than one message of clusters is made of: settings, histories, quorums, positions.

use std::collections::BTreeSet;

use lockstep_model::cluster::wal::{Fork, Lineage, TIMELINES_MAX};
use lockstep_model::cluster::{Lsn, MEMBERS_MAX, Quorum, SystemId};
use lockstep_model::setting::{Settings, VALUES_MAX, Value};
use lockstep_model::{Invalid, NodeName};

use crate::convert::{parse, parse_each};
use crate::v1;

/// Settings as they were given, not looked at.
pub fn values(settings: Vec<v1::Setting>) -> Result<Vec<Value>, Invalid> {
    if settings.len() > VALUES_MAX {
        let problem = format!("has {} entries, at most {VALUES_MAX} fit", settings.len());
        return Err(Invalid::new("settings", problem));
    }
    let value = |v1::Setting { name, value }| Value { name, text: value };
    Ok(settings.into_iter().map(value).collect())
}

/// Members with their settings as they were given.
pub fn of_members(
    members: Vec<v1::MemberSettings>,
) -> Result<Vec<(NodeName, Vec<Value>)>, Invalid> {
    if members.len() > MEMBERS_MAX {
        let problem = format!("has {} entries, at most {MEMBERS_MAX} fit", members.len());
        return Err(Invalid::new("members", problem));
    }
    let member = |(i, member): (usize, v1::MemberSettings)| {
        let v1::MemberSettings { node, settings } = member;
        let read = || Ok((parse("node", &node)?, values(settings)?));
        read().map_err(|e: Invalid| e.within(format_args!("members[{i}]")))
    };
    members.into_iter().enumerate().map(member).collect()
}

/// Those that differ from the default.
pub fn settings<O: Settings>(options: &O) -> Vec<v1::Setting> {
    options.values().into_iter().map(Into::into).collect()
}

pub(super) fn options<O: Settings>(
    field: &'static str,
    settings: Vec<v1::Setting>,
) -> Result<O, Invalid> {
    let values = values(settings)?;
    O::from_values(values.iter().map(|v| (v.name.as_str(), v.text.as_str())))
        .map_err(|e| e.within(field))
}

pub(super) fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Empty: not known.
pub(super) fn position(field: &'static str, text: &str) -> Result<Option<Lsn>, Invalid> {
    crate::convert::optional(field, text)
}

/// 0: not known.
pub(super) fn system_id(number: u64) -> Option<SystemId> {
    (number != 0).then_some(SystemId(number))
}

pub(super) fn from_system_id(id: Option<SystemId>) -> u64 {
    id.map_or(0, |SystemId(number)| number)
}

pub(super) fn lineage(forks: Vec<v1::TimelineFork>) -> Result<Lineage, Invalid> {
    crate::convert::each("lineage", TIMELINES_MAX, forks).map(Lineage)
}

pub(super) fn from_lineage(lineage: &Lineage) -> Vec<v1::TimelineFork> {
    let fork =
        |&Fork { timeline, begins }| v1::TimelineFork { timeline, begins: begins.to_string() };
    lineage.0.iter().map(fork).collect()
}

impl TryFrom<v1::TimelineFork> for Fork {
    type Error = Invalid;
    fn try_from(fork: v1::TimelineFork) -> Result<Self, Invalid> {
        let v1::TimelineFork { timeline, begins } = fork;
        Ok(Self { timeline, begins: parse("begins", &begins)? })
    }
}

impl TryFrom<v1::ClusterQuorum> for Quorum {
    type Error = Invalid;
    fn try_from(quorum: v1::ClusterQuorum) -> Result<Self, Invalid> {
        let v1::ClusterQuorum { k, of } = quorum;
        let of: BTreeSet<NodeName> = parse_each("of", MEMBERS_MAX, &of)?.into_iter().collect();
        match k == 0 && !of.is_empty() {
            true => Err(Invalid::new("of", "must be empty when k is 0")),
            false => Ok(Self { k, of }),
        }
    }
}

impl From<&Quorum> for v1::ClusterQuorum {
    fn from(quorum: &Quorum) -> Self {
        let Quorum { k, of } = quorum;
        Self { k: *k, of: of.iter().map(ToString::to_string).collect() }
    }
}
