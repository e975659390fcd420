//! Runs of a mirror: what was asked for, what became of it, and how far master and replicas are.

use std::fmt;
use std::str::FromStr;

use crate::id::{MirrorName, NodeName, UserName, quote};
use crate::reject::Invalid;
use crate::schedule::Progress;
use crate::task::OutcomeKind;
use crate::time::Timestamp;
use crate::words::words;

/// `fedora/17`: one pull from the upstream with all that follows from it, or a pull of single
/// replicas that somebody asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RunId {
    pub mirror: MirrorName,
    pub number: u64,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mirror, self.number)
    }
}

impl FromStr for RunId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong =
            || Invalid::new("run", format!("must look like fedora/17, not {}", quote(text)));
        let (mirror, number) = text.split_once('/').ok_or_else(wrong)?;
        let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let number = plain.then(|| number.parse().ok()).flatten().ok_or_else(wrong)?;
        Ok(Self { mirror: mirror.parse()?, number })
    }
}

/// Why a run began.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// Its schedule's instant.
    Schedule(Timestamp),
    /// Somebody asked; as the audit log names them: `user/ann`.
    Asked(String),
    /// A push from the upstream, by the token of that name.
    Push(String),
    /// Its owner, or who may act for them, says that the tree is complete.
    Ready(UserName),
    /// The master has what the replica has not.
    Cascade,
}

impl Trigger {
    /// Longest name of who asked.
    pub const WHO_MAX: usize = 128;
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(_) => f.write_str("schedule"),
            Self::Asked(who) => f.write_str(who),
            Self::Push(token) => write!(f, "push {token}"),
            Self::Ready(user) => write!(f, "ready user/{user}"),
            Self::Cascade => f.write_str("cascade"),
        }
    }
}

/// What the guards are to let through, this once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Allow {
    /// An upstream with nothing in it.
    pub empty: bool,
    /// More removals than the limit.
    pub delete: bool,
    /// Too little room on the disk.
    pub space: bool,
}

/// A run that somebody waits for and that has not begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub number: u64,
    pub trigger: Trigger,
    pub allow: Allow,
    /// Controller's clock.
    pub at: Timestamp,
    /// The master pulls from this replica and not from the upstream.
    pub from: Option<NodeName>,
}

/// How far a mirror is. Written with every run; the mirror's definition is apart from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorState {
    pub mirror: MirrorName,
    /// Counted up when a complete pull brought something new to the master; 0: nothing yet.
    pub generation: u64,
    /// When it became what it is, controller's clock; 0 when `generation` is.
    pub generation_at: Timestamp,
    /// The run that made it.
    pub generation_run: u64,
    /// The node that has it. Another master gets a complete tree of its own before anybody pulls
    /// from it.
    pub generation_on: Option<NodeName>,
    /// What the guards let through then; replicas may take over just that.
    pub allow: Allow,
    /// The newest generation that all replicas had, but for those that were away.
    pub distributed: u64,
    /// The newest run's.
    pub number: u64,
    /// The next run of the master.
    pub wanted: Option<Wanted>,
    /// The run whose master's part is under way, retries included.
    pub current: Option<u64>,
    /// When the last complete pull to the master ended, whether or not it brought something.
    pub complete_at: Option<Timestamp>,
    pub progress: Progress,
}

impl MirrorState {
    pub fn new(mirror: MirrorName, now: Timestamp) -> Self {
        Self {
            mirror,
            generation: 0,
            generation_at: Timestamp(0),
            generation_run: 0,
            generation_on: None,
            allow: Allow::default(),
            distributed: 0,
            number: 0,
            wanted: None,
            current: None,
            complete_at: None,
            progress: Progress::starting(now),
        }
    }
}

/// How far a replica is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    pub mirror: MirrorName,
    pub node: NodeName,
    /// The master's generation that it has all of; 0: none.
    pub generation: u64,
    /// Of two stages the first is through for this generation.
    pub staged: u64,
    /// When it became what it is.
    pub staged_at: Option<Timestamp>,
    pub wanted: Option<Wanted>,
    /// The run whose part on it is under way, retries included.
    pub current: Option<u64>,
    pub complete_at: Option<Timestamp>,
}

impl ReplicaState {
    pub fn new(mirror: MirrorName, node: NodeName) -> Self {
        Self {
            mirror,
            node,
            generation: 0,
            staged: 0,
            staged_at: None,
            wanted: None,
            current: None,
            complete_at: None,
        }
    }
}

words!(HopKind, "hop", {
    /// The upstream to the master.
    Upstream = "upstream",
    /// The master to a replica.
    Replica = "replica",
});

/// One node's part in a run. The part of the master, or of the one replica that was asked for, is
/// the run's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub id: RunId,
    pub node: NodeName,
    pub hop: HopKind,
    pub trigger: Trigger,
    /// Controller's clock, as are the others.
    pub created_at: Timestamp,
    /// Of the first try.
    pub started_at: Timestamp,
    /// Tries so far.
    pub attempts: u32,
    /// Of the tree that it brought, or was to bring.
    pub generation: u64,
    /// None: it is under way, or waits for its next try.
    pub end: Option<RunEnd>,
}

impl Run {
    /// Of each mirror's runs so many numbers are kept.
    pub const KEPT: u64 = 50;
}

/// How a node's part in a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunEnd {
    pub at: Timestamp,
    pub kind: OutcomeKind,
    /// One line; empty when fine.
    pub message: String,
    /// Of the last try; None when rsync did not run.
    pub pulled: Option<Pulled>,
}

/// What a pull did, as the agent counted. Times are the agent's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Pulled {
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// rsync's exit code; None: it was killed, or did not start.
    pub exit_code: Option<u8>,
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of the files of the tree.
    pub tree_bytes: u64,
    /// Files that were brought, whole or in part.
    pub files: u64,
    /// Entries that are new.
    pub created: u64,
    /// Entries that were removed.
    pub deleted: u64,
    /// Over the wire, to here.
    pub received_bytes: u64,
    /// Anything is other than it was: content, names or attributes.
    pub changed: bool,
    /// Trying again would not help: a person has to change something.
    pub permanent: bool,
    /// Left on the file system after it.
    pub free_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_as_written() {
        let id: RunId = "fedora.linux/17".parse().unwrap();
        assert_eq!(id.to_string(), "fedora.linux/17");
        for wrong in ["", "fedora", "fedora/", "fedora/0", "fedora/01", "fedora/-1", "/1", "a/1/2"]
        {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
    }
}
