//! Labels of nodes and the selectors that match them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

pub type Labels = BTreeMap<LabelKey, String>;

/// Most labels of one node.
pub const LABELS_MAX: usize = 64;
const KEY_MAX: usize = 63;
const VALUE_MAX: usize = 253;

/// `role`, `rack`, `example.org/tier`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LabelKey(String);

impl LabelKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabelKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=KEY_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !fits {
            let problem = format!(
                "must be 1 to {KEY_MAX} of A-Z, a-z, 0-9, '-', '_', '.', '/', and start with a letter or digit; got {}",
                quote(text)
            );
            return Err(Invalid::new("label key", problem));
        }
        Ok(Self(text.to_owned()))
    }
}

fn check_value(text: &str) -> Result<(), Invalid> {
    let fits = text.len() <= VALUE_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b));
    if fits {
        return Ok(());
    }
    let problem = format!(
        "must be at most {VALUE_MAX} of A-Z, a-z, 0-9, '-', '_', '.', '/', ':', '@'; got {}",
        quote(text)
    );
    Err(Invalid::new("label value", problem))
}

/// One `key=value`.
pub fn parse_label(text: &str) -> Result<(LabelKey, String), Invalid> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Invalid::new("label", format!("must look like key=value, not {}", quote(text)))
    })?;
    check_value(value)?;
    Ok((key.parse()?, value.to_owned()))
}

/// All of its terms must hold: `role=webhead,rack!=r3,ssd,!old`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Term {
    Is(LabelKey, String),
    IsNot(LabelKey, String),
    Has(LabelKey),
    HasNot(LabelKey),
}

impl Selector {
    pub const TERMS_MAX: usize = 16;

    pub fn matches(&self, labels: &Labels) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Is(key, value) => labels.get(key) == Some(value),
            Term::IsNot(key, value) => labels.get(key) != Some(value),
            Term::Has(key) => labels.contains_key(key),
            Term::HasNot(key) => !labels.contains_key(key),
        })
    }
}

impl FromStr for Selector {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut terms = Vec::new();
        for part in text.split(',').map(str::trim) {
            let term = if let Some((key, value)) = part.split_once("!=") {
                check_value(value)?;
                Term::IsNot(key.parse()?, value.to_owned())
            } else if part.contains('=') {
                let (key, value) = parse_label(part)?;
                Term::Is(key, value)
            } else if let Some(key) = part.strip_prefix('!') {
                Term::HasNot(key.parse()?)
            } else {
                Term::Has(part.parse()?)
            };
            terms.push(term);
        }
        if terms.len() > Self::TERMS_MAX {
            let problem =
                format!("has {} terms, at most {} are allowed", terms.len(), Self::TERMS_MAX);
            return Err(Invalid::new("selector", problem));
        }
        Ok(Self { terms })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match term {
                Term::Is(key, value) => write!(f, "{key}={value}")?,
                Term::IsNot(key, value) => write!(f, "{key}!={value}")?,
                Term::Has(key) => write!(f, "{key}")?,
                Term::HasNot(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}
