//! Where a cluster is: what the controller decided, recorded before any node hears of it.

use std::collections::{BTreeMap, BTreeSet};

use super::quorum::Quorum;
use super::wal::{Lineage, Lsn, SystemId, Term};
use crate::id::{ClusterName, Incarnation, NodeName};
use crate::time::{Millis, Timestamp};
use crate::words::words;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterState {
    pub cluster: ClusterName,
    /// None until a primary told it.
    pub system_id: Option<SystemId>,
    /// PostgreSQL's major version; None until a primary told it.
    pub major: Option<u32>,
    /// The newest that was given out or is being given out.
    pub term: Term,
    /// Who may be primary in `term`; None while it is being chosen.
    pub holder: Option<NodeName>,
    pub stage: Stage,
    /// Who acknowledges commits of the holder, or while electing of the one before: every set that may be
    /// in force, the newest last; it alone is told. Two while the primary changes from one to the other;
    /// those before the newest go when the primary said that it is in force.
    pub quorums: Vec<Quorum>,
    /// Those before them whose commits elections have to honour still, the oldest first. They go when the
    /// primary said that its newest set is in force, and has what was written before.
    pub formers: Vec<Former>,
    /// The number that the holder's timeline gets when it is promoted: a new one for each that is chosen,
    /// so that no two make the same. 0: of a record that is older than this field.
    pub timeline: u32,
    /// Who may be promoted by itself, and whose promises a primary without controller needs when
    /// commits are not synchronous. One that is added counts here only when the primary's agent has
    /// said that it knows.
    pub promotable: BTreeSet<NodeName>,
    /// The history of the data that counts.
    pub lineage: Lineage,
    /// The longest lease that was granted in `term`, while electing in the term before; None: one
    /// without end, given while the cluster is paused.
    pub longest_lease: Option<Millis>,
    /// When automatic failovers after crashes began, newest last; those within the window.
    pub crashes: Vec<Timestamp>,
    /// The switchover that somebody asked for.
    pub wanted: Option<WantedSwitch>,
    /// The newest report's number in the history.
    pub number: u64,
    /// What is known of members over restarts.
    pub members: BTreeMap<NodeName, MemberRecord>,
    /// The store's, when all this was drawn. The store has another one: an old copy of it was accepted
    /// since, and members may know of later decisions.
    pub incarnation: Incarnation,
}

/// What elections must not forget of a member.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MemberRecord {
    /// It has had a complete copy of `MemberPlace::copy` this.
    pub copied: u64,
    /// Not chosen in this term, because it failed to be promoted in the one before.
    pub failed_term: Option<Term>,
}

/// One that may have acknowledged commits before the holder was chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Former {
    /// None: several that were put together, and none of them has all.
    pub node: Option<NodeName>,
    /// The number of the copy that its data was.
    pub copy: u64,
    /// Nothing that it wrote is on a higher one.
    pub timeline: u32,
    /// Every set that may have been in force.
    pub quorums: Vec<Quorum>,
}

impl ClusterState {
    /// Most crashes kept.
    pub const CRASHES_MAX: usize = 100;
    pub const QUORUMS_MAX: usize = 8;
    pub const FORMERS_MAX: usize = 8;

    pub fn new(cluster: ClusterName, primary: NodeName, incarnation: Incarnation) -> Self {
        Self {
            cluster,
            system_id: None,
            major: None,
            term: Term(1),
            holder: Some(primary),
            stage: Stage::Creating,
            quorums: vec![Quorum::OFF],
            formers: Vec::new(),
            timeline: 1,
            promotable: BTreeSet::new(),
            lineage: Lineage::default(),
            longest_lease: Some(Millis(0)),
            crashes: Vec::new(),
            wanted: None,
            number: 0,
            members: BTreeMap::new(),
            incarnation,
        }
    }

    /// Every set that elections have to honour.
    pub fn all_quorums(&self) -> impl Iterator<Item = &Quorum> {
        let before = self.formers.iter().flat_map(|former| &former.quorums);
        before.chain(&self.quorums)
    }

    /// Only one set counts, and it is in force.
    pub fn is_settled(&self) -> bool {
        self.formers.is_empty() && self.quorums.len() == 1
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The first primary is being made or taken over.
    Creating,
    /// `holder` is primary.
    Steady,
    /// A switchover: the primary writes a checkpoint and serves on.
    Preparing(Move),
    /// The primary stops cleanly and attests its end.
    Handing(Move),
    /// `term` is drawn and nobody holds it: members are sealed, their positions compared.
    Electing(Election),
    /// `holder` has been told to promote.
    Promoting(Election),
}

impl Stage {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Steady => "steady",
            Self::Preparing(_) => "preparing",
            Self::Handing(_) => "handing-over",
            Self::Electing(_) => "electing",
            Self::Promoting(_) => "promoting",
        }
    }
}

/// A switchover under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    pub to: NodeName,
    /// Controller's clock.
    pub began_at: Timestamp,
    /// The report in the history.
    pub number: u64,
}

/// From the draw of a term until its holder writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Election {
    pub cause: Cause,
    /// The holder of the term before, and that term; None: there was none.
    pub from: Option<(NodeName, Term)>,
    /// The one that somebody wants.
    pub to: Option<NodeName>,
    /// Somebody accepted that commits are lost.
    pub allow_loss: bool,
    /// Controller's clock.
    pub began_at: Timestamp,
    /// Why the holder before can acknowledge nothing any more; None: not proven yet.
    pub excluded: Option<Exclusion>,
    /// When that was proven.
    pub excluded_at: Option<Timestamp>,
    /// When the holder was chosen.
    pub chosen_at: Option<Timestamp>,
    /// What the chosen one's log must reach before it is promoted.
    pub at_least: Lsn,
    /// Where the dead instance's log ended, when its agent attested it.
    pub goal: Option<Lsn>,
    /// Who gets the dead instance's last log, since when.
    pub salvage: Option<(NodeName, Timestamp)>,
    /// The report in the history.
    pub number: u64,
}

words!(Cause, "cause", {
    /// postgres died on a living node and its agent gave the lease up.
    Crash = "crash",
    /// The node was silent.
    NodeLost = "node-lost",
    /// The node answers, its postgres does not.
    Hung = "hung",
    /// Somebody asked for a switchover.
    Switchover = "switchover",
    /// Somebody asked for a failover.
    Asked = "asked",
    /// The member that was to be promoted did not.
    PromotionFailed = "promotion-failed",
    /// The primary was fenced, disabled or removed by somebody.
    Withdrawn = "withdrawn",
});

// The four ways, and no other, to know that a holder acknowledges nothing any more.
words!(Exclusion, "exclusion", {
    /// Its agent attested that no process is left and that none can start writable.
    Released = "released",
    /// Its longest lease ended.
    LeaseEnded = "lease-ended",
    /// An external fence succeeded.
    Fenced = "fenced",
    /// Enough members are sealed that nothing could be acknowledged.
    Sealed = "sealed",
});

/// A switchover that was asked for and has not begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedSwitch {
    /// None: the best one.
    pub to: Option<NodeName>,
    /// Not before; None: now.
    pub at: Option<Timestamp>,
    /// As the audit log names them.
    pub by: String,
}

/// A report in the history: one failover or switchover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failover {
    pub cluster: ClusterName,
    pub number: u64,
    pub cause: Cause,
    /// Who asked, as the audit log names them; empty: nobody.
    pub by: String,
    pub from: Option<NodeName>,
    pub to: Option<NodeName>,
    /// The term that came of it.
    pub term: Term,
    pub timeline: u32,
    pub began_at: Timestamp,
    pub exclusion: Option<Exclusion>,
    pub excluded_at: Option<Timestamp>,
    pub chosen_at: Option<Timestamp>,
    pub writable_at: Option<Timestamp>,
    /// Where each member's log ended when it was chosen.
    pub positions: BTreeMap<NodeName, Lsn>,
    /// Where the dead instance's log ended; None: not known.
    pub old_end: Option<Lsn>,
    /// What was given to the candidate.
    pub salvaged_bytes: u64,
    /// Nothing acknowledged was lost, as far as promises go; None: it is not known.
    pub lossless: Option<bool>,
    pub end: FailoverEnd,
    /// One line for people.
    pub note: String,
}

impl Failover {
    /// Of one cluster; older ones go.
    pub const KEPT_MAX: u64 = 200;
}

words!(FailoverEnd, "end", {
    Running = "running",
    Done = "done",
    /// The old primary serves on.
    TurnedBack = "turned-back",
    /// Another one took over before it ended.
    Overtaken = "overtaken",
});
