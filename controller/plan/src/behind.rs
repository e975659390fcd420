//! Whether the store is an old copy, by what agents were told of it.

use std::fmt;

use lockstep_model::node::NodeAdmin;
use lockstep_model::observation::Told;
use lockstep_model::past::Contradiction;
use lockstep_model::{NodeName, Revision};

use crate::World;

/// What shows that the store is an old copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Behind<'a> {
    pub node: &'a NodeName,
    pub told: Told,
    pub why: Contradiction,
}

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, told: Told { revision, .. }, why } = self;
        match why {
            Contradiction::Beyond(end) => {
                write!(
                    f,
                    "node {node} was told revision {revision}, of which this store has only {end}"
                )
            }
            Contradiction::UnknownLife => write!(
                f,
                "node {node} was told revision {revision} by a controller that this store knows nothing of"
            ),
        }
    }
}

impl World {
    /// The highest revision that an agent was told in another incarnation, when it is above the store's.
    pub(crate) fn told_beyond(&self) -> Option<Revision> {
        let incarnation = self.fleet()?.value.incarnation;
        let others = self.seen.values().filter(|seen| seen.told.incarnation != incarnation);
        others.map(|seen| seen.told.revision).max().filter(|told| *told > self.revision())
    }

    /// The node that was told the most of what is not in this store's past, when there is one: the
    /// store is an old copy, whatever was written to it since.
    pub fn store_behind(&self) -> Option<Behind<'_>> {
        let incarnation = self.fleet()?.value.incarnation;
        let expelled = |node| {
            self.nodes().get(node).is_some_and(|node| node.value.admin == NodeAdmin::Expelled)
        };
        let all = self.seen.iter().filter(|(_, seen)| seen.told.incarnation == incarnation);
        let behind = all.filter_map(|(node, seen)| {
            let why = self.past().contradicts(seen.told, self.revision())?;
            (!expelled(node)).then_some(Behind { node, told: seen.told, why })
        });
        behind.max_by_key(|behind| behind.told.revision)
    }
}
