//! Who may reach a copy now: the one node that the assignment names, by its key. It lets in, and does
//! nothing else.

use std::sync::Arc;

use lockstep_model::SyncName;
use lockstep_model::identity::{Principal, Subject};
use tokio_util::sync::CancellationToken;

use super::{Target, Targets};

/// A caller that was let in, for as long as `withdrawn` is not cancelled.
pub struct Admission {
    pub target: Arc<Target>,
    pub withdrawn: CancellationToken,
}

impl Targets {
    /// The error is for the caller: it names what does not fit.
    pub fn admit(&self, sync: &SyncName, caller: &Principal) -> Result<Admission, String> {
        let table = self.lock();
        let assigned =
            table.get(sync).ok_or_else(|| format!("this node is no target of {sync}"))?;
        let source = assigned
            .source
            .as_ref()
            .ok_or_else(|| format!("the source of {sync} is disabled or expelled"))?;
        if caller.subject != Subject::Node(source.node.clone()) {
            return Err(format!("{} is not the source of {sync}", caller.subject));
        }
        if caller.key_hash != source.key_hash {
            return Err(format!("{} shows another key than its record's", caller.subject));
        }
        let (target, withdrawn) = (assigned.target.clone(), assigned.withdrawn.clone());
        Ok(Admission { target, withdrawn })
    }
}
