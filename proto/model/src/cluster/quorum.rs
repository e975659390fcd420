//! How many of which standbys acknowledge a commit before its client hears of it, and what follows for
//! elections.

use std::collections::BTreeSet;
use std::fmt;

use crate::id::NodeName;

/// `ANY k (names)` of synchronous_standby_names; `k` 0: nobody is waited for.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Quorum {
    pub k: u32,
    /// At least `k`, unless writes wait for members to come. Empty when `k` is 0.
    pub of: BTreeSet<NodeName>,
}

impl Quorum {
    pub const OFF: Self = Self { k: 0, of: BTreeSet::new() };

    pub fn is_off(&self) -> bool {
        self.k == 0
    }

    /// How many of its members have to be sealed until none is left that could acknowledge, and so
    /// that one of them has every acknowledged commit; None: no number proves that.
    pub fn seals_needed(&self) -> Option<usize> {
        let k = self.k as usize;
        match k {
            0 => None,
            // Nothing can be acknowledged at all, but it may have been before names were added.
            _ if self.of.len() < k => Some(self.of.len().max(1)),
            _ => Some(self.of.len() - k + 1),
        }
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() {
            return f.write_str("off");
        }
        let names: Vec<&str> = self.of.iter().map(NodeName::as_str).collect();
        write!(f, "any {} of {}", self.k, names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_meet_every_acknowledging_set() {
        let quorum = |k, n: usize| Quorum {
            k,
            of: (0..n).map(|i| format!("db{i}").parse().unwrap()).collect(),
        };
        for (k, n, needed) in
            [(0, 0, None), (1, 1, Some(1)), (1, 2, Some(2)), (2, 2, Some(1)), (2, 3, Some(2))]
        {
            assert_eq!(quorum(k, n).seals_needed(), needed, "{k} of {n}");
        }
    }
}
