//! What an operator should mend while watching goes on: limits that are near, overflows of the
//! kernel's queue. It only remembers and words it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_model::{Millis, Timestamp};

/// How long the last overflow is told.
const OVERFLOW_TOLD: Millis = Millis::from_secs(24 * 3600);

#[derive(Default)]
pub struct Alarms(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// What to do about a limit that is near.
    near: Option<String>,
    /// Why not all is watched that links point to.
    links: Option<String>,
    overflow: Option<Overflow>,
}

struct Overflow {
    /// Since the source was started.
    times: u64,
    last_at: Timestamp,
    advice: String,
}

impl Alarms {
    /// Whether that is news.
    pub fn set_near(&self, near: Option<String>) -> bool {
        let mut inner = self.lock();
        let is_news = inner.near != near;
        inner.near = near;
        is_news
    }

    pub fn set_links(&self, problem: Option<String>) {
        self.lock().links = problem;
    }

    /// Counts one; how many there were.
    pub fn overflowed(&self, now: Timestamp, advice: String) -> u64 {
        let mut inner = self.lock();
        let times = inner.overflow.as_ref().map_or(0, |overflow| overflow.times) + 1;
        inner.overflow = Some(Overflow { times, last_at: now, advice });
        times
    }

    /// For reports, a line each.
    pub fn lines(&self, now: Timestamp) -> Vec<String> {
        let inner = self.lock();
        let recent =
            inner.overflow.as_ref().filter(|overflow| now.since(overflow.last_at) < OVERFLOW_TOLD);
        let overflow = recent.map(|Overflow { times, last_at, advice }| {
            let times = match times {
                1 => format!("once, at {last_at}"),
                _ => format!("{times} times, last at {last_at}"),
            };
            format!(
                "the kernel's queue of changes overflowed {times}, and everything was compared \
                 again: {advice}"
            )
        });
        let links = inner.links.as_ref().map(|problem| {
            format!("what links point to is compared every five minutes and not watched: {problem}")
        });
        inner.near.iter().cloned().chain(links).chain(overflow).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_are_told_for_a_day() {
        let alarms = Alarms::default();
        assert!(alarms.lines(Timestamp(0)).is_empty());
        alarms.overflowed(Timestamp(1000), "raise it".into());
        let lines = alarms.lines(Timestamp(2000));
        assert!(lines[0].contains("overflowed once, at 1970-01-01T00:00:01Z"), "{lines:?}");
        assert_eq!(alarms.overflowed(Timestamp(61_000), "raise it".into()), 2);
        assert!(
            alarms.set_near(Some("9 of 10".into())) && !alarms.set_near(Some("9 of 10".into()))
        );
        let lines = alarms.lines(Timestamp(62_000));
        assert_eq!(lines[0], "9 of 10");
        assert!(lines[1].contains("overflowed 2 times, last at 1970-01-01T00:01:01Z"), "{lines:?}");
        assert!(lines[1].ends_with(": raise it"), "{lines:?}");
        assert!(alarms.set_near(None));
        assert!(alarms.lines(Timestamp(61_000) + OVERFLOW_TOLD).is_empty());
    }
}
