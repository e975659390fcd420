//! What a mirror tells rsync: the options that may be given, in the three parts of a hop.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;
use crate::sync::hook::words;

/// One option of rsync.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RsyncOption(String);

impl FromStr for RsyncOption {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.starts_with('-') {
            true => Ok(Self(text.to_owned())),
            false => Err(Invalid::new("option", format!("{} is not allowed", quote(text)))),
        }
    }
}

impl fmt::Display for RsyncOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Options in order, repeats kept.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct RsyncOptions(pub Vec<RsyncOption>);

impl FromStr for RsyncOptions {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for RsyncOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&words.join(" "))
    }
}

words!(Delete, "delete", {
    None = "none",
    Plain = "delete",
    Del = "del",
    Before = "before",
    During = "during",
    Delay = "delay",
    After = "after",
    Excluded = "excluded",
});

/// What one hop tells rsync.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    pub defaults: RsyncOptions,
    pub options: RsyncOptions,
    pub delete: Delete,
}

impl Hop {
    /// What the parts cannot tell by themselves.
    pub fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// Without the option for removals.
    pub fn argv(&self) -> Vec<String> {
        self.defaults.0.iter().chain(&self.options.0).map(ToString::to_string).collect()
    }
}
