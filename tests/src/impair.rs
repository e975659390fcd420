//! What a bad line does to each frame. Pure: the time comes in, and the chances come from a seed.

use std::time::{Duration, Instant};

use crate::chance::Chance;

/// How bad one direction of a line is. Jitter alone never reorders.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impair {
    /// Added to every frame.
    pub delay_ms: u32,
    /// Each frame's delay varies by up to this much more or less.
    pub jitter_ms: u32,
    /// The share of frames that are lost.
    pub loss_percent: f64,
    /// The share of frames that are not delayed, and so overtake the others.
    pub reorder_percent: f64,
    /// The same seed gives the same chances in the same order.
    pub seed: u64,
}

/// One direction of a line.
#[derive(Debug)]
pub struct Line {
    impair: Impair,
    chance: Chance,
    last_due: Option<Instant>,
}

impl Line {
    pub fn new(impair: Impair) -> Self {
        Self { impair, chance: Chance::new(impair.seed), last_due: None }
    }

    /// When a frame that came in `now` goes on; `None`: it is lost.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        // Always three draws, so that one setting does not shift the chances of another.
        let [lost, hurried, varied] = [(); 3].map(|()| self.chance.draw());
        if lost * 100.0 < self.impair.loss_percent {
            return None;
        }
        if hurried * 100.0 < self.impair.reorder_percent {
            return Some(now);
        }
        let Impair { delay_ms, jitter_ms, .. } = self.impair;
        let delay_ms = f64::from(delay_ms) + f64::from(jitter_ms) * (2.0 * varied - 1.0);
        let due = now + Duration::from_secs_f64(delay_ms.max(0.0) / 1000.0);
        let due = self.last_due.map_or(due, |last| due.max(last));
        self.last_due = Some(due);
        Some(due)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do")]
mod tests {
    use super::*;

    const FRAMES: usize = 10_000;

    /// Sends a frame every millisecond; per frame, how long it took.
    fn send(impair: Impair) -> Vec<Option<Duration>> {
        let start = Instant::now();
        let mut line = Line::new(impair);
        (0..FRAMES as u64)
            .map(|n| start + Duration::from_millis(n))
            .map(|now| line.due(now).map(|due| due - now))
            .collect()
    }

    #[test]
    fn a_good_line_does_nothing() {
        assert_eq!(send(Impair::default()), vec![Some(Duration::ZERO); FRAMES]);
    }

    #[test]
    fn the_seed_decides() {
        let impair = Impair { delay_ms: 9, jitter_ms: 9, loss_percent: 5.0, ..Impair::default() };
        assert_eq!(send(impair), send(impair));
        assert_ne!(send(impair), send(Impair { seed: 1, ..impair }));
    }

    #[test]
    fn loss_and_overtaking_have_about_their_share() {
        let sent = send(Impair {
            delay_ms: 50,
            loss_percent: 10.0,
            reorder_percent: 20.0,
            ..Impair::default()
        });
        let share = |of: Option<u64>| {
            let of = of.map(Duration::from_millis);
            sent.iter().filter(|&&took| took == of).count() as f64 / FRAMES as f64
        };
        assert!((0.09..0.11).contains(&share(None)), "{}", share(None));
        assert!((0.17..0.19).contains(&share(Some(0))), "{}", share(Some(0)));
        assert!((0.71..0.73).contains(&share(Some(50))), "{}", share(Some(50)));
    }

    #[test]
    fn jitter_varies_within_its_bounds_and_keeps_the_order() {
        let sent = send(Impair { delay_ms: 20, jitter_ms: 5, ..Impair::default() });
        let took: Vec<_> = sent.into_iter().flatten().collect();
        let (least, most) = (took.iter().min(), took.iter().max());
        assert!(
            least >= Some(&Duration::from_millis(15)) && most <= Some(&Duration::from_millis(25))
        );
        assert!(most.zip(least).is_some_and(|(m, l)| *m - *l > Duration::from_millis(8)));
        let arrived: Vec<_> =
            took.iter().zip(0..).map(|(took, n)| *took + Duration::from_millis(n)).collect();
        assert!(arrived.is_sorted());
    }
}
