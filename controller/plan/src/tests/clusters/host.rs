//! One node of the model: an agent's durable books, its lease, and a postgres whose log is a list of
//! numbers. Every step is small, so that histories may interleave them.

use lockstep_model::cluster::report::{Released, StandbyRow, Stream, SyncState, Trouble};
use lockstep_model::cluster::wal::Fork;
use lockstep_model::cluster::{
    ClusterPlace, CrashPlan, Goal, Lineage, Lsn, MemberReport, MemberState, Origin, Quorum,
    SystemId, Term,
};
use lockstep_model::{Millis, NodeName};

pub const SYSTEM: SystemId = SystemId(4711);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    Down,
    Standby,
    Primary,
}

/// A promise to a primary that it may go on.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub term: Term,
    pub until: u64,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub power: bool,
    pub connected: bool,
    // Durable.
    pub place: Option<ClusterPlace>,
    pub term: Term,
    /// The newest term whose lease it had.
    pub held: Option<Term>,
    pub released: Option<Released>,
    pub copy: u64,
    pub promise: Option<Promise>,
    pub log: Option<Vec<u64>>,
    pub lineage: Vec<Fork>,
    /// Its data was a primary's last, and not a standby's.
    pub was_primary: bool,
    // Lost with the power.
    pub lease: Option<(Term, u64)>,
    pub run: Run,
    pub sealed: bool,
    pub clean: bool,
    pub in_force: Quorum,
    /// What was written before the newest quorum was in force.
    pub forced_at: usize,
    pub quorum_said: Option<Quorum>,
    pub prepared: bool,
    pub heard_upstream: Option<(NodeName, u64)>,
    pub hung: bool,
}

impl Host {
    pub fn new() -> Self {
        Self {
            power: true,
            connected: true,
            place: None,
            term: Term(0),
            held: None,
            released: None,
            copy: 0,
            promise: None,
            log: None,
            lineage: Vec::new(),
            was_primary: false,
            lease: None,
            run: Run::Down,
            sealed: false,
            clean: false,
            in_force: Quorum::OFF,
            forced_at: 0,
            quorum_said: None,
            prepared: false,
            heard_upstream: None,
            hung: false,
        }
    }

    pub fn len(&self) -> usize {
        self.log.as_ref().map_or(0, Vec::len)
    }

    pub fn end(&self) -> Lsn {
        Lsn(self.len() as u64)
    }

    pub fn has_lease(&self, now: u64) -> bool {
        self.lease.is_some_and(|(term, until)| now < until && Some(term) == self.wants_lease())
    }

    /// The term that it is to be primary of.
    pub fn wants_lease(&self) -> Option<Term> {
        let place = self.place.as_ref()?;
        // What was given up is never asked for again.
        let gave_up = self.released.as_ref().is_some_and(|released| released.term >= place.term);
        let wants = matches!(place.goal, Goal::Primary(_) | Goal::HandOver) && !gave_up;
        wants.then_some(place.term)
    }

    /// No process is left, and the term is given up.
    pub fn kill(&mut self, clean: bool) {
        self.run = Run::Down;
        self.clean = clean;
        self.sealed = false;
        self.hung = false;
        self.lease = None;
        self.quorum_said = None;
        if let Some(term) = self.held.take() {
            self.released = Some(Released { term, end: Some(self.end()), clean });
        }
    }

    /// What it was told to do when postgres dies.
    pub fn plan(&self) -> CrashPlan {
        match self.place.as_ref().map(|place| &place.goal) {
            Some(Goal::Primary(primary)) => primary.crash,
            _ => CrashPlan::Restart,
        }
    }

    /// postgres dies; the agent does what it was told for that.
    pub fn crash(&mut self) {
        if self.run == Run::Down {
            return;
        }
        if self.run == Run::Primary && self.plan() == CrashPlan::Release {
            return self.kill(false);
        }
        (self.run, self.clean, self.hung) = (Run::Down, false, false);
        self.quorum_said = None;
    }

    pub fn power_off(&mut self) {
        self.power = false;
        self.connected = false;
        (self.run, self.clean, self.hung) = (Run::Down, false, false);
        (self.lease, self.sealed, self.quorum_said) = (None, false, None);
        (self.prepared, self.heard_upstream) = (false, None);
    }

    /// Whether a place may be taken up now; None: later.
    pub fn accept(&mut self, place: &ClusterPlace, now: u64) -> Option<bool> {
        if place.term < self.term {
            return Some(false);
        }
        let promised = self.promise.is_some_and(|p| p.term < place.term && now < p.until);
        if promised && matches!(place.goal, Goal::Sealed { .. } | Goal::Primary(_)) {
            return None;
        }
        self.term = place.term;
        let prepares = |place: &ClusterPlace| matches!(&place.goal, Goal::Primary(p) if p.prepare);
        if !prepares(place) {
            self.prepared = false;
        }
        // Having the old term's lease is not having the new one's.
        if self.lease.is_some_and(|(term, _)| term < place.term) && self.run != Run::Primary {
            self.lease = None;
        }
        self.place = Some(place.clone());
        Some(true)
    }

    /// One step towards the goal that needs nobody else.
    pub fn act(&mut self, now: u64, next: u64) {
        let Some(place) = self.place.clone() else { return };
        match &place.goal {
            Goal::Primary(primary) => {
                if !self.has_lease(now) {
                    return;
                }
                match self.run {
                    Run::Primary => {
                        self.held = Some(place.term);
                        if self.in_force != primary.quorum {
                            self.in_force = primary.quorum.clone();
                            self.forced_at = self.len();
                            self.quorum_said = None;
                        }
                        self.prepared = primary.prepare;
                    }
                    Run::Standby if self.end() >= primary.at_least => {
                        self.lineage.push(Fork {
                            timeline: place
                                .lineage
                                .timeline()
                                .max(self.lineage.last().map_or(0, |f| f.timeline))
                                .max(primary.timeline - 1)
                                + 1,
                            begins: self.end(),
                        });
                        self.open(&primary.quorum, place.term, Some(next));
                    }
                    Run::Down if self.log.is_some() && !self.was_primary => {
                        self.run = Run::Standby;
                    }
                    Run::Down if self.log.is_some() => self.open(&primary.quorum, place.term, None),
                    Run::Down if primary.origin == Origin::Initdb => {
                        self.log = Some(vec![next]);
                        self.lineage = vec![Fork { timeline: 1, begins: Lsn(0) }];
                        self.copy = place.copy;
                        self.open(&primary.quorum, place.term, None);
                    }
                    _ => {}
                }
            }
            Goal::Standby { .. } | Goal::Sealed { .. } => {
                let seal = matches!(place.goal, Goal::Sealed { .. });
                if self.run == Run::Primary || self.held.is_some() {
                    return self.kill(false);
                }
                // What went another way is not read, and is replaced.
                if self.is_diverged() {
                    self.run = Run::Down;
                }
                if self.log.is_some() && !self.is_diverged() {
                    (self.run, self.sealed, self.was_primary) = (Run::Standby, seal, false);
                }
                if seal {
                    self.heard_upstream = None;
                }
            }
            Goal::Fenced => self.kill(false),
            Goal::Stopped => self.kill(true),
            Goal::HandOver | Goal::Maintenance => {}
        }
    }

    fn open(&mut self, quorum: &Quorum, term: Term, mark: Option<u64>) {
        (self.run, self.sealed, self.clean) = (Run::Primary, false, false);
        self.was_primary = true;
        self.in_force = quorum.clone();
        self.quorum_said = None;
        (self.held, self.released, self.heard_upstream) = (Some(term), None, None);
        if let (Some(log), Some(mark)) = (&mut self.log, mark) {
            log.push(mark);
        }
        self.forced_at = self.len();
    }

    pub fn is_diverged(&self) -> bool {
        let Some(place) = &self.place else { return false };
        let mine = Lineage(self.lineage.clone());
        !mine.is_part_of(self.end(), &place.lineage) && !self.lineage.starts_with(&place.lineage.0)
    }

    /// Takes what `from` has, whatever was here before.
    pub fn copy_from(&mut self, from: &Self) {
        self.log.clone_from(&from.log);
        self.lineage.clone_from(&from.lineage);
        self.was_primary = false;
        if let Some(place) = &self.place {
            self.copy = place.copy;
        }
    }

    /// Takes up to `most` further entries; false: it went another way.
    pub fn append_from(&mut self, from: &Self, most: usize) -> bool {
        let (Some(mine), Some(theirs)) = (&mut self.log, &from.log) else { return false };
        if !theirs.starts_with(mine) {
            return false;
        }
        let upto = theirs.len().min(mine.len() + most);
        mine.extend_from_slice(&theirs[mine.len()..upto]);
        let end = Lsn(upto as u64);
        self.lineage =
            from.lineage.iter().copied().filter(|f| f.begins.0 == 0 || f.begins < end).collect();
        true
    }

    pub fn report(&self, now: u64) -> MemberReport {
        let state = match self.run {
            Run::Primary => MemberState::Primary,
            Run::Standby if self.sealed => MemberState::Sealed,
            Run::Standby => MemberState::Standby,
            Run::Down if self.log.is_none() => MemberState::Missing,
            Run::Down if self.is_diverged() => MemberState::Diverged,
            Run::Down if matches!(self.place.as_ref().map(|p| &p.goal), Some(Goal::Fenced)) => {
                MemberState::Fenced
            }
            Run::Down if self.clean => MemberState::Stopped,
            Run::Down => MemberState::Crashed,
        };
        let upstream = self.heard_upstream.clone().filter(|_| state == MemberState::Standby);
        MemberReport {
            state,
            term: self.term,
            holds: self.lease.filter(|(_, until)| now < *until).map(|(term, _)| term),
            released: self.released.clone(),
            system_id: self.log.as_ref().map(|_| SYSTEM),
            version: "15.18".to_owned(),
            lineage: Lineage(self.lineage.clone()),
            lsn: self.log.as_ref().map(|_| self.end()),
            replayed: self.log.as_ref().map(|_| self.end()),
            upstream: upstream.map(|(from, at)| Stream {
                from,
                age: Millis(now - at),
                end: self.end(),
            }),
            quorum: self.quorum_said.clone(),
            promotable: self.place.as_ref().map_or(Vec::new(), |place| place.promotable.clone()),
            standbys: Vec::new(),
            rewindable: self.run == Run::Primary,
            prepared: self.prepared,
            copy: self.copy,
            progress: None,
            salvaged_bytes: 0,
            certificate: "cert".to_owned(),
            pending_restart: Vec::new(),
            trouble: if self.hung { Trouble::Hung } else { Trouble::None },
            problem: String::new(),
            warnings: Vec::new(),
            findings: Vec::new(),
        }
    }
}

/// Of a primary's report: it sends to this node.
pub fn row(node: &NodeName) -> StandbyRow {
    let lsn = Lsn(0);
    StandbyRow {
        node: node.clone(),
        streaming: true,
        sync_state: SyncState::Async,
        sent: lsn,
        flushed: lsn,
        replayed: lsn,
        replay_lag: None,
        reply_age: Millis(0),
    }
}
