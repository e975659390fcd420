//! One process at a time per data directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("data-dir {dir}: {source}; name a directory on a local disk that this user may write")]
    Dir { dir: String, source: io::Error },
    #[error(
        "data-dir {dir}: another agent uses it; stop that one first, or choose another directory"
    )]
    Taken { dir: String },
}

/// Held until dropped; the kernel drops it with the process, however that ends.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Makes the directory where there is none, for this user alone.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let shown = || dir.display().to_string();
        let at = |source| LockError::Dir { dir: shown(), source };
        if fs::metadata(dir).is_err() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600);
        let file = file.open(dir.join("lock")).map_err(at)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken { dir: shown() }),
            Err(e) => Err(at(e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let first = DataDirLock::take(&data).unwrap();
        assert!(matches!(DataDirLock::take(&data), Err(LockError::Taken { .. })));
        drop(first);
        DataDirLock::take(&data).unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        assert!(matches!(DataDirLock::take(&blocked), Err(LockError::Dir { .. })));
    }
}
