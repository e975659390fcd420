//! What one event did to one system, a line of JSON each, so that a run can go on later. It measures
//! and compares nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// More lines than anybody makes are no results of ours.
const RESULTS_MAX: usize = 100_000;

/// Systems, in the order in which they take turns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    Lockstep,
    Patroni,
    #[serde(rename = "pg_auto_failover")]
    AutoFailover,
}

/// Whether commits wait for a standby.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Async,
    Sync,
}

/// In the order in which they happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// kill -9 of the primary's postmaster.
    Crash,
    /// The primary goes where somebody wants it.
    Switchover,
    /// A standby's host is off, a synchronous one's if there is any.
    Standby,
    /// A standby is copied anew.
    Reclone,
    /// The primary's host is off.
    Loss,
    /// That host is on again.
    Rejoin,
    /// Nobody hears the primary's host any more.
    Partition,
    /// Controller, etcd or monitor are killed, and start again later.
    Control,
}

pub const PEERS: [Peer; 3] = [Peer::Lockstep, Peer::Patroni, Peer::AutoFailover];
pub const MODES: [Mode; 2] = [Mode::Async, Mode::Sync];
pub const EVENTS: [Event; 8] = [
    Event::Crash,
    Event::Switchover,
    Event::Standby,
    Event::Reclone,
    Event::Loss,
    Event::Rejoin,
    Event::Partition,
    Event::Control,
];

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lockstep => "lockstep",
            Self::Patroni => "patroni",
            Self::AutoFailover => "pg_auto_failover",
        }
    }
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Sync => "sync",
        }
    }
}

impl Event {
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Switchover => "switchover",
            Self::Standby => "standby",
            Self::Reclone => "reclone",
            Self::Loss => "loss",
            Self::Rejoin => "rejoin",
            Self::Partition => "partition",
            Self::Control => "control",
        }
    }
}

/// Times are in seconds.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Outcome {
    pub peer: Peer,
    pub mode: Mode,
    pub event: Event,
    /// The longest time without an acknowledged row, by connections straight to each node.
    pub outage_s: Option<f64>,
    /// The same for a program with a connection string of all nodes.
    pub writer_outage_s: Option<f64>,
    /// Until the node in question streamed again, or else until all was well.
    pub took_s: Option<f64>,
    /// From the cut to the last row that a cut-off primary acknowledged to a program beside it.
    pub last_local_s: Option<f64>,
    /// Rows acknowledged to clients elsewhere, and how many of them are not there afterwards.
    pub acknowledged: usize,
    pub lost: usize,
    /// Lost rows that were acknowledged to a program beside the cut-off primary.
    pub lost_local: usize,
    /// How long two nodes acknowledged rows at the same time.
    pub overlap_s: f64,
    /// What would have needed a person; empty when all went by itself.
    pub trouble: String,
    /// Of the machine, over a minute.
    pub load: f64,
}

impl Outcome {
    pub fn new(peer: Peer, mode: Mode, event: Event) -> Self {
        Self {
            peer,
            mode,
            event,
            outage_s: None,
            writer_outage_s: None,
            took_s: None,
            last_local_s: None,
            acknowledged: 0,
            lost: 0,
            lost_local: 0,
            overlap_s: 0.0,
            trouble: String::new(),
            load: load(),
        }
    }

    /// What counts of this event: how long it took to come back, else the outage.
    pub fn figure_s(&self) -> Option<f64> {
        match self.event {
            Event::Rejoin | Event::Reclone => self.took_s,
            _ => self.outage_s,
        }
    }
}

/// All outcomes so far, in a file too if there is one.
pub struct Results {
    file: Option<PathBuf>,
    pub outcomes: Vec<Outcome>,
}

impl Results {
    /// With what the file has already.
    pub fn open(file: Option<PathBuf>) -> Result<Self> {
        let outcomes = match &file {
            Some(file) if file.exists() => read(file)?,
            _ => Vec::new(),
        };
        Ok(Self { file, outcomes })
    }

    /// Written at once: a run may be ended at any time.
    pub fn add(&mut self, outcome: Outcome) -> Result<()> {
        let line = serde_json::to_string(&outcome)?;
        eprintln!("{line}");
        if let Some(file) = &self.file {
            let mut open = File::options().append(true).create(true).open(file);
            let open = open.as_mut().map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
            writeln!(open, "{line}")?;
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    pub fn count(&self, peer: Peer, mode: Mode, event: Event) -> usize {
        self.of(peer, mode, event).count()
    }

    pub fn of(&self, peer: Peer, mode: Mode, event: Event) -> impl Iterator<Item = &Outcome> {
        let same = move |o: &&Outcome| o.peer == peer && o.mode == mode && o.event == event;
        self.outcomes.iter().filter(same)
    }
}

fn read(file: &Path) -> Result<Vec<Outcome>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let lines = text.lines().take(RESULTS_MAX).enumerate();
    let outcome = |(at, line)| {
        serde_json::from_str(line).with_context(|| {
            format!("{}, line {}: no result of this bench", file.display(), at + 1)
        })
    };
    lines.map(outcome).collect()
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}
