//! Bandwidth limits: a token bucket that transfers pass piece by piece, first come first served, and
//! whose rate changes at once. It counts bytes and waits; it knows nothing of connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_model::rate::Rate;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Lowest rate, in bytes per second.
pub const RATE_MIN: u64 = Rate::MIN;
/// Bytes that pass in one turn. All transfers ask for the same, so turns are fair; so few that even
/// the lowest rate moves some before rsync takes the silence for a dead peer.
pub const PIECE: usize = 4 << 10;
/// How much of its rate a bucket holds after a pause, and the least that it holds, in bytes.
const BURST: Duration = Duration::from_millis(100);
const BURST_MIN: u64 = 16 << 10;

const NANOS: i128 = 1_000_000_000;

/// The bucket itself; pure. Levels are in bytes times `NANOS`, so that nothing is lost by rounding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bucket {
    /// Bytes per second; None lets everything through.
    rate: Option<u64>,
    level: i128,
    /// When `level` was right.
    at: Duration,
}

impl Bucket {
    fn burst(rate: u64) -> i128 {
        let burst = i128::from(rate) * BURST.as_nanos() as i128;
        burst.max(i128::from(BURST_MIN) * NANOS)
    }

    fn refill(&mut self, now: Duration) {
        let Some(rate) = self.rate else { return };
        let since = now.saturating_sub(self.at);
        let more = i128::from(rate).saturating_mul(since.as_nanos() as i128);
        self.level = self.level.saturating_add(more).min(Self::burst(rate));
        self.at = now;
    }

    /// What was used up stays so: a new rate is no new burst.
    fn set(&mut self, rate: Option<u64>, now: Duration) {
        self.refill(now);
        let fresh = self.rate.is_none();
        self.rate = rate.map(|rate| rate.max(RATE_MIN));
        self.at = now;
        if let Some(rate) = self.rate {
            let burst = Self::burst(rate);
            self.level = if fresh { burst } else { self.level.min(burst) };
        }
    }

    /// Takes `bytes` out, or says how long to wait before the next try. More than a burst passes
    /// too, at the cost of those who come after.
    fn take(&mut self, bytes: usize, now: Duration) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.refill(now);
        let bytes = bytes as i128 * NANOS;
        let lacking = bytes.min(Self::burst(rate)) - self.level;
        if lacking <= 0 {
            self.level -= bytes;
            return Ok(());
        }
        let wait_ns = lacking.div_euclid(i128::from(rate)) + 1;
        Err(Duration::from_nanos(wait_ns.try_into().unwrap_or(u64::MAX)))
    }

    fn put_back(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        self.level = (self.level + bytes as i128 * NANOS).min(Self::burst(rate));
    }
}

/// A limit that any number of transfers share; clones are the same one.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    start: Instant,
    bucket: Mutex<Bucket>,
    /// Held by the one whose piece is next; the others queue for it in the order they came.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl Limiter {
    /// `rate` in bytes per second; None lets everything through.
    pub fn new(rate: Option<u64>) -> Self {
        let mut bucket = Bucket { rate: None, level: 0, at: Duration::ZERO };
        bucket.set(rate, Duration::ZERO);
        Self(Arc::new(Inner {
            start: Instant::now(),
            bucket: Mutex::new(bucket),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes per second, at least `RATE_MIN`; holds from now on, also for who waits.
    pub fn set(&self, rate: Option<u64>) {
        self.bucket().set(rate, self.0.start.elapsed());
        self.0.changed.notify_one();
    }

    /// In bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.bucket().rate
    }

    /// Waits until `bytes` may pass. Cancel safe.
    pub async fn pass(&self, bytes: usize) {
        if self.rate().is_none() {
            return;
        }
        let _turn = self.0.turn.lock().await;
        loop {
            let taken = self.bucket().take(bytes, self.0.start.elapsed());
            let Err(wait) = taken else { return };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.0.changed.notified() => {}
            }
        }
    }

    /// As `pass`, but says no where that would wait.
    fn try_pass(&self, bytes: usize) -> bool {
        if self.rate().is_none() {
            return true;
        }
        let Ok(_turn) = self.0.turn.try_lock() else { return false };
        self.bucket().take(bytes, self.0.start.elapsed()).is_ok()
    }

    fn put_back(&self, bytes: usize) {
        self.bucket().put_back(bytes);
    }
}

/// All limits that hold for one transfer. They are passed in this order: who waits for the first
/// keeps nobody else waiting at the last.
#[derive(Clone)]
pub struct Chain<const N: usize>(pub [Limiter; N]);

impl<const N: usize> Chain<N> {
    /// Waits for its turn; how many of `bytes` may be sent now, at least one of them.
    pub async fn pass(&self, bytes: usize) -> usize {
        if self.0.iter().all(|limit| limit.rate().is_none()) {
            return bytes;
        }
        let mut passed = bytes.min(PIECE);
        for limit in &self.0 {
            limit.pass(passed).await;
        }
        // What needs no wait goes along: fewer and larger records on the way.
        while passed < bytes {
            let piece = (bytes - passed).min(PIECE);
            if !self.try_pass(piece) {
                break;
            }
            passed += piece;
        }
        passed
    }

    fn try_pass(&self, bytes: usize) -> bool {
        let refused = self.0.iter().position(|limit| !limit.try_pass(bytes));
        let Some(refused) = refused else { return true };
        self.0[..refused].iter().for_each(|limit| limit.put_back(bytes));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    proptest! {
        /// Over any span no more passes than the rate allows and one burst, and who always asks gets
        /// all of it.
        #[test]
        fn no_more_than_the_rate_passes(
            rate in RATE_MIN..1 << 30,
            asks in proptest::collection::vec((1usize..=PIECE, 0u64..50_000_000), 1..200),
        ) {
            let mut bucket = Bucket { rate: None, level: 0, at: Duration::ZERO };
            bucket.set(Some(rate), Duration::ZERO);
            let (mut now, mut passed) = (Duration::ZERO, 0i128);
            for (bytes, pause_ns) in asks {
                now += Duration::from_nanos(pause_ns);
                if let Err(wait) = bucket.take(bytes, now) {
                    now += wait;
                    prop_assert_eq!(bucket.take(bytes, now), Ok(()), "the wait was long enough");
                }
                passed += bytes as i128 * NANOS;
                let allowed = now.as_nanos() as i128 * i128::from(rate) + Bucket::burst(rate);
                prop_assert!(passed <= allowed);
            }
        }

        #[test]
        fn a_changed_rate_gives_no_second_burst(
            from in RATE_MIN..1 << 30,
            to in RATE_MIN..1 << 30,
            taken in 1usize..1 << 20,
        ) {
            let mut bucket = Bucket { rate: None, level: 0, at: Duration::ZERO };
            bucket.set(Some(from), Duration::ZERO);
            let _ = bucket.take(taken, Duration::ZERO);
            let before = bucket.level;
            bucket.set(Some(to), Duration::ZERO);
            prop_assert!(bucket.level <= before);
        }
    }

    /// Passes for ever, and counts the bytes.
    fn load<const N: usize>(limits: [&Limiter; N]) -> Arc<AtomicU64> {
        let (limits, passed) = (Chain(limits.map(Clone::clone)), Arc::new(AtomicU64::new(0)));
        let count = passed.clone();
        tokio::spawn(async move {
            loop {
                let bytes = limits.pass(64 << 10).await;
                count.fetch_add(bytes as u64, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn transfers_share_a_bucket_evenly() {
        let rate = 1 << 20;
        let limiter = Limiter::new(Some(rate));
        let loads: Vec<_> = (0..5).map(|_| load([&limiter])).collect();
        // The first burst goes to who comes first.
        tokio::time::sleep(Duration::from_secs(1)).await;
        loads.iter().for_each(|load| load.store(0, Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let passed: Vec<_> = loads.iter().map(|load| load.load(Ordering::Relaxed)).collect();
        let total: u64 = passed.iter().sum();
        assert!(total.abs_diff(10 * rate) <= rate / 5, "{total}");
        let (least, most) = (passed.iter().min().unwrap(), passed.iter().max().unwrap());
        assert!(most - least <= 2 * PIECE as u64, "{passed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_by_a_limit_of_its_own_takes_nothing_from_others() {
        let (shared, own) = (Limiter::new(Some(1 << 20)), Limiter::new(Some(64 << 10)));
        let any = Limiter::new(None);
        let (slow, fast) = (load([&own, &shared]), load([&any, &shared]));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (slow, fast) = (slow.load(Ordering::Relaxed), fast.load(Ordering::Relaxed));
        assert!(slow.abs_diff(640 << 10) <= 64 << 10, "{slow}");
        assert!((slow + fast).abs_diff(10 << 20) <= 256 << 10, "{fast}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_limit_of_a_chain_holds() {
        const SLOW: u64 = 64 << 10;
        for slow in 0..3 {
            let rate = |at| Some(if at == slow { SLOW } else { 8 << 20 });
            let [a, b, c] = [0, 1, 2].map(|at| Limiter::new(rate(at)));
            let passed = load([&a, &b, &c]);
            tokio::time::sleep(Duration::from_secs(10)).await;
            let passed = passed.load(Ordering::Relaxed);
            assert!(passed.abs_diff(10 * SLOW) <= SLOW, "{slow}: {passed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_holds_at_once() {
        let limiter = Limiter::new(Some(RATE_MIN));
        let passed = load([&limiter]);
        let moved = async |time_ms| {
            let before = passed.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(time_ms)).await;
            passed.load(Ordering::Relaxed) - before
        };
        assert!(moved(1000).await <= BURST_MIN + PIECE as u64);
        // The waiter sleeps for two seconds by the old rate.
        limiter.set(Some(10 << 20));
        assert!(moved(500).await >= 4 << 20);
        limiter.set(Some(RATE_MIN));
        assert!(moved(1000).await <= BURST_MIN + PIECE as u64);
        limiter.set(None);
        limiter.pass(usize::MAX).await;
        assert_eq!(limiter.rate(), None);
        limiter.set(Some(0));
        assert_eq!(limiter.rate(), Some(RATE_MIN));
    }
}
