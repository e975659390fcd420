//! What must never be, held against the hosts and the log of the store; and how things are shown when
//! it is. Knows no rule.

use std::collections::BTreeSet;

use lockstep_model::NodeName;
use lockstep_model::cluster::Stage;
use lockstep_model::record::{Record, Write};

use super::host::Run;
use super::sim::Sim;
use crate::clusters;
use crate::tests::cluster_requests::fixture::name;

impl Sim {
    /// At one moment no two hosts can both acknowledge.
    pub fn check_writers(&self) {
        let can_ack = |of: &&NodeName| {
            let host = &self.hosts[*of];
            let have = host.in_force.of.iter().filter(|node| self.receives(node, of)).count();
            host.power && host.run == Run::Primary && have >= host.in_force.k as usize
        };
        let writers: Vec<&NodeName> = self.hosts.keys().filter(can_ack).collect();
        assert!(writers.len() <= 1, "two primaries acknowledge: {writers:?}\n{}", self.show());
    }

    pub fn check_has_all(&self, of: &NodeName) {
        if self.loss_allowed {
            return;
        }
        let log: BTreeSet<u64> = self.hosts[of].log.iter().flatten().copied().collect();
        let lost: Vec<_> = self.acked.difference(&log).collect();
        assert!(lost.is_empty(), "{of} lacks acknowledged commits {lost:?}\n{}", self.show());
    }

    /// What each transaction did to the terms.
    pub fn check_log(&mut self) {
        for change in &self.lab.log[self.checked..] {
            for write in &change.writes {
                let Write::Put(Record::ClusterState(state)) = write else { continue };
                assert!(state.term >= self.last_term, "the term went back: {state:?}");
                self.last_term = state.term;
                let Some(holder) = &state.holder else { continue };
                let known = self.holders.entry(state.term).or_insert_with(|| holder.clone());
                assert_eq!(known, holder, "two holders of term {}", state.term);
                if let Stage::Promoting(election) = &state.stage {
                    let same = election.from.as_ref().is_some_and(|(old, _)| old == holder);
                    assert!(election.excluded.is_some() || same, "no permission: {state:?}");
                }
            }
        }
        self.checked = self.lab.log.len();
    }

    pub fn reasons(&self) -> Vec<String> {
        let reasons = clusters::reasons(&self.lab.world, &name("main"), self.lab.now);
        reasons.iter().map(|r| format!("{} {}: {}", r.subject, r.rule, r.text)).collect()
    }

    pub fn show(&self) -> String {
        let hosts: String = self
            .hosts
            .iter()
            .map(|(node, host)| {
                let goal = host.place.as_ref().map(|p| (p.term.0, p.goal.clone()));
                format!(
                    "{node} {:?} power={} conn={} sealed={} len={} lease={:?} term={} goal={goal:?}\n",
                    host.run, host.power, host.connected, host.sealed, host.len(), host.lease, host.term
                )
            })
            .collect();
        format!("up={}\n{:#?}\n{hosts}{}\n", self.up, self.state(), self.reasons().join("\n"))
    }
}
