//! Why a rule fired or is waiting: the answer to "why does nothing happen".

use crate::time::Timestamp;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// `sync/webroot`, `sync/webroot/web1` (one node's part in it), `node/web1`, `task/42.0`,
    /// `store`.
    pub subject: String,
    /// Name of the rule, as it stands in the log.
    pub rule: &'static str,
    /// For people: what is waited for, and what would end it.
    pub text: String,
    /// When the rule looks again by itself; None: when something changes.
    pub until: Option<Timestamp>,
}
