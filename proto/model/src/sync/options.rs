//! How a sync works: one typed value per setting. Their text forms and defaults are in `settings`.

use super::filter::{FilePath, Filter, Pattern};
use super::hook::Hook;
use super::schedules::Schedules;
use crate::rate::Rate;
use crate::time::Millis;
use crate::words::words;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncOptions {
    pub delete: DeletePolicy,
    /// In order; the first that matches decides.
    pub filters: Vec<Filter>,
    /// How long lsyncd collects changes before it hands them over, 0 to 600 s in whole seconds.
    pub delay: Millis,
    pub initial: Initial,
    pub engine: Engine,
    /// One complete pass per target, and no watching.
    pub once: bool,
    /// Changes go over when this file is written, and not as they happen.
    pub marker: Option<FilePath>,
    /// Changes of names that match go first.
    pub priority: Vec<Pattern>,
    /// Events of names that match are dropped; complete passes bring what is there.
    pub ignore: Vec<Pattern>,
    pub transfer: TransferOptions,
    /// None: no limit.
    pub delete_limit: Option<DeleteLimit>,
    /// Must be there in the source before anything is deleted on a target.
    pub sentinel: Option<FilePath>,
    /// All targets together; None: no limit.
    pub bwlimit: Option<Rate>,
    /// Transfers at once, 1 to 100; None: the node's limit alone.
    pub transfers: Option<u32>,
    /// How often copies are compared with the source; None: never.
    pub verify_every: Option<Millis>,
    /// How often their contents are; None: never.
    pub scrub_every: Option<Millis>,
    pub hooks: Vec<Hook>,
    /// A file that all targets have is removed from the source; only with `delete` never.
    pub remove_source_files: bool,
    /// Each node feeds at most so many targets, and those feed the rest, 2 to 100; None: the source
    /// feeds all.
    pub fanout: Option<u32>,
    /// A copy that is further behind is not to be served; None: however far it is.
    pub max_lag: Option<Millis>,
    pub schedules: Schedules,
}

impl SyncOptions {
    /// What the nodes have to know.
    pub fn for_nodes(&self) -> Self {
        Self { schedules: Schedules::default(), ..self.clone() }
    }

    pub const DELAY_MAX: Millis = Millis::from_secs(600);
    pub const DELAY_DEFAULT: Millis = Millis::from_secs(1);
    pub const TRANSFERS_MAX: u32 = 100;
    pub const FANOUT_MAX: u32 = 100;
    /// Most filters of one sync.
    pub const FILTERS_MAX: usize = 256;
    /// Most patterns of `priority`, and of `ignore`.
    pub const PATTERNS_MAX: usize = 64;
    pub const HOOKS_MAX: usize = 16;
    pub const EVERY_MIN: Millis = Millis::from_secs(10);
    pub const MAX_LAG_MIN: Millis = Millis::from_secs(3);
    pub const MAX_LAG_MAX: Millis = Millis::from_secs(7 * 86_400);
    pub const EVERY_MAX: Millis = Millis::from_secs(366 * 86_400);
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            delete: DeletePolicy::Always,
            filters: Vec::new(),
            delay: Self::DELAY_DEFAULT,
            initial: Initial::Fill,
            engine: Engine::Journal,
            once: false,
            marker: None,
            priority: Vec::new(),
            ignore: Vec::new(),
            transfer: TransferOptions::default(),
            delete_limit: Some(DeleteLimit::default()),
            sentinel: None,
            bwlimit: None,
            transfers: None,
            verify_every: Some(Millis::from_secs(86_400)),
            scrub_every: None,
            hooks: Vec::new(),
            remove_source_files: false,
            fanout: None,
            max_lag: None,
            schedules: Schedules::default(),
        }
    }
}

words!(
    /// When entries that the source does not have are removed on targets; lsyncd's words.
    DeletePolicy, "delete", {
    Always = "always",
    Never = "never",
    /// In full passes only.
    Startup = "startup",
    /// For changes seen as they happen only.
    Running = "running",
});

impl DeletePolicy {
    pub fn in_full_pass(self) -> bool {
        matches!(self, Self::Always | Self::Startup)
    }

    pub fn in_batches(self) -> bool {
        matches!(self, Self::Always | Self::Running)
    }
}

words!(Initial, "initial", {
    /// A new target gets everything first.
    Fill = "fill",
    /// A new target is taken as complete: it was filled by other means.
    Skip = "skip",
});

words!(
    /// Who watches, and where changes wait for targets.
    Engine, "engine", {
    /// One lsyncd tells a durable journal, from which every target is served.
    Journal = "journal",
    /// One lsyncd per target, in whose memory its changes wait.
    Classic = "classic",
});

words!(
    /// What becomes of symlinks.
    Symlinks, "symlinks", {
    /// The link itself.
    Keep = "keep",
    /// What it points to.
    Follow = "follow",
    Skip = "skip",
    /// The link itself, unless it points out of the tree: such a link is left out.
    Safe = "safe",
});

/// What rsync is told of each transfer; its own option names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TransferOptions {
    pub symlinks: Symlinks,
    pub perms: bool,
    pub times: bool,
    pub owner: bool,
    pub group: bool,
    pub devices: bool,
    pub hard_links: bool,
    pub acls: bool,
    pub xattrs: bool,
    pub sparse: bool,
    pub compress: bool,
    pub checksum: bool,
    pub whole_file: bool,
    pub inplace: bool,
    /// Interrupted files are kept on the target and completed.
    pub partial: bool,
    /// As rsync's `--chmod`, such as `D755,F644`.
    pub chmod: Option<Chmod>,
    /// As rsync's `--chown`, by number, such as `33:33`.
    pub chown: Option<Chown>,
    /// A transfer in which nothing moves for so long is ended, 1 s to 1 h.
    pub timeout: Millis,
}

impl TransferOptions {
    pub const TIMEOUT_MAX: Millis = Millis::from_secs(3600);
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self {
            symlinks: Symlinks::Keep,
            perms: true,
            times: true,
            owner: true,
            group: true,
            devices: true,
            hard_links: false,
            acls: false,
            xattrs: false,
            sparse: false,
            compress: false,
            checksum: false,
            whole_file: false,
            inplace: false,
            partial: false,
            chmod: None,
            chown: None,
            timeout: Millis::from_secs(60),
        }
    }
}

/// Text of rsync's `--chmod`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Chmod(pub(super) String);

/// Text of rsync's `--chown`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Chown(pub(super) String);

impl Chmod {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Chown {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How much of one target may be removed within `window` before somebody is asked. Held when all
/// limits that are set are passed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeleteLimit {
    /// Entries.
    pub count: Option<u32>,
    /// Of the entries on the target, 0 to 100.
    pub percent: Option<u8>,
    pub window: Millis,
}

impl DeleteLimit {
    pub const WINDOW_MAX: Millis = Millis::from_secs(86_400);
}

impl Default for DeleteLimit {
    /// Small trees are not bothered by the count, large ones not by the share.
    fn default() -> Self {
        Self { count: Some(1000), percent: Some(25), window: Millis::from_secs(600) }
    }
}
