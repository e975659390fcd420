//! Files of the log: which one has a position, and what it is called.

use std::fmt;
use std::str::FromStr;

use lockstep_model::cluster::Lsn;

/// Bytes of a segment: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSize(u32);

impl SegmentSize {
    pub fn new(bytes: u32) -> Option<Self> {
        let fits = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        fits.then_some(Self(bytes))
    }

    pub fn bytes(self) -> u64 {
        self.0.into()
    }

    /// Of the segment with this position.
    pub fn number(self, at: Lsn) -> u64 {
        at.0 / self.bytes()
    }

    pub fn begin(self, number: u64) -> Lsn {
        Lsn(number.saturating_mul(self.bytes()))
    }

    pub fn offset(self, at: Lsn) -> u64 {
        at.0 % self.bytes()
    }
}

/// A file of pg_wal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Segment {
    pub timeline: u32,
    /// As `SegmentSize::number`.
    pub number: u64,
}

impl Segment {
    pub fn name(self, size: SegmentSize) -> String {
        let per_id = (1u64 << 32) / size.bytes();
        let Self { timeline, number } = self;
        format!("{timeline:08X}{:08X}{:08X}", number / per_id, number % per_id)
    }

    /// None when it is no segment's name: histories, `.partial` and `.backup` files are not.
    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        let per_id = (1u64 << 32) / size.bytes();
        let hex = name.len() == 24 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        let part = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
        let (timeline, id, low) = (part(0)?, u64::from(part(8)?), u64::from(part(16)?));
        (hex && timeline > 0 && low < per_id)
            .then_some(Self { timeline, number: id * per_id + low })
    }
}

/// Of the file that tells where a timeline came from; the first one has none.
pub fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// A name that PostgreSQL asks a restore_command for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalFileName(String);

impl WalFileName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WalFileName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
        };
        let is_history = name.strip_suffix(".history").is_some_and(|timeline| hex(timeline, 8));
        match is_history || hex(name, 24) {
            true => Ok(Self(name.to_owned())),
            false => {
                Err(format!("{} is no segment and no history", lockstep_model::id::quote(name)))
            }
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
