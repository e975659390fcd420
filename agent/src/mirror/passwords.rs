//! Passwords of upstreams: in memory until the run that they came for takes them, and in a file of
//! the agent's own while its rsync runs. They are in no ledger, log or listing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_model::MirrorName;
use lockstep_transport::durable;
use zeroize::Zeroizing;

/// The file's name in the state directory of its mirror.
const FILE: &str = "password";

/// Clones are the same.
#[derive(Clone, Default)]
pub struct Passwords(Arc<Mutex<BTreeMap<MirrorName, Zeroizing<String>>>>);

impl Passwords {
    /// In place of what was there.
    pub fn put(&self, mirror: &MirrorName, password: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(mirror.clone(), Zeroizing::new(password));
    }

    pub fn take(&self, mirror: &MirrorName) -> Option<Zeroizing<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(mirror)
    }
}

/// A file that rsync reads a password from; gone when dropped.
pub struct PasswordFile(PathBuf);

impl PasswordFile {
    pub fn write(state_dir: &Path, password: &str) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        durable::write_secret(&path, format!("{password}\n").as_bytes())?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What an agent that was killed left.
    pub fn sweep(state_dir: &Path) {
        for name in [FILE, "password~"] {
            let _ = fs::remove_file(state_dir.join(name));
        }
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
