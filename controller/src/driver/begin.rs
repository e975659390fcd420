//! The start of a controller, on record before anybody hears of it: what tells an old copy of the
//! store from the store.

use lockstep_model::record::{Actor, Record, Txn, Write};
use lockstep_model::{LifeId, Reject, Revision};
use lockstep_transport::clock;

use super::{Driver, Fatal};

/// Why a controller cannot begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error(transparent)]
    Fatal(#[from] Fatal),
    #[error("the store does not take the record of this start: {0}")]
    Refused(#[from] Reject),
}

impl Driver {
    /// Records the start of this controller. Before it returns nobody may be told anything.
    ///
    /// # Errors
    /// The store refused it, or whether it has it is not known.
    pub async fn begin(&mut self, life: LifeId) -> Result<(), BeginError> {
        let txn = {
            let world = &self.shared.read().world;
            let mut past = world.past().clone();
            past.begin(life, world.revision().next());
            Txn {
                base: world.revision(),
                raise_to: Revision::ZERO,
                at: clock::now(),
                actor: Actor::Offline,
                cause: "start".to_owned(),
                writes: vec![Write::Put(Record::Past(past))],
            }
        };
        Ok(self.commit(txn).await??)
    }
}
