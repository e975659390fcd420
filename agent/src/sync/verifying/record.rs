//! When a copy was last compared with its source, kept over restarts, and when it is to be next.
//! The file is ours alone; one that cannot be read counts as none.

use std::fs;
use std::io;
use std::path::Path;

use lockstep_model::{Millis, Timestamp};
use lockstep_transport::durable;

use crate::backoff::Backoff;
use crate::journal::{RelPath, is_rel_path};

/// Agent's clock.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Record {
    /// Last comparison; of a copy never compared, when that was noticed.
    pub compared_at: Option<Timestamp>,
    /// As `compared_at`, of contents.
    pub scrubbed_at: Option<Timestamp>,
    /// When it was last found equal, or repaired.
    pub verified_at: Option<Timestamp>,
    /// Entries that the last comparison found different.
    drift: u64,
    /// Entries that repairs did not bring.
    left: u64,
    /// The same of files' contents, which only contents tell.
    left_contents: u64,
    /// A comparison of contents is to go on after this path; empty: at the beginning.
    pub next: Option<RelPath>,
}

/// What a comparison of a whole copy found, or a part of one that goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub is_first: bool,
    pub content: bool,
    /// Entries that differed.
    pub found: u64,
    /// Of these, what is still different, and of that, files' contents.
    pub left: u64,
    pub left_contents: u64,
    /// As in [`Record`].
    pub next: Option<RelPath>,
}

impl Record {
    pub fn load(file: &Path) -> Self {
        fs::read_to_string(file).ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    pub fn save(&self, file: &Path) -> io::Result<()> {
        durable::write(file, self.text().as_bytes())
    }

    /// Entries that differ or did when they were last looked at.
    pub fn drift(&self) -> u64 {
        self.drift.max(self.left())
    }

    /// Entries that differ though they were brought.
    pub fn left(&self) -> u64 {
        self.left + self.left_contents
    }

    pub fn note_found(&mut self, is_first: bool, found: u64) {
        self.drift = if is_first { found } else { self.drift + found };
    }

    /// What was found is repaired, or what is `left` of it cannot be.
    pub fn note_repaired(&mut self, part: Part, now: Timestamp) {
        let Part { is_first, content, found: _, left, left_contents, next } = part;
        if is_first {
            (self.left, self.compared_at) = (0, Some(now));
            // Without contents nothing is known of them.
            self.left_contents = if content { 0 } else { self.left_contents };
        }
        self.left += left.saturating_sub(left_contents);
        self.left_contents += left_contents;
        let is_over = next.is_none();
        if content {
            self.next = next;
            self.scrubbed_at = if is_over { Some(now) } else { self.scrubbed_at };
        }
        if is_over && self.left() == 0 {
            self.verified_at = Some(now);
        }
    }

    /// Six numbers, 0 being a time that never was, and perhaps a path in hexadecimal behind a `/`.
    fn text(&self) -> String {
        let [compared, scrubbed, verified] = [self.compared_at, self.scrubbed_at, self.verified_at]
            .map(|at| at.map_or(0, |at| at.0));
        let Self { drift, left, left_contents, next, .. } = self;
        let hex =
            |path: &RelPath| path.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let next = next.as_ref().map(|path| format!(" /{}", hex(path))).unwrap_or_default();
        format!("{compared} {scrubbed} {verified} {drift} {left} {left_contents}{next}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let (numbers, next) = match text.split_once('/') {
            Some((numbers, hex)) => (numbers, Some(parse_hex(hex.trim_end())?)),
            None => (text, None),
        };
        let numbers: Option<Vec<u64>> =
            numbers.split_whitespace().map(|number| number.parse().ok()).collect();
        let [compared, scrubbed, verified, drift, left, left_contents] = numbers?[..] else {
            return None;
        };
        let [compared_at, scrubbed_at, verified_at] =
            [compared, scrubbed, verified].map(|at| (at > 0).then_some(Timestamp(at)));
        Some(Self { compared_at, scrubbed_at, verified_at, drift, left, left_contents, next })
    }
}

fn parse_hex(text: &str) -> Option<RelPath> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        }
        _ => None,
    };
    let path: Option<Vec<u8>> = digits.map(byte).collect();
    path.filter(|path| path.is_empty() || is_rel_path(path)).map(Into::into)
}

/// How long a relay waits with a copy that it feeds: longer while its own was not compared since, so
/// that its own comes first, if anybody compares it, and what somebody changed there is not handed on.
/// `own` and `seen` count comparisons of its own, now and at the copy's last turn; None at the source.
pub fn behind_own(every: Millis, own: Option<u64>, seen: Option<u64>) -> Millis {
    match own {
        Some(own) if own == seen.unwrap_or(0) => Millis(every.0 / 2 * 3),
        _ => every,
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
            left: 2,
            left_contents: 1,
            next: None,
        };
        for next in [None, Some(&b""[..]), Some(b"a/b c\n\xff")] {
            let record = Record { next: next.map(Into::into), ..record.clone() };
            record.save(&file).unwrap();
            assert_eq!(Record::load(&file), record);
        }
        for damage in
            ["", "1 2 3 4 5", "1 2 3 4 5 6 7", "a b c d e f", "1 2 3 4 5 6 /6", "1 2 3 4 5 6 /2f"]
        {
            fs::write(&file, damage).unwrap();
            assert_eq!(Record::load(&file), Record::default(), "{damage:?}");
        }
    }

    #[test]
    fn a_copy_is_verified_when_nothing_is_left_of_any_part() {
        let mut record = Record::default();
        let mut note =
            |at, is_first, content, [found, left, left_contents]: [u64; 3], next: Option<&[u8]>| {
                let next = next.map(Into::into);
                record.note_found(is_first, found);
                let part = Part { is_first, content, found, left, left_contents, next };
                record.note_repaired(part, Timestamp(at));
                let [compared, scrubbed, verified] =
                    [record.compared_at, record.scrubbed_at, record.verified_at]
                        .map(|at| at.map_or(0, |at| at.0));
                (record.drift(), record.left(), [compared, scrubbed, verified])
            };
        assert_eq!(note(1, true, false, [4, 0, 0], None), (4, 0, [1, 0, 1]));
        // Contents, in parts: one file cannot be repaired.
        assert_eq!(note(2, true, true, [2, 0, 0], Some(b"a")), (2, 0, [2, 0, 1]));
        assert_eq!(note(3, false, true, [2, 1, 1], Some(b"b")), (4, 1, [2, 0, 1]));
        assert_eq!(note(4, false, true, [0, 0, 0], None), (4, 1, [2, 4, 1]));
        // Metadata alone do not tell that it is.
        assert_eq!(note(5, true, false, [0, 0, 0], None), (1, 1, [5, 4, 1]));
        assert_eq!(note(6, true, true, [1, 0, 0], None), (1, 0, [6, 6, 6]));
        assert_eq!(note(7, true, false, [1, 1, 0], None), (1, 1, [7, 6, 6]));
        assert_eq!(note(8, true, false, [0, 0, 0], None), (0, 0, [8, 6, 8]));
    }

    #[test]
    fn a_relays_own_copy_has_its_turn_first() {
        let every = Millis::from_secs(100);
        let late = Millis::from_secs(150);
        for (own, seen, wanted) in [
            (None, None, every),
            (Some(0), None, late),
            (Some(1), None, every),
            (Some(1), Some(1), late),
            (Some(2), Some(1), every),
        ] {
            assert_eq!(behind_own(every, own, seen), wanted, "{own:?} {seen:?}");
        }
        // The own one's next turn is over by then.
        let at = Timestamp(1);
        assert!((0..20).all(|seed| due_at(at, every, seed) < at + late));
    }

    #[test]
    fn turns_are_spread_and_never_early() {
        let (last, every) = (Timestamp(1000), Millis::from_secs(1000));
        let at: Vec<_> = (0..20).map(|seed| due_at(last, every, seed).since(last).0).collect();
        assert!(at.iter().all(|at| (1_000_000..=1_100_000).contains(at)), "{at:?}");
        assert!(at.iter().any(|other| *other != at[0]));
    }
}
