//! How long ago each standby answered last, by this machine's clock: its answers carry its own clock's
//! time, of which only the change counts.

use std::collections::BTreeMap;

use lockstep_model::{Millis, NodeName};
use tokio::time::Instant;

/// An answer's time that was first seen at an instant; None: before this agent looked.
type Seen = (String, Option<Instant>);

#[derive(Default)]
pub struct Replies(BTreeMap<NodeName, Seen>);

impl Replies {
    /// Notes what is shown now, and gives the ages in the same order; a very large one where no
    /// new answer has come yet. Others are forgotten.
    pub fn ages(&mut self, shown: &[(NodeName, String)], now: Instant) -> Vec<Millis> {
        const UNKNOWN: Millis = Millis(u32::MAX as u64);
        let known = std::mem::take(&mut self.0);
        let mut ages = Vec::new();
        for (node, time) in shown {
            let at = match known.get(node) {
                None => None,
                Some((before, at)) if before == time => *at,
                Some(_) => Some(now),
            };
            let age = at.map(|at| now.saturating_duration_since(at).as_millis());
            ages.push(age.and_then(|ms| u64::try_from(ms).ok()).map_or(UNKNOWN, Millis));
            self.0.insert(node.clone(), (time.clone(), at));
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_a_new_answer_counts() {
        let mut replies = Replies::default();
        let start = Instant::now();
        let mut age = |time: &str, after_ms: u64| {
            let now = start + Duration::from_millis(after_ms);
            replies.ages(&[("db2".parse().unwrap(), time.to_owned())], now)[0]
        };
        assert!(age("12:00", 0) > Millis(1_000_000), "it may be an old one");
        assert!(age("12:00", 500) > Millis(1_000_000));
        assert_eq!(age("12:01", 600), Millis(0));
        assert_eq!(age("12:01", 900), Millis(300));
        assert_eq!(age("11:00", 1000), Millis(0), "a clock that was set back is as good");
    }
}
