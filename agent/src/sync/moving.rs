//! Renames at a source: the index of its tree is built after each "full", kept current by the
//! journal, and asked what moved before a delivery, and what changed with the names that were told.
//! It may fail at any time: then content is sent.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_model::SyncName;

use crate::index::absorb::{Absorbed, Move};
use crate::index::look::Looker;
use crate::index::walk::walk;
use crate::index::{Counts, ENTRIES_MAX, Index};
use crate::journal::{Change, Changed, Entry};
use crate::moves::recent::Recent;

/// How long deliveries wait until it is known what moved; a disk that hangs holds up no report.
const ABSORB_MAX: Duration = Duration::from_secs(2);

/// What one source knows of renames.
#[derive(Clone)]
pub struct Trail {
    sync: SyncName,
    source: PathBuf,
    tree: Arc<Mutex<Tree>>,
    recent: Arc<Mutex<Recent>>,
    /// A batch is looked at.
    busy: Arc<AtomicBool>,
}

#[derive(Default)]
struct Tree {
    index: Option<Index>,
    /// The number of the walk that fills it.
    walk: u64,
    is_whole: bool,
    /// As the last whole walk counted, when there is no index.
    counts: Option<Counts>,
}

impl Trail {
    pub fn new(sync: SyncName, source: PathBuf) -> Self {
        Self { sync, source, tree: Arc::default(), recent: Arc::default(), busy: Arc::default() }
    }

    /// Names in the source; None when they were never counted. Of a tree too large for the index,
    /// as of the last "full".
    pub fn counts(&self) -> Option<Counts> {
        let tree = self.tree.try_lock().ok()?;
        let index = tree.index.as_ref().filter(|_| tree.is_whole);
        index.map(Index::counts).or(tree.counts)
    }

    /// What moved above `after` up to `upto`, in order; nothing when that is not known for sure.
    pub fn between(&self, after: u64, upto: u64) -> Vec<Move> {
        lock(&self.recent).between(after, upto)
    }

    /// Takes in what changed, before any delivery of it begins, and adds what changed with it.
    /// `by_file` when filters might keep something back in a directory that moves.
    pub async fn absorb(&self, entries: Vec<Entry>, by_file: bool) -> Vec<Entry> {
        let Some(last) = entries.last().map(|entry| entry.seq) else { return entries };
        let (trail, mut widened) = (self.clone(), entries.clone());
        let absorbed = tokio::task::spawn_blocking(move || {
            // The one before hangs: what is lost now is looked at again after the next "full".
            if trail.busy.swap(true, Ordering::Relaxed) {
                return None;
            }
            trail.absorb_all(&mut lock(&trail.tree), &mut widened, by_file);
            trail.busy.store(false, Ordering::Relaxed);
            Some(widened)
        });
        if let Ok(Ok(Some(widened))) = tokio::time::timeout(ABSORB_MAX, absorbed).await {
            return widened;
        }
        tracing::warn!(sync = %self.sync, "the source was not looked at in time: renames are sent as content");
        lock(&self.recent).forget(last);
        entries
    }

    fn absorb_all(&self, tree: &mut Tree, entries: &mut [Entry], by_file: bool) {
        let mut looker = None;
        for entry in entries {
            match &mut entry.change {
                Change::Full => {
                    self.begin(tree);
                    looker = None;
                    lock(&self.recent).forget(entry.seq);
                }
                Change::Batch(changed) => {
                    if looker.is_none() {
                        looker = Looker::open(&self.source).ok();
                    }
                    match self.absorb_one(tree, changed, looker.as_mut(), by_file) {
                        Some(moves) => lock(&self.recent).note(entry.seq, moves),
                        None => lock(&self.recent).forget(entry.seq),
                    }
                }
            }
        }
    }

    /// None when it cannot be told what moved.
    fn absorb_one(
        &self,
        tree: &mut Tree,
        changed: &mut Vec<Changed>,
        looker: Option<&mut Looker>,
        by_file: bool,
    ) -> Option<Vec<Move>> {
        let (index, looker) = (tree.index.as_mut()?, looker?);
        let paths = changed.iter().map(|changed| &changed.path);
        let Absorbed { moves, beside, room } =
            index.absorb(paths, by_file, |path| looker.look(path));
        changed.extend(beside);
        if !room {
            self.give_up(tree);
            return None;
        }
        tree.is_whole.then_some(moves)
    }

    fn give_up(&self, tree: &mut Tree) {
        tree.index = None;
        tracing::warn!(sync = %self.sync, max = ENTRIES_MAX, "the source has too many names: renames are sent as content");
    }

    /// Looks at a tree of which nothing is told: what moves above `seq` is to be known.
    pub fn begin_above(&self, seq: u64) {
        self.begin(&mut lock(&self.tree));
        lock(&self.recent).forget(seq);
    }

    /// Starts a walk in place of one that may be under way.
    fn begin(&self, tree: &mut Tree) {
        let opened = Looker::open(&self.source).and_then(|looker| Ok((looker.root()?, looker)));
        let Ok((root, looker)) = opened else { return self.end(tree) };
        self.end(tree);
        tree.index = Some(Index::new(&root));
        let (trail, number) = (self.clone(), tree.walk);
        // A thread of its own: it stays at the lowest priority.
        let started = std::thread::Builder::new()
            .name("source-index".to_owned())
            .spawn(move || trail.fill(&looker, number));
        if started.is_err() {
            self.end(tree);
        }
    }

    /// Ends the walk under way; what is known is not current any more.
    fn end(&self, tree: &mut Tree) {
        *tree = Tree { walk: tree.walk + 1, counts: tree.counts, ..Tree::default() };
    }

    /// Ends all work on the source's tree.
    pub fn stop(&self) {
        self.end(&mut lock(&self.tree));
    }

    fn fill(&self, looker: &Looker, number: u64) {
        let counted = walk(looker, |found| {
            let mut tree = lock(&self.tree);
            if tree.walk != number {
                return false;
            }
            if tree.index.as_mut().is_some_and(|index| !index.learn(found)) {
                self.give_up(&mut tree);
            }
            true
        });
        let mut tree = lock(&self.tree);
        match counted {
            Ok(Some(counts)) if tree.walk == number => {
                tree.is_whole = true;
                tree.counts = Some(counts);
                let bytes = tree.index.as_ref().map_or(0, Index::footprint);
                let Counts { directories, entries, .. } = counts;
                tracing::debug!(sync = %self.sync, entries, directories, bytes, "indexed the source");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(sync = %self.sync, %error, "cannot index the source: renames are sent as content");
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_model::Timestamp;

    fn batch(seq: u64, names: &[&str]) -> Entry {
        let changed = |name: &&str| Changed { path: name.as_bytes().into(), subtree: false };
        let change = Change::Batch(names.iter().map(changed).collect());
        Entry { seq, at: Timestamp(0), change }
    }

    #[tokio::test]
    async fn what_moved_is_known_once_the_source_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/a"), "a").unwrap();
        let trail = Trail::new("webroot".parse().unwrap(), dir.path().to_owned());
        std::fs::rename(at("d/a"), at("d/b")).unwrap();
        trail.absorb(vec![batch(3, &["", "d/a", "d/b"])], false).await;
        assert_eq!((trail.between(2, 3), trail.counts()), (vec![], None));

        let full = Entry { seq: 4, at: Timestamp(0), change: Change::Full };
        trail.absorb(vec![full], false).await;
        let read = async {
            while trail.counts().is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(40), read).await.unwrap();
        assert_eq!(trail.counts(), Some(Counts { directories: 1, entries: 2, bytes: 1 }));
        std::fs::rename(at("d"), at("e")).unwrap();
        trail.absorb(vec![batch(5, &["", "d", "e", "e/b"])], false).await;
        std::fs::rename(at("e"), at("f")).unwrap();
        trail.absorb(vec![batch(6, &["e", "f", "f/b"])], true).await;
        let moves = trail.between(4, 6);
        let told: Vec<_> = moves.iter().map(|a| (&a.from[..], &a.to[..])).collect();
        assert_eq!(told, [(&b"d"[..], &b"e"[..]), (&b"e/b"[..], &b"f/b"[..])]);
        assert_eq!(trail.between(3, 6), [], "it may lack more than that");

        // A directory in place of another, whose end was not told.
        std::fs::rename(at("f"), at("out")).unwrap();
        std::fs::create_dir(at("f")).unwrap();
        let widened = trail.absorb(vec![batch(7, &["f"])], false).await;
        let all = Changed { path: b"f"[..].into(), subtree: true };
        let Change::Batch(changed) = &widened[0].change else { panic!("{widened:?}") };
        assert!(changed.contains(&all), "{changed:?}");
        trail.stop();
        trail.absorb(vec![batch(8, &["f"])], false).await;
        assert_eq!(trail.between(7, 8), []);
    }
}
