//! How far a copy is by the source's own journal, whoever feeds it: so that nobody is fed by a node
//! that is behind it. Pure.

use crate::data::header::Offer;

/// What of the source's journal is in a copy. Kept in memory: a feeder tells it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Everything up to here; 0 while nobody knows.
    pub has: u64,
    /// How far this node's own journal was when it was told so.
    pub own: u64,
    /// Nothing above this.
    upto: u64,
    /// What its feeder must have: the one before may have brought so much.
    needs: u64,
}

impl Place {
    /// The same copy, which somebody else is to feed from now on.
    pub fn handed_over(&self) -> Self {
        Self { needs: self.needs.max(self.upto).max(self.has), ..*self }
    }

    /// Whoever feeds it may do so, however far it is.
    pub fn take_any(&mut self) {
        self.needs = 0;
    }

    /// Everything up to `has` is here, and `own` is how far this node's journal is now.
    pub fn note(&mut self, has: u64, own: u64) {
        if has > 0 {
            (self.has, self.own) = (has, own);
            self.upto = self.upto.max(has);
        }
    }

    /// Whether a delivery may come.
    pub fn take(&mut self, offer: &Offer) -> Result<(), String> {
        if offer.has < self.needs {
            let Self { needs, .. } = self;
            return Err(format!("it has more than its feeder: {needs} and not {}", offer.has));
        }
        self.needs = 0;
        self.upto = offer.upto;
        if offer.upto < self.has {
            // The source's journal began anew: what counted in the one before says nothing.
            (self.has, self.own) = (0, 0);
        }
        Ok(())
    }

    /// As this copy's own offer to those it feeds.
    pub fn offer(&self) -> (u64, u64) {
        (self.has, self.upto.max(self.has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(has: u64, upto: u64) -> Offer {
        Offer { has, upto, target_has: 0 }
    }

    #[test]
    fn nobody_is_fed_by_one_that_is_behind_it() {
        let mut place = Place::default();
        assert!(place.take(&offer(5, 7)).is_ok());
        // The same feeder is behind its own offers as a rule.
        assert!(place.take(&offer(5, 9)).is_ok());
        place.note(6, 2);
        assert_eq!(place.offer(), (6, 9));
        let mut place = place.handed_over().handed_over();
        assert!(place.take(&offer(8, 20)).is_err());
        assert_eq!(place.offer(), (6, 9), "a refused offer brings nothing");
        assert!(place.take(&offer(9, 9)).is_ok());
        assert!(place.take(&offer(3, 9)).is_ok(), "it is known by then");
        let mut place = place.handed_over();
        assert!(place.take(&offer(Offer::ALL, 1)).is_ok(), "the source lacks nothing");
        let mut place = Place { needs: 4, ..place };
        place.take_any();
        assert!(place.take(&offer(0, 0)).is_ok());
    }

    #[test]
    fn nothing_counts_in_a_journal_that_began_anew() {
        let mut place = Place::default();
        place.note(500, 9);
        assert!(place.take(&offer(Offer::ALL, 500)).is_ok());
        assert_eq!((place.has, place.offer()), (500, (500, 500)));
        assert!(place.take(&offer(Offer::ALL, 3)).is_ok());
        assert_eq!((place.has, place.offer()), (0, (0, 3)));
    }
}
