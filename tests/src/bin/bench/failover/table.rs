//! All outcomes as a table for people, Lockstep's beside the best peer's. It measures nothing.

use std::fmt::{self, Display};

use super::results::{EVENTS, MODES, Outcome, PEERS, Peer, Results};

pub struct Table<'a>(pub &'a Results);

/// Median, least, most and how many; in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
    n: usize,
}

impl Spread {
    /// None of nothing. An even number's median is between its middle two.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied();
        let n = values.len();
        let median = (at(n.checked_sub(1)? / 2)? + at(n / 2)?) / 2.0;
        Some(Self { median, min: at(0)?, max: at(n - 1)?, n })
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, min, max, n } = self;
        f.pad(&format!("{median:.2} ({min:.2}-{max:.2}, {n})"))
    }
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Seconds: median (least-most, runs). outage: the longest time without an acknowledged row, one connection\n\
             straight to each node; writer: the same by a connection string of all nodes, each tried in turn for at\n\
             most a second; took: until the node streamed again, or else all was well; local: the cut-off primary's\n\
             last acknowledgement to a program beside it; lost beside: rows acknowledged to that program.\n"
        )?;
        writeln!(
            f,
            "{:<10} {:<5} {:<16} {:<22} {:<22} {:<22} {:<20} {:>12} {:>11} {:<11} of the best peer",
            "event",
            "mode",
            "system",
            "outage",
            "writer",
            "took",
            "local",
            "lost of rows",
            "lost beside",
            "two writers",
        )?;
        for event in EVENTS {
            for mode in MODES {
                for peer in PEERS {
                    let all: Vec<&Outcome> = self.0.of(peer, mode, event).collect();
                    if !all.is_empty() {
                        let ratio = self.ratio(&all, peer);
                        write_line(f, &all, &ratio)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Table<'_> {
    /// Lockstep's figure in parts of the best peer's, with what the spreads allow.
    fn ratio(&self, all: &[&Outcome], peer: Peer) -> String {
        let Some(first) = all.first().filter(|_| peer == Peer::Lockstep) else {
            return String::new();
        };
        let figure = |peer| {
            let all = self.0.of(peer, first.mode, first.event);
            Spread::of(all.filter_map(Outcome::figure_s))
        };
        let peers = PEERS.into_iter().filter(|peer| *peer != Peer::Lockstep);
        let found = peers.filter_map(|peer| Some((peer, figure(peer)?)));
        let best = found.min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        let (Some(own), Some((peer, best))) = (figure(Peer::Lockstep), best) else {
            return String::new();
        };
        format!(
            "{:.2} ({:.2}-{:.2}) x {}",
            own.median / best.median,
            own.min / best.max,
            own.max / best.min,
            peer.name()
        )
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, all: &[&Outcome], ratio: &str) -> fmt::Result {
    let Some(first) = all.first() else { return Ok(()) };
    let spread = |value: fn(&Outcome) -> Option<f64>| {
        let spread = Spread::of(all.iter().filter_map(|outcome| value(outcome)));
        spread.map_or("-".to_owned(), |spread| spread.to_string())
    };
    let sum = |value: fn(&Outcome) -> usize| all.iter().map(|o| value(o)).sum::<usize>();
    let lost = format!("{}/{}", sum(|o| o.lost), sum(|o| o.acknowledged));
    let overlaps = all.iter().filter(|outcome| outcome.overlap_s > 0.0);
    let two = match overlaps.map(|outcome| outcome.overlap_s).max_by(f64::total_cmp) {
        Some(longest) => format!("YES {longest:.2}"),
        None => "no".to_owned(),
    };
    writeln!(
        f,
        "{:<10} {:<5} {:<16} {:<22} {:<22} {:<22} {:<20} {lost:>12} {:>11} {two:<11} {ratio}",
        first.event.name(),
        first.mode.name(),
        first.peer.name(),
        spread(|o| o.outage_s),
        spread(|o| o.writer_outage_s),
        spread(|o| o.took_s),
        spread(|o| o.last_local_s),
        sum(|o| o.lost_local),
    )?;
    let troubles = all.iter().filter(|outcome| !outcome.trouble.is_empty());
    for outcome in troubles {
        writeln!(f, "{:16} ! {}", "", outcome.trouble)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::results::{Event, Mode};
    use super::*;

    fn results(figures: &[(Peer, f64)]) -> anyhow::Result<Results> {
        let mut results = Results::open(None)?;
        for (peer, outage_s) in figures {
            let mut outcome = Outcome::new(*peer, Mode::Sync, Event::Crash);
            outcome.outage_s = Some(*outage_s);
            results.add(outcome)?;
        }
        Ok(results)
    }

    #[test]
    fn medians_are_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!(spread, Some(Spread { median: 2.5, min: 1.0, max: 4.0, n: 4 }));
        assert_eq!(Spread::of([7.0].into_iter()).map(|s| s.median), Some(7.0));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn lockstep_is_held_against_the_best_peer() -> anyhow::Result<()> {
        let all = [
            (Peer::Lockstep, 0.2),
            (Peer::Lockstep, 0.4),
            (Peer::Lockstep, 0.3),
            (Peer::Patroni, 3.0),
            (Peer::Patroni, 2.0),
            (Peer::AutoFailover, 5.0),
        ];
        let text = Table(&results(&all)?).to_string();
        assert!(text.contains("0.12 (0.07-0.20) x patroni"), "{text}");
        assert!(text.contains("0.30 (0.20-0.40, 3)"), "{text}");
        let alone = Table(&results(&all[..3])?).to_string();
        assert!(!alone.contains(" x "), "{alone}");
        Ok(())
    }
}
