//! Answers "why does nothing happen": the plan's reasons, and what agents report, of one subject.

use lockstep_model::Reject;
use lockstep_model::reason::Reason;

use crate::World;

/// `reasons` are those of the last plan. An empty subject is everything.
pub fn explain(_world: &World, reasons: &[Reason], subject: &str) -> Result<Vec<Reason>, Reject> {
    Ok(reasons.iter().filter(|reason| reason.subject == subject).cloned().collect())
}
