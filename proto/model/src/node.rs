//! A machine with an agent: its record, and what its agent says of it.

use std::fmt;
use std::str::FromStr;

use crate::address::HostPort;
use crate::id::{KeyHash, NodeName, quote};
use crate::label::Labels;
use crate::reject::Invalid;
use crate::time::Timestamp;

/// Most addresses of one node.
pub const ADDRESSES_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub name: NodeName,
    pub labels: Labels,
    pub admin: NodeAdmin,
    /// The key its certificate must hold. An expelled node keeps the record, and so the refusal.
    pub key_hash: KeyHash,
    /// Where other nodes' agents reach its data port, as the agent announced; best first.
    pub addresses: Vec<NodeAddress>,
    pub created_at: Timestamp,
}

/// What people want of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeAdmin {
    Enabled,
    /// Keeps its copies in step but tells load balancers NOT_SERVING; no new work is placed on it.
    Draining,
    /// No work at all: tasks wait, syncs from and to it stop, health says NOT_SERVING.
    Disabled,
    /// Its certificate is refused for ever; the name is free again after `node remove`.
    Expelled,
}

impl NodeAdmin {
    pub const ALL: [Self; 4] = [Self::Enabled, Self::Draining, Self::Disabled, Self::Expelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Expelled => "expelled",
        }
    }
}

impl fmt::Display for NodeAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One way to reach a node. Peers that share the network's name prefer it; the empty name is
/// "everywhere".
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeAddress {
    pub network: String,
    pub at: HostPort,
}

impl NodeAddress {
    const NETWORK_MAX: usize = 32;
}

impl FromStr for NodeAddress {
    type Err = Invalid;
    /// `10.0.0.5:7402`, `lan=10.0.0.5:7402`, `lan=[fd00::5]:7402`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (network, at) = text.split_once('=').unwrap_or(("", text));
        let fits = network.len() <= Self::NETWORK_MAX
            && network.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fits {
            let problem = format!(
                "network must be at most {} letters, digits or '-', not {}",
                Self::NETWORK_MAX,
                quote(network)
            );
            return Err(Invalid::new("address", problem));
        }
        Ok(Self { network: network.to_owned(), at: at.parse()? })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.network.is_empty() {
            write!(f, "{}", self.at)
        } else {
            write!(f, "{}={}", self.network, self.at)
        }
    }
}

/// Health of a node as the controller sees it. The numbers are HandyRep's, for old checks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeHealth {
    /// Not heard of since the controller started.
    Unknown = 0,
    Healthy = 1,
    /// Connected, and its agent reports a problem.
    Warning = 3,
    /// The stream ended less than `DOWN_AFTER` ago.
    Unavailable = 4,
    Down = 5,
}

impl NodeHealth {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Warning => "warning",
            Self::Unavailable => "unavailable",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for NodeHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A program that the agent found, `version` empty when it is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tool {
    pub name: String,
    pub version: String,
    pub path: String,
}

/// What an agent says of itself and its machine.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodeReport {
    /// Of the agent, `major.minor.patch`.
    pub version: String,
    pub features: Vec<String>,
    pub tools: Vec<Tool>,
    /// One line each; any makes the node `warning`.
    pub warnings: Vec<String>,
}
