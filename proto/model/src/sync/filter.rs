//! What of a sync's tree belongs on targets: rsync's patterns, in order, the first match decides.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

/// One rsync pattern: a line of an exclude file, so no newline; never a merge rule, since it is
/// passed behind `- ` or `+ `.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pattern(String);

impl Pattern {
    const LENGTH_MAX: usize = 1024;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits =
            (1..=Self::LENGTH_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if !fits {
            let problem = format!(
                "must have 1 to {} bytes and no control characters, not {}",
                Self::LENGTH_MAX,
                quote(text)
            );
            return Err(Invalid::new("pattern", problem));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `- *.tmp` or `+ /keep/`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Filter {
    pub include: bool,
    pub pattern: Pattern,
}

impl Filter {
    pub fn exclude(pattern: Pattern) -> Self {
        Self { include: false, pattern }
    }
}

impl FromStr for Filter {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (include, pattern) = match (text.strip_prefix("- "), text.strip_prefix("+ ")) {
            (Some(pattern), _) => (false, pattern),
            (_, Some(pattern)) => (true, pattern),
            (None, None) => {
                let problem = format!("must begin with '- ' or '+ ', not {}", quote(text));
                return Err(Invalid::new("filter", problem));
            }
        };
        Ok(Self { include, pattern: pattern.parse()? })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.include { '+' } else { '-' }, self.pattern)
    }
}

/// A file below a sync's directory: relative, normalized, printable UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FilePath(String);

impl FilePath {
    const LENGTH_MAX: usize = 1024;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=Self::LENGTH_MAX).contains(&text.len())
            && !text.chars().any(char::is_control)
            && text.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !fits {
            let problem = format!(
                "must be relative to the sync's directory, without '//', '.', '..' and control \
                 characters, not {}",
                quote(text)
            );
            return Err(Invalid::new("file", problem));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
