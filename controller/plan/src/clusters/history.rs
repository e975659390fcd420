//! The reports of failovers and switchovers: begun with them, written again at each of their steps.

use std::collections::BTreeMap;

use lockstep_model::cluster::state::FailoverEnd;
use lockstep_model::cluster::{Cause, ClusterState, Election, Failover, Stage};
use lockstep_model::{NodeName, Timestamp};

use super::exclusion::Permission;
use super::view::View;

/// The number of the one that goes on.
pub(super) fn current(state: &ClusterState) -> Option<u64> {
    match &state.stage {
        Stage::Creating | Stage::Steady => None,
        Stage::Preparing(turn) | Stage::Handing(turn) => Some(turn.number),
        Stage::Electing(election) | Stage::Promoting(election) => Some(election.number),
    }
}

/// The next report; `state.number` counts it already.
pub(super) fn begin(
    state: &ClusterState,
    cause: Cause,
    by: &str,
    from: Option<NodeName>,
    to: Option<NodeName>,
    now: Timestamp,
) -> Failover {
    Failover {
        cluster: state.cluster.clone(),
        number: state.number,
        cause,
        by: by.to_owned(),
        from,
        to,
        term: state.term,
        timeline: state.lineage.timeline(),
        began_at: now,
        exclusion: None,
        excluded_at: None,
        chosen_at: None,
        writable_at: None,
        positions: BTreeMap::new(),
        old_end: None,
        salvaged_bytes: 0,
        lossless: None,
        end: FailoverEnd::Running,
        note: String::new(),
    }
}

/// The one that goes on, ended so.
pub(super) fn end(view: &View<'_>, end: FailoverEnd, note: impl Into<String>) -> Option<Failover> {
    let report = view.report(current(view.state)?)?;
    Some(Failover { end, note: note.into(), ..report.clone() })
}

pub(super) fn excluded(report: &mut Failover, election: &Election, permission: Permission) {
    report.exclusion = Some(permission.how());
    report.excluded_at = Some(permission.at());
    report.old_end = election.goal;
}
