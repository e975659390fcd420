//! What a member's agent says of its instance.

use lockstep_model::cluster::report::{
    Finding, PendingRestart, Progress, Released, StandbyRow, Stream,
};
use lockstep_model::cluster::{MEMBERS_MAX, MemberReport, Term};
use lockstep_model::observation::Observation;
use lockstep_model::{Invalid, Millis};

use super::part::{from_lineage, from_system_id, lineage, position, system_id, text};
use crate::convert::{each, one_line, parse, parse_each};
use crate::v1;

/// Longest problem or warning, in bytes.
const LINE_MAX: usize = 512;
/// Longest name or value of a setting, in bytes.
const VALUE_MAX: usize = 1024;

/// What an agent says of a cluster.
pub fn cluster_update(update: v1::ClusterUpdate) -> Result<Observation, Invalid> {
    let v1::ClusterUpdate { cluster, report } = update;
    let report = report.map(MemberReport::try_from).transpose()?;
    Ok(Observation::Cluster { cluster: parse("cluster", &cluster)?, report: report.map(Box::new) })
}

impl TryFrom<v1::MemberReport> for MemberReport {
    type Error = Invalid;
    fn try_from(report: v1::MemberReport) -> Result<Self, Invalid> {
        let v1::MemberReport {
            state,
            term,
            holds,
            released,
            system_id: id,
            version,
            lineage: forks,
            lsn,
            replayed,
            upstream,
            quorum,
            promotable,
            standbys,
            rewindable,
            prepared,
            copy,
            progress,
            salvaged_bytes,
            certificate,
            pending_restart,
            trouble,
            problem,
            warnings,
            findings,
        } = report;
        if certificate.len() > Self::CERTIFICATE_MAX {
            let problem = format!("must have at most {} bytes", Self::CERTIFICATE_MAX);
            return Err(Invalid::new("certificate", problem));
        }
        let quorum = quorum.map(TryInto::try_into).transpose();
        let lines = warnings.iter().take(Self::WARNINGS_MAX);
        let pending = pending_restart.into_iter().take(Self::PENDING_MAX);
        Ok(Self {
            state: parse("state", &state)?,
            term: Term(term),
            holds: holds.map(Term),
            released: released.map(TryInto::try_into).transpose()?,
            system_id: system_id(id),
            version: one_line(&version, LINE_MAX),
            lineage: lineage(forks)?,
            lsn: position("lsn", &lsn)?,
            replayed: position("replayed", &replayed)?,
            upstream: upstream.map(TryInto::try_into).transpose()?,
            quorum: quorum.map_err(|e: Invalid| e.within("quorum"))?,
            promotable: parse_each("promotable", MEMBERS_MAX, &promotable)?,
            standbys: each("standbys", Self::STANDBYS_MAX, standbys)?,
            rewindable,
            prepared,
            copy,
            progress: progress.map(TryInto::try_into).transpose()?,
            salvaged_bytes,
            certificate,
            pending_restart: pending.map(Into::into).collect(),
            trouble: parse("trouble", &trouble)?,
            problem: one_line(&problem, LINE_MAX),
            warnings: lines.map(|line| one_line(line, LINE_MAX)).collect(),
            // A newer agent may look at more.
            findings: findings
                .into_iter()
                .filter_map(|found| found.try_into().ok())
                .take(Self::FINDINGS_MAX)
                .collect(),
        })
    }
}

impl From<MemberReport> for v1::MemberReport {
    fn from(report: MemberReport) -> Self {
        let MemberReport {
            state,
            term,
            holds,
            released,
            system_id,
            version,
            lineage,
            lsn,
            replayed,
            upstream,
            quorum,
            promotable,
            standbys,
            rewindable,
            prepared,
            copy,
            progress,
            salvaged_bytes,
            certificate,
            pending_restart,
            trouble,
            problem,
            warnings,
            findings,
        } = report;
        Self {
            state: state.to_string(),
            term: term.0,
            holds: holds.map(|term| term.0),
            released: released.map(Into::into),
            system_id: from_system_id(system_id),
            version,
            lineage: from_lineage(&lineage),
            lsn: text(lsn),
            replayed: text(replayed),
            upstream: upstream.map(Into::into),
            quorum: quorum.as_ref().map(Into::into),
            promotable: promotable.iter().map(ToString::to_string).collect(),
            standbys: standbys.into_iter().map(Into::into).collect(),
            rewindable,
            prepared,
            copy,
            progress: progress.map(Into::into),
            salvaged_bytes,
            certificate,
            pending_restart: pending_restart.into_iter().map(Into::into).collect(),
            trouble: trouble.to_string(),
            problem,
            warnings,
            findings: findings.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Finding> for Finding {
    type Error = Invalid;
    fn try_from(finding: v1::Finding) -> Result<Self, Invalid> {
        let v1::Finding { check, verdict, text } = finding;
        Ok(Self {
            check: parse("check", &check)?,
            verdict: parse("verdict", &verdict)?,
            text: one_line(&text, LINE_MAX),
        })
    }
}

impl From<Finding> for v1::Finding {
    fn from(finding: Finding) -> Self {
        let Finding { check, verdict, text } = finding;
        Self { check: check.to_string(), verdict: verdict.to_string(), text }
    }
}

impl TryFrom<v1::Released> for Released {
    type Error = Invalid;
    fn try_from(released: v1::Released) -> Result<Self, Invalid> {
        let v1::Released { term, end, clean } = released;
        Ok(Self { term: Term(term), end: position("end", &end)?, clean })
    }
}

impl From<Released> for v1::Released {
    fn from(released: Released) -> Self {
        let Released { term, end, clean } = released;
        Self { term: term.0, end: text(end), clean }
    }
}

impl TryFrom<v1::WalStream> for Stream {
    type Error = Invalid;
    fn try_from(stream: v1::WalStream) -> Result<Self, Invalid> {
        let v1::WalStream { from, age_ms, end } = stream;
        Ok(Self { from: parse("from", &from)?, age: Millis(age_ms), end: parse("end", &end)? })
    }
}

impl From<Stream> for v1::WalStream {
    fn from(stream: Stream) -> Self {
        let Stream { from, age, end } = stream;
        Self { from: from.to_string(), age_ms: age.0, end: end.to_string() }
    }
}

impl TryFrom<v1::StandbyRow> for StandbyRow {
    type Error = Invalid;
    fn try_from(row: v1::StandbyRow) -> Result<Self, Invalid> {
        let v1::StandbyRow {
            node,
            streaming,
            sync_state,
            sent,
            flushed,
            replayed,
            replay_lag_ms,
            reply_age_ms,
        } = row;
        Ok(Self {
            node: parse("node", &node)?,
            streaming,
            sync_state: parse("sync_state", &sync_state)?,
            sent: parse("sent", &sent)?,
            flushed: parse("flushed", &flushed)?,
            replayed: parse("replayed", &replayed)?,
            replay_lag: replay_lag_ms.map(Millis),
            reply_age: Millis(reply_age_ms),
        })
    }
}

impl From<StandbyRow> for v1::StandbyRow {
    fn from(row: StandbyRow) -> Self {
        let StandbyRow {
            node,
            streaming,
            sync_state,
            sent,
            flushed,
            replayed,
            replay_lag,
            reply_age,
        } = row;
        Self {
            node: node.to_string(),
            streaming,
            sync_state: sync_state.to_string(),
            sent: sent.to_string(),
            flushed: flushed.to_string(),
            replayed: replayed.to_string(),
            replay_lag_ms: replay_lag.map(|lag| lag.0),
            reply_age_ms: reply_age.0,
        }
    }
}

impl TryFrom<v1::MemberProgress> for Progress {
    type Error = Invalid;
    fn try_from(progress: v1::MemberProgress) -> Result<Self, Invalid> {
        let v1::MemberProgress { what, done_bytes, total_bytes, for_ms } = progress;
        Ok(Self { what: parse("what", &what)?, done_bytes, total_bytes, for_ms: Millis(for_ms) })
    }
}

impl From<Progress> for v1::MemberProgress {
    fn from(progress: Progress) -> Self {
        let Progress { what, done_bytes, total_bytes, for_ms } = progress;
        Self { what: what.to_string(), done_bytes, total_bytes, for_ms: for_ms.0 }
    }
}

impl From<v1::PendingRestart> for PendingRestart {
    fn from(pending: v1::PendingRestart) -> Self {
        let v1::PendingRestart { name, now, then } = pending;
        let line = |text: &str| one_line(text, VALUE_MAX);
        Self { name: line(&name), now: line(&now), then: line(&then) }
    }
}

impl From<PendingRestart> for v1::PendingRestart {
    fn from(pending: PendingRestart) -> Self {
        let PendingRestart { name, now, then } = pending;
        Self { name, now, then }
    }
}
