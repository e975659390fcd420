//! What a store knows of its own past: each start of a controller on it is a life. Agents keep which
//! life told them what, so that an old copy of the store is known by what it lacks, whatever was
//! written to it since. Pure.

use crate::id::{LifeId, Revision};
use crate::observation::Told;

/// One start of a controller, recorded before it tells anybody anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    pub id: LifeId,
    /// The revision that recorded it: what it told is this or newer.
    pub began: Revision,
}

/// All lives since the store's incarnation, oldest first; never empty once a controller served.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Past {
    pub lives: Vec<Life>,
}

/// Why what an agent was told is not of this store's past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contradiction {
    /// The life told it no revision after this one, as far as the store knows.
    Beyond(Revision),
    /// The store knows nothing of the life.
    UnknownLife,
}

impl Past {
    /// Lives that are kept; what an agent heard of an earlier one is not judged any more.
    pub const LIVES_MAX: usize = 1024;

    /// One more, recorded by the transaction of revision `began`.
    pub fn begin(&mut self, id: LifeId, began: Revision) {
        self.lives.push(Life { id, began });
        let spare = self.lives.len().saturating_sub(Self::LIVES_MAX);
        self.lives.drain(..spare);
    }

    /// Of the controller that serves; NONE before the first.
    pub fn current(&self) -> LifeId {
        self.lives.last().map_or(LifeId::NONE, |life| life.id)
    }

    /// Holds what an agent was told in this incarnation against a store that is at `now`.
    pub fn contradicts(&self, told: Told, now: Revision) -> Option<Contradiction> {
        let beyond = |end: Revision| (told.revision > end).then_some(Contradiction::Beyond(end));
        // Told by a program that knew nothing of lives, or to one.
        if told.life == LifeId::NONE {
            return beyond(now);
        }
        match self.lives.iter().rposition(|life| life.id == told.life) {
            Some(at) => {
                let next = self.lives.get(at + 1).map(|next| Revision(next.began.0 - 1));
                beyond(next.unwrap_or(now))
            }
            None => {
                let oldest = self.lives.first().filter(|_| self.lives.len() >= Self::LIVES_MAX);
                let forgotten = oldest.is_some_and(|oldest| told.revision < oldest.began);
                (!forgotten).then_some(Contradiction::UnknownLife)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Contradiction::{Beyond, UnknownLife};

    fn told(life: u64, revision: u64) -> Told {
        Told { life: LifeId(life), revision: Revision(revision), ..Told::default() }
    }

    #[test]
    fn an_agent_contradicts_by_a_life_or_by_what_a_life_told_it() {
        let mut past = Past::default();
        past.begin(LifeId(11), Revision(5));
        past.begin(LifeId(12), Revision(20));
        for (told, expected) in [
            (told(11, 5), None),
            (told(11, 19), None),
            // The store was copied at 19 and went on elsewhere.
            (told(11, 20), Some(Beyond(Revision(19)))),
            (told(12, 30), None),
            (told(12, 31), Some(Beyond(Revision(30)))),
            // Written past what the other history told: it stays unknown.
            (told(13, 21), Some(UnknownLife)),
            (told(0, 0), None),
            (told(0, 30), None),
            (told(0, 31), Some(Beyond(Revision(30)))),
        ] {
            assert_eq!(past.contradicts(told, Revision(30)), expected, "{told:?}");
        }
        assert_eq!(past.current(), LifeId(12));
    }

    #[test]
    fn the_oldest_lives_are_forgotten_and_judge_nobody() {
        let mut past = Past::default();
        let lives = Past::LIVES_MAX as u64 + 10;
        (1..=lives).for_each(|n| past.begin(LifeId(n), Revision(10 * n)));
        assert_eq!(past.lives.len(), Past::LIVES_MAX);
        let now = Revision(10 * lives);
        assert_eq!(past.contradicts(told(3, 35), now), None);
        assert_eq!(past.contradicts(told(999_999, 35), now), None, "too long ago to be told apart");
        assert_eq!(past.contradicts(told(999_999, 500), now), Some(UnknownLife));
    }
}
