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

/// Milliseconds of a clock that nobody sets and that goes on while the machine is suspended: for
/// deadlines and ages inside one boot. Its zero means nothing.
pub fn since_boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let secs = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    secs.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}
