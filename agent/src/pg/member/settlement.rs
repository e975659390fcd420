//! When a quorum that is in force counts: once its members have what was written before it came into
//! force. Whatever meets every acknowledging set then has that too. Pure.

use lockstep_model::NodeName;
use lockstep_model::cluster::report::StandbyRow;
use lockstep_model::cluster::{Lsn, Quorum};

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Settlement {
    /// Seen in force, and where the log was then.
    since: Option<(Quorum, Lsn)>,
}

impl Settlement {
    /// True: the wanted one counts, and may be said and kept to be so. `before`: the one that counts
    /// now; `in_force`: read back from the primary, whose log ends at `end`.
    pub fn turn(
        &mut self,
        wanted: &Quorum,
        before: &Quorum,
        in_force: Option<&Quorum>,
        end: Lsn,
        rows: &[StandbyRow],
    ) -> bool {
        if before == wanted || in_force != Some(wanted) {
            self.since = None;
            return false;
        }
        let since = match &self.since {
            Some((quorum, since)) if quorum == wanted => *since,
            _ => {
                self.since = Some((wanted.clone(), end));
                end
            }
        };
        has_caught_up(rows, wanted, before, since)
    }

    pub fn is_under_way(&self) -> bool {
        self.since.is_some()
    }
}

/// Every one that was added has what was written before, and as many as acknowledge have it too.
fn has_caught_up(rows: &[StandbyRow], quorum: &Quorum, before: &Quorum, since: Lsn) -> bool {
    let added = quorum.of.difference(&before.of).all(|node| has(rows, node, since));
    added && is_met(rows, quorum, since)
}

/// As many of it as acknowledge have the log up to there.
pub fn is_met(rows: &[StandbyRow], quorum: &Quorum, end: Lsn) -> bool {
    quorum.of.iter().filter(|node| has(rows, node, end)).count() >= quorum.k as usize
}

fn has(rows: &[StandbyRow], node: &NodeName, end: Lsn) -> bool {
    let row = rows.iter().find(|row| row.node == *node);
    row.is_some_and(|row| row.streaming && row.flushed >= end)
}

#[cfg(test)]
pub(super) mod tests {
    use lockstep_model::Millis;
    use lockstep_model::cluster::report::SyncState;

    use super::*;

    pub fn row(node: &str, flushed: u64) -> StandbyRow {
        StandbyRow {
            node: node.parse().unwrap(),
            streaming: true,
            sync_state: SyncState::Quorum,
            sent: Lsn(flushed),
            flushed: Lsn(flushed),
            replayed: Lsn(flushed),
            replay_lag: None,
            reply_age: Millis(0),
        }
    }

    pub fn quorum(k: u32, of: &[&str]) -> Quorum {
        Quorum { k, of: of.iter().map(|name| name.parse().unwrap()).collect() }
    }

    #[test]
    fn a_quorum_counts_once_its_members_have_what_was_written_before() {
        let (one, both) = (quorum(1, &["db2"]), quorum(1, &["db2", "db3"]));
        let mut settlement = Settlement::default();
        let mut turn = |in_force: &Quorum, end, rows: &[StandbyRow]| {
            settlement.turn(&both, &one, Some(in_force), Lsn(end), rows)
        };
        let rows = [row("db2", 100), row("db3", 100)];
        assert!(!turn(&one, 100, &rows), "not in force yet");
        assert!(!turn(&both, 110, &rows), "db3 lacks what was written before");
        assert!(!turn(&both, 150, &[row("db2", 150), row("db3", 109)]));
        assert!(
            turn(&both, 150, &[row("db2", 100), row("db3", 110)]),
            "k of them, the added one too"
        );
        assert!(!turn(&both, 150, &[row("db2", 150)]), "db3 is gone");
    }
}
