//! What is recorded of synchronous standbys is true at every moment, also where nothing was lost that
//! time: nobody acknowledges with fewer than the record says, and no record names standbys that lack what
//! was acknowledged.

use std::collections::BTreeSet;

use lockstep_model::NodeName;
use lockstep_model::cluster::Quorum;
use lockstep_model::record::{Record, Write};

use crate::sim::history::{Fact, History};

pub fn check(history: &History) -> Option<String> {
    let mut quorums: Vec<Quorum> = Vec::new();
    let mut promised: BTreeSet<u64> = BTreeSet::new();
    let mut disks: &[(NodeName, Vec<u64>)] = &[];
    for (at, fact) in &history.facts {
        match fact {
            // Of an old copy nothing is known to be true; the other checks go on.
            Fact::Restored | Fact::LossAllowed => return None,
            Fact::Acknowledged { node, entry, waited_for, .. } => {
                let least = quorums.iter().map(|quorum| quorum.k).min().unwrap_or(0);
                if *waited_for < least {
                    return Some(format!(
                        "db{} acknowledged commit {entry} at {at} ms with {waited_for} standbys, and {least} are recorded",
                        node + 1
                    ));
                }
                if *waited_for > 0 {
                    promised.insert(*entry);
                }
            }
            Fact::Disks(all) => disks = all,
            Fact::Recorded(change) => {
                let states = change.writes.iter().filter_map(|write| match write {
                    Write::Put(Record::ClusterState(state)) => Some(state),
                    _ => None,
                });
                for state in states {
                    // Those of holders before count until the newest is known to be in force.
                    let recorded: Vec<Quorum> = state.all_quorums().cloned().collect();
                    if recorded == quorums {
                        continue;
                    }
                    quorums = recorded;
                    if let Some(text) = lacking(&quorums, disks, &promised) {
                        return Some(format!("at {at} ms {text}"));
                    }
                }
            }
            _ => {}
        }
    }
    None
}

/// A promotion sees enough of each set; what one of them has is seen then.
fn lacking(
    quorums: &[Quorum],
    disks: &[(NodeName, Vec<u64>)],
    promised: &BTreeSet<u64>,
) -> Option<String> {
    if quorums.is_empty() || quorums.iter().any(Quorum::is_off) {
        return None;
    }
    let disks: Vec<(&NodeName, BTreeSet<u64>)> =
        disks.iter().map(|(node, log)| (node, log.iter().copied().collect())).collect();
    let holds = |quorum: &Quorum, entry: &u64| {
        let have =
            disks.iter().filter(|(node, log)| quorum.of.contains(node) && log.contains(entry));
        have.count() >= quorum.k as usize
    };
    let lost = promised.iter().find(|entry| !quorums.iter().any(|quorum| holds(quorum, entry)))?;
    let shown: Vec<String> = quorums.iter().map(ToString::to_string).collect();
    Some(format!("[{}] is recorded, which lacks commit {lost}", shown.join("; ")))
}
