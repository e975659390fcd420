//! What there is in the model: three members with their logs, and what the controller recorded.

pub const MEMBERS: usize = 3;
/// The first record of a term's timeline; commits are smaller numbers.
pub const PROMOTED: u8 = 100;

pub type Log = Vec<u8>;

/// Members as bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Set(pub u8);

impl Set {
    pub fn has(self, member: usize) -> bool {
        self.0 & (1 << member) != 0
    }

    pub fn members(self) -> impl Iterator<Item = usize> {
        (0..MEMBERS).filter(move |member| self.has(*member))
    }

    pub fn len(self) -> usize {
        self.members().count()
    }
}

/// Any `k` of these have a commit before its client hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quorum {
    pub k: usize,
    pub of: Set,
}

impl Quorum {
    pub fn seals_needed(self) -> usize {
        self.of.len() + 1 - self.k
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Goal {
    Primary(Quorum),
    Standby(usize),
    Sealed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Run {
    Down,
    Standby,
    Sealed,
    Primary,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    pub run: Run,
    /// The highest term that it promised; `goal` is of it.
    pub promised: u8,
    pub goal: Goal,
    pub holds: Option<u8>,
    /// The newest term that it attests to have given up.
    pub released: u8,
    pub log: Log,
    /// Of a primary: what postgres waits for, since which position, and what elections may count on.
    pub in_force: Quorum,
    pub forced_at: usize,
    pub settled: Option<Quorum>,
}

/// One that may have acknowledged commits before the holder was chosen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Former {
    pub who: usize,
    pub term: u8,
    pub quorums: Vec<Quorum>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub term: u8,
    pub holder: Option<usize>,
    /// Of an election: who held which term.
    pub from: Option<(usize, u8)>,
    pub is_steady: bool,
    /// All that may be in force on the holder, or on the one before, the newest last.
    pub quorums: Vec<Quorum>,
    /// Whose commits count beside the holder's, the oldest first.
    pub formers: Vec<Former>,
    /// The log as it was when the last new primary was seen to write.
    pub recorded: Log,
    pub members: Vec<Member>,
    pub written: u8,
    pub changed: u8,
    pub crashed: u8,
    /// Commits that a client heard of, as bits.
    pub acknowledged: u8,
}

impl World {
    /// Member 0 writes, 1 and 2 follow, and any one of them acknowledges.
    pub fn new() -> Self {
        let quorum = Quorum { k: 1, of: Set(0b110) };
        let log = vec![PROMOTED + 1];
        let member = |i: usize| Member {
            run: if i == 0 { Run::Primary } else { Run::Standby },
            promised: 1,
            goal: if i == 0 { Goal::Primary(quorum) } else { Goal::Standby(0) },
            holds: (i == 0).then_some(1),
            released: 0,
            log: log.clone(),
            in_force: quorum,
            forced_at: 1,
            settled: (i == 0).then_some(quorum),
        };
        Self {
            term: 1,
            holder: Some(0),
            from: None,
            is_steady: true,
            quorums: vec![quorum],
            formers: Vec::new(),
            recorded: log.clone(),
            members: (0..MEMBERS).map(member).collect(),
            written: 0,
            changed: 0,
            crashed: 0,
            acknowledged: 0,
        }
    }

    /// Sealed in this very term.
    pub fn sealed(&self) -> Vec<usize> {
        let is_sealed = |m: &Member| m.run == Run::Sealed && m.promised == self.term;
        (0..MEMBERS).filter(|i| is_sealed(&self.members[*i])).collect()
    }

    /// Among the sealed, those of the newest history that is known.
    pub fn candidates(&self) -> Vec<usize> {
        let sealed = self.sealed();
        let log = |i: usize| &self.members[i].log;
        // What may be on a lost member alone is nothing to go on from.
        let until = self.formers.first().map_or(u8::MAX, |former| PROMOTED + former.term);
        let mut settled = promotions(&self.recorded);
        settled.retain(|timeline| *timeline <= until);
        let grown = |i: &usize| promotions(log(*i)).starts_with(&settled);
        let newest = sealed.iter().copied().filter(grown).max_by_key(|i| position(log(*i)));
        let newest = newest.map_or(&self.recorded, log);
        sealed.into_iter().filter(|i| newest.starts_with(log(*i))).collect()
    }

    pub fn goal(&self, of: usize) -> Goal {
        match (self.holder, self.quorums.last()) {
            (Some(holder), Some(quorum)) if holder == of => Goal::Primary(*quorum),
            (Some(holder), _) => Goal::Standby(holder),
            _ => Goal::Sealed,
        }
    }
}

/// The timelines of a log.
pub fn promotions(log: &Log) -> Vec<u8> {
    log.iter().copied().filter(|entry| *entry >= PROMOTED).collect()
}

pub fn timeline(log: &Log) -> u8 {
    promotions(log).last().copied().unwrap_or_default()
}

pub fn position(log: &Log) -> (u8, usize) {
    (timeline(log), log.len())
}
