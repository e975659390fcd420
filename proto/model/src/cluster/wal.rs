//! Positions and histories in PostgreSQL's write-ahead log: numbers, their text forms, and what can
//! be told of two histories without any file.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

/// A position in the write-ahead log, in bytes; `0/16B3748` as PostgreSQL writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes from `earlier` to `self`; 0 when it is behind.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let half = |part: &str| {
            let hex = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| half(high).zip(half(low)));
        let problem = || format!("must look like 0/16B3748, not {}", quote(text));
        halves
            .map(|(high, low)| Self(high << 32 | low))
            .ok_or_else(|| Invalid::new("lsn", problem()))
    }
}

/// What initdb draws: every copy of one database has the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts who may be primary: at most one member holds a term, and no two terms are given to two
/// members that could both acknowledge a commit. 0: nobody ever was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Term(pub u64);

impl Term {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A timeline and where it left its parent: a line of a `.history` file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fork {
    /// From 1.
    pub timeline: u32,
    /// 0/0 of the first.
    pub begins: Lsn,
}

/// The timelines that a member's data went through, oldest first; the last is the one it is on.
/// Lockstep has each promotion make a number of its own; a person's may make one again.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Lineage(pub Vec<Fork>);

/// Most timelines of one history.
pub const TIMELINES_MAX: usize = 1000;

impl Lineage {
    /// 0: no history is known.
    pub fn timeline(&self) -> u32 {
        self.0.last().map_or(0, |fork| fork.timeline)
    }

    /// Up to where two histories are the same; None: they have nothing in common.
    pub fn common_until(&self, other: &Self) -> Option<Lsn> {
        let same = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count();
        if same == 0 {
            return None;
        }
        let left = |lineage: &Self| lineage.0.get(same).map_or(Lsn(u64::MAX), |fork| fork.begins);
        Some(left(self).min(left(other)))
    }

    /// Whether data of this history that ends at `end` is a part of `newer`: it can follow it as it is.
    pub fn is_part_of(&self, end: Lsn, newer: &Self) -> bool {
        self.common_until(newer).is_some_and(|until| end <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(forks: &[(u32, u64)]) -> Lineage {
        let fork = |&(timeline, begins)| Fork { timeline, begins: Lsn(begins) };
        Lineage(forks.iter().map(fork).collect())
    }

    #[test]
    fn positions_are_read_as_written() {
        for (text, lsn) in [("0/0", 0), ("0/16B3748", 0x16B_3748), ("A/FF", 0xA_0000_00FF)] {
            assert_eq!(text.parse(), Ok(Lsn(lsn)));
            assert_eq!(Lsn(lsn).to_string(), text);
        }
        for wrong in ["", "0", "/", "0/", "g/0", "0/123456789", "-1/0", "0/+1"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn histories_are_compared_by_their_forks() {
        let first = lineage(&[(1, 0)]);
        let second = lineage(&[(1, 0), (2, 100)]);
        let other_second = lineage(&[(1, 0), (2, 90)]);
        assert!(first.is_part_of(Lsn(100), &second));
        assert!(!first.is_part_of(Lsn(101), &second), "it went on after the fork");
        assert!(second.is_part_of(Lsn(500), &second));
        assert_eq!(second.common_until(&other_second), Some(Lsn(90)));
        assert!(!second.is_part_of(Lsn(95), &other_second), "the same number, another history");
        assert_eq!(first.common_until(&lineage(&[(3, 0)])), None);
        assert!(!Lineage::default().is_part_of(Lsn(0), &first));
    }
}
