//! A project that is mirrored: pulled from its upstream to a master, and from there to every replica.

pub mod further;
pub mod hook;
pub mod module;
pub mod options;
pub mod push;
pub mod report;
pub mod rsync;
pub mod run;
pub mod settings;

pub use further::FurtherUpstream;
pub use hook::MirrorHook;
pub use module::RsyncdModule;
pub use options::MirrorOptions;
pub use push::PushToken;
pub use report::{MirrorReport, PullProgress};
pub use run::{
    Allow, HopKind, MirrorState, Pulled, ReplicaState, Run, RunEnd, RunId, Trigger, Wanted,
};

use crate::id::{MirrorName, NodeName, UserName};
use crate::node::Node;
use crate::path::DirPath;
use crate::schedule::Schedule;
use crate::sync::{Place, Remote, Selected};
use crate::time::Timestamp;

/// Most replicas of one mirror, the selected ones included.
pub const REPLICAS_MAX: usize = 1000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    pub name: MirrorName,
    /// None: its owner fills the tree on the master and says when it is ready.
    pub upstream: Option<Remote>,
    /// The upstream asks for a password, which is kept as `secret/<name>`.
    pub has_password: bool,
    pub master: NodeName,
    /// The tree's directory is in this one, on the master.
    pub dest: DirPath,
    /// What the tree's directory is called everywhere: the name it was made with, unless a rename
    /// moved it.
    pub dir: MirrorName,
    /// Those named one by one, each with the directory that the tree's is in. Sorted by name; a name
    /// appears once and is not the master.
    pub replicas: Vec<Place>,
    /// Every other node whose labels match is a replica too.
    pub selected: Option<Selected>,
    pub options: MirrorOptions,
    /// None: it runs when it is asked to.
    pub schedule: Option<Schedule>,
    /// Disabled, it neither runs by its schedule nor feeds replicas; asked by name it does.
    pub enabled: bool,
    /// May change, run and remove it besides operators.
    pub owner: Option<UserName>,
    /// Whose programs may ask for runs over HTTP; sorted by id.
    pub push_tokens: Vec<PushToken>,
    pub created_at: Timestamp,
    /// It goes with its files: the record goes once no node has a part in it any more.
    pub deleting: bool,
    /// What it was called before: nodes that have the tree by that name take it over.
    pub was: Option<MirrorName>,
}

impl Mirror {
    /// The master's tree.
    pub fn tree(&self) -> DirPath {
        self.dest.join(&self.dir)
    }

    /// Whether the labels of a node may make it a replica.
    pub fn selects(&self, node: &Node) -> bool {
        self.selected.as_ref().is_some_and(|selected| {
            selected.selector.matches(&node.labels)
                && node.name != self.master
                && self.replica(&node.name).is_none()
        })
    }

    /// The named replica.
    pub fn replica(&self, node: &NodeName) -> Option<&Place> {
        let found = self.replicas.binary_search_by(|place| place.node.cmp(node));
        found.ok().map(|at| &self.replicas[at])
    }
}
