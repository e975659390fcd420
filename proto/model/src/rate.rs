//! Rates and amounts of bytes as people write them. Text in, text out.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

/// Bytes per second, at least 1024: `500K`, `10M`, `1G`, in powers of 1024 as rsync's `--bwlimit`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rate(NonZeroU64);

const UNITS: [(char, u64); 4] = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)];

impl Rate {
    pub const MIN: u64 = 1024;

    /// None below `MIN`.
    pub fn new(bytes_per_s: u64) -> Option<Self> {
        NonZeroU64::new(bytes_per_s).filter(|rate| rate.get() >= Self::MIN).map(Self)
    }

    pub fn bytes_per_s(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Rate {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        read(text).and_then(Self::new).ok_or_else(|| {
            let problem = format!(
                "must be bytes per second like 500K, 10M or 1G, at least 1K, not {}",
                quote(text)
            );
            Invalid::new("rate", problem)
        })
    }
}

impl fmt::Display for Rate {
    /// Read back as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.bytes_per_s(), f)
    }
}

/// Bytes: `0`, `500M`, `10G`, in powers of 1024.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        read(text).map(Self).ok_or_else(|| {
            let problem = format!("must be bytes like 500M, 10G or 1T, not {}", quote(text));
            Invalid::new("size", problem)
        })
    }
}

impl fmt::Display for Size {
    /// Read back as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, f)
    }
}

fn read(text: &str) -> Option<u64> {
    let unit = text.chars().last().map(|c| c.to_ascii_uppercase());
    let scale = UNITS.iter().find(|(name, _)| Some(*name) == unit).map(|(_, scale)| *scale);
    let digits = if scale.is_some() { &text[..text.len() - 1] } else { text };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| digits.parse::<u64>().ok()).flatten()?;
    number.checked_mul(scale.unwrap_or(1))
}

fn write(bytes: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whole = |scale: u64| bytes > 0 && bytes.is_multiple_of(scale);
    match UNITS.iter().rev().find(|(_, scale)| whole(*scale)) {
        Some((unit, scale)) => write!(f, "{}{unit}", bytes / scale),
        None => write!(f, "{bytes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in [("0", 0), ("1023", 1023), ("10M", 10 << 20), ("1T", 1 << 40)] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes));
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert!("-1".parse::<Size>().is_err() && "1.5G".parse::<Size>().is_err());
    }

    #[test]
    fn rates_are_read_as_written() {
        for (text, bytes) in [("1K", 1024), ("10M", 10 << 20), ("1G", 1 << 30), ("1025", 1025)] {
            assert_eq!(text.parse::<Rate>().unwrap().bytes_per_s(), bytes);
            assert_eq!(Rate::new(bytes).unwrap().to_string(), text);
        }
        assert_eq!("10m".parse::<Rate>().unwrap(), "10M".parse().unwrap());
        for wrong in ["", "K", "0", "1", "-1M", "1.5M", "10MB", "99999999999G", "é"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
