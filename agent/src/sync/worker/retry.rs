//! When something that failed is tried again. It knows waiting times and nothing of deliveries.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::rsync::exit::{Exit, backoff};

/// The failures in a row of one kind of delivery.
pub struct Retry {
    failures: u32,
    jitter: Backoff,
    pub at: Option<Instant>,
    /// From when on new changes may bring the next try forward.
    hasten_at: Option<Instant>,
}

impl Retry {
    /// `seed` tells the waits of one target from those of another.
    pub fn new(seed: u64) -> Self {
        Self { failures: 0, jitter: Backoff::new(seed), at: None, hasten_at: None }
    }

    /// After a success, or when a person wants it tried at once.
    pub fn reset(&mut self) {
        (self.failures, self.at, self.hasten_at) = (0, None, None);
    }

    /// Not before so long.
    pub fn postpone(&mut self, wait: Duration) {
        self.at = Some(Instant::now() + wait);
        self.hasten_at = None;
    }

    pub fn fail(&mut self, exit: Exit) {
        self.failures = self.failures.saturating_add(1);
        let now = Instant::now();
        self.at = Some(now + self.jitter.spread(backoff(exit, self.failures).into()));
        // Names that cannot be written must not hold the others up.
        self.hasten_at = (exit == Exit::Partial).then(|| now + backoff(exit, 1).into());
    }

    pub fn hasten(&mut self) {
        self.at = [self.at, self.hasten_at].into_iter().flatten().min();
    }

    pub fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of five waits in a row.
    fn waits(seed: u64) -> Vec<u128> {
        let mut retry = Retry::new(seed);
        let mut wait = || {
            retry.fail(Exit::Transient);
            (retry.at.unwrap() - Instant::now()).as_millis()
        };
        (0..5).map(|_| wait()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_no_two_targets_come_back_at_once() {
        let (one, other) = (waits(1), waits(2));
        assert_ne!(one, other);
        for (n, wait) in one.iter().chain(&other).enumerate() {
            let most = 500 << (n % 5);
            assert!((most / 2..=most).contains(wait), "{wait} of {most}");
        }
    }
}
