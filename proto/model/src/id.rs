//! Names and numbers that identify things. Every constructor validates, so a value that exists is
//! safe to put into a file name, an argv slot, a certificate or a log line.

use std::fmt;
use std::str::FromStr;

use crate::reject::Invalid;

/// Longest name of a node, sync, user, mirror or cluster, in bytes: one DNS label, one file name.
pub const NAME_MAX: usize = 63;

fn check_name(what: &'static str, text: &str) -> Result<(), Invalid> {
    let wrong = |why: &str| Err(Invalid::new(what, format!("{why} (got {})", quote(text))));
    if text.is_empty() {
        return wrong("must not be empty");
    }
    if text.len() > NAME_MAX {
        return wrong(&format!("must have at most {NAME_MAX} characters, has {}", text.len()));
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)) {
        return wrong("may hold only a-z, 0-9, '-', '_' and '.'");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return wrong("must start with a letter or a digit");
    }
    if text.contains("..") || text.ends_with('.') {
        return wrong("must not hold '..' or end in '.'");
    }
    Ok(())
}

/// Text from outside, shortened and escaped for an error message.
pub fn quote(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{dots}")
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                check_name($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A machine that runs an agent.
    NodeName,
    "node name"
);
name!(
    /// A directory kept in step on many nodes.
    SyncName,
    "sync name"
);
name!(
    /// A project that is mirrored.
    MirrorName,
    "mirror name"
);
name!(
    /// A PostgreSQL database with its standbys.
    ClusterName,
    "cluster name"
);
name!(
    /// A person or a program that uses lockstepctl.
    UserName,
    "user name"
);
name!(
    /// The fleet: one controller and its agents; the trust domain of every certificate.
    FleetName,
    "fleet name"
);
name!(
    /// The public part of a join token: what a list shows.
    TokenId,
    "token id"
);

/// Position in the one sequence of transactions; 0 is the empty store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Revision(pub u64);

impl Revision {
    pub const ZERO: Self = Self(0);

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The n-th task born in the transaction that made `revision`. Ordered, so a later task of a slot
/// is always the larger one: the id is its own fencing number, and no randomness is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId {
    pub revision: Revision,
    pub n: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision, self.n)
    }
}

impl FromStr for TaskId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("task id", format!("must look like 42.0, not {}", quote(text)));
        let (revision, n) = text.split_once('.').ok_or_else(wrong)?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(revision) || !digits(n) {
            return Err(wrong());
        }
        Ok(Self {
            revision: Revision(revision.parse().map_err(|_| wrong())?),
            n: n.parse().map_err(|_| wrong())?,
        })
    }
}

/// SHA-256 of a public key's SubjectPublicKeyInfo, DER: who a certificate speaks for, whatever its
/// serial or dates. Records, pins and revocation compare this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyHash {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("key hash", "must be 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut out = [0; 32];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(out))
    }
}

/// A random number of one store's life: made at init, changed by adopt. Agents keep it, so that an
/// old copy of a store is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A random number of one start of a controller on a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct LifeId(pub u64);

impl LifeId {
    /// Told by nobody, or by a program that knew nothing of lives.
    pub const NONE: Self = Self(0);
}
