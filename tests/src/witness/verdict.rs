//! What clients were told, held against what is promised: pure arithmetic over what they wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Acknowledged, Count};

/// The longest time without an acknowledgement to a client outside that touches the window; none without
/// an acknowledgement before its end and one after its beginning.
pub fn outage(rows: &[Acknowledged], from: Instant, to: Instant) -> Option<Duration> {
    let mut times: Vec<Instant> =
        rows.iter().filter(|row| row.is_outside).map(|row| row.at).collect();
    times.sort_unstable();
    let pairs = times.iter().zip(times.iter().skip(1));
    let touching = pairs.filter(|(earlier, later)| **later >= from && **earlier <= to);
    touching.map(|(earlier, later)| later.duration_since(*earlier)).max()
}

/// For how long somebody went on taking rows that he acknowledged, after somebody else had
/// acknowledged one on a later timeline; and whether two wrote on the same timeline.
pub fn overlap(rows: &[Acknowledged]) -> Option<Duration> {
    let owners: BTreeSet<(u32, &str)> =
        rows.iter().map(|row| (row.timeline, row.node.as_str())).collect();
    let twice = owners.iter().zip(owners.iter().skip(1)).any(|(a, b)| a.0 == b.0);
    if twice {
        return Some(Duration::MAX);
    }
    let mut firsts: BTreeMap<u32, Instant> = BTreeMap::new();
    for row in rows {
        let first = firsts.entry(row.timeline).or_insert(row.at);
        *first = (*first).min(row.at);
    }
    let late = rows.iter().filter_map(|row| {
        let first = firsts.range(row.timeline + 1..).map(|(_, first)| *first).min()?;
        (row.sent > first).then(|| row.sent.duration_since(first))
    });
    late.max()
}

/// A counter that goes wrong: two acknowledged writes of the same number (an update is lost), or a number
/// that is smaller than one which was acknowledged before it was asked for (a read is stale). With
/// `may_lose` only within a timeline: a later one may begin before what an earlier one acknowledged.
/// Reads on a timeline that is over are nobody's promise.
pub fn miscounts(counts: &[Count], may_lose: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut writers: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    for count in counts.iter().filter(|count| count.is_write) {
        let within = if may_lose { count.timeline } else { 0 };
        if let Some(other) = writers.insert((within, count.value), count.timeline) {
            found.push(format!(
                "{} was written twice, on timelines {other} and {}",
                count.value, count.timeline
            ));
        }
    }
    let mut writes: Vec<&Count> = counts.iter().filter(|count| count.is_write).collect();
    writes.sort_unstable_by_key(|count| count.at);
    let mut later: Vec<&Count> = counts.iter().collect();
    later.sort_unstable_by_key(|count| count.sent);
    let mut known = writes.into_iter().peekable();
    // The greatest number that was acknowledged, by timeline.
    let mut greatest: BTreeMap<u32, u64> = BTreeMap::new();
    for count in later {
        while let Some(write) = known.next_if(|write| write.at < count.sent) {
            let value = greatest.entry(write.timeline).or_default();
            *value = (*value).max(write.value);
        }
        let from = if may_lose { count.timeline } else { 0 };
        let least = greatest.range(from..=count.timeline).map(|(_, value)| *value).max();
        let least = least.unwrap_or_default() + u64::from(count.is_write);
        if count.value < least {
            let what = if count.is_write { "written" } else { "read" };
            found.push(format!(
                "{} was {what} on timeline {}, and not {least} or more",
                count.value, count.timeline
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All times of a test count from one instant.
    struct Clock(Instant);

    impl Clock {
        fn new() -> Self {
            Self(Instant::now())
        }

        fn ms(&self, ms: u64) -> Instant {
            self.0 + Duration::from_millis(ms)
        }

        fn row(&self, node: &str, timeline: u32, sent: u64, at: u64) -> Acknowledged {
            let (node, is_outside) = (node.to_owned(), true);
            let (sent, at) = (self.ms(sent), self.ms(at));
            Acknowledged { id: 0, node, timeline, is_outside, sent, at }
        }

        fn read(&self, value: u64, timeline: u32, sent: u64) -> Count {
            let (sent, at) = (self.ms(sent), self.ms(sent + 5));
            Count { value, is_write: false, timeline, sent, at }
        }

        fn write(&self, value: u64, timeline: u32, sent: u64) -> Count {
            Count { is_write: true, ..self.read(value, timeline, sent) }
        }
    }

    #[test]
    fn an_outage_is_the_longest_gap_that_touches_the_window() {
        let clock = Clock::new();
        let rows = [0, 900, 1000, 1300, 1320, 5000].map(|at| clock.row("a", 1, at, at));
        let at = |from, to| outage(&rows, clock.ms(from), clock.ms(to));
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(at(1010, 1310), ms(300));
        assert_eq!(at(950, 2000), ms(3680));
        assert_eq!(at(0, 800), ms(900));
        assert_eq!(at(6000, 7000), None);
        let inside = rows.map(|row| Acknowledged { is_outside: false, ..row });
        assert_eq!(outage(&inside, clock.ms(0), clock.ms(9000)), None);
    }

    #[test]
    fn an_answer_that_comes_late_is_no_overlap_and_a_row_taken_late_is() {
        let clock = Clock::new();
        let row = |node, timeline, sent, at| clock.row(node, timeline, sent, at);
        let late_answer = [row("a", 1, 0, 900), row("b", 2, 500, 600)];
        assert_eq!(overlap(&late_answer), None);
        let taken_late = [row("a", 1, 0, 10), row("b", 2, 500, 600), row("a", 1, 800, 810)];
        assert_eq!(overlap(&taken_late), Some(Duration::from_millis(200)));
        let back_again = [row("a", 1, 0, 10), row("b", 2, 20, 30), row("a", 3, 40, 50)];
        assert_eq!(overlap(&back_again), None);
        let one_timeline = [row("a", 2, 0, 10), row("b", 2, 20, 30)];
        assert_eq!(overlap(&one_timeline), Some(Duration::MAX));
    }

    #[test]
    fn a_counter_goes_up_and_never_back() {
        let clock = Clock::new();
        let (read, write) = (|v, t, at| clock.read(v, t, at), |v, t, at| clock.write(v, t, at));
        let well =
            [read(0, 1, 0), write(1, 1, 10), read(1, 1, 20), write(2, 2, 30), read(2, 2, 40)];
        assert!(miscounts(&well, false).is_empty());
        // A read that was asked for before the write was acknowledged may be either.
        assert!(miscounts(&[write(1, 1, 10), read(0, 1, 12)], false).is_empty());
        // The old primary's own idea, after somebody else has written.
        assert!(miscounts(&[write(1, 1, 0), write(2, 2, 10), read(1, 1, 20)], false).is_empty());

        let twice = [write(1, 1, 0), write(1, 1, 2)];
        assert_eq!(miscounts(&twice, true).len(), 1);
        let stale = [write(1, 1, 0), write(2, 1, 10), read(1, 1, 20)];
        assert_eq!(miscounts(&stale, true).len(), 1);
        let forgotten = [write(1, 1, 0), write(2, 1, 10), read(1, 2, 20), write(2, 2, 30)];
        assert_eq!(miscounts(&forgotten, true).len(), 0);
        // The number for a second time, and each of both too small.
        assert_eq!(miscounts(&forgotten, false).len(), 3);
    }
}
