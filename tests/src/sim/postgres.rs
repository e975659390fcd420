//! A model of one PostgreSQL: a log whose entries are numbers, timelines, walsenders whose rows outlive
//! their standbys, commits that wait. It follows what PostgreSQL does, never what anybody wants.

use std::collections::BTreeMap;

use lockstep_model::cluster::wal::Fork;
use lockstep_model::cluster::{Lineage, Lsn, Quorum};

use super::queue::At;

/// A data directory. A position is the number of entries before it.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub log: Vec<u64>,
    /// What a loss of power leaves.
    pub flushed: usize,
    pub lineage: Vec<Fork>,
    /// Its last stop was clean.
    pub clean: bool,
    /// As its control file says it: no promotion came to its end since.
    pub in_recovery: bool,
}

impl Data {
    pub fn end(&self) -> Lsn {
        Lsn(self.log.len() as u64)
    }

    pub fn lineage(&self) -> Lineage {
        Lineage(self.lineage.clone())
    }

    pub fn append(&mut self, entry: u64) -> usize {
        self.log.push(entry);
        self.log.len()
    }

    /// Whether a primary with this data would send to a standby with `other`: by numbers of
    /// timelines and positions alone, as PostgreSQL does.
    pub fn serves(&self, other: &Self) -> bool {
        let Some(last) = other.lineage.last() else { return false };
        let at = self.lineage.iter().position(|fork| fork.timeline == last.timeline);
        let ends = at.map(|at| self.lineage.get(at + 1).map_or(self.end(), |next| next.begins));
        ends.is_some_and(|ends| other.end() <= ends)
    }

    /// A new timeline from here on, of this number where no earlier one is higher.
    pub fn fork(&mut self, number: u32) -> u32 {
        let next = self.lineage.last().map_or(0, |fork| fork.timeline) + 1;
        let timeline = next.max(number);
        self.lineage.push(Fork { timeline, begins: self.end() });
        timeline
    }

    /// The timelines of `of` that data of this length has something of.
    pub fn follow(&mut self, of: &[Fork]) {
        let end = self.end();
        self.lineage = of.iter().copied().filter(|f| f.begins.0 == 0 || f.begins < end).collect();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    Down,
    /// Replays its own log first.
    Starting {
        writable: bool,
    },
    Recovery,
    Primary,
    Stopping,
}

/// A walreceiver's connection.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub from: usize,
    pub number: u64,
    pub heard: At,
    pub end: Lsn,
}

/// A walsender, and its row.
#[derive(Clone, Debug)]
pub struct Sender {
    pub number: u64,
    pub sent: usize,
    pub flushed: usize,
    /// When the standby answered last.
    pub heard: At,
}

/// A backend that waits for standbys.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub entry: u64,
    pub end: usize,
}

#[derive(Clone, Debug)]
pub struct Postgres {
    pub run: Run,
    /// Which start of the postmaster this is.
    pub generation: u64,
    /// Whom primary_conninfo names.
    pub upstream: Option<usize>,
    /// synchronous_standby_names.
    pub quorum: Quorum,
    pub receiver: Option<Receiver>,
    pub senders: BTreeMap<usize, Sender>,
    pub waiting: Vec<Waiting>,
    /// Answers nothing and writes nothing, since then.
    pub hung: Option<At>,
    /// Was told to leave recovery.
    pub promoting: bool,
    /// The numbers before this are taken.
    pub timeline: u32,
    /// A checkpoint of the newest timeline is through.
    pub checkpointed: bool,
    pub dying: bool,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            run: Run::Down,
            generation: 0,
            upstream: None,
            quorum: Quorum::OFF,
            receiver: None,
            senders: BTreeMap::new(),
            waiting: Vec::new(),
            hung: None,
            promoting: false,
            timeline: 0,
            checkpointed: false,
            dying: false,
        }
    }
}

/// wal_sender_timeout and wal_receiver_timeout.
pub const TIMEOUT_MS: u64 = 3000;

impl Postgres {
    pub fn is_up(&self) -> bool {
        self.run != Run::Down
    }

    pub fn writes(&self) -> bool {
        self.run == Run::Primary && self.hung.is_none()
    }

    /// No process is left.
    pub fn end(&mut self) {
        let generation = self.generation;
        *self = Self { generation, ..Self::default() };
    }

    /// Those whose wait is over by what is in force now.
    pub fn release(&mut self, names: &BTreeMap<usize, lockstep_model::NodeName>) -> Vec<Waiting> {
        let (k, of) = (self.quorum.k as usize, &self.quorum.of);
        let mut ends: Vec<usize> = self
            .senders
            .iter()
            .filter(|(node, _)| names.get(node).is_some_and(|name| of.contains(name)))
            .map(|(_, sender)| sender.flushed)
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let upto = match k {
            0 => usize::MAX,
            k => ends.get(k - 1).copied().unwrap_or(0),
        };
        let (done, wait) = self.waiting.drain(..).partition(|waiting| waiting.end <= upto);
        self.waiting = wait;
        done
    }
}
