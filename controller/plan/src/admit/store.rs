//! Accepting an old copy of a store.

use lockstep_model::record::{Fleet, Record};
use lockstep_model::{Incarnation, Reject, Revision};

use super::{Admitted, precondition};
use crate::World;
use crate::behind::Behind;

/// A new life for the store. Its revision leaps over everything that agents were told, so that tasks
/// born from now on are newer than those the lost part made; and because the fleet's record is
/// newer than every task, the planner gives each slot its task anew.
pub(super) fn adopt(world: &World, incarnation: Incarnation) -> Result<Admitted, Reject> {
    let Some(Behind { node, told, .. }) = world.store_behind() else {
        return Ok(Admitted::already("no connected node knows more than this store"));
    };
    let Some(fleet) = world.fleet() else {
        let message = "the store has no fleet record: run lockstep-controller init".to_owned();
        return Err(precondition("no_fleet", "store".to_owned(), message));
    };
    let fleet = Fleet { incarnation, ..fleet.value.clone() };
    let detail =
        format!("accepted; what node {node} was told of up to revision {} is lost", told.revision);
    let admitted = Admitted::put(Record::Fleet(fleet), detail);
    Ok(Admitted { raise_to: Revision(told.revision.0), ..admitted })
}
