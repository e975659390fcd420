//! What happens when: events in the order of their time, and of their making where times are equal.
//! It knows nothing of what they mean.

use std::collections::BTreeMap;

/// True time, in milliseconds since the story began. No machine has a clock that shows it.
pub type At = u64;

pub struct Queue<E> {
    now: At,
    made: u64,
    waiting: BTreeMap<(At, u64), E>,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { now: 0, made: 0, waiting: BTreeMap::new() }
    }
}

impl<E> Queue<E> {
    pub fn now(&self) -> At {
        self.now
    }

    /// What is due in the past happens now.
    pub fn at(&mut self, at: At, event: E) {
        self.made += 1;
        self.waiting.insert((at.max(self.now), self.made), event);
    }

    pub fn after(&mut self, ms: u64, event: E) {
        self.at(self.now.saturating_add(ms), event);
    }

    /// The next event, if it is not later than `end`.
    pub fn next(&mut self, end: At) -> Option<E> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= end);
        let Some(first) = first else {
            self.now = self.now.max(end);
            return None;
        };
        let ((at, _), event) = first.remove_entry();
        self.now = at;
        Some(event)
    }
}
