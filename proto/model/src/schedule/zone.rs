//! Names of time zones, and instants with the zone in which a person named them. Whether a zone
//! exists is known to the planner alone.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;
use crate::time::Timestamp;

/// `Europe/Berlin`, `UTC`, or a fixed distance such as `+05:30`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneName(String);

impl ZoneName {
    pub const LEN_MAX: usize = 64;

    pub fn utc() -> Self {
        Self("UTC".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ZoneName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=Self::LEN_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-/:".contains(&b));
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let problem = format!(
            "must be a zone such as Europe/Berlin, UTC or +05:30, of at most {} characters, not {}",
            Self::LEN_MAX,
            quote(text)
        );
        Err(Invalid::new("timezone", problem))
    }
}

impl Default for ZoneName {
    fn default() -> Self {
        Self::utc()
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An instant that a person named, and the zone in which it was understood.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Moment {
    pub at: Timestamp,
    pub zone: ZoneName,
}
