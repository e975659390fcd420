//! Tasks that people asked for and that end by themselves: retried a few times, never given anew.

use lockstep_model::Millis;

/// A complete pass over a large directory takes hours.
pub const RESYNC_RUN_LIMIT: Millis = Millis::from_secs(24 * 3600);
