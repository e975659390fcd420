//! How much may be removed from a copy before a person is asked.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

/// `1000`, `25%` or `1000,25%`; when both are there, both must be passed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RemovalLimit {
    /// Entries.
    pub count: Option<u32>,
    /// Of the entries of the copy, 0 to 100.
    pub percent: Option<u8>,
}

impl Default for RemovalLimit {
    /// Small trees are not bothered by the count, large ones not by the share.
    fn default() -> Self {
        Self { count: Some(1000), percent: Some(25) }
    }
}

impl FromStr for RemovalLimit {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let problem =
                format!("must look like 1000, 25% or 1000,25%, or be none, not {}", quote(text));
            Invalid::new("delete-limit", problem)
        };
        let mut limit = Self { count: None, percent: None };
        for part in text.split(',') {
            let slot_taken = match part.strip_suffix('%') {
                Some(digits) => {
                    let percent = digits.parse().ok().filter(|p| *p <= 100).ok_or_else(wrong)?;
                    limit.percent.replace(percent).is_some()
                }
                None => limit.count.replace(part.parse().map_err(|_| wrong())?).is_some(),
            };
            if slot_taken {
                return Err(wrong());
            }
        }
        Ok(limit)
    }
}

impl fmt::Display for RemovalLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.count.map(|n| n.to_string()), self.percent.map(|p| format!("{p}%"))];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}
