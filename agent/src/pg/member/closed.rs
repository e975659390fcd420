//! A primary that was started again shows rows whose commits waited for standbys that never had them.
//! Nobody is let in until whoever may be promoted has what it shows. Pure.

use lockstep_model::cluster::report::StandbyRow;
use lockstep_model::cluster::{ClusterPlace, Goal, Lsn, Quorum};

use super::settlement;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Closed {
    /// Where its log ended when it was looked at first.
    since: Option<Lsn>,
}

impl Closed {
    /// True: it may be opened. `quorums`: every one that may be in force; `end`: what is flushed.
    pub fn turn(&mut self, quorums: &[Quorum], end: Lsn, rows: &[StandbyRow]) -> bool {
        let since = *self.since.get_or_insert(end);
        quorums.iter().all(|quorum| settlement::is_met(rows, quorum, since))
    }
}

/// Commits are to wait for standbys.
pub fn is_synchronous(place: &ClusterPlace) -> bool {
    matches!(&place.goal, Goal::Primary(primary) if !primary.quorum.is_off())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::member::settlement::tests::{quorum, row};

    #[test]
    fn it_opens_once_every_quorum_has_what_was_there_at_the_start() {
        let both = [quorum(1, &["db2", "db3"]), quorum(1, &["db3"])];
        let mut closed = Closed::default();
        assert!(!closed.turn(&both, Lsn(100), &[]));
        assert!(!closed.turn(&both, Lsn(200), &[row("db2", 200), row("db3", 99)]), "the newer set");
        assert!(closed.turn(&both, Lsn(200), &[row("db3", 100)]), "what came later was not shown");
        assert!(!Closed::default().turn(&[quorum(1, &[])], Lsn(1), &[row("db2", 9)]), "nobody can");
        assert!(Closed::default().turn(&[Quorum::OFF], Lsn(1), &[]));
    }
}
