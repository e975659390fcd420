//! The mirrors' trees of this node: where each is, who may read it now, and the one-module
//! configuration that confines a reader's rsync to it. It changes nothing in a tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstep_model::identity::{Principal, Subject};
use lockstep_model::mirror::HopKind;
use lockstep_model::path::DirPath;
use lockstep_model::task::MirrorPlace;
use lockstep_model::{KeyHash, Millis, MirrorName, NodeName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::publish::WORK;

/// Most readers served at once, over all mirrors of the node; further ones come again later.
const READERS_MAX: usize = 64;
/// Beginning of the names of readers' configurations, which end with their use.
pub const CONFIG: &str = "reader-";

/// Clones are the same table.
#[derive(Clone)]
pub struct Trees {
    table: Arc<Mutex<BTreeMap<MirrorName, Assigned>>>,
    places: Arc<Semaphore>,
    /// Directories that are being read, and how often.
    read: Arc<Mutex<BTreeMap<PathBuf, usize>>>,
    served: Arc<AtomicU64>,
}

struct Assigned {
    place: MirrorPlace,
    state_dir: PathBuf,
    filled: bool,
    readers: BTreeMap<NodeName, Reader>,
}

struct Reader {
    key_hash: KeyHash,
    /// Ends all its transfers.
    withdrawn: CancellationToken,
}

/// Why a caller may not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Denial {
    /// There is no complete tree here.
    Unfilled,
    /// One line for the caller.
    Refused(String),
}

/// A caller that may read, for as long as `withdrawn` is not cancelled.
pub struct Admission {
    pub mirror: MirrorName,
    pub withdrawn: CancellationToken,
    tree: DirPath,
    state_dir: PathBuf,
    allowed: String,
    timeout: Millis,
    trees: Trees,
    _place: OwnedSemaphorePermit,
}

/// What a reader's rsync is told; gone when dropped, and then nothing is read any more.
pub struct Config {
    file: PathBuf,
    dir: PathBuf,
    trees: Trees,
}

impl Default for Trees {
    fn default() -> Self {
        Self {
            table: Arc::default(),
            places: Arc::new(Semaphore::new(READERS_MAX)),
            read: Arc::default(),
            served: Arc::default(),
        }
    }
}

impl Trees {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<MirrorName, Assigned>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> MutexGuard<'_, BTreeMap<PathBuf, usize>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error names another mirror of this node in whose tree this one would be.
    pub fn check(&self, place: &MirrorPlace) -> Result<(), String> {
        let table = self.lock();
        let mut others = table.values().filter(|other| other.place.mirror != place.mirror);
        match others.find(|other| other.place.tree.overlaps(&place.tree)) {
            Some(Assigned { place: other, .. }) => {
                Err(format!("tree: {} overlaps that of mirror {}", place.tree, other.mirror))
            }
            None => Ok(()),
        }
    }

    /// Puts an assignment in force. Transfers of readers that stay, with their key and the tree where
    /// it was, go on.
    pub fn assign(&self, place: &MirrorPlace, state_dir: &Path, filled: bool) {
        let mut table = self.lock();
        let former = table.remove(&place.mirror);
        let stays = former.as_ref().is_some_and(|former| former.place.tree == place.tree);
        let mut known = former.map(|former| former.readers).unwrap_or_default();
        let mut readers = BTreeMap::new();
        for peer in &place.readers {
            let same = known.remove(&peer.node);
            let reader = match same.filter(|reader| stays && reader.key_hash == peer.key_hash) {
                Some(reader) => reader,
                None => Reader { key_hash: peer.key_hash, withdrawn: CancellationToken::new() },
            };
            readers.insert(peer.node.clone(), reader);
        }
        let assigned =
            Assigned { place: place.clone(), state_dir: state_dir.to_owned(), filled, readers };
        table.insert(place.mirror.clone(), assigned);
    }

    /// Whether a complete tree is there.
    pub fn set_filled(&self, mirror: &MirrorName, filled: bool) {
        if let Some(assigned) = self.lock().get_mut(mirror) {
            assigned.filled = filled;
        }
    }

    /// What is in force for it.
    pub fn place(&self, mirror: &MirrorName) -> Option<MirrorPlace> {
        Some(self.lock().get(mirror)?.place.clone())
    }

    /// Nobody reads it from now on.
    /// The mirror that has this very tree.
    pub fn owner(&self, tree: &DirPath) -> Option<MirrorName> {
        let table = self.lock();
        let found = table.values().find(|assigned| assigned.place.tree == *tree);
        found.map(|assigned| assigned.place.mirror.clone())
    }

    pub fn withdraw(&self, mirror: &MirrorName) {
        self.lock().remove(mirror);
    }

    pub fn withdraw_all(&self) {
        self.lock().clear();
    }

    pub fn admit(&self, mirror: &MirrorName, caller: &Principal) -> Result<Admission, Denial> {
        let refused = |why: String| Err(Denial::Refused(why));
        let table = self.lock();
        let Some(assigned) = table.get(mirror) else {
            return refused(format!("this node has no part in mirror {mirror}"));
        };
        let reader = match &caller.subject {
            Subject::Node(node) => assigned.readers.get(node),
            _ => None,
        };
        let Some(reader) = reader else {
            return refused(format!("{} does not read mirror {mirror} from here", caller.subject));
        };
        if caller.key_hash != reader.key_hash {
            return refused(format!("{} shows another key than its record's", caller.subject));
        }
        if !assigned.filled {
            return Err(Denial::Unfilled);
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return refused(format!("{READERS_MAX} readers are served already; try again later"));
        };
        let MirrorPlace { tree, options, .. } = &assigned.place;
        Ok(Admission {
            mirror: mirror.clone(),
            withdrawn: reader.withdrawn.clone(),
            tree: tree.clone(),
            state_dir: assigned.state_dir.clone(),
            allowed: allowed(options.hop(HopKind::Replica).names()),
            timeout: options.limits.io_timeout,
            trees: self.clone(),
            _place: place,
        })
    }

    /// Whether somebody reads this very directory.
    pub fn is_read(&self, dir: &Path) -> bool {
        self.read().contains_key(dir)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.withdrawn.cancel();
    }
}

impl Admission {
    /// Writes the configuration for the tree as it is now: a reader sees one snapshot to its end.
    pub fn open(&self, root: bool) -> Result<Config, String> {
        let dir = fs::canonicalize(self.tree.as_str())
            .map_err(|error| format!("the tree {}: {error}", self.tree))?;
        let number = self.trees.served.fetch_add(1, Ordering::Relaxed);
        let file = self.state_dir.join(format!("{CONFIG}{number}"));
        let shown = dir.to_str().ok_or_else(|| format!("{}: is not text", dir.display()))?;
        let text = config(&self.mirror, shown, &self.allowed, self.timeout, root)?;
        fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        *self.trees.read().entry(dir.clone()).or_default() += 1;
        Ok(Config { file, dir, trees: self.trees.clone() })
    }
}

impl Config {
    pub fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let mut read = self.trees.read();
        if let Some(count) = read.get_mut(&self.dir) {
            *count -= 1;
            if *count == 0 {
                read.remove(&self.dir);
            }
        }
    }
}

/// What a reader's rsync asks for besides the options of its mirror.
const ALWAYS: [&str; 11] = [
    "recursive",
    "stats",
    "timeout",
    "bwlimit",
    "no-msgs2stderr",
    "delete",
    "delete-after",
    "delete-excluded",
    "partial",
    "links",
    "dirs",
];

/// For `refuse options = * …`: the mirror's own options and what always goes with them.
fn allowed(names: impl IntoIterator<Item = &'static str>) -> String {
    let names = ALWAYS.into_iter().chain(names);
    names.map(|name| format!("!{name}")).collect::<Vec<_>>().join(" ")
}

/// Only root can chroot; anyone else is confined by rsync's own path walk.
fn config(
    mirror: &MirrorName,
    dir: &str,
    allowed: &str,
    timeout: Millis,
    root: bool,
) -> Result<String, String> {
    // rsync replaces `%NAME%` by its environment.
    if dir.contains('%') {
        return Err(format!("the tree {dir}: rsync cannot take a '%' in it"));
    }
    let (chroot, ids) = if root { ("yes", "uid = 0\ngid = 0\n") } else { ("no", "") };
    let timeout_s = timeout.0.div_ceil(1000).max(1);
    // `/.`: a backslash or a blank at the end of a line would mean something else.
    Ok(format!(
        "use chroot = {chroot}
munge symlinks = no
reverse lookup = no
max verbosity = 2
log file = /dev/null
[{mirror}]
path = {dir}/.
read only = yes
list = no
numeric ids = yes
exclude = /{WORK}/
timeout = {timeout_s}
refuse options = * {allowed}
{ids}"
    ))
}
