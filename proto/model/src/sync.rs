//! A directory kept in step: one source, many targets.

pub mod filter;
pub mod hook;
pub mod options;
pub mod remote;
pub mod report;
pub mod schedules;
pub mod settings;

use std::fmt;
use std::str::FromStr;

pub use filter::{FilePath, Filter, Pattern};
pub use hook::{Hook, HookName};
pub use options::{DeletePolicy, SyncOptions};
pub use remote::Remote;
pub use report::{Delivery, DeliveryState, EngineState, SourceReport, SyncReport, TargetReport};
pub use schedules::{Pass, Schedules, SyncState};

use crate::id::{NodeName, SyncName, quote};
use crate::label::Selector;
use crate::path::DirPath;
use crate::rate::Rate;
use crate::reject::Invalid;
use crate::time::Timestamp;

/// Most targets of one sync, the selected ones included.
pub const TARGETS_MAX: usize = 1000;
/// Most comment lines of a sync's list of targets.
pub const COMMENTS_MAX: usize = 1000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sync {
    pub name: SyncName,
    pub source: Place,
    /// Those named one by one. Sorted by name; a name appears once and is not the source.
    pub targets: Vec<Target>,
    /// Every other node whose labels match is a target too.
    pub selected: Option<Selected>,
    pub options: SyncOptions,
    /// Nothing is delivered; changes wait in the journal.
    pub paused: bool,
    /// Counted up to have every node take up its part anew.
    pub generation: u32,
    /// Of the list that was imported, given back by an export.
    pub comments: Vec<Comment>,
    pub created_at: Timestamp,
}

impl Sync {
    /// The named target.
    pub fn target(&self, node: &NodeName) -> Option<&Target> {
        let found = self.targets.binary_search_by(|target| target.node.cmp(node));
        found.ok().map(|at| &self.targets[at])
    }
}

impl Sync {
    /// The source, or named as a target.
    pub fn names(&self, node: &NodeName) -> bool {
        self.source.node == *node || self.target(node).is_some()
    }

    /// The named targets that have an agent.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.targets.iter().filter_map(Target::place)
    }
}

/// A target with a name of its own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// The node; for a target without an agent only what it is called in lists.
    pub node: NodeName,
    pub at: TargetAt,
    /// Of this target alone; None: no limit.
    pub bwlimit: Option<Rate>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TargetAt {
    /// A directory of the node, over the agents' mutual TLS.
    Node(DirPath),
    /// Without an agent.
    Remote(Remote),
}

impl Target {
    /// None for one without an agent.
    pub fn place(&self) -> Option<Place> {
        match &self.at {
            TargetAt::Node(path) => Some(Place { node: self.node.clone(), path: path.clone() }),
            TargetAt::Remote(_) => None,
        }
    }

    /// Name and place, apart from the text form of both.
    pub fn parse(node: &str, at: &str) -> Result<Self, Invalid> {
        let at = match at.starts_with('/') {
            true => TargetAt::Node(at.parse()?),
            false => TargetAt::Remote(at.parse()?),
        };
        Ok(Self { node: node.parse()?, at, bwlimit: None })
    }
}

impl From<Place> for Target {
    fn from(Place { node, path }: Place) -> Self {
        Self { node, at: TargetAt::Node(path), bwlimit: None }
    }
}

impl FromStr for Target {
    type Err = Invalid;
    /// `web1:/srv/www`, `web9=ssh://deploy@10.0.0.9/srv/www`, or the URL alone, which is then called
    /// like its host.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if !text.contains("://") {
            return text.parse::<Place>().map(Self::from).map_err(|e| e.within("target"));
        }
        if let Some((name, url)) = text.split_once('=')
            && !name.contains('/')
        {
            return Self::parse(name, url);
        }
        let remote: Remote = text.parse()?;
        let name = remote.at.host().replace(':', "-");
        Ok(Self { node: name.parse()?, at: TargetAt::Remote(remote), bwlimit: None })
    }
}

impl fmt::Display for TargetAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(path) => path.fmt(f),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            TargetAt::Node(path) => write!(f, "{}:{path}", self.node),
            TargetAt::Remote(remote) => write!(f, "{}={remote}", self.node),
        }
    }
}

/// Targets by label, each with the directory at the same path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selected {
    pub selector: Selector,
    pub path: DirPath,
}

/// A line of an imported list that names no target: `# the old heads`, or an empty one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Comment {
    /// The target that stands behind it; None: the end of the list.
    pub before: Option<NodeName>,
    /// Empty, or begins with `#`; one line of at most `LENGTH_MAX` bytes.
    pub text: String,
}

impl Comment {
    pub const LENGTH_MAX: usize = 512;

    pub fn check(&self) -> Result<(), Invalid> {
        let Self { before: _, text } = self;
        let fits = (text.is_empty() || text.starts_with('#'))
            && text.len() <= Self::LENGTH_MAX
            && !text.chars().any(|c| c.is_control() && c != '\t');
        if fits {
            return Ok(());
        }
        let problem = format!(
            "must be empty or begin with '#', and have at most {} bytes, not {}",
            Self::LENGTH_MAX,
            quote(text)
        );
        Err(Invalid::new("comment", problem))
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
