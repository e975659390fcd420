//! Terms and revisions only grow, but for a store that people take an old copy of; a term has one holder;
//! no agent forgets what it promised.

use std::collections::BTreeMap;

use lockstep_model::NodeName;
use lockstep_model::record::{Record, Write};

use crate::sim::history::{Fact, History};

pub fn check(history: &History) -> Option<String> {
    let (mut term, mut revision) = (0, 0);
    let mut holders: BTreeMap<u64, NodeName> = BTreeMap::new();
    let mut promised: BTreeMap<usize, u64> = BTreeMap::new();
    for (at, fact) in &history.facts {
        match fact {
            // Who held a term stays so, whatever the store knows of it.
            Fact::Restored => (term, revision) = (0, 0),
            Fact::Promised { node, term } => {
                let before = promised.insert(*node, *term).unwrap_or(0);
                if *term < before {
                    return Some(format!("db{} promised {before}, then {term}", node + 1));
                }
            }
            Fact::Recorded(change) => {
                if change.revision.0 <= revision {
                    return Some(format!("revision {} at {at} ms", change.revision));
                }
                revision = change.revision.0;
                for write in &change.writes {
                    let Write::Put(Record::ClusterState(state)) = write else { continue };
                    if state.term.0 < term {
                        return Some(format!("term {} after {term} at {at} ms", state.term));
                    }
                    term = state.term.0;
                    let Some(holder) = &state.holder else { continue };
                    let known = holders.entry(term).or_insert_with(|| holder.clone());
                    if known != holder {
                        return Some(format!("term {term} was {known}'s, and is {holder}'s"));
                    }
                }
            }
            _ => {}
        }
    }
    None
}
