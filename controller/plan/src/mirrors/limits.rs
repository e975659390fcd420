//! How many pulls may go on at once in the whole fleet. How many a node takes is its agent's to say.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::mirror::{HopKind, MirrorOptions};
use lockstep_model::task::{PullFrom, TaskSpec};

use crate::World;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Pulls at once, all hops together.
    pub pulls_max: usize,
    /// Pulls at once from one upstream's host.
    pub per_upstream_max: usize,
}

impl Limits {
    pub const PULLS_MAX: usize = 100;
    /// Public mirrors refuse more of one address.
    pub const PER_UPSTREAM_MAX: usize = 2;
}

impl Default for Limits {
    fn default() -> Self {
        Self { pulls_max: Self::PULLS_MAX, per_upstream_max: Self::PER_UPSTREAM_MAX }
    }
}

/// What the limits leave.
pub(super) struct Room {
    left: usize,
    per_upstream_max: usize,
    at_hosts: BTreeMap<String, usize>,
}

impl Room {
    /// Pulls of nodes that are away take nobody's room.
    pub fn of(world: &World) -> Self {
        let limits = world.limits();
        let mut room = Self {
            left: limits.pulls_max,
            per_upstream_max: limits.per_upstream_max,
            at_hosts: BTreeMap::new(),
        };
        for task in world.live_pulls() {
            let TaskSpec::MirrorPull(pull) = &task.spec else { continue };
            if world.seen(&task.node).is_some_and(|seen| seen.is_connected()) {
                room.take(&hosts(pull.hop, &pull.from, &pull.options));
            }
        }
        room
    }

    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    pub fn has(&self, hosts: &Hosts) -> bool {
        let at = |host| self.at_hosts.get(host).copied().unwrap_or(0);
        !self.is_full() && hosts.iter().all(|host| at(host) < self.per_upstream_max)
    }

    pub fn take(&mut self, hosts: &Hosts) {
        self.left = self.left.saturating_sub(1);
        for host in hosts {
            *self.at_hosts.entry(host.clone()).or_default() += 1;
        }
    }
}

/// Hosts of all upstreams that a pull asks; one that stays in the fleet has none.
pub(crate) type Hosts = BTreeSet<String>;

pub(super) fn hosts(hop: HopKind, from: &PullFrom, options: &MirrorOptions) -> Hosts {
    let (HopKind::Upstream, PullFrom::Remote(first)) = (hop, from) else { return Hosts::new() };
    let further = options.further.iter().map(|further| &further.remote);
    [first].into_iter().chain(further).map(|remote| remote.at.host().to_owned()).collect()
}
