//! Passwords of Lockstep's own roles, in memory. They go into 0600 files and protocol messages, and
//! are shown nowhere.

use std::fmt;

use zeroize::Zeroizing;

#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Of the role `lockstep`.
    pub superuser: Zeroizing<String>,
    /// Of `lockstep_replication`.
    pub replication: Zeroizing<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}
