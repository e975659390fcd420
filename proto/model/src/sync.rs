//! A directory kept in step: one source, many targets.

use std::fmt;
use std::str::FromStr;

use crate::id::{NodeName, SyncName, quote};
use crate::path::DirPath;
use crate::reject::Invalid;
use crate::time::{Millis, Timestamp};

/// Most targets of one sync.
pub const TARGETS_MAX: usize = 1000;
/// Most exclude patterns of one sync.
pub const EXCLUDES_MAX: usize = 256;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sync {
    pub name: SyncName,
    pub source: Place,
    /// Sorted by node; a node appears once and is not the source.
    pub targets: Vec<Place>,
    pub options: SyncOptions,
    pub created_at: Timestamp,
}

impl Sync {
    pub fn target(&self, node: &NodeName) -> Option<&Place> {
        let found = self.targets.binary_search_by(|target| target.node.cmp(node));
        found.ok().map(|at| &self.targets[at])
    }

    pub fn involves(&self, node: &NodeName) -> bool {
        self.source.node == *node || self.target(node).is_some()
    }
}

/// A directory on a node: `master1:/srv/www`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    pub node: NodeName,
    pub path: DirPath,
}

impl FromStr for Place {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (node, path) = text.split_once(':').ok_or_else(|| {
            Invalid::new("place", format!("must look like node:/path, not {}", quote(text)))
        })?;
        Ok(Self { node: node.parse()?, path: path.parse()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.path)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncOptions {
    pub delete: DeletePolicy,
    /// rsync patterns, in order.
    pub excludes: Vec<Pattern>,
    /// How long lsyncd collects changes before it hands them over, 0 to 600 s in whole seconds.
    pub delay: Millis,
}

impl SyncOptions {
    pub const DELAY_MAX: Millis = Millis::from_secs(600);
    pub const DELAY_DEFAULT: Millis = Millis::from_secs(1);
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self { delete: DeletePolicy::Always, excludes: Vec::new(), delay: Self::DELAY_DEFAULT }
    }
}

/// When entries that the source does not have are removed on targets; lsyncd's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeletePolicy {
    Always,
    Never,
    /// In full passes only.
    Startup,
    /// For changes seen as they happen only.
    Running,
}

impl DeletePolicy {
    pub const ALL: [Self; 4] = [Self::Always, Self::Never, Self::Startup, Self::Running];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
            Self::Startup => "startup",
            Self::Running => "running",
        }
    }

    pub fn in_full_pass(self) -> bool {
        matches!(self, Self::Always | Self::Startup)
    }

    pub fn in_batches(self) -> bool {
        matches!(self, Self::Always | Self::Running)
    }
}

impl fmt::Display for DeletePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeletePolicy {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Invalid::new("delete", format!("must be one of {names}, not {}", quote(text)))
        })
    }
}

/// One rsync exclude pattern: a line of an exclude file, so no newline; never a merge rule, since
/// it is passed as `- pattern`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pattern(String);

impl Pattern {
    const LENGTH_MAX: usize = 1024;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits =
            (1..=Self::LENGTH_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if !fits {
            let problem = format!(
                "must have 1 to {} bytes and no control characters, not {}",
                Self::LENGTH_MAX,
                quote(text)
            );
            return Err(Invalid::new("exclude", problem));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the agent of a sync's source or target says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncReport {
    Source(SourceReport),
    Target(TargetReport),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceReport {
    pub engine: EngineState,
    /// One line on why `engine` is not `Watching`; else empty.
    pub problem: String,
    /// Last sequence number in the journal.
    pub head: u64,
    pub deliveries: Vec<Delivery>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EngineState {
    Starting,
    Watching,
    /// lsyncd does not run; it is started again with backoff.
    Failing,
    /// A guard holds the sync: nothing is delivered until its cause is gone.
    Held,
}

impl EngineState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Watching => "watching",
            Self::Failing => "failing",
            Self::Held => "held",
        }
    }
}

/// One target as its source sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    pub target: NodeName,
    pub state: DeliveryState,
    /// Everything up to this journal sequence is on the target.
    pub acked: u64,
    /// Age of the oldest change that is not on the target yet, 0 when none.
    pub lag: Millis,
    /// Agent's clock.
    pub last_success_at: Option<Timestamp>,
    /// One line, empty after a success.
    pub last_error: String,
    /// Bytes sent since the agent started.
    pub sent_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeliveryState {
    /// Nothing was delivered yet.
    Initial,
    /// The first complete pass is under way.
    Filling,
    /// Changes wait.
    Dirty,
    Syncing,
    Idle,
    /// The last try failed; the next one waits for its backoff.
    Failing,
    Held,
}

impl DeliveryState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Filling => "filling",
            Self::Dirty => "dirty",
            Self::Syncing => "syncing",
            Self::Idle => "idle",
            Self::Failing => "failing",
            Self::Held => "held",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetReport {
    /// The first complete fill arrived; kept over restarts.
    pub filled: bool,
    /// One line, empty when fine.
    pub problem: String,
}
