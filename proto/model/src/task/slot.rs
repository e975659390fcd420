//! Slots: what at most one live task of a node may hold.

use std::fmt;
use std::str::FromStr;

use crate::id::{ClusterName, MirrorName, NodeName, SyncName, quote};
use crate::reject::Invalid;

/// What at most one live task of a node may hold; its text is in file names and lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Slot {
    /// `sync/webroot`: the node's part in a sync.
    Sync(SyncName),
    /// `sync/webroot/web1`: a pass to one target.
    Resync(SyncName, NodeName),
    /// `verify/webroot/web1`
    Verify(SyncName, NodeName),
    /// `unhold/webroot/web1`
    Unhold(SyncName, NodeName),
    /// `barrier/webroot`
    Barrier(SyncName),
    /// `mirror/fedora`: the node's part in a mirror.
    Mirror(MirrorName),
    /// `pull/fedora`
    Pull(MirrorName),
    /// `hooks/fedora`
    Hooks(MirrorName),
    /// `cluster/main`: the node's part in a cluster.
    Cluster(ClusterName),
    /// `act/main`
    Act(ClusterName),
}

/// What a slot is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject<'a> {
    Sync(&'a SyncName),
    Mirror(&'a MirrorName),
    Cluster(&'a ClusterName),
}

impl Slot {
    pub fn subject(&self) -> Subject<'_> {
        match self {
            Self::Sync(sync)
            | Self::Resync(sync, _)
            | Self::Verify(sync, _)
            | Self::Unhold(sync, _)
            | Self::Barrier(sync) => Subject::Sync(sync),
            Self::Mirror(mirror) | Self::Pull(mirror) | Self::Hooks(mirror) => {
                Subject::Mirror(mirror)
            }
            Self::Cluster(cluster) | Self::Act(cluster) => Subject::Cluster(cluster),
        }
    }

    /// None: it is about something else.
    pub fn sync(&self) -> Option<&SyncName> {
        match self.subject() {
            Subject::Sync(sync) => Some(sync),
            Subject::Mirror(_) | Subject::Cluster(_) => None,
        }
    }

    /// Its tasks end by themselves, and then nothing is in force.
    pub fn is_run(&self) -> bool {
        match self {
            Self::Sync(_) | Self::Mirror(_) | Self::Cluster(_) => false,
            Self::Resync(..)
            | Self::Verify(..)
            | Self::Unhold(..)
            | Self::Barrier(_)
            | Self::Pull(_)
            | Self::Hooks(_)
            | Self::Act(_) => true,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync(sync) => write!(f, "sync/{sync}"),
            Self::Resync(sync, target) => write!(f, "sync/{sync}/{target}"),
            Self::Verify(sync, target) => write!(f, "verify/{sync}/{target}"),
            Self::Unhold(sync, target) => write!(f, "unhold/{sync}/{target}"),
            Self::Barrier(sync) => write!(f, "barrier/{sync}"),
            Self::Mirror(mirror) => write!(f, "mirror/{mirror}"),
            Self::Pull(mirror) => write!(f, "pull/{mirror}"),
            Self::Hooks(mirror) => write!(f, "hooks/{mirror}"),
            Self::Cluster(cluster) => write!(f, "cluster/{cluster}"),
            Self::Act(cluster) => write!(f, "act/{cluster}"),
        }
    }
}

impl FromStr for Slot {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        match parts.as_slice() {
            ["sync", sync] => Ok(Self::Sync(sync.parse()?)),
            ["sync", sync, target] => Ok(Self::Resync(sync.parse()?, target.parse()?)),
            ["verify", sync, target] => Ok(Self::Verify(sync.parse()?, target.parse()?)),
            ["unhold", sync, target] => Ok(Self::Unhold(sync.parse()?, target.parse()?)),
            ["barrier", sync] => Ok(Self::Barrier(sync.parse()?)),
            ["mirror", mirror] => Ok(Self::Mirror(mirror.parse()?)),
            ["pull", mirror] => Ok(Self::Pull(mirror.parse()?)),
            ["hooks", mirror] => Ok(Self::Hooks(mirror.parse()?)),
            ["cluster", cluster] => Ok(Self::Cluster(cluster.parse()?)),
            ["act", cluster] => Ok(Self::Act(cluster.parse()?)),
            _ => Err(Invalid::new("slot", format!("unknown slot {}", quote(text)))),
        }
    }
}
