//! The brain of the controller, pure: `admit` turns requests into writes, `plan` turns the world into
//! writes and reasons. No I/O, no clock, no randomness; equal worlds give equal plans.

pub mod admit;
pub mod authorize;
pub mod behind;
pub mod check;
pub mod clusters;
mod draft;
pub mod explain;
pub mod leases;
pub mod members;
pub mod mirrors;
pub mod passes;
mod prune;
mod relays;
mod runs;
pub mod schedule;
pub mod seen;
mod syncs;
mod tasks;
#[cfg(test)]
mod tests;
pub mod world;

use lockstep_model::reason::Reason;
use lockstep_model::record::{Actor, Record, TXN_WRITES_MAX, Txn, Write};
use lockstep_model::{ClusterName, MirrorName, Revision, Timestamp};

use crate::draft::Draft;
pub use crate::mirrors::{Limits, Rest};
pub use crate::seen::{DOWN_AFTER, NodeStatus};
pub use crate::world::World;

/// Most rounds of plan and commit before the driver looks at other events again. A round that was
/// cut (`Plan::cut`) is not the planner's doing and does not count.
pub const PLAN_ROUNDS_MAX: usize = 16;

/// What the rules want now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// Each write with the rule that wants it; no two have the same key.
    pub writes: Vec<(&'static str, Write)>,
    pub reasons: Vec<Reason>,
    /// When time alone changes the plan.
    pub wake_at: Option<Timestamp>,
    /// More was wanted than one transaction holds: the next round goes on.
    pub cut: bool,
    /// For `World::rest`, before anything else is applied.
    pub rests: Rests,
    /// The revision has to be larger than this.
    pub raise_to: Revision,
}

/// What needs no look until then.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rests {
    pub(crate) mirrors: Vec<(MirrorName, Rest)>,
    pub(crate) clusters: Vec<(ClusterName, Option<Timestamp>)>,
}

impl Rests {
    pub fn is_empty(&self) -> bool {
        self.mirrors.is_empty() && self.clusters.is_empty()
    }
}

impl Plan {
    /// The transaction to commit; None when the world is quiet. After it is applied, plan again.
    pub fn txn(&self, world: &World, now: Timestamp) -> Option<Txn> {
        if self.writes.is_empty() {
            return None;
        }
        let mut rules: Vec<&str> = self.writes.iter().map(|(rule, _)| *rule).collect();
        rules.sort_unstable();
        rules.dedup();
        Some(Txn {
            base: world.revision(),
            raise_to: self.raise_to,
            at: now,
            actor: Actor::Planner,
            cause: rules.join(","),
            writes: self.writes.iter().map(|(_, write)| write.clone()).collect(),
        })
    }
}

/// Always from what is, never from what just changed: the path after a restart is the same path.
pub fn plan(world: &World, now: Timestamp) -> Plan {
    let mut draft = Draft::new(world, now, TXN_WRITES_MAX);
    if let Some(behind) = world.store_behind() {
        let text = format!(
            "{behind}: the store is an old copy, and nothing is planned from it. Restore a newer copy, \
             or accept what it lacks as lost: lockstepctl store adopt",
        );
        draft.wait("store".to_owned(), "store_behind", text, None);
        return draft.finish();
    }
    if let Some(told) = world.told_beyond() {
        // It was away when an old copy was accepted: its ledger would take nothing that is older.
        draft.write("raise_revision", [Write::Put(Record::Past(world.past().clone()))]);
        return Plan { raise_to: told, ..draft.finish() };
    }
    let desired = syncs::desired(&mut draft);
    passes::follow(&mut draft, &desired);
    tasks::reconcile(&mut draft, &desired);
    mirrors::plan(&mut draft);
    clusters::plan(&mut draft);
    prune::prune(&mut draft);
    draft.finish()
}
