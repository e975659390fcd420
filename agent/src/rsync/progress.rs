//! How far a complete pass is and how long it will take, from rsync's own lines of progress. Pure:
//! what is not known is not guessed, and time comes in as what has passed since the run began.

use std::time::Duration;

use lockstep_model::Millis;

/// The rate of the moment is that of the last one to two of these.
const WINDOW: Duration = Duration::from_secs(10);
/// A rate over less time says nothing.
const RATE_MIN: Duration = Duration::from_secs(2);

/// What a run will bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Volume {
    /// So many bytes, as a dry run counted.
    Counted(u64),
    /// All that the source has; what is there already makes it less.
    Everything,
}

/// What a run has brought so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    volume: Volume,
    bytes: u64,
    /// Bytes of the source, if somebody counted them.
    source_bytes: Option<u64>,
    /// rsync knows all names, and so do its percentages.
    listed: bool,
    /// Between which all bytes of the source are, as the percentages tell.
    bounds: (u64, u64),
    /// When how many bytes had been brought: some time ago, and later.
    marks: [(Duration, u64); 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Estimate {
    pub percent: u8,
    /// None while nothing moves.
    pub left: Option<Millis>,
}

impl Progress {
    pub fn new(volume: Volume) -> Self {
        Self {
            volume,
            bytes: 0,
            source_bytes: None,
            listed: false,
            bounds: (0, u64::MAX),
            marks: [(Duration::ZERO, 0); 2],
        }
    }

    /// A line of progress, as [`super::progress`] gives it.
    pub fn take(&mut self, line: &str, at: Duration, source_bytes: Option<u64>) {
        let mut words = line.split(' ');
        let number = words.next().and_then(|word| word.parse().ok());
        let percent = words.next().and_then(|word| word.strip_suffix('%')?.parse().ok());
        let (Some(bytes), Some(percent)): (Option<u64>, Option<u64>) = (number, percent) else {
            return;
        };
        self.bytes = bytes;
        self.source_bytes = source_bytes.or(self.source_bytes);
        self.listed |= line.contains("to-chk=");
        if self.listed {
            let (low, high) = self.bounds;
            let hundred = bytes.saturating_mul(100);
            let most = hundred.checked_div(percent).unwrap_or(u64::MAX);
            self.bounds = (low.max(hundred / (percent + 1)), high.min(most));
        }
        let [_, later] = self.marks;
        if at.saturating_sub(later.0) >= WINDOW {
            self.marks = [later, (at, bytes)];
        }
    }

    /// None while it is not known how much there is.
    pub fn estimate(&self, at: Duration) -> Option<Estimate> {
        let total = self.total()?.max(self.bytes);
        let percent = self.bytes.saturating_mul(100).checked_div(total)?.min(100) as u8;
        let [(since, before), _] = self.marks;
        let passed = at.saturating_sub(since);
        let moved = self.bytes.saturating_sub(before);
        let left = || {
            let left = u128::from(total - self.bytes) * passed.as_millis();
            left.checked_div(u128::from(moved)).and_then(|ms| u64::try_from(ms).ok())
        };
        let left = if passed >= RATE_MIN { left().map(Millis) } else { None };
        Some(Estimate { percent, left })
    }

    /// Bytes per second of late; 0 while too little time has passed to tell.
    pub fn rate(&self, at: Duration) -> u64 {
        let [(since, before), _] = self.marks;
        let passed = at.saturating_sub(since);
        if passed < RATE_MIN {
            return 0;
        }
        let moved = u128::from(self.bytes.saturating_sub(before));
        let rate = (moved * 1000).checked_div(passed.as_millis()).unwrap_or(0);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn total(&self) -> Option<u64> {
        let (low, high) = self.bounds;
        match self.volume {
            Volume::Counted(bytes) => Some(bytes),
            Volume::Everything if high < u64::MAX && high - low.min(high) <= high / 8 => Some(high),
            Volume::Everything => self.source_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds passed and a line each; what is estimated one second after the last.
    fn estimate(volume: Volume, source: Option<u64>, lines: &[(u64, &str)]) -> String {
        let mut progress = Progress::new(volume);
        for (at, line) in lines {
            progress.take(line, Duration::from_secs(*at), source);
        }
        let at = lines.last().map_or(0, |(at, _)| *at) + 1;
        match progress.estimate(Duration::from_secs(at)) {
            None => "unknown".to_owned(),
            Some(Estimate { percent, left: None }) => format!("{percent}%"),
            Some(Estimate { percent, left: Some(left) }) => format!("{percent}% {left}"),
        }
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        use Volume::{Counted, Everything};
        for (volume, source, lines, expected) in [
            (Counted(1000), None, &[][..], "0%"),
            (Counted(0), None, &[], "unknown"),
            // Its own percentage is of all that the source has.
            (Counted(1000), None, &[(4, "500 3% 100kB/s 0:00:09")], "50% 5s"),
            (Counted(1000), None, &[(4, "2000 3% 100kB/s 0:00:09")], "100% 0ms"),
            // rsync still reads the source: there may be any number of bytes more.
            (Everything, None, &[(4, "500 50% 1kB/s 0:00:09 (xfr#1, ir-chk=9/20)")], "unknown"),
            (
                Everything,
                Some(2000),
                &[(4, "500 50% 1kB/s 0:00:09 (xfr#1, ir-chk=9/20)")],
                "25% 15s",
            ),
            (Everything, Some(1), &[(4, "500 50% 1kB/s 0:00:09 (xfr#1, to-chk=9/20)")], "50% 5s"),
            // A rough percentage of little.
            (Everything, None, &[(4, "500 1% 1kB/s 0:00:09 (xfr#1, to-chk=9/20)")], "unknown"),
            (Everything, None, &[(0, "500 50% 1kB/s 0:00:00 (xfr#1, to-chk=9/20)")], "50%"),
            (Everything, None, &[(4, "0 0% 1kB/s 0:00:09 (xfr#1, to-chk=9/20)")], "unknown"),
            (Counted(9), None, &[(4, "nonsense"), (5, ""), (6, "9")], "0%"),
        ] {
            assert_eq!(estimate(volume, source, lines), expected, "{volume:?} {lines:?}");
        }
    }

    #[test]
    fn the_rate_is_that_of_the_moment() {
        let slower = [(1, "1000 1% x"), (10, "10000 1% x"), (20, "10100 1% x"), (30, "10200 1% x")];
        assert_eq!(estimate(Volume::Counted(11_200), None, &slower), "91% 1m50s");
        let stalls = [(10, "5000 1% x"), (20, "5000 1% x"), (30, "5000 1% x"), (40, "5000 1% x")];
        assert_eq!(estimate(Volume::Counted(10_000), None, &stalls), "50%");
    }
}
