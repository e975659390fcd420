//! When something that failed is tried again. It knows waiting times and nothing of deliveries.

use tokio::time::Instant;

use crate::rsync::exit::{Exit, backoff};

/// The failures in a row of one kind of delivery.
#[derive(Default)]
pub struct Retry {
    failures: u32,
    pub at: Option<Instant>,
    /// From when on new changes may bring the next try forward.
    hasten_at: Option<Instant>,
}

impl Retry {
    pub fn fail(&mut self, exit: Exit) {
        self.failures = self.failures.saturating_add(1);
        let now = Instant::now();
        self.at = Some(now + backoff(exit, self.failures).into());
        // One name that cannot be written must not hold the others up.
        self.hasten_at = (exit == Exit::Partial).then(|| now + backoff(exit, 1).into());
    }

    pub fn hasten(&mut self) {
        self.at = [self.at, self.hasten_at].into_iter().flatten().min();
    }

    pub fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at <= Instant::now())
    }
}
