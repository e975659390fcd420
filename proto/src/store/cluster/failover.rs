//! Reports of failovers and switchovers.

use std::collections::BTreeMap;

use lockstep_model::cluster::{Failover, Lsn, MEMBERS_MAX, Term};
use lockstep_model::{Invalid, NodeName, Timestamp};

use super::part::{from_time, time};
use crate::store::field::{check_count, from_option, optional, parse};
use crate::store_v1 as wire;

impl From<&Failover> for wire::Failover {
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
        let position = |(node, lsn): (&NodeName, &Lsn)| (node.to_string(), lsn.to_string());
        Self {
            cluster: cluster.to_string(),
            number: *number,
            cause: cause.to_string(),
            by: by.clone(),
            from: from_option(from.as_ref()),
            to: from_option(to.as_ref()),
            term: term.0,
            timeline: *timeline,
            began_at_ms: began_at.0,
            exclusion: from_option(exclusion.as_ref()),
            excluded_at_ms: from_time(*excluded_at),
            chosen_at_ms: from_time(*chosen_at),
            writable_at_ms: from_time(*writable_at),
            positions: positions.iter().map(position).collect(),
            old_end: from_option(old_end.as_ref()),
            salvaged_bytes: *salvaged_bytes,
            lossless: *lossless,
            end: end.to_string(),
            note: note.clone(),
        }
    }
}

impl TryFrom<wire::Failover> for Failover {
    type Error = Invalid;
    fn try_from(report: wire::Failover) -> Result<Self, Invalid> {
        let wire::Failover {
            cluster,
            number,
            cause,
            by,
            from,
            to,
            term,
            timeline,
            began_at_ms,
            exclusion,
            excluded_at_ms,
            chosen_at_ms,
            writable_at_ms,
            positions,
            old_end,
            salvaged_bytes,
            lossless,
            end,
            note,
        } = report;
        check_count("positions", positions.len(), MEMBERS_MAX)?;
        let position = |(node, lsn): (String, String)| {
            Ok((parse("positions", &node)?, parse("positions", &lsn)?))
        };
        let positions: Result<BTreeMap<_, _>, Invalid> =
            positions.into_iter().map(position).collect();
        Ok(Self {
            cluster: parse("cluster", &cluster)?,
            number,
            cause: parse("cause", &cause)?,
            by,
            from: optional("from", &from)?,
            to: optional("to", &to)?,
            term: Term(term),
            timeline,
            began_at: Timestamp(began_at_ms),
            exclusion: optional("exclusion", &exclusion)?,
            excluded_at: time(excluded_at_ms),
            chosen_at: time(chosen_at_ms),
            writable_at: time(writable_at_ms),
            positions: positions?,
            old_end: optional("old_end", &old_end)?,
            salvaged_bytes,
            lossless,
            end: parse("end", &end)?,
            note,
        })
    }
}
