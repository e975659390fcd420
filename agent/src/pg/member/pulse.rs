//! When a member was looked at last: whether its actor lives. It decides nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::pg::boottime::{self, Boottime};

/// While something long is under way.
const INTERVAL: Duration = Duration::from_millis(500);

/// Clones are the same pulse.
#[derive(Clone)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// It lives now.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(boottime::now().0)))
    }

    pub fn beat(&self) {
        self.0.store(boottime::now().0, Ordering::Relaxed);
    }

    pub fn last(&self) -> Boottime {
        Boottime(self.0.load(Ordering::Relaxed))
    }

    /// Beats as long as it is waited for: beside what may take any time.
    pub async fn keep(self) -> Infallible {
        loop {
            self.beat();
            sleep(INTERVAL).await;
        }
    }
}
