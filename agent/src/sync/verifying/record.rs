//! When a copy was last compared with its source, kept over restarts, and when it is to be next.
//! The file is ours alone; one that cannot be read counts as none.

use std::fs;
use std::io;
use std::path::Path;

use lockstep_model::{Millis, Timestamp};
use lockstep_transport::durable;

use crate::backoff::Backoff;

/// Agent's clock.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Record {
    /// Last comparison; of a copy never compared, when that was noticed.
    pub compared_at: Option<Timestamp>,
    /// As `compared_at`, of contents.
    pub scrubbed_at: Option<Timestamp>,
    /// When it was last found equal, or repaired.
    pub verified_at: Option<Timestamp>,
    /// Entries that the last comparison found different.
    pub drift: u64,
}

impl Record {
    pub fn load(file: &Path) -> Self {
        fs::read_to_string(file).ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    pub fn save(&self, file: &Path) -> io::Result<()> {
        durable::write(file, self.text().as_bytes())
    }

    /// Four numbers; 0 is a time that never was.
    fn text(&self) -> String {
        let [compared, scrubbed, verified] = [self.compared_at, self.scrubbed_at, self.verified_at]
            .map(|at| at.map_or(0, |at| at.0));
        format!("{compared} {scrubbed} {verified} {}\n", self.drift)
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
        let [compared, scrubbed, verified, drift] = numbers?[..] else { return None };
        let [compared_at, scrubbed_at, verified_at] =
            [compared, scrubbed, verified].map(|at| (at > 0).then_some(Timestamp(at)));
        Some(Self { compared_at, scrubbed_at, verified_at, drift })
    }
}

/// Up to a tenth later than `every` after `last`, so that copies do not all have their turn at one
/// moment; `seed` tells one copy from another.
pub fn due_at(last: Timestamp, every: Millis, seed: u64) -> Timestamp {
    let tenth = std::time::Duration::from_millis(every.0 / 10);
    last + every + Millis::of(Backoff::new(seed ^ last.0).spread(tenth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_damage_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web1");
        assert_eq!(Record::load(&file), Record::default());
        let record = Record {
            compared_at: Some(Timestamp(9)),
            scrubbed_at: None,
            verified_at: Some(Timestamp(7)),
            drift: 3,
        };
        record.save(&file).unwrap();
        assert_eq!(Record::load(&file), record);
        for damage in ["", "1 2 3", "1 2 3 4 5", "a b c d"] {
            fs::write(&file, damage).unwrap();
            assert_eq!(Record::load(&file), Record::default(), "{damage:?}");
        }
    }

    #[test]
    fn turns_are_spread_and_never_early() {
        let (last, every) = (Timestamp(1000), Millis::from_secs(1000));
        let at: Vec<_> = (0..20).map(|seed| due_at(last, every, seed).since(last).0).collect();
        assert!(at.iter().all(|at| (1_000_000..=1_100_000).contains(at)), "{at:?}");
        assert!(at.iter().any(|other| *other != at[0]));
    }
}
