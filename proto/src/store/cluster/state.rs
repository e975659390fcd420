//! What the controller decided of a cluster.

use std::collections::BTreeMap;

use lockstep_model::cluster::state::{MemberRecord, Move, WantedSwitch};
use lockstep_model::cluster::{ClusterState, Election, Former, MEMBERS_MAX, Quorum, Stage, Term};
use lockstep_model::{Incarnation, Invalid, Millis, NodeName, Timestamp};

use super::part::{from_lineage, from_system_id, from_time, lineage, system_id, time};
use crate::store::field::{check_count, from_option, missing, optional, parse, parse_all};
use crate::store_v1::{self as wire, cluster_state::Stage as Wire};

impl From<&ClusterState> for wire::ClusterState {
    fn from(state: &ClusterState) -> Self {
        let ClusterState {
            cluster,
            system_id,
            major,
            term,
            holder,
            stage,
            quorums,
            formers,
            timeline,
            promotable,
            lineage,
            longest_lease,
            crashes,
            wanted,
            number,
            members,
            incarnation,
        } = state;
        let member = |(node, record): (&NodeName, &MemberRecord)| {
            let MemberRecord { copied, failed_term } = record;
            let failed_term = failed_term.map_or(0, |term| term.0);
            (node.to_string(), wire::MemberRecord { copied: *copied, failed_term })
        };
        Self {
            cluster: cluster.to_string(),
            system_id: from_system_id(*system_id),
            major: major.unwrap_or(0),
            term: term.0,
            holder: from_option(holder.as_ref()),
            quorums: quorums.iter().map(Into::into).collect(),
            formers: formers.iter().map(Into::into).collect(),
            timeline: *timeline,
            promotable: promotable.iter().map(ToString::to_string).collect(),
            lineage: from_lineage(lineage),
            longest_lease_ms: longest_lease.map(|longest| longest.0),
            crashes_ms: crashes.iter().map(|at| at.0).collect(),
            wanted: wanted.as_ref().map(Into::into),
            number: *number,
            members: members.iter().map(member).collect(),
            stage: Some(stage.into()),
            incarnation: incarnation.0,
        }
    }
}

impl TryFrom<wire::ClusterState> for ClusterState {
    type Error = Invalid;
    fn try_from(state: wire::ClusterState) -> Result<Self, Invalid> {
        let wire::ClusterState {
            cluster,
            system_id: id,
            major,
            term,
            holder,
            quorums,
            formers,
            timeline,
            promotable,
            lineage: forks,
            longest_lease_ms,
            crashes_ms,
            wanted,
            number,
            members,
            stage,
            incarnation,
        } = state;
        check_count("crashes", crashes_ms.len(), Self::CRASHES_MAX)?;
        check_count("members", members.len(), MEMBERS_MAX)?;
        check_count("formers", formers.len(), Self::FORMERS_MAX)?;
        let member = |(node, record): (String, wire::MemberRecord)| {
            let wire::MemberRecord { copied, failed_term } = record;
            let failed_term = (failed_term != 0).then_some(Term(failed_term));
            Ok((parse("members", &node)?, MemberRecord { copied, failed_term }))
        };
        let formers: Result<Vec<Former>, _> = formers.into_iter().map(TryInto::try_into).collect();
        let members: Result<BTreeMap<_, _>, Invalid> = members.into_iter().map(member).collect();
        Ok(Self {
            cluster: parse("cluster", &cluster)?,
            system_id: system_id(id),
            major: (major != 0).then_some(major),
            term: Term(term),
            holder: optional("holder", &holder)?,
            stage: stage.ok_or_else(|| missing("stage"))?.try_into()?,
            quorums: from_quorums(quorums)?,
            formers: formers?,
            timeline,
            promotable: parse_all("promotable", promotable, MEMBERS_MAX)?.into_iter().collect(),
            lineage: lineage(forks)?,
            longest_lease: longest_lease_ms.map(Millis),
            crashes: crashes_ms.into_iter().map(Timestamp).collect(),
            wanted: wanted.map(TryInto::try_into).transpose()?,
            number,
            members: members?,
            incarnation: Incarnation(incarnation),
        })
    }
}

impl From<&Former> for wire::ClusterFormer {
    fn from(former: &Former) -> Self {
        let Former { node, copy, timeline, quorums } = former;
        Self {
            node: from_option(node.as_ref()),
            copy: *copy,
            timeline: *timeline,
            quorums: quorums.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ClusterFormer> for Former {
    type Error = Invalid;
    fn try_from(former: wire::ClusterFormer) -> Result<Self, Invalid> {
        let wire::ClusterFormer { node, copy, timeline, quorums } = former;
        let quorums = from_quorums(quorums)?;
        Ok(Self { node: optional("formers.node", &node)?, copy, timeline, quorums })
    }
}

/// At least one.
fn from_quorums(quorums: Vec<wire::ClusterQuorum>) -> Result<Vec<Quorum>, Invalid> {
    check_count("quorums", quorums.len(), ClusterState::QUORUMS_MAX)?;
    if quorums.is_empty() {
        return Err(missing("quorums"));
    }
    quorums.into_iter().map(TryInto::try_into).collect()
}

impl From<&Stage> for Wire {
    fn from(stage: &Stage) -> Self {
        match stage {
            Stage::Creating => Self::Creating(wire::ClusterNothing {}),
            Stage::Steady => Self::Steady(wire::ClusterNothing {}),
            Stage::Preparing(moving) => Self::Preparing(moving.into()),
            Stage::Handing(moving) => Self::Handing(moving.into()),
            Stage::Electing(election) => Self::Electing(election.into()),
            Stage::Promoting(election) => Self::Promoting(election.into()),
        }
    }
}

impl TryFrom<Wire> for Stage {
    type Error = Invalid;
    fn try_from(stage: Wire) -> Result<Self, Invalid> {
        Ok(match stage {
            Wire::Creating(wire::ClusterNothing {}) => Self::Creating,
            Wire::Steady(wire::ClusterNothing {}) => Self::Steady,
            Wire::Preparing(moving) => Self::Preparing(moving.try_into()?),
            Wire::Handing(moving) => Self::Handing(moving.try_into()?),
            Wire::Electing(election) => Self::Electing(election.try_into()?),
            Wire::Promoting(election) => Self::Promoting(election.try_into()?),
        })
    }
}

impl From<&Move> for wire::ClusterMove {
    fn from(moving: &Move) -> Self {
        let Move { to, began_at, number } = moving;
        Self { to: to.to_string(), began_at_ms: began_at.0, number: *number }
    }
}

impl TryFrom<wire::ClusterMove> for Move {
    type Error = Invalid;
    fn try_from(moving: wire::ClusterMove) -> Result<Self, Invalid> {
        let wire::ClusterMove { to, began_at_ms, number } = moving;
        Ok(Self { to: parse("stage.to", &to)?, began_at: Timestamp(began_at_ms), number })
    }
}

impl From<&Election> for wire::ClusterElection {
    fn from(election: &Election) -> Self {
        let Election {
            cause,
            from,
            to,
            allow_loss,
            began_at,
            excluded,
            excluded_at,
            chosen_at,
            at_least,
            goal,
            salvage,
            number,
        } = election;
        Self {
            cause: cause.to_string(),
            from: from_option(from.as_ref().map(|(node, _)| node)),
            from_term: from.as_ref().map_or(0, |(_, term)| term.0),
            to: from_option(to.as_ref()),
            allow_loss: *allow_loss,
            began_at_ms: began_at.0,
            excluded: from_option(excluded.as_ref()),
            excluded_at_ms: from_time(*excluded_at),
            chosen_at_ms: from_time(*chosen_at),
            at_least: at_least.to_string(),
            goal: from_option(goal.as_ref()),
            salvage: from_option(salvage.as_ref().map(|(node, _)| node)),
            salvage_since_ms: salvage.as_ref().map_or(0, |(_, since)| since.0),
            number: *number,
        }
    }
}

impl TryFrom<wire::ClusterElection> for Election {
    type Error = Invalid;
    fn try_from(election: wire::ClusterElection) -> Result<Self, Invalid> {
        let wire::ClusterElection {
            cause,
            from,
            from_term,
            to,
            allow_loss,
            began_at_ms,
            excluded,
            excluded_at_ms,
            chosen_at_ms,
            at_least,
            goal,
            salvage,
            salvage_since_ms,
            number,
        } = election;
        Ok(Self {
            cause: parse("stage.cause", &cause)?,
            from: optional("stage.from", &from)?.map(|node| (node, Term(from_term))),
            to: optional("stage.to", &to)?,
            allow_loss,
            began_at: Timestamp(began_at_ms),
            excluded: optional("stage.excluded", &excluded)?,
            excluded_at: time(excluded_at_ms),
            chosen_at: time(chosen_at_ms),
            at_least: parse("stage.at_least", &at_least)?,
            goal: optional("stage.goal", &goal)?,
            salvage: optional("stage.salvage", &salvage)?
                .map(|node| (node, Timestamp(salvage_since_ms))),
            number,
        })
    }
}

impl From<&WantedSwitch> for wire::WantedSwitch {
    fn from(wanted: &WantedSwitch) -> Self {
        let WantedSwitch { to, at, by } = wanted;
        Self { to: from_option(to.as_ref()), at_ms: from_time(*at), by: by.clone() }
    }
}

impl TryFrom<wire::WantedSwitch> for WantedSwitch {
    type Error = Invalid;
    fn try_from(wanted: wire::WantedSwitch) -> Result<Self, Invalid> {
        let wire::WantedSwitch { to, at_ms, by } = wanted;
        Ok(Self { to: optional("wanted.to", &to)?, at: time(at_ms), by })
    }
}
