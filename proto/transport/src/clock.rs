//! The only file that reads the wall clock. It may not decide anything with it: time goes on as an
//! argument.

use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_model::Timestamp;

/// This machine's clock, UTC. A clock set before 1970 reads as 1970.
#[allow(clippy::disallowed_methods)] // this file owns it
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
