//! One machine: its clock, what its disk keeps, and what of it is lost with the power or with the
//! agent. It acts on nothing.

use std::collections::BTreeMap;

use lockstep_agent::pg::books::Books;
use lockstep_agent::pg::boottime::Boottime;
use lockstep_agent::pg::lease::{Held, Tenure};
use lockstep_agent::pg::member::ladder::Step;
use lockstep_agent::pg::member::settlement::Settlement;
use lockstep_model::cluster::{ClusterPlace, Lsn, MemberReport, Quorum, Term};
use lockstep_model::observation::Told;
use lockstep_model::task::Outcome;
use lockstep_model::{NodeName, TaskId};

use super::postgres::{Data, Postgres};
use super::queue::At;

pub struct Host {
    pub name: NodeName,
    pub power: bool,
    /// Counts boots.
    pub boot: u64,
    booted: At,
    /// How its clock runs, in parts of a million beside the true one.
    drift: i64,
    pub disk: Disk,
    pub agent: Option<Agent>,
    /// Which run of the agent is next.
    pub runs: u64,
    /// The agent's process is stopped, and goes on then.
    pub frozen: Option<At>,
    pub guard: Option<Guard>,
    pub postgres: Postgres,
    /// Writable openings so far.
    pub opening: u64,
}

#[derive(Clone, Default)]
pub struct Disk {
    pub books: Books,
    pub place: Option<ClusterPlace>,
    /// The newest place's task, and what became of it.
    pub task: Option<(TaskId, Option<Outcome>)>,
    pub told: Told,
    pub data: Option<Data>,
    /// A rewind was begun.
    pub rewinding: bool,
}

pub struct Guard {
    /// None: nothing is to be ended.
    pub deadline: Option<Boottime>,
}

/// A run of the agent: what it knows beside its disk.
pub struct Agent {
    pub run: u64,
    pub tenure: Tenure,
    pub held: Held,
    /// The place that is being taken up.
    pub waiting: Option<(TaskId, ClusterPlace)>,
    pub wanted: Option<Term>,
    pub session: Option<u64>,
    /// On this session revisions are kept.
    pub keeps_told: bool,
    pub replies: BTreeMap<NodeName, Boottime>,
    pub memory: Memory,
    pub step: Option<UnderWay>,
    pub steps: u64,
    /// Changes of books that are on their way to the disk.
    pub writing: u32,
    pub turns: u64,
    pub rounds: u64,
    pub said: Option<(MemberReport, At)>,
}

#[derive(Clone, Copy)]
pub struct UnderWay {
    pub number: u64,
    pub step: Step,
}

#[derive(Default)]
pub struct Memory {
    pub sealed: Option<Term>,
    pub has_end: bool,
    pub offered: bool,
    pub salvaged: Option<Term>,
    pub settlement: Settlement,
    pub prepared: bool,
    /// What it says that its log ends at, by a mistake.
    pub claim: Option<Lsn>,
    /// For which goal it is configured: whom it follows, or None sealed, or its quorum.
    pub conf: Option<Conf>,
    pub problem: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Conf {
    Follows(Option<NodeName>),
    Sealed,
    Primary(Quorum),
}

impl Host {
    pub fn new(name: NodeName, drift: i64) -> Self {
        Self {
            name,
            power: true,
            boot: 1,
            booted: 0,
            drift,
            disk: Disk::default(),
            agent: None,
            runs: 0,
            frozen: None,
            guard: None,
            postgres: Postgres::default(),
            opening: 0,
        }
    }

    /// Its CLOCK_BOOTTIME.
    pub fn clock(&self, at: At) -> Boottime {
        let true_ms = i128::from(at.saturating_sub(self.booted)) + 60_000;
        let shown = true_ms * i128::from(1_000_000 + self.drift) / 1_000_000;
        Boottime(u64::try_from(shown).unwrap_or(0))
    }

    /// When its clock will have reached `shown`, for certain.
    pub fn when(&self, shown: Boottime, now: At) -> At {
        let left = i128::from(shown.0.saturating_sub(self.clock(now).0));
        let true_ms = left * 1_000_000 / i128::from(1_000_000 + self.drift) + 1;
        now.saturating_add(u64::try_from(true_ms).unwrap_or(0))
    }

    pub fn boot_id(&self) -> String {
        self.boot.to_string()
    }

    /// All that no disk keeps is gone.
    pub fn lose_power(&mut self) {
        self.power = false;
        (self.agent, self.guard, self.frozen) = (None, None, None);
        self.postgres.end();
        if let Some(data) = &mut self.disk.data {
            let flushed = data.flushed;
            data.log.truncate(flushed);
        }
    }

    pub fn boot(&mut self, now: At) {
        (self.power, self.booted) = (true, now);
        self.boot += 1;
    }

    pub fn runs(&self, run: u64) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.run == run)
    }
}
