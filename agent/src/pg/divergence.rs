//! Whether a member's data is a part of what the cluster has: asked before any start of a member that
//! returns. Pure; a member that went another way is never served, and is rewound or copied anew.

use lockstep_model::cluster::{Lineage, Lsn};

/// How data relates to the cluster's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The same history: it follows, or is what others follow.
    Same,
    /// The cluster went on from within it: it follows as it is.
    CanFollow,
    /// It goes on from where the cluster still was, on a timeline that the cluster has not heard of.
    Ahead,
    /// It has something that the cluster does not have, from `at` on.
    Diverged { at: Lsn },
    /// They have nothing in common.
    Stranger,
}

impl Relation {
    /// It may be started as a standby of the cluster.
    pub fn may_follow(self) -> bool {
        matches!(self, Self::Same | Self::CanFollow)
    }
}

/// `lineage` and `end` are of the data, its whole log counted; `cluster` is the history that counts, as
/// the controller or the upstream itself tells it.
pub fn compare(lineage: &Lineage, end: Lsn, cluster: &Lineage) -> Relation {
    let Some(common) = lineage.common_until(cluster) else { return Relation::Stranger };
    let shared = lineage.0.iter().zip(&cluster.0).take_while(|(a, b)| a == b).count();
    match (shared == lineage.0.len(), shared == cluster.0.len()) {
        (true, true) => Relation::Same,
        _ if end <= common => Relation::CanFollow,
        (false, true) => Relation::Ahead,
        _ => Relation::Diverged { at: common },
    }
}

#[cfg(test)]
mod tests {
    use lockstep_model::cluster::wal::Fork;

    use super::*;

    fn lineage(forks: &[(u32, u64)]) -> Lineage {
        let fork = |&(timeline, begins)| Fork { timeline, begins: Lsn(begins) };
        Lineage(forks.iter().map(fork).collect())
    }

    #[test]
    fn data_follows_only_what_has_all_of_it() {
        let cluster = lineage(&[(1, 0), (2, 100)]);
        let of = |forks: &[(u32, u64)], end| compare(&lineage(forks), Lsn(end), &cluster);
        assert_eq!(of(&[(1, 0), (2, 100)], 900), Relation::Same);
        assert_eq!(of(&[(1, 0)], 100), Relation::CanFollow, "it ends where the cluster went on");
        assert_eq!(of(&[(1, 0)], 101), Relation::Diverged { at: Lsn(100) });
        assert_eq!(of(&[(1, 0), (2, 90)], 95), Relation::Diverged { at: Lsn(90) }, "another 2");
        assert_eq!(of(&[(1, 0), (3, 120)], 121), Relation::Diverged { at: Lsn(100) });
        assert_eq!(of(&[(1, 0), (3, 80)], 80), Relation::CanFollow, "nothing of 3 was written");
        assert_eq!(of(&[(1, 0), (2, 100), (3, 200)], 201), Relation::Ahead);
        assert_eq!(of(&[(4, 0)], 1), Relation::Stranger);
        assert_eq!(compare(&Lineage::default(), Lsn(0), &cluster), Relation::Stranger);
    }
}
