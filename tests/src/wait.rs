//! Waits for conditions, always with a bound. This file alone owns the clock and the sleep of the
//! tests: a test says what it waits for, never how long something takes.
#![allow(clippy::disallowed_methods, reason = "the one place where tests look at the clock")]
#![allow(clippy::panic, reason = "a wait that fails is a test that fails")]

use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What a probe may answer: `bool`, `Option<T>`, or `Result<T, E>` whose error tells what was seen
/// instead.
pub trait Probe {
    type Found;
    fn found(self) -> Result<Self::Found, Option<String>>;
}

impl Probe for bool {
    type Found = ();
    fn found(self) -> Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> Probe for Option<T> {
    type Found = T;
    fn found(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: Display> Probe for Result<T, E> {
    type Found = T;
    fn found(self) -> Result<T, Option<String>> {
        self.map_err(|e| Some(format!("{e:#}")))
    }
}

/// A wait that ended without its condition.
#[derive(Debug)]
pub struct Waited {
    what: String,
    within: Duration,
    last: Option<String>,
}

impl Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:?} in vain until {}", self.within, self.what)?;
        self.last.as_ref().map_or(Ok(()), |last| write!(f, "; last seen: {last}"))
    }
}

impl std::error::Error for Waited {}

/// Asks `probe` until it finds what it looks for. Panics with what was waited for and what was seen
/// last; the panic makes the world print the logs of its hosts.
#[track_caller]
pub fn until<P: Probe>(within: Duration, what: &str, probe: impl FnMut() -> P) -> P::Found {
    match try_until(within, what, probe) {
        Ok(found) => found,
        Err(waited) => panic!("{waited}"),
    }
}

/// As [`until`], for those who go on after a wait in vain. The probe runs at least once, and once
/// more at the end.
pub fn try_until<P: Probe>(
    within: Duration,
    what: &str,
    mut probe: impl FnMut() -> P,
) -> Result<P::Found, Waited> {
    let deadline = Instant::now() + within;
    let mut pause = PAUSE_MIN;
    loop {
        let late = Instant::now() >= deadline;
        match probe().found() {
            Ok(found) => return Ok(found),
            Err(last) if late => return Err(Waited { what: what.to_owned(), within, last }),
            Err(_) => {}
        }
        thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The waits of a world panic; for those who go on with another world.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
        Err(anyhow!("{text}"))
    })
}

/// How long `work` took, for figures and for generous bounds.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_waited_for_and_what_it_saw() {
        let mut asked = 0;
        let waited = try_until(Duration::from_millis(30), "the moon is blue", || {
            asked += 1;
            Err::<(), _>(format!("grey, {asked} times"))
        });
        let text = waited.map_err(|w| w.to_string());
        let expected =
            format!("waited 30ms in vain until the moon is blue; last seen: grey, {asked} times");
        assert_eq!(text, Err(expected));
        assert!(asked >= 2);
    }

    #[test]
    fn takes_what_it_finds() {
        let mut n = 0;
        let found = until(Duration::from_secs(5), "n is 3", || {
            n += 1;
            (n == 3).then_some(n)
        });
        assert_eq!(found, 3);
        until(Duration::ZERO, "truth", || true);
    }
}
