//! Who speaks: principals, roles, users and join tokens. Roles live in the store, never in a
//! certificate, so that changing one needs no new certificate.

use std::fmt;
use std::str::FromStr;

use crate::id::{FleetName, KeyHash, NodeName, TokenId, UserName, quote};
use crate::label::Labels;
use crate::reject::Invalid;
use crate::time::Timestamp;

/// What a certificate says of its holder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    Controller(NodeName),
    Node(NodeName),
    User(UserName),
}

impl fmt::Display for Subject {
    /// `node/web1`, as in logs and audit entries.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller(name) => write!(f, "controller/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::User(name) => write!(f, "user/{name}"),
        }
    }
}

/// The URI SAN of every certificate: `spiffe://<fleet>/{controller|node|user}/<name>`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SpiffeId {
    pub fleet: FleetName,
    pub subject: Subject,
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.fleet, self.subject)
    }
}

impl FromStr for SpiffeId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let want = "must be spiffe://<fleet>/{controller|node|user}/<name>";
            Invalid::new("spiffe id", format!("{want}, not {}", quote(text)))
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(wrong)?;
        let mut parts = rest.split('/');
        let (Some(fleet), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let subject = match kind {
            "controller" => Subject::Controller(name.parse()?),
            "node" => Subject::Node(name.parse()?),
            "user" => Subject::User(name.parse()?),
            _ => return Err(wrong()),
        };
        Ok(Self { fleet: fleet.parse()?, subject })
    }
}

/// A caller whose certificate was checked: who, and with which key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Principal {
    pub subject: Subject,
    pub key_hash: KeyHash,
}

/// What a user may do; each role includes the ones after it, owner aside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Everything, users and nodes included.
    Admin,
    /// Everything about syncs, mirrors and clusters; drain and resume of nodes.
    Operator,
    /// Reads, and what a named resource grants its owner.
    Owner,
    /// Reads.
    Viewer,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Owner, Self::Viewer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Owner => "owner",
            Self::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Invalid::new("role", format!("must be one of {names}, not {}", quote(text)))
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub name: UserName,
    pub role: Role,
    pub disabled: bool,
    /// None until the user's token was used.
    pub key_hash: Option<KeyHash>,
    pub created_at: Timestamp,
}

/// Whom a token lets in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenFor {
    /// The node record is made when the token is used. `labels` are the record's first ones.
    Node { name: NodeName, labels: Labels },
    /// The user exists; the token gives a key to it.
    User { name: UserName },
}

impl TokenFor {
    pub fn subject(&self) -> Subject {
        match self {
            Self::Node { name, .. } => Subject::Node(name.clone()),
            Self::User { name } => Subject::User(name.clone()),
        }
    }
}

/// A single-use invitation. Only the secret's hash is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub id: TokenId,
    pub secret_sha256: [u8; 32],
    pub grants: TokenFor,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The key that used it. The same key may repeat the call until expiry, so that a lost answer
    /// costs nothing; any other key is refused.
    pub used_by: Option<KeyHash>,
}
