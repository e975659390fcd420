//! Who needs how much of the kernel's limits on watching, all syncs of this node together. A place
//! is taken before a watcher starts and given back when it is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Fit, Limits, Need};

/// All places; clones are the same.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<Need>>);

pub struct Place {
    all: Places,
    need: Need,
}

impl Places {
    /// A place for one more watcher, or for several that are counted as one. `Err` tells people why
    /// the limits leave none; the places of others are not touched then.
    pub fn take(&self, need: Need, limits: &Limits) -> Result<Place, String> {
        let mut held = self.lock();
        let with = add(*held, need);
        if let Fit::Short(why) = limits.weigh(with) {
            return Err(why);
        }
        *held = with;
        Ok(Place { all: self.clone(), need })
    }

    pub fn held(&self) -> Need {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Need> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts what its watcher needs by now, whether it fits or not: it runs already.
    pub fn resize(&mut self, need: Need) {
        let mut held = self.all.lock();
        *held = add(subtract(*held, self.need), need);
        self.need = need;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.all.lock();
        *held = subtract(*held, self.need);
    }
}

fn add(a: Need, b: Need) -> Need {
    Need {
        watches: a.watches.saturating_add(b.watches),
        instances: a.instances.saturating_add(b.instances),
    }
}

fn subtract(a: Need, b: Need) -> Need {
    Need {
        watches: a.watches.saturating_sub(b.watches),
        instances: a.instances.saturating_sub(b.instances),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limit;
    use super::*;

    #[test]
    fn places_are_given_while_there_is_room_for_all_together() {
        let limit = |key, most| Limit { key, most };
        let limits =
            Limits { watches: limit("w", 100), instances: limit("i", 2), queued: limit("q", 1) };
        let need = |watches| Need { watches, instances: 1 };
        let places = Places::default();
        let mut first = places.take(need(60), &limits).unwrap();
        assert!(places.take(need(41), &limits).is_err());
        assert_eq!(places.held(), need(60), "who got none holds none");
        let second = places.take(need(40), &limits).unwrap();
        assert!(places.take(need(0), &limits).is_err_and(|why| why.contains("i=")));
        first.resize(need(200));
        assert_eq!(places.held(), Need { watches: 240, instances: 2 });
        drop(second);
        drop(first);
        assert_eq!(places.held(), Need::default());
    }
}
