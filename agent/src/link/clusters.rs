//! Clusters on the link: members' reports, leases of primaries, passwords of offers. It passes on and
//! decides only when: what elections wait for goes out at once, positions seldom.

use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::cluster::{Grant, MemberReport, MemberState, Renewal};
use lockstep_proto::v1;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::pg::Reports;
use crate::pg::instance::Secrets;
use crate::pg::secrets::Passwords;

/// Between two reports of which only what flows is new.
const INTERVAL: Duration = Duration::from_millis(300);
/// A stream that was silent for so long, and is no more, is told of at once.
const OLD: Millis = Millis(500);

/// The link's side of the cluster engine.
#[derive(Clone)]
pub struct Clusters {
    pub reports: watch::Receiver<Reports>,
    /// Sent as they come; what comes while there is no stream is dropped.
    pub renewals: Arc<Mutex<mpsc::Receiver<Renewal>>>,
    pub granted: Arc<dyn Fn(Grant) + Send + Sync>,
    /// Taken off offers.
    pub passwords: Passwords,
}

impl Clusters {
    /// With a place of a member come its roles' passwords, before it is taken up.
    pub(super) fn keep(&self, cluster: &lockstep_model::ClusterName, secrets: Secrets) {
        if !secrets.superuser.is_empty() {
            self.passwords.put(cluster, secrets);
        }
    }

    pub(super) fn take(&self, grant: v1::LeaseGrant) {
        match Grant::try_from(grant) {
            Ok(grant) => (self.granted)(grant),
            Err(error) => tracing::warn!(%error, "ignored a grant of a lease"),
        }
    }
}

pub(super) fn secrets(superuser: String, replication: String) -> Secrets {
    Secrets { superuser: Zeroizing::new(superuser), replication: Zeroizing::new(replication) }
}

/// What a stream was told of members, and when it is to be told more.
#[derive(Default)]
pub(super) struct Teller {
    said: Reports,
    at: Option<Instant>,
    due: Option<Instant>,
}

impl Teller {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is so has changed.
    pub(super) fn note(&mut self, now: &Reports, at: Instant) {
        let gone = self.said.keys().any(|cluster| !now.contains_key(cluster));
        let urgent = |(cluster, report): (_, &Arc<MemberReport>)| {
            self.said.get(cluster).is_none_or(|said| is_urgent(said, report))
        };
        let due = match gone || now.iter().any(urgent) {
            true => at,
            false => self.at.map_or(at, |said| at.max(said + INTERVAL)),
        };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// What is to be said.
    pub(super) fn tell(&mut self, now: Reports, at: Instant) -> Vec<v1::ClusterUpdate> {
        (self.at, self.due) = (Some(at), None);
        let said = std::mem::replace(&mut self.said, now);
        let gone = said.keys().filter(|cluster| !self.said.contains_key(*cluster));
        let gone =
            gone.map(|cluster| v1::ClusterUpdate { cluster: cluster.to_string(), report: None });
        let fresh = self.said.iter().filter(|(cluster, now)| said.get(*cluster) != Some(*now));
        let fresh = fresh.map(|(cluster, report)| v1::ClusterUpdate {
            cluster: cluster.to_string(),
            report: Some(report.as_ref().clone().into()),
        });
        gone.chain(fresh).collect()
    }
}

/// Everything but what flows: positions, ages, progress and lines for people.
fn is_urgent(before: &MemberReport, now: &MemberReport) -> bool {
    let age = |report: &MemberReport| report.upstream.as_ref().map(|stream| stream.age);
    // Whether a primary lives is judged by when it was heard last.
    let is_heard_again = age(before) > Some(OLD) && age(now) < age(before);
    let still = |report: &MemberReport| {
        let mut still = report.clone();
        // An election or a switchover waits for nothing but these.
        let is_awaited = match still.state {
            MemberState::Sealed | MemberState::Crashed | MemberState::Stopped => true,
            MemberState::Standby => still.upstream.is_none(),
            _ => false,
        };
        if !is_awaited {
            still.lsn = None;
        }
        still.replayed = None;
        still.progress = None;
        still.salvaged_bytes = 0;
        still.warnings.clear();
        if let Some(stream) = &mut still.upstream {
            (stream.age, stream.end) = Default::default();
        }
        for row in &mut still.standbys {
            (row.sent, row.flushed, row.replayed) = Default::default();
            (row.replay_lag, row.reply_age) = Default::default();
        }
        still
    };
    is_heard_again || still(before) != still(now)
}

#[cfg(test)]
pub(super) mod tests;
