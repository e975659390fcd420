//! How long to wait before the next try. Pure: the seed comes from outside.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(15);

/// Doubles from 250 ms to 15 s, each wait shortened by up to a half, so that agents that lost their
/// controller at one moment do not come back at one moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    state: u64,
    step: Duration,
}

impl Backoff {
    pub fn new(seed: u64) -> Self {
        Self { state: seed, step: FIRST }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.step = FIRST;
    }

    pub fn wait(&mut self) -> Duration {
        self.wait_at_most(LAST)
    }

    /// As `wait`, and grown no further than to `most`.
    pub fn wait_at_most(&mut self, most: Duration) -> Duration {
        let step = self.step.min(most);
        self.step = (step * 2).min(LAST);
        self.spread(step)
    }

    /// From a half of `wait` to all of it.
    pub fn spread(&mut self, wait: Duration) -> Duration {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let part = u32::try_from(z >> 48).unwrap_or(0); // 16 bits
        wait / 2 + wait / 2 * part / (1 << 16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_limit_and_stay_there(seed: u64, tries in 0usize..40) {
            let mut backoff = Backoff::new(seed);
            for n in 0..tries {
                let full = (FIRST * (1 << n.min(6))).min(LAST);
                let wait = backoff.wait();
                prop_assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
            }
            backoff.reset();
            prop_assert!(backoff.wait() <= FIRST);
        }
    }

    #[test]
    fn whoever_is_waited_for_comes_back_soon() {
        let (mut backoff, most) = (Backoff::new(7), Duration::from_secs(1));
        let longest = (0..40).map(|_| backoff.wait_at_most(most)).max();
        assert!(longest <= Some(most), "{longest:?}");
    }

    #[test]
    fn two_agents_do_not_wait_alike() {
        let waits = |seed| {
            (0..8)
                .map({
                    let mut b = Backoff::new(seed);
                    move |_| b.wait()
                })
                .collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(3), waits(3));
    }
}
