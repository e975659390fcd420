//! What this agent durably remembers of the controllers it spoke to, so that an old copy of a store
//! is noticed. It judges nothing: the controller does.

use std::path::PathBuf;

use lockstep_model::observation::Told;
use lockstep_model::{Incarnation, LifeId, Revision};
use lockstep_proto::agent;

use super::file::{self, FileError};

/// The file and its content.
pub struct Memory {
    path: PathBuf,
    told: Told,
}

impl Memory {
    /// A damaged file counts as absent; the error says so.
    pub fn open(path: PathBuf) -> (Self, Option<FileError>) {
        let (told, damage) = match file::read(&path) {
            Ok(Some(agent::v1::Told { incarnation, revision, life })) => {
                let (incarnation, life) = (Incarnation(incarnation), LifeId(life));
                (Told { incarnation, life, revision: Revision(revision) }, None)
            }
            Ok(None) => (Told::default(), None),
            Err(e) => (Told::default(), Some(e)),
        };
        (Self { path, told }, damage)
    }

    /// Part of the ledger was lost. Whoever remembers nothing is told everything anew, so this is
    /// how the controller hears of it. On disk when it next hears something.
    pub fn forget(&mut self) {
        self.told = Told::default();
    }

    pub fn told(&self) -> Told {
        self.told
    }

    /// Durable when it returns. Blocks on the disk only when something is new.
    pub fn hear(&mut self, told: Told) -> Result<(), FileError> {
        let next = heard(self.told, told);
        if next == self.told {
            return Ok(());
        }
        let Told { incarnation, life, revision } = next;
        let (incarnation, life) = (incarnation.0, life.0);
        let message = agent::v1::Told { incarnation, life, revision: revision.0 };
        file::write(&self.path, &message)?;
        self.told = next;
        Ok(())
    }
}

/// Another incarnation of the store begins its own count, and so does each life of one: it knows all
/// that was told before it.
fn heard(before: Told, now: Told) -> Told {
    if (before.incarnation, before.life) != (now.incarnation, now.life) {
        return now;
    }
    Told { revision: before.revision.max(now.revision), ..before }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(incarnation: u64, life: u64, revision: u64) -> Told {
        let (incarnation, life) = (Incarnation(incarnation), LifeId(life));
        Told { incarnation, life, revision: Revision(revision) }
    }

    #[test]
    fn the_highest_revision_of_one_life_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        for (hear, keep) in [
            (told(1, 1, 5), told(1, 1, 5)),
            (told(1, 1, 4), told(1, 1, 5)),
            (told(1, 1, 9), told(1, 1, 9)),
            (told(1, 2, 10), told(1, 2, 10)),
            (told(2, 3, 3), told(2, 3, 3)),
        ] {
            let (mut memory, damage) = Memory::open(path.clone());
            assert!(damage.is_none());
            memory.hear(hear).unwrap();
            assert_eq!(Memory::open(path.clone()).0.told(), keep);
        }
        std::fs::write(&path, b"LSF1....").unwrap();
        let (memory, damage) = Memory::open(path);
        assert!(damage.is_some());
        assert_eq!(memory.told(), Told::default());
    }
}
