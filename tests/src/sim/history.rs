//! What happened, as somebody who stands beside it all sees it. Checkers have nothing but this; no
//! rule and no agent reads it.

use lockstep_model::NodeName;
use lockstep_model::record::Change;

use super::queue::At;

#[derive(Clone, Debug)]
pub enum Fact {
    /// A member takes writes from now on.
    Opened {
        node: usize,
        opening: u64,
    },
    Closed {
        node: usize,
        opening: u64,
    },
    /// A client was told that its commit is done. `waited_for`: how many standbys had it.
    Acknowledged {
        node: usize,
        opening: u64,
        entry: u64,
        waited_for: u32,
    },
    /// A member left recovery: its timeline, and all that it has.
    Promoted {
        node: usize,
        timeline: u32,
        log: Vec<u64>,
    },
    /// A standby took what its primary sent, and has something else before it.
    Mixed {
        node: usize,
        from: usize,
    },
    /// What is flushed on each machine, before something of the cluster is recorded.
    Disks(Vec<(NodeName, Vec<u64>)>),
    /// The store has it.
    Recorded(Box<Change>),
    /// The store is an older one from now on.
    Restored,
    /// An agent's highest promise, on disk.
    Promised {
        node: usize,
        term: u64,
    },
    /// Nothing is left to write. `steady`: and nothing is being changed; `reasons`: what is shown.
    Quiet {
        steady: bool,
        reasons: usize,
    },
    /// The planner does not come to rest.
    Restless,
    /// Somebody accepted that commits are lost.
    LossAllowed,
    /// What is done to the machines.
    Fault {
        what: String,
        harms: Harm,
    },
    /// All faults are over.
    Healed,
    /// How it ended.
    Ended(Box<End>),
    /// For people.
    Note(String),
}

/// What a fault may do to service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Harm {
    /// The controller alone.
    Control,
    /// Processes: what was written is there.
    Process,
    /// A node or its network.
    Node,
    /// Somebody's request.
    Request,
}

#[derive(Clone, Debug, Default)]
pub struct End {
    pub stage: String,
    /// Members by number: whether it is as it should be, and how it is.
    pub members: Vec<(bool, String)>,
    /// Tasks that have not ended.
    pub live_tasks: usize,
    /// Of the one that writes.
    pub log: Option<Vec<u64>>,
    pub reasons: Vec<String>,
}

#[derive(Default)]
pub struct History {
    pub facts: Vec<(At, Fact)>,
}

impl History {
    pub fn note(&mut self, at: At, fact: Fact) {
        self.facts.push((at, fact));
    }
}
