//! Programs of the site's own that run when something was completed. A definition names a file of
//! the agent's hook directory; it can neither carry a command nor arguments.

use std::fmt;
use std::str::FromStr;

use super::remote::{file_name_problem, is_file_name};
use crate::id::quote;
use crate::reject::Invalid;
use crate::time::Millis;
use crate::words::words;

/// Name of a file in the agent's hook directory: 1 to 63 of a-z, 0-9, '-', '_'.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HookName(String);

impl HookName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HookName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match is_file_name(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(Invalid::new("hook", file_name_problem(text))),
        }
    }
}

impl fmt::Display for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `purge-cache on=changed at=target failure=alert timeout=1m repeatable=no`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hook {
    pub name: HookName,
    pub on: HookEvent,
    pub at: HookPlace,
    pub failure: HookFailure,
    /// 1 s to 1 h.
    pub timeout: Millis,
    /// May run again when nobody knows whether it ran.
    pub repeatable: bool,
}

impl Hook {
    pub const TIMEOUT_DEFAULT: Millis = Millis::from_secs(60);
    pub const TIMEOUT_MAX: Millis = Millis::from_secs(3600);

    pub fn new(name: HookName) -> Self {
        Self {
            name,
            on: HookEvent::Changed,
            at: HookPlace::Target,
            failure: HookFailure::Alert,
            timeout: Self::TIMEOUT_DEFAULT,
            repeatable: false,
        }
    }
}

words!(HookEvent, "on", {
    /// A delivery that changed something is complete.
    Changed = "changed",
    /// The node's first complete copy is there.
    Filled = "filled",
});

words!(HookPlace, "at", {
    Target = "target",
    /// On the source, once every target has it.
    Source = "source",
});

words!(HookFailure, "failure", {
    /// Only logged.
    Ignore = "ignore",
    /// Shown as a problem until it succeeds.
    Alert = "alert",
    /// As `alert`, and tried again with growing pauses.
    Retry = "retry",
});

impl FromStr for Hook {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut words = text.split_ascii_whitespace();
        let mut hook = Self::new(words.next().unwrap_or_default().parse()?);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "on" => hook.on = value.parse()?,
                "at" => hook.at = value.parse()?,
                "failure" => hook.failure = value.parse()?,
                "timeout" => {
                    hook.timeout = value.parse().map_err(|e: Invalid| e.within("timeout"))?
                }
                "repeatable" => hook.repeatable = crate::setting::text::yes_no(value)?,
                _ => {
                    let problem = format!(
                        "knows on=, at=, failure=, timeout= and repeatable=, not {}",
                        quote(word)
                    );
                    return Err(Invalid::new("hook", problem));
                }
            }
        }
        if hook.timeout < Millis::from_secs(1) || hook.timeout > Self::TIMEOUT_MAX {
            return Err(Invalid::new("hook.timeout", "must be 1s to 1h"));
        }
        Ok(hook)
    }
}

impl fmt::Display for Hook {
    /// Read back as the same value; what is default is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, on, at, failure, timeout, repeatable } = self;
        let plain = Self::new(name.clone());
        write!(f, "{name}")?;
        if *on != plain.on {
            write!(f, " on={on}")?;
        }
        if *at != plain.at {
            write!(f, " at={at}")?;
        }
        if *failure != plain.failure {
            write!(f, " failure={failure}")?;
        }
        if *timeout != plain.timeout {
            write!(f, " timeout={}", timeout.exact())?;
        }
        if *repeatable {
            f.write_str(" repeatable=yes")?;
        }
        Ok(())
    }
}
