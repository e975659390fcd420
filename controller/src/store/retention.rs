//! How much of the log is kept. Records are never touched by it.

use lockstep_model::Revision;

/// Revisions whose entries are kept: days of a busy fleet, years of a quiet one. At some hundred
/// bytes to some kilobytes each they take 50 to 500 MB.
pub const LOG_KEPT: u64 = 100_000;
/// So that compactions are few, and each is short.
const COMPACT_EVERY: u64 = 1_000;

/// Up to where the log is to be compacted after the commit of `newest`, if it is time to.
pub fn compact_upto(newest: Revision) -> Option<Revision> {
    let due = newest.0 > LOG_KEPT && newest.0.is_multiple_of(COMPACT_EVERY);
    due.then(|| Revision(newest.0 - LOG_KEPT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_enough_and_not_much_more() {
        for (newest, upto) in [
            (0, None),
            (1_000, None),
            (100_000, None),
            (100_999, None),
            (101_000, Some(1_000)),
            (101_001, None),
            (5_000_000, Some(4_900_000)),
        ] {
            assert_eq!(compact_upto(Revision(newest)), upto.map(Revision), "{newest}");
        }
    }
}
