//! What a bench found, as a table for people and as JSON, so that figures of different days can be
//! compared.

use std::fmt;
use std::fs;

use serde::Serialize;

#[derive(Serialize)]
pub struct Figures {
    machine: String,
    figures: Vec<Figure>,
}

#[derive(Serialize, Clone, Debug)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// Another program that does the same, measured in the same run.
    peer: Option<String>,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    /// At most this.
    goal: Option<f64>,
    goal_met: Option<bool>,
    /// Of so many measurements; least and greatest of them.
    n: usize,
    min: f64,
    max: f64,
}

impl Figures {
    pub fn new() -> Self {
        Self { machine: machine(), figures: Vec::new() }
    }

    /// One value, measured once.
    pub fn once(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        goal: Option<f64>,
        value: f64,
    ) {
        self.percentile(name, unit, goal, 50, vec![value]);
    }

    /// The given percentile of some measurements; there is at least one.
    pub fn percentile(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        goal: Option<f64>,
        percent: usize,
        mut values: Vec<f64>,
    ) {
        values.sort_by(f64::total_cmp);
        let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
        let value = values.get(at).copied().unwrap_or(f64::NAN);
        let figure = Figure {
            name: name.into(),
            value,
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            goal,
            goal_met: goal.map(|goal| value <= goal),
            n: values.len(),
            min: values.first().copied().unwrap_or(f64::NAN),
            max: values.last().copied().unwrap_or(f64::NAN),
        };
        eprintln!("{}", row(&figure));
        self.figures.push(figure);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{}", row(figure)))
    }
}

fn row(figure: &Figure) -> String {
    let Figure { name, value, unit, goal, goal_met, n, min, max, .. } = figure;
    let spread = if *n > 1 { format!("{min:.2} to {max:.2}, n={n}") } else { String::new() };
    let goal = match (goal, goal_met) {
        (Some(goal), Some(true)) => format!("goal {goal}: met"),
        (Some(goal), _) => format!("goal {goal}: MISSED"),
        _ => String::new(),
    };
    let line = format!("{name:<52} {value:>9.2} {unit:<4} {spread:<32} {goal}");
    line.trim_end().to_owned()
}

/// `2 x Some CPU, Linux 6.8.0`
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let models = || cpuinfo.lines().filter_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let model = models().next().map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} x {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
