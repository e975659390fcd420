//! What several of the messages are made of: settings, histories, quorums, positions.

use std::collections::BTreeSet;

use lockstep_model::cluster::wal::{Fork, Lineage, TIMELINES_MAX};
use lockstep_model::cluster::{MEMBERS_MAX, Quorum, SystemId};
use lockstep_model::setting::{Settings, VALUES_MAX, Value};
use lockstep_model::{Invalid, NodeName, Timestamp};

use crate::store::field::{check_count, parse, parse_all};
use crate::store_v1 as wire;

pub fn options<O: Settings>(field: &str, settings: Vec<wire::Setting>) -> Result<O, Invalid> {
    check_count(field, settings.len(), VALUES_MAX)?;
    O::from_values(settings.iter().map(|s| (s.name.as_str(), s.value.as_str())))
        .map_err(|e| e.within(field))
}

pub fn settings<O: Settings>(options: &O) -> Vec<wire::Setting> {
    let setting = |Value { name, text }| wire::Setting { name, value: text };
    options.values().into_iter().map(setting).collect()
}

/// 0: not known.
pub fn system_id(number: u64) -> Option<SystemId> {
    (number != 0).then_some(SystemId(number))
}

pub fn from_system_id(id: Option<SystemId>) -> u64 {
    id.map_or(0, |SystemId(number)| number)
}

/// 0: never.
pub fn time(ms: u64) -> Option<Timestamp> {
    (ms != 0).then_some(Timestamp(ms))
}

pub fn from_time(time: Option<Timestamp>) -> u64 {
    time.map_or(0, |Timestamp(ms)| ms)
}

pub fn lineage(forks: Vec<wire::TimelineFork>) -> Result<Lineage, Invalid> {
    check_count("lineage", forks.len(), TIMELINES_MAX)?;
    let fork = |wire::TimelineFork { timeline, begins }| {
        Ok(Fork { timeline, begins: parse("lineage.begins", &begins)? })
    };
    forks.into_iter().map(fork).collect::<Result<_, Invalid>>().map(Lineage)
}

pub fn from_lineage(lineage: &Lineage) -> Vec<wire::TimelineFork> {
    let fork =
        |&Fork { timeline, begins }| wire::TimelineFork { timeline, begins: begins.to_string() };
    lineage.0.iter().map(fork).collect()
}

impl TryFrom<wire::ClusterQuorum> for Quorum {
    type Error = Invalid;
    fn try_from(quorum: wire::ClusterQuorum) -> Result<Self, Invalid> {
        let wire::ClusterQuorum { k, of } = quorum;
        let of: BTreeSet<NodeName> = parse_all("quorum.of", of, MEMBERS_MAX)?.into_iter().collect();
        match k == 0 && !of.is_empty() {
            true => Err(Invalid::new("quorum.of", "must be empty when k is 0")),
            false => Ok(Self { k, of }),
        }
    }
}

impl From<&Quorum> for wire::ClusterQuorum {
    fn from(quorum: &Quorum) -> Self {
        let Quorum { k, of } = quorum;
        Self { k: *k, of: of.iter().map(ToString::to_string).collect() }
    }
}
