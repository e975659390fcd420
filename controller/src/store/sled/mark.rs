//! How far the store got, in a file beside sled's. Where sled's file is damaged it drops all that
//! follows and opens without a word; this tells. It is written after each commit is durable and not
//! synced itself, so it is never ahead of a store that is whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lockstep_model::Revision;

const FILE: &str = "acknowledged";

#[derive(Debug)]
pub struct Mark(File);

impl Mark {
    /// In the directory of the store, so that it is moved away with it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(dir.join(FILE))?;
        Ok(Self(file))
    }

    /// Zero when it was never set, or says nothing that makes sense.
    pub fn get(&self) -> io::Result<Revision> {
        let mut bytes = [0; 21];
        let read = self.0.read_at(&mut bytes, 0)?;
        let text = std::str::from_utf8(&bytes[..read]).unwrap_or_default();
        Ok(Revision(text.trim_end().parse().unwrap_or_default()))
    }

    /// The same length always, so that a full disk cannot be in the way.
    pub fn set(&self, revision: Revision) -> io::Result<()> {
        self.0.write_all_at(format!("{:020}\n", revision.0).as_bytes(), 0)
    }
}
