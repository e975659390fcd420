//! Who was granted which lease, on a clock that does not stop and is never set: memory of this process.
//! What was granted by an earlier one ended when its longest lease, counted from this one's start,
//! has.

mod renewal;

use std::collections::BTreeMap;

use lockstep_model::cluster::Term;
use lockstep_model::cluster::lease::{AWAY_MAX, DRIFT_PER_MILLE};
use lockstep_model::{ClusterName, Millis, NodeName};

pub use renewal::NoLease;

/// Milliseconds on the controller's clock of leases (CLOCK_BOOTTIME).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Uptime(pub u64);

impl Uptime {
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A length as the other side may count it at most.
pub fn with_drift(length: Millis) -> Millis {
    Millis(length.0.saturating_add((length.0 * DRIFT_PER_MILLE).div_ceil(1000)))
}

impl From<Millis> for Uptime {
    fn from(since_boot: Millis) -> Self {
        Self(since_boot.0)
    }
}

#[derive(Clone, Default, Debug)]
pub struct Leases {
    /// When this process began to grant; None: it does not.
    started: Option<Uptime>,
    /// As of the last plan or event.
    now: Uptime,
    granted: BTreeMap<ClusterName, Granted>,
    /// Whose agents said that they are about to be stopped, and for how long their primary is to serve
    /// on.
    away: BTreeMap<ClusterName, (NodeName, Millis)>,
}

/// The newest grant of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    pub term: Term,
    pub holder: NodeName,
    /// When the holder asked last.
    pub heard: Uptime,
    /// None: without end.
    pub until: Option<Uptime>,
}

impl Leases {
    pub fn start(&mut self, now: Uptime) {
        self.started = Some(now);
        self.now = now;
    }

    /// Time goes on.
    pub fn tick(&mut self, now: Uptime) {
        self.now = self.now.max(now);
    }

    pub fn now(&self) -> Uptime {
        self.now
    }

    pub fn started(&self) -> Uptime {
        self.started.unwrap_or_default()
    }

    pub(crate) fn has_started(&self) -> bool {
        self.started.is_some()
    }

    pub fn get(&self, cluster: &ClusterName) -> Option<&Granted> {
        self.granted.get(cluster)
    }

    /// The holder asked at `now` and gets so long; None: without end. A grant never shortens one.
    pub fn grant(
        &mut self,
        cluster: &ClusterName,
        term: Term,
        holder: &NodeName,
        length: Option<Millis>,
        now: Uptime,
    ) {
        self.tick(now);
        let end = length.map(|length| Uptime(now.0.saturating_add(with_drift(length).0)));
        let before = self.granted.get(cluster).filter(|granted| granted.holder == *holder);
        let until = match before {
            Some(Granted { until: None, .. }) if end.is_some() => end,
            Some(Granted { until: Some(before), .. }) => end.map(|end| end.max(*before)),
            _ => end,
        };
        let granted = Granted { term, holder: holder.clone(), heard: now, until };
        self.granted.insert(cluster.clone(), granted);
    }

    /// The holder's agent is about to be stopped, or asks as ever. True when that is news.
    pub fn note_away(
        &mut self,
        cluster: &ClusterName,
        holder: &NodeName,
        away: Option<Millis>,
    ) -> bool {
        match away {
            Some(length) => {
                let now = (holder.clone(), length.min(AWAY_MAX));
                self.away.insert(cluster.clone(), now.clone()) != Some(now)
            }
            None => self.away.remove(cluster).is_some(),
        }
    }

    /// For how long the holder's primary is to serve on without its agent; None: it asks as ever.
    pub fn away(&self, cluster: &ClusterName, holder: &NodeName) -> Option<Millis> {
        self.away.get(cluster).filter(|(node, _)| node == holder).map(|(_, length)| *length)
    }

    /// No lease that was granted lasts longer than `length` from now on, by whichever process.
    pub fn is_within(&self, cluster: &ClusterName, longest: Millis, length: Millis) -> bool {
        let bound = self.now.0.saturating_add(with_drift(length).0);
        let others_ended = self.started().0.saturating_add(with_drift(longest).0) <= self.now.0;
        let until = self.granted.get(cluster).map(|granted| granted.until);
        others_ended && until.is_none_or(|until| until.is_some_and(|until| until.0 <= bound))
    }

    /// When the last lease of `holder` has ended for certain; None: it has no end. `longest` is the
    /// longest that was recorded for its term, which an earlier process may have granted just
    /// before this one started. A holder that got the next term too may still live on the lease of
    /// the one before.
    pub fn ends(
        &self,
        cluster: &ClusterName,
        holder: &NodeName,
        longest: Option<Millis>,
    ) -> Option<Uptime> {
        let by_others = Uptime(self.started().0.saturating_add(with_drift(longest?).0));
        match self.granted.get(cluster).filter(|granted| granted.holder == *holder) {
            Some(Granted { until, .. }) => until.map(|until| until.max(by_others)),
            None => Some(by_others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_after_the_longest_that_anyone_may_have_granted() {
        let (cluster, node): (ClusterName, NodeName) =
            ("main".parse().unwrap(), "db1".parse().unwrap());
        let other: NodeName = "db2".parse().unwrap();
        let mut leases = Leases::default();
        leases.start(Uptime(1_000));
        let longest = Some(Millis(5_000));
        let first = leases.ends(&cluster, &node, longest);
        assert_eq!(first, Some(Uptime(6_005)), "an earlier process's");
        leases.grant(&cluster, Term(3), &node, longest, Uptime(9_000));
        assert_eq!(leases.ends(&cluster, &node, longest), Some(Uptime(14_005)));
        leases.grant(&cluster, Term(3), &node, Some(Millis(2_000)), Uptime(10_000));
        assert_eq!(leases.ends(&cluster, &node, longest), Some(Uptime(14_005)), "never shorter");
        assert_eq!(leases.ends(&cluster, &other, longest), Some(Uptime(6_005)), "of another");
        assert_eq!(leases.ends(&cluster, &node, None), None, "one without end was recorded");
    }
}
