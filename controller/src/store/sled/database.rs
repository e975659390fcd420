//! How sled's database is opened, and what its refusals mean.

use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use sled::Db;

use super::STORE_DIR;
use crate::store::{StoreError, way_out};

/// All reads but those of the start are served from the world in memory, so the cache is small.
const CACHE_BYTES: u64 = 16 << 20;
/// How often sled's own thread cleans the file.
const CLEAN_EVERY_MS: u64 = 10_000;
/// Threads of a database that this process has just closed may hold sled's lock a little longer.
/// It cannot be anybody else: this process holds the `DirLock`.
const UNLOCK_TRIES_MAX: usize = 200;
const UNLOCK_PAUSE: Duration = Duration::from_millis(10);

pub fn open_db(dir: &Path, data_dir: &Path) -> Result<Db, StoreError> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(CLEAN_EVERY_MS));
    // Some damage makes sled panic where it should return an error.
    let open = || std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
    let mut opened = open();
    for _ in 0..UNLOCK_TRIES_MAX {
        if !matches!(&opened, Ok(Err(sled::Error::Io(e))) if e.to_string().contains("acquire lock"))
        {
            break;
        }
        std::thread::park_timeout(UNLOCK_PAUSE);
        opened = open();
    }
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Unsupported(problem))) => {
            Err(StoreError::Foreign { dir: dir.into(), problem })
        }
        Ok(Err(sled::Error::Io(e))) => match e.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Err(StoreError::ReadOnly { dir: dir.into(), problem: e.to_string() })
            }
            _ => Err(StoreError::io(dir, e)),
        },
        Ok(Err(e)) => Err(unreadable(data_dir, e)),
        Err(_) => Err(unreadable(data_dir, "sled panicked on it")),
    }
}

pub fn unreadable(data_dir: &Path, problem: impl ToString) -> StoreError {
    let dir = data_dir.join(STORE_DIR);
    let problem = format!("{}; {}", problem.to_string(), way_out(data_dir));
    StoreError::damaged(dir.display(), problem)
}
