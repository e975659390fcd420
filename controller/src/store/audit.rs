//! Whether records and log tell the same story. Pure: fed with what was read, from a store or from
//! an export.

use std::collections::BTreeMap;

use lockstep_model::Revision;
use lockstep_model::record::{Change, Key, Record, Versioned, Write};

/// Something in a store that is not as it was written, or does not fit the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    pub key: String,
    pub problem: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

/// Fed with every entry in order, then every record, then finished.
#[derive(Default)]
pub struct Audit {
    /// What the log says of each key that it speaks of: who wrote last, and what.
    said: BTreeMap<Key, (Revision, Option<Record>)>,
    newest: Revision,
    damage: Vec<Damage>,
}

impl Audit {
    pub fn entry(&mut self, change: &Change) {
        if change.revision <= self.newest {
            self.note(super::value::log_key(change.revision), "is not in order");
        }
        self.newest = change.revision;
        for write in &change.writes {
            let value = match write {
                Write::Put(record) => Some(record.clone()),
                Write::Delete(_) => None,
            };
            self.said.insert(write.key(), (change.revision, value));
        }
    }

    pub fn record(&mut self, key: &Key, record: &Versioned<Record>, compacted: Revision) {
        match self.said.remove(key) {
            None if record.revision > compacted => {
                self.note(key, format!("revision {} is not in the log", record.revision));
            }
            None => {}
            Some((revision, None)) => {
                self.note(key, format!("the log deletes it at revision {revision}"));
            }
            Some((revision, Some(value)))
                if (revision, &value) != (record.revision, &record.value) =>
            {
                self.note(key, format!("differs from the log's revision {revision}"));
            }
            Some(_) => {}
        }
    }

    /// `revision` is the store's own, `compacted` the one up to which the log was dropped.
    pub fn finish(mut self, revision: Revision, compacted: Revision) -> Vec<Damage> {
        for (key, (at, value)) in std::mem::take(&mut self.said) {
            if value.is_some() {
                self.note(key, format!("is missing; the log has it at revision {at}"));
            }
        }
        let newest = self.newest.max(compacted);
        if newest != revision {
            self.note("meta/revision", format!("is {revision}, and the log ends at {newest}"));
        }
        self.damage
    }

    fn note(&mut self, key: impl ToString, problem: impl ToString) {
        self.damage.push(Damage { key: key.to_string(), problem: problem.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Snapshot;
    use super::super::conformance::{fold, txn, user};
    use super::*;

    fn audit(log: &[Change], snapshot: &Snapshot, compacted: u64) -> Vec<String> {
        let mut audit = Audit::default();
        log.iter().for_each(|change| audit.entry(change));
        let compacted = Revision(compacted);
        snapshot.records.iter().for_each(|(key, record)| audit.record(key, record, compacted));
        audit.finish(snapshot.revision, compacted).iter().map(ToString::to_string).collect()
    }

    fn history() -> Vec<Change> {
        let writes = [
            vec![Write::Put(user("anna", 1)), Write::Put(user("ben", 1))],
            vec![Write::Put(user("anna", 2)), Write::Delete(user("ben", 1).key())],
            vec![Write::Put(user("carl", 3))],
        ];
        (0..).zip(writes).map(|(base, writes)| Change::of(txn(Revision(base), writes))).collect()
    }

    #[test]
    fn a_whole_history_is_in_order() {
        let log = history();
        let snapshot = fold(Snapshot::default(), &log);
        assert_eq!(audit(&log, &snapshot, 0), [""; 0]);
        assert_eq!(audit(&log[1..], &snapshot, 1), [""; 0]);
        assert_eq!(audit(&[], &snapshot, 3), [""; 0]);
    }

    #[test]
    fn every_difference_is_named() {
        let log = history();
        let whole = fold(Snapshot::default(), &log);
        let with = |edit: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = whole.clone();
            edit(&mut snapshot);
            audit(&log, &snapshot, 0)
        };
        let anna = user("anna", 2).key();
        let lost = with(&|s| drop(s.records.remove(&anna)));
        assert_eq!(lost, ["user/anna: is missing; the log has it at revision 2"]);
        let older = with(&|s| {
            let value = Versioned { revision: Revision(1), value: user("anna", 1) };
            s.records.insert(anna.clone(), value);
        });
        assert_eq!(older, ["user/anna: differs from the log's revision 2"]);
        let undead = with(&|s| {
            let value = Versioned { revision: Revision(1), value: user("ben", 1) };
            s.records.insert(user("ben", 1).key(), value);
        });
        assert_eq!(undead, ["user/ben: the log deletes it at revision 2"]);
        let unlogged = with(&|s| {
            let value = Versioned { revision: Revision(3), value: user("eve", 1) };
            s.records.insert(user("eve", 1).key(), value);
        });
        assert_eq!(unlogged, ["user/eve: revision 3 is not in the log"]);
        let behind = with(&|s| s.revision = Revision(2));
        assert_eq!(behind, ["meta/revision: is 2, and the log ends at 3"]);
    }
}
