//! The moves of late, by the journal's sequence, for targets that are a little behind. Bounded; a
//! target that needs what was forgotten gets none, since moves build upon each other. Pure.

use std::collections::VecDeque;

use crate::index::absorb::{MOVES_MAX, Move};

#[derive(Clone, Debug, Default)]
pub struct Recent {
    moves: VecDeque<(u64, Move)>,
    /// What moved up to here is not known.
    floor: u64,
}

impl Recent {
    /// What moved up to `seq` is not known.
    pub fn forget(&mut self, seq: u64) {
        self.moves.clear();
        self.floor = self.floor.max(seq);
    }

    pub fn note(&mut self, seq: u64, moves: Vec<Move>) {
        if moves.len() >= MOVES_MAX {
            return self.forget(seq);
        }
        self.moves.extend(moves.into_iter().map(|a| (seq, a)));
        while self.moves.len() > MOVES_MAX
            && let Some((seq, _)) = self.moves.front().map(|(seq, a)| (*seq, a.kind))
        {
            self.moves.retain(|(of, _)| *of != seq);
            self.floor = seq;
        }
    }

    /// What moved above `after` up to `upto`; nothing when that is not known completely.
    pub fn between(&self, after: u64, upto: u64) -> Vec<Move> {
        if after < self.floor {
            return Vec::new();
        }
        let wanted = self.moves.iter().filter(|(seq, _)| (after + 1..=upto).contains(seq));
        wanted.map(|(_, a)| a.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Kind;

    fn a(name: &str) -> Move {
        let path = |s: &str| s.as_bytes().into();
        let (from, to) = (path(name), path("to"));
        Move { from, to, kind: Kind::File, size: 1, mtime_ns: 1, over: None }
    }

    #[test]
    fn only_who_misses_nothing_gets_moves() {
        let mut recent = Recent::default();
        recent.forget(4);
        recent.note(5, vec![a("x")]);
        recent.note(7, vec![a("y"), a("z")]);
        assert_eq!(recent.between(3, 7), []);
        assert_eq!(recent.between(4, 6), [a("x")]);
        assert_eq!(recent.between(5, 7), [a("y"), a("z")]);
        assert_eq!(recent.between(7, 9), []);
        recent.forget(6);
        assert_eq!(recent.between(5, 7), []);
    }

    #[test]
    fn old_moves_are_forgotten_by_whole_batches() {
        let mut recent = Recent::default();
        let half = vec![a("x"); MOVES_MAX / 2];
        for seq in 1..=2 {
            recent.note(seq, half.clone());
        }
        assert_eq!(recent.between(0, 9).len(), MOVES_MAX);
        recent.note(3, vec![a("y")]);
        assert_eq!(recent.between(0, 9), []);
        assert_eq!(recent.between(1, 9).len(), MOVES_MAX / 2 + 1);
        recent.note(4, vec![a("y"); MOVES_MAX]);
        assert_eq!((recent.between(3, 9), recent.moves.len()), (vec![], 0));
    }
}
