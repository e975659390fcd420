//! What the end of an rsync run means and how long to wait before the next. Pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use lockstep_model::Millis;

use super::complaint::deletions_cut;

/// How `lockstep-agent rsh` starts its one line on standard error: rsync's own exit code is the
/// same whatever its remote shell says.
pub const RSH_UNREACHABLE: &str = "lockstep rsh: unreachable: ";
pub const RSH_REFUSED: &str = "lockstep rsh: refused: ";
pub const RSH_UNFILLED: &str = "lockstep rsh: unfilled: ";

/// Longest error kept for people, in bytes.
const TEXT_MAX: usize = 300;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Ok,
    /// Some names did not make it.
    Partial,
    /// Some names went away meanwhile; the next batch tells more.
    Vanished,
    /// Network, peer or process trouble that passes.
    Transient,
    /// It fails again until someone changes something.
    Config,
    /// Disk or memory is full.
    Resource,
    /// Ended by a signal that this agent did not send.
    Killed,
    /// The target says that it never had a complete pass.
    Unfilled,
}

impl Exit {
    pub fn of(status: ExitStatus, stderr: &str) -> Self {
        if stderr.contains(RSH_UNFILLED) {
            return Self::Unfilled;
        }
        if stderr.contains(RSH_UNREACHABLE) {
            return Self::Transient;
        }
        if stderr.contains(RSH_REFUSED) {
            return Self::Config;
        }
        if status.signal().is_some() {
            return Self::Killed;
        }
        // Trouble with a name would hide it in the exit code.
        if deletions_cut(stderr).is_some() {
            return Self::Transient;
        }
        match status.code() {
            Some(0) => Self::Ok,
            Some(23) => Self::Partial,
            Some(24) => Self::Vanished,
            Some(11 | 22) => Self::Resource,
            Some(5) if stderr.contains("max connections") => Self::Transient,
            // More was to be removed than was counted before: it is counted again.
            Some(25) => Self::Transient,
            Some(1..=6 | 14 | 126 | 127) => Self::Config,
            _ => Self::Transient,
        }
    }
}

/// Time to wait after the `failures`-th failure in a row, counted from 1.
pub fn backoff(exit: Exit, failures: u32) -> Millis {
    let (first_ms, most_ms) = match exit {
        Exit::Ok | Exit::Unfilled => (0, 0),
        Exit::Vanished => (500, 10_000),
        Exit::Transient | Exit::Killed => (500, 30_000),
        Exit::Partial => (2_000, 30_000),
        Exit::Config | Exit::Resource => (2_000, 60_000),
    };
    let doubled = 1u64 << failures.saturating_sub(1).min(20);
    Millis(doubled.saturating_mul(first_ms).min(most_ms))
}

/// What one end says when the other one has left; the other one tells why.
const AFTERMATH: [&str; 4] = [
    "Broken pipe",
    "connection unexpectedly closed",
    "Connection reset",
    "did not see server greeting",
];

/// One line for people: what standard error tells, or what the code means.
pub fn text(status: ExitStatus, stderr: &str) -> String {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("rsync exit code {code}"),
        (None, Some(signal)) => format!("rsync was ended by signal {signal}"),
        (None, None) => "rsync ended".to_owned(),
    };
    let meaning = match status.code() {
        // A receiver that fails tells its own side only.
        Some(11) => Some("the target could not write; is its disk full?"),
        Some(12) => Some("the connection broke"),
        Some(30) => Some("nothing moved for too long"),
        Some(35) => Some("the daemon did not answer in time"),
        _ => None,
    };
    match said(stderr).or(meaning.map(str::to_owned)) {
        Some(said) => format!("{end}: {said}"),
        None => end,
    }
}

/// The first telling line of standard error, made fit for people; None when no line tells anything.
pub fn said(stderr: &str) -> Option<String> {
    let mut lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let own = lines.clone().find_map(|line| line.find("lockstep rsh: ").map(|at| &line[at..]));
    let tells = |line: &&str| {
        !line.starts_with("rsync error: ") && !AFTERMATH.iter().any(|text| line.contains(text))
    };
    Some(fit(own.or_else(|| lines.find(tells))?))
}

/// One line that is not too long.
pub(crate) fn fit(line: &str) -> String {
    let line = &line[..line.floor_char_boundary(TEXT_MAX)];
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn every_end_has_its_class() {
        let cases = [
            (0, "", Exit::Ok),
            (1, "", Exit::Config),
            (4, "", Exit::Config),
            (5, "@ERROR: Unknown module 'x'", Exit::Config),
            (5, "@ERROR: max connections (4) reached -- try again later", Exit::Transient),
            (5, "lockstep rsh: unreachable: web1: timed out\nrsync: did not see", Exit::Transient),
            (5, "lockstep rsh: refused: not the source of webroot", Exit::Config),
            (5, "lockstep rsh: unfilled: ", Exit::Unfilled),
            (10, "", Exit::Transient),
            (11, "write failed: No space left on device (28)", Exit::Resource),
            (12, "", Exit::Transient),
            (19, "", Exit::Transient),
            (20, "", Exit::Transient),
            (23, "", Exit::Partial),
            (24, "", Exit::Vanished),
            (23, "x\nDeletions stopped due to --max-delete limit (2 skipped)\ny", Exit::Transient),
            (24, "Deletions stopped due to --max-delete limit (1 skipped)", Exit::Transient),
            (30, "", Exit::Transient),
            (127, "", Exit::Config),
            (255, "", Exit::Transient),
        ];
        for (number, stderr, expected) in cases {
            assert_eq!(Exit::of(code(number), stderr), expected, "{number} {stderr}");
        }
        assert_eq!(Exit::of(ExitStatus::from_raw(9), ""), Exit::Killed);
    }

    proptest! {
        #[test]
        fn waiting_grows_and_stays_bounded(failures in 1u32..) {
            for exit in [Exit::Partial, Exit::Vanished, Exit::Transient, Exit::Config, Exit::Resource, Exit::Killed] {
                let wait = backoff(exit, failures);
                prop_assert!(wait >= backoff(exit, 1) && wait <= Millis::from_secs(60));
                prop_assert!(backoff(exit, failures.saturating_add(1)) >= wait);
            }
        }
    }

    #[test]
    fn the_error_is_one_short_line() {
        let stderr = "\nrsync: [receiver] mkstemp \"/a\n\" failed\nrsync error: some (code 23)\n";
        assert_eq!(text(code(23), stderr), "rsync exit code 23: rsync: [receiver] mkstemp \"/a");
        assert_eq!(text(ExitStatus::from_raw(9), ""), "rsync was ended by signal 9");
        let full = "rsync: [sender] write error: Broken pipe (32)\n\
                    rsync: [receiver] write failed on \"/a\": No space left on device (28)\n";
        assert!(text(code(11), full).ends_with("No space left on device (28)"));
        let aftermath = "rsync: [sender] write error: Broken pipe (32)\n";
        assert!(text(code(11), aftermath).ends_with("is its disk full?"));
        let own = "x\nerror: lockstep rsh: unreachable: web1:7402: timed out";
        assert!(text(code(5), own).ends_with("unreachable: web1:7402: timed out"));
        assert!(text(code(1), &"ä".repeat(900)).len() <= TEXT_MAX + 30);
    }
}
