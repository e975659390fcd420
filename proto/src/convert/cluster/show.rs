//! What people are shown of a cluster's state and history. It goes one way only.

use lockstep_model::cluster::state::{Move, WantedSwitch};
use lockstep_model::cluster::{ClusterState, Election, Failover, Stage};

use super::part::{from_lineage, from_system_id, text};
use crate::convert::to_wire_time;
use crate::v1;

impl From<&ClusterState> for v1::ClusterState {
    /// Without what only elections need.
    fn from(state: &ClusterState) -> Self {
        let ClusterState {
            cluster: _,
            system_id,
            major,
            term,
            holder,
            stage,
            quorums,
            formers: _,
            timeline: _,
            promotable,
            lineage,
            longest_lease,
            crashes,
            wanted,
            number,
            members: _,
            incarnation: _,
        } = state;
        let (moving, election) = match stage {
            Stage::Creating | Stage::Steady => (None, None),
            Stage::Preparing(moving) | Stage::Handing(moving) => (Some(moving), None),
            Stage::Electing(election) | Stage::Promoting(election) => (None, Some(election)),
        };
        Self {
            system_id: from_system_id(*system_id),
            major: major.unwrap_or(0),
            term: term.0,
            holder: text(holder.as_ref()),
            stage: stage.as_str().to_owned(),
            r#move: moving.map(Into::into),
            election: election.map(Into::into),
            quorums: quorums.iter().map(Into::into).collect(),
            promotable: promotable.iter().map(ToString::to_string).collect(),
            lineage: from_lineage(lineage),
            longest_lease_ms: longest_lease.map(|longest| longest.0),
            crashes: crashes.iter().map(|at| to_wire_time(*at)).collect(),
            wanted: wanted.as_ref().map(Into::into),
            number: *number,
        }
    }
}

impl From<&Move> for v1::ClusterMove {
    fn from(moving: &Move) -> Self {
        let Move { to, began_at, number } = moving;
        Self { to: to.to_string(), began_at: Some(to_wire_time(*began_at)), number: *number }
    }
}

impl From<&Election> for v1::ClusterElection {
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
            from: text(from.as_ref().map(|(node, _)| node)),
            from_term: from.as_ref().map_or(0, |(_, term)| term.0),
            to: text(to.as_ref()),
            allow_loss: *allow_loss,
            began_at: Some(to_wire_time(*began_at)),
            excluded: text(*excluded),
            excluded_at: excluded_at.map(to_wire_time),
            chosen_at: chosen_at.map(to_wire_time),
            at_least: at_least.to_string(),
            goal: text(*goal),
            salvage: text(salvage.as_ref().map(|(node, _)| node)),
            salvage_since: salvage.as_ref().map(|(_, since)| to_wire_time(*since)),
            number: *number,
        }
    }
}

impl From<&WantedSwitch> for v1::WantedSwitch {
    fn from(wanted: &WantedSwitch) -> Self {
        let WantedSwitch { to, at, by } = wanted;
        Self { to: text(to.as_ref()), at: at.map(to_wire_time), by: by.clone() }
    }
}

impl From<&Failover> for v1::Failover {
    fn from(report: &Failover) -> Self {
        let Failover {
            cluster,
            number,
            cause,
            by,
            from,
            to,
            term,
            timeline,
            began_at,
            exclusion,
            excluded_at,
            chosen_at,
            writable_at,
            positions,
            old_end,
            salvaged_bytes,
            lossless,
            end,
            note,
        } = report;
        let position = |(node, lsn): (&lockstep_model::NodeName, &lockstep_model::cluster::Lsn)| {
            (node.to_string(), lsn.to_string())
        };
        Self {
            cluster: cluster.to_string(),
            number: *number,
            cause: cause.to_string(),
            by: by.clone(),
            from: text(from.as_ref()),
            to: text(to.as_ref()),
            term: term.0,
            timeline: *timeline,
            began_at: Some(to_wire_time(*began_at)),
            exclusion: text(*exclusion),
            excluded_at: excluded_at.map(to_wire_time),
            chosen_at: chosen_at.map(to_wire_time),
            writable_at: writable_at.map(to_wire_time),
            positions: positions.iter().map(position).collect(),
            old_end: text(*old_end),
            salvaged_bytes: *salvaged_bytes,
            lossless: *lossless,
            end: end.to_string(),
            note: note.clone(),
        }
    }
}
