//! What each node has to do for each sync.

use std::collections::BTreeMap;

use lockstep_model::NodeName;
use lockstep_model::task::{Slot, TaskSpec};

use crate::draft::Draft;

pub(crate) type Desired = BTreeMap<(NodeName, Slot), TaskSpec>;

pub(crate) fn desired(_draft: &mut Draft<'_>) -> Desired {
    Desired::new()
}
