//! How a mirror works: one typed value per setting. Their text forms and defaults are in `settings`.

use super::further::FurtherUpstream;
use super::hook::MirrorHook;
use super::module::RsyncdModule;
use super::rsync::{Delete, Hop, RsyncOption, RsyncOptions};
use super::run::HopKind;
use crate::address::HostPort;
use crate::rate::{Rate, Size};
use crate::reject::Invalid;
use crate::removal::RemovalLimit;
use crate::sync::Remote;
use crate::sync::filter::{FilePath, Filter, Pattern};
use crate::time::Millis;
use crate::words::words;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirrorOptions {
    pub upstream: UpstreamRsync,
    /// Each has a directory of the tree of its own; none overlaps another.
    pub further: Vec<FurtherUpstream>,
    /// Where a part is None it is the upstream's.
    pub replica: ReplicaRsync,
    pub limits: RunLimits,
    pub guards: Guards,
    pub stages: Stages,
    pub publish: Publish,
    /// How many complete trees are kept when `publish` is snapshot, the current one included, 1 to 100.
    pub snapshots: u32,
    pub family: Family,
    /// RSYNC_PROXY of the upstream's hop.
    pub proxy: Option<HostPort>,
    /// Directory of the tree in which each host leaves a file with its name and time.
    pub trace: Option<FilePath>,
    pub hooks: Vec<MirrorHook>,
    /// Replicas pull from here and not through the agents: the master's own rsync daemon, or ssh.
    pub replicas_from: Option<Remote>,
    /// Who is no replica may pull the tree from the nodes' own rsync daemons.
    pub module: Option<RsyncdModule>,
}

/// The upstream's hop, in the three parts of rsync's options, and what belongs in the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamRsync {
    pub defaults: RsyncOptions,
    pub options: Vec<RsyncOption>,
    pub delete: Delete,
    /// In order; the first that matches decides.
    pub filters: Vec<Filter>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ReplicaRsync {
    pub defaults: Option<RsyncOptions>,
    pub options: Option<Vec<RsyncOption>>,
    pub delete: Option<Delete>,
    pub filters: Vec<Filter>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunLimits {
    /// The whole of one try; the agent ends it then.
    pub timeout: Millis,
    /// Nothing moves for so long; whole seconds.
    pub io_timeout: Millis,
    /// Until the daemon answers; whole seconds.
    pub connect_timeout: Millis,
    /// Tries of one run, the first included, 1 to 100.
    pub attempts: u32,
    /// Of the upstream's hop; None: no limit.
    pub bwlimit: Option<Rate>,
    /// Of each replica.
    pub replica_bwlimit: Option<Rate>,
    /// rsync's niceness, 0 to 19.
    pub nice: u8,
    pub ionice: Ionice,
    /// Replicas that pull at once; None: all.
    pub replicas_at_once: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guards {
    /// More removals than this in one run fail it; None: no limit.
    pub delete: Option<RemovalLimit>,
    /// Must stay free on the file system.
    pub min_free: Size,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stages {
    /// First without what `late` matches and without removals, then all; else at once.
    pub two: bool,
    /// Indices, which go with the second stage.
    pub late: Vec<Pattern>,
    /// So many replicas must have the first stage before any starts the second; None: all.
    pub quorum: Option<u32>,
    /// Then it starts without the others.
    pub wait: Millis,
}

words!(Publish, "publish", {
    /// rsync works in the tree that readers see.
    Direct = "direct",
    /// Each complete tree is a directory of its own, and the tree's name is a symlink to the newest.
    Snapshot = "snapshot",
});

words!(Family, "address-family", {
    Any = "any",
    Ipv4 = "4",
    Ipv6 = "6",
});

words!(Ionice, "ionice", {
    /// As the agent's own.
    None = "none",
    BestEffort = "best-effort",
    Idle = "idle",
});

impl MirrorOptions {
    pub const OPTIONS_MAX: usize = 64;
    pub const FILTERS_MAX: usize = 256;
    pub const PATTERNS_MAX: usize = 64;
    pub const HOOKS_MAX: usize = 16;
    pub const FURTHER_MAX: usize = 16;
    pub const SNAPSHOTS_MAX: u32 = 100;
    pub const ATTEMPTS_MAX: u32 = 100;
    pub const TIMEOUT_MIN: Millis = Millis::from_secs(1);
    pub const TIMEOUT_MAX: Millis = Millis::from_secs(30 * 86_400);
    pub const IO_TIMEOUT_MAX: Millis = Millis::from_secs(86_400);
    pub const STAGE_WAIT_MAX: Millis = Millis::from_secs(86_400);

    /// Debian's indices, as its ftpsync leaves them for the second stage.
    pub const LATE: [&str; 8] = [
        "Packages*",
        "Sources*",
        "Release*",
        "InRelease",
        "Contents-*",
        "i18n/*",
        "dep11/*",
        "ls-lR*",
    ];

    /// What a hop tells rsync.
    pub fn hop(&self, hop: HopKind) -> Hop {
        let UpstreamRsync { defaults, options, delete, filters: _ } = &self.upstream;
        let own = ReplicaRsync::default();
        let replica = match hop {
            HopKind::Upstream => &own,
            HopKind::Replica => &self.replica,
        };
        Hop {
            defaults: replica.defaults.as_ref().unwrap_or(defaults).clone(),
            options: RsyncOptions(replica.options.as_ref().unwrap_or(options).clone()),
            delete: replica.delete.unwrap_or(*delete),
        }
    }

    /// Whether complete trees can be published as `publish` says. It holds for definitions that are
    /// made or changed; older ones are kept as they are.
    pub fn check_publication(&self, hop: HopKind) -> Result<(), Invalid> {
        match self.publish {
            Publish::Direct => Ok(()),
            Publish::Snapshot => self.hop(hop).check_snapshots(),
        }
    }

    /// What two of them fill, or one and the node itself, nobody could tell apart.
    pub(super) fn check_further(&self) -> Result<(), Invalid> {
        let wrong = |problem: String| Err(Invalid::new("further-upstream", problem));
        for (n, one) in self.further.iter().enumerate() {
            if let Some(other) = self.further[..n].iter().find(|other| other.overlaps(&one.dir)) {
                return wrong(format!(
                    "{} overlaps {}: choose another directory",
                    one.dir, other.dir
                ));
            }
            if let Some(trace) = self.trace.as_ref().filter(|trace| one.overlaps(trace)) {
                return wrong(format!("{} overlaps the setting trace, {trace}", one.dir));
            }
        }
        Ok(())
    }

    /// What belongs in the tree, in order. A replica takes what the master has, less its own.
    pub fn filters(&self, hop: HopKind) -> &[Filter] {
        match hop {
            HopKind::Upstream => &self.upstream.filters,
            HopKind::Replica => &self.replica.filters,
        }
    }

    pub fn bwlimit(&self, hop: HopKind) -> Option<Rate> {
        match hop {
            HopKind::Upstream => self.limits.bwlimit,
            HopKind::Replica => self.limits.replica_bwlimit,
        }
    }

    /// What the first of two stages leaves out.
    pub fn late(&self) -> Vec<Pattern> {
        match self.stages.late.is_empty() {
            true => Self::LATE.iter().filter_map(|text| text.parse().ok()).collect(),
            false => self.stages.late.clone(),
        }
    }
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            upstream: UpstreamRsync {
                defaults: "-avH".parse().unwrap_or_default(),
                options: Vec::new(),
                delete: Delete::After,
                filters: Vec::new(),
            },
            further: Vec::new(),
            replica: ReplicaRsync::default(),
            limits: RunLimits {
                timeout: Millis::from_secs(86_400),
                io_timeout: Millis::from_secs(600),
                connect_timeout: Millis::from_secs(60),
                attempts: 5,
                bwlimit: None,
                replica_bwlimit: None,
                nice: 0,
                ionice: Ionice::None,
                replicas_at_once: None,
            },
            guards: Guards { delete: Some(RemovalLimit::default()), min_free: Size(1 << 30) },
            stages: Stages {
                two: false,
                late: Vec::new(),
                quorum: None,
                wait: Millis::from_secs(600),
            },
            publish: Publish::Direct,
            snapshots: 2,
            family: Family::Any,
            proxy: None,
            trace: None,
            hooks: Vec::new(),
            replicas_from: None,
            module: None,
        }
    }
}
