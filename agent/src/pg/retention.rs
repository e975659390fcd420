//! How much log an instance holds back for the other members: what each one's slot is to be, and when
//! that is to be warned of. Pure: slots are made and moved elsewhere.

use std::collections::BTreeMap;

use lockstep_model::cluster::options::ReplicationOptions;
use lockstep_model::cluster::{ClusterPlace, Lsn};
use lockstep_model::rate::Size;
use lockstep_model::{Millis, NodeName};

use super::boottime::Boottime;
use super::instance::{SlotRow, SlotWish, slot_name};

/// A standby keeps so much for each member, for after a failover, in bytes: it cannot know where they
/// are.
const STANDBY_KEEPS: u64 = 256 << 20;

/// Since when members have not used their slots, by a clock that only goes forward.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Absences(BTreeMap<NodeName, Boottime>);

impl Absences {
    /// After each look at an instance.
    pub fn note(&mut self, place: &ClusterPlace, slots: &[SlotRow], now: Boottime) {
        let uses = |node: &NodeName| {
            let name = slot_name(node);
            slots.iter().any(|slot| slot.name == name && slot.active)
        };
        let away = place.peers.iter().map(|peer| &peer.peer.node).filter(|node| !uses(node));
        let since = |node: &NodeName| self.0.get(node).copied().unwrap_or(now);
        self.0 = away.map(|node| (node.clone(), since(node))).collect();
    }

    fn is_over(&self, node: &NodeName, ttl: Option<Millis>, now: Boottime) -> bool {
        let away = self.0.get(node).map(|since| now.since(*since));
        away.zip(ttl).is_some_and(|(away, ttl)| away > ttl)
    }
}

/// A slot for each other member. One that was away for too long finds its slot when it comes back, and
/// until then that holds nothing back. `flushed` and `replayed` as in `Status`: a primary replays
/// nothing.
pub fn wishes(
    place: &ClusterPlace,
    flushed: Lsn,
    replayed: Option<Lsn>,
    absences: &Absences,
    now: Boottime,
) -> Vec<SlotWish> {
    let replication = &place.options.replication;
    if !replication.slots {
        return Vec::new();
    }
    let wish = |node: &NodeName| {
        let over = absences.is_over(node, replication.slot_ttl, now);
        let at_least = match replayed {
            Some(replayed) => replayed.0.checked_sub(STANDBY_KEEPS).map(Lsn),
            None => over.then_some(flushed),
        };
        SlotWish { node: node.clone(), at_least }
    };
    place.peers.iter().map(|peer| wish(&peer.peer.node)).collect()
}

/// One line for each slot, of whomever, that holds back more than is warned of, or has lost its log.
pub fn warnings(options: &ReplicationOptions, slots: &[SlotRow]) -> Vec<String> {
    let warn = |slot: &SlotRow| {
        let SlotRow { name, held_bytes, lost, .. } = slot;
        if *lost {
            return Some(format!(
                "slot {name} has lost its log: who used it has to be copied anew"
            ));
        }
        (*held_bytes > options.slot_warning.0).then(|| {
            let (held, limit) = (held_bytes >> 20, Size(options.slot_warning.0));
            let way_out = match slot.active {
                true => "who uses it is slow",
                false => "nobody uses it: drop it, or bring its user back",
            };
            format!("slot {name} holds {held} MiB of log back, above {limit}; {way_out}")
        })
    };
    slots.iter().filter_map(warn).collect()
}

#[cfg(test)]
mod tests;
