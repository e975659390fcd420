//! One controller per data directory: a lock that the kernel drops with its holder, however that
//! ends, and the holder's process id for whoever comes second.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Below the data directory.
pub const LOCK_FILE: &str = "lock";

/// Held until dropped.
#[derive(Debug)]
pub struct DirLock(#[allow(dead_code)] File);

impl DirLock {
    pub fn acquire(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(LOCK_FILE);
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| refused(data_dir, e))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StoreError::InUse { dir: data_dir.into(), by: holder(&mut file) });
        }
        let pid = std::process::id();
        let note = file.set_len(0).and_then(|()| writeln!(file, "{pid}"));
        note.map_err(|e| StoreError::io(&path, e))?;
        Ok(Self(file))
    }
}

fn refused(data_dir: &Path, e: io::Error) -> StoreError {
    match e.kind() {
        ErrorKind::NotFound => StoreError::Missing { dir: data_dir.into() },
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            StoreError::ReadOnly { dir: data_dir.into(), problem: e.to_string() }
        }
        _ => StoreError::io(data_dir, e),
    }
}

/// `process 4711`, or less when the file does not say.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap();
        let refused = DirLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let error = DirLock::acquire(&gone).unwrap_err().to_string();
        assert!(error.contains("gone") && error.contains("lockstep-controller init"), "{error}");
    }
}
