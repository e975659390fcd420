//! Absolute paths of directories that are synced. Linux allows every byte but NUL in a name, and
//! files below such a directory may use them all; the directory itself is named by a person and
//! ends up in configuration files, so it is held to printable UTF-8.

use std::fmt;
use std::str::FromStr;

use crate::id::{MirrorName, quote};
use crate::reject::Invalid;

/// PATH_MAX of Linux, in bytes.
pub const PATH_MAX: usize = 4095;

/// Absolute, normalized (no `//`, `.`, `..`, trailing slash), not `/`, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirPath(String);

impl DirPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory of that name in this one.
    pub fn join(&self, name: &MirrorName) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// True when one of the two is the other or lies inside it.
    pub fn overlaps(&self, other: &Self) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        within(&self.0, &other.0) || within(&other.0, &self.0)
    }
}

impl FromStr for DirPath {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |why: &str| Err(Invalid::new("path", format!("{why} (got {})", quote(text))));
        if !text.starts_with('/') {
            return wrong("must be absolute: start with '/'");
        }
        if text.len() > PATH_MAX {
            return wrong(&format!("must have at most {PATH_MAX} bytes, has {}", text.len()));
        }
        if text.chars().any(char::is_control) {
            return wrong("must not hold control characters");
        }
        let trimmed = text.trim_end_matches('/');
        if trimmed.is_empty() {
            return wrong("must not be '/': name a directory below it");
        }
        if trimmed[1..].split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return wrong("must not hold '//', '.' or '..'");
        }
        Ok(Self(trimmed.to_owned()))
    }
}

impl fmt::Display for DirPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DirPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
