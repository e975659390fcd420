//! What of the journal goes on to the workers, and when: as it comes, or, with a marker file, when
//! that is written and then all up to it. Own names and ignored ones do not go on. Pure.

use lockstep_model::sync::{FilePath, Pattern};

use super::sieve::strain;
use crate::deliver::PENDING_MAX;
use crate::journal::{Change, Changed, Entry};
use crate::rsync::exclude::Excludes;

/// The state of it for one source.
pub struct Sluice {
    ignored: Excludes,
    marker: Option<Box<[u8]>>,
    /// Entries that wait for the marker, and how many paths they have.
    held: Vec<Entry>,
    held_paths: usize,
    given_upto: u64,
}

impl Sluice {
    /// Everything up to `given_upto` went on already.
    pub fn new(given_upto: u64) -> Self {
        let ignored = Excludes::default();
        Self { ignored, marker: None, held: Vec::new(), held_paths: 0, given_upto }
    }

    /// What is held already goes by the new rules with the next entry.
    pub fn set(&mut self, ignored: &[Pattern], marker: Option<&FilePath>) {
        self.ignored = Excludes::of(ignored);
        self.marker = marker.map(|path| path.as_str().as_bytes().into());
    }

    /// Last sequence that went on.
    pub fn given_upto(&self) -> u64 {
        self.given_upto
    }

    /// Takes entries in; what goes on now. `is_written` tells, when only a "full" says that
    /// something happened, whether the marker was written since it last was.
    pub fn pass(&mut self, entries: &[Entry], is_written: impl Fn() -> bool) -> Vec<Entry> {
        let mut open = self.marker.is_none();
        let mut gone_on = Vec::new();
        for entry in entries {
            if let Some(marker) = &self.marker {
                open = match &entry.change {
                    Change::Full => is_written(),
                    Change::Batch(changed) => changed.iter().any(|c| *c.path == **marker),
                };
            }
            self.hold(self.strain(entry));
            if open {
                self.given_upto = entry.seq;
                self.held_paths = 0;
                gone_on.append(&mut self.held);
            }
        }
        gone_on
    }

    fn hold(&mut self, entry: Entry) {
        if let Change::Batch(changed) = &entry.change {
            self.held_paths += changed.len();
        }
        self.held.push(entry);
        if self.marker.is_some() && self.held_paths + self.held.len() > PENDING_MAX {
            self.collapse();
        }
    }

    /// Gives up what single entries say: they become one "full" that waits in their place.
    pub fn collapse(&mut self) {
        let at = self.held.iter().map(|entry| entry.at).min();
        let (Some(last), Some(at)) = (self.held.last(), at) else { return };
        self.held = vec![Entry { seq: last.seq, at, change: Change::Full }];
        self.held_paths = 0;
    }

    /// What of an entry matters to targets.
    pub fn strain(&self, entry: &Entry) -> Entry {
        let mut entry = strain(entry);
        if let Change::Batch(changed) = &mut entry.change {
            changed.retain(|changed| !self.ignores(changed));
        }
        entry
    }

    /// A directory that is gone may have held other names too.
    fn ignores(&self, changed: &Changed) -> bool {
        self.ignored.cover(&changed.path, changed.subtree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_model::Timestamp;

    fn batch(seq: u64, paths: &[&str]) -> Entry {
        let changed = |path: &&str| Changed { path: path.as_bytes().into(), subtree: false };
        let change = Change::Batch(paths.iter().map(changed).collect());
        Entry { seq, at: Timestamp(seq), change }
    }

    fn seqs(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn a_marker_lets_all_before_it_go() {
        let mut sluice = Sluice::new(0);
        sluice.set(&[], Some(&"done/marker".parse().unwrap()));
        let never = || false;
        assert!(sluice.pass(&[batch(1, &["a"]), batch(2, &["done"])], never).is_empty());
        assert_eq!(sluice.given_upto(), 0);
        let entries = [batch(3, &["b", "done/marker"]), batch(4, &["c"])];
        assert_eq!(seqs(&sluice.pass(&entries, never)), [1, 2, 3]);
        assert_eq!(sluice.given_upto(), 3);
        let full = Entry { change: Change::Full, ..batch(5, &[]) };
        assert!(sluice.pass(std::slice::from_ref(&full), never).is_empty());
        let later = Entry { seq: 6, ..full };
        assert_eq!(seqs(&sluice.pass(&[later], || true)), [4, 5, 6]);
        assert!(sluice.pass(&[batch(7, &["x"])], never).is_empty());
        sluice.set(&[], None);
        assert_eq!(seqs(&sluice.pass(&[batch(8, &["y"])], never)), [7, 8]);
    }

    #[test]
    fn what_waits_for_a_marker_is_bounded() {
        let mut sluice = Sluice::new(0);
        sluice.set(&[], Some(&"marker".parse().unwrap()));
        for seq in 1..=PENDING_MAX as u64 + 10 {
            sluice.pass(&[batch(seq, &["a"])], || false);
        }
        assert!(sluice.held.len() <= 10, "{} entries are held", sluice.held.len());
        let last = PENDING_MAX as u64 + 11;
        let released = sluice.pass(&[batch(last, &["marker"])], || false);
        assert_eq!(released[0].change, Change::Full);
        assert_eq!(released.last().map(|entry| entry.seq), Some(last));
    }

    #[test]
    fn ignored_names_do_not_go_on_but_their_entries_do() {
        let mut sluice = Sluice::new(0);
        sluice.set(&["*.swp".parse().unwrap()], None);
        let released =
            sluice.pass(&[batch(1, &[".x.swp", "x"]), batch(2, &["a/.y.swp"])], || false);
        assert_eq!(released, [batch(1, &["x"]), batch(2, &[])]);
    }
}
