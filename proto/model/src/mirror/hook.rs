//! Programs of the site's own around a run: files of the agent's hook directory, by name.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;
use crate::sync::hook::HookName;
use crate::time::Millis;
use crate::words::words;

/// `report-mirror on=after at=master failure=alert timeout=10m delay=0s repeatable=no`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MirrorHook {
    pub name: HookName,
    pub on: MirrorHookEvent,
    pub at: MirrorHookPlace,
    pub failure: MirrorHookFailure,
    /// 1 s to 1 d.
    pub timeout: Millis,
    /// Waits so long before it starts, up to a day; hooks of one event run in order.
    pub delay: Millis,
    /// May run again when nobody knows whether it ran.
    pub repeatable: bool,
}

words!(MirrorHookEvent, "on", {
    /// Before the pull.
    Before = "before",
    /// After a pull that brought something.
    Changed = "changed",
    /// After every complete pull.
    After = "after",
    /// After a pull that failed.
    Failed = "failed",
    /// On the master, once all replicas that are not away have the generation.
    Distributed = "distributed",
});

words!(MirrorHookPlace, "at", {
    Master = "master",
    Replica = "replica",
});

words!(MirrorHookFailure, "failure", {
    /// Only in the run's output.
    Ignore = "ignore",
    /// Shown as a problem until it succeeds.
    Alert = "alert",
    /// The run fails; before the pull it does not take place.
    Abort = "abort",
});

impl MirrorHook {
    pub const TIMEOUT_DEFAULT: Millis = Millis::from_secs(600);
    pub const TIME_MAX: Millis = Millis::from_secs(86_400);

    pub fn new(name: HookName) -> Self {
        Self {
            name,
            on: MirrorHookEvent::Changed,
            at: MirrorHookPlace::Master,
            failure: MirrorHookFailure::Alert,
            timeout: Self::TIMEOUT_DEFAULT,
            delay: Millis(0),
            repeatable: false,
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        if self.timeout < Millis::from_secs(1) || self.timeout > Self::TIME_MAX {
            return Err(Invalid::new("hook.timeout", "must be 1s to 1d"));
        }
        if self.delay > Self::TIME_MAX {
            return Err(Invalid::new("hook.delay", "must be 0s to 1d"));
        }
        if self.on == MirrorHookEvent::Distributed && self.at != MirrorHookPlace::Master {
            return Err(Invalid::new("hook.at", "must be master when on=distributed"));
        }
        let late = matches!(self.on, MirrorHookEvent::Failed | MirrorHookEvent::Distributed);
        if late && self.failure == MirrorHookFailure::Abort {
            let problem = format!("cannot be abort when on={}: the run has ended then", self.on);
            return Err(Invalid::new("hook.failure", problem));
        }
        Ok(())
    }
}

impl FromStr for MirrorHook {
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
                "delay" => hook.delay = value.parse().map_err(|e: Invalid| e.within("delay"))?,
                "repeatable" => hook.repeatable = crate::setting::text::yes_no(value)?,
                _ => {
                    let problem = format!(
                        "knows on=, at=, failure=, timeout=, delay= and repeatable=, not {}",
                        quote(word)
                    );
                    return Err(Invalid::new("hook", problem));
                }
            }
        }
        hook.check()?;
        Ok(hook)
    }
}

impl fmt::Display for MirrorHook {
    /// Read back as the same value; what is default is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, on, at, failure, timeout, delay, repeatable } = self;
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
        if *delay != plain.delay {
            write!(f, " delay={}", delay.exact())?;
        }
        if *repeatable {
            f.write_str(" repeatable=yes")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_read_as_written() {
        for text in [
            "report-mirror",
            "report-mirror on=after at=replica failure=abort timeout=1h delay=10m repeatable=yes",
            "push-leaf on=distributed delay=5m",
        ] {
            assert_eq!(text.parse::<MirrorHook>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "../x",
            "a on=later",
            "a timeout=0s",
            "a delay=2d",
            "a on=distributed at=replica",
            "a on=failed failure=abort",
            "a x=y",
        ] {
            assert!(wrong.parse::<MirrorHook>().is_err(), "{wrong}");
        }
    }
}
