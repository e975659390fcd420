//! What a bench found, as a table for people and as JSON, so that figures of different days can be
//! compared. It measures nothing.

use std::fmt;
use std::fs;

use serde::Serialize;

#[derive(Serialize)]
pub struct Figures {
    machine: String,
    figures: Vec<Figure>,
}

/// One number, and the measurements that it stands for.
#[derive(Clone, Serialize, Debug)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// Another program that does the same, measured in the same run.
    peer: Option<&'static str>,
    peer_value: Option<f64>,
    /// Of the value to the peer's.
    ratio: Option<f64>,
    /// At most this.
    goal: Option<f64>,
    goal_met: Option<bool>,
    n: usize,
    min: f64,
    max: f64,
}

impl Figures {
    pub fn new() -> Self {
        Self { machine: machine(), figures: Vec::new() }
    }

    /// Also tells it at once, on standard error.
    pub fn add(&mut self, figure: Figure) {
        eprintln!("{figure}");
        self.figures.push(figure);
    }
}

impl Figure {
    /// The median.
    pub fn p50(name: impl Into<String>, unit: &'static str, values: &[f64]) -> Self {
        Self::new(name.into(), unit, values, percentile(values, 50))
    }

    pub fn p95(name: impl Into<String>, unit: &'static str, values: &[f64]) -> Self {
        Self::new(name.into(), unit, values, percentile(values, 95))
    }

    pub fn p99(name: impl Into<String>, unit: &'static str, values: &[f64]) -> Self {
        Self::new(name.into(), unit, values, percentile(values, 99))
    }

    pub fn mean(name: impl Into<String>, unit: &'static str, values: &[f64]) -> Self {
        Self::new(name.into(), unit, values, values.iter().sum::<f64>() / values.len() as f64)
    }

    fn new(name: String, unit: &'static str, values: &[f64], value: f64) -> Self {
        Self {
            name,
            value,
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            goal: None,
            goal_met: None,
            n: values.len(),
            min: percentile(values, 0),
            max: percentile(values, 100),
        }
    }

    /// The value should be at most this.
    pub fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), goal_met: Some(self.value <= goal), ..self }
    }

    /// The same figure of another program.
    pub fn beside(self, peer: &'static str, of_peer: &Self) -> Self {
        let ratio = (of_peer.value != 0.0).then(|| self.value / of_peer.value);
        Self { peer: Some(peer), peer_value: Some(of_peer.value), ratio, ..self }
    }

    /// The value should be at most so many times the peer's.
    pub fn goal_of_peer(self, ratio: f64) -> Self {
        match self.peer_value {
            Some(peer) => self.goal(peer * ratio),
            None => self,
        }
    }

    pub fn value(&self) -> f64 {
        self.value
    }
}

/// The value that so many percent of the others do not exceed; not a number without values.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last * percent).div_ceil(100)).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let (name, value, min, max, n) = ("figure", "value", "min", "max", "n");
        writeln!(f, "{name:<64} {value:>9} {:<4} {min:>9} {max:>9} {n:>6}", "unit")?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, unit, n, min, max, .. } = self;
        write!(f, "{name:<64} {value:>9.2} {unit:<4} {min:>9.2} {max:>9.2} {n:>6}")?;
        if let (Some(peer), Some(value), Some(ratio)) = (self.peer, self.peer_value, self.ratio) {
            write!(f, "  {ratio:.2} x {peer} ({value:.2})")?;
        }
        if let (Some(goal), Some(met)) = (self.goal, self.goal_met) {
            write!(f, "  goal {goal:.2}: {}", if met { "met" } else { "MISSED" })?;
        }
        Ok(())
    }
}

/// `2 x Some CPU, Linux 6.8.0`
pub fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let mut models = cpuinfo.lines().filter_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} x {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        for (percent, expected) in [(0, 1.0), (50, 51.0), (99, 100.0), (100, 101.0)] {
            assert_eq!(percentile(&values, percent), expected, "{percent}");
        }
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn json_has_every_field_and_null_where_there_is_no_peer() -> serde_json::Result<()> {
        let alone = Figure::p50("a", "ms", &[1.0, 2.0, 3.0]).goal(1.5);
        let peer = Figure::p50("b", "ms", &[4.0]);
        let figures =
            Figures { machine: "m".into(), figures: vec![alone.clone(), alone.beside("b", &peer)] };
        let json = serde_json::to_value(&figures)?;
        let expected = serde_json::json!({"machine": "m", "figures": [
            {"name": "a", "value": 2.0, "unit": "ms", "peer": null, "peer_value": null,
             "ratio": null, "goal": 1.5, "goal_met": false, "n": 3, "min": 1.0, "max": 3.0},
            {"name": "a", "value": 2.0, "unit": "ms", "peer": "b", "peer_value": 4.0,
             "ratio": 0.5, "goal": 1.5, "goal_met": false, "n": 3, "min": 1.0, "max": 3.0},
        ]});
        assert_eq!(json, expected);
        Ok(())
    }
}
