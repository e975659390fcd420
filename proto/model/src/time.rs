//! Time as a number that is passed in. Nothing here reads a clock.

use std::fmt;
use std::ops::Add;

/// Milliseconds since the Unix epoch, UTC, on the controller's clock unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Millis(pub u64);

impl Millis {
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }
}

impl Timestamp {
    /// Time from `earlier` to `self`, zero when the clock went back.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Self;
    fn add(self, Millis(ms): Millis) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl From<Millis> for std::time::Duration {
    fn from(Millis(ms): Millis) -> Self {
        Self::from_millis(ms)
    }
}

impl fmt::Display for Millis {
    /// Short and for people: `850ms`, `12s`, `3m10s`, `2h5m`, `4d3h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0 / 1000;
        match s {
            0 => write!(f, "{}ms", self.0),
            1..60 => write!(f, "{s}s"),
            60..3600 => write!(f, "{}m{}s", s / 60, s % 60),
            3600..86_400 => write!(f, "{}h{}m", s / 3600, s % 3600 / 60),
            _ => write!(f, "{}d{}h", s / 86_400, s % 86_400 / 3600),
        }
    }
}
