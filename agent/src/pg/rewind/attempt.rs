//! The mark of a rewind that was begun: while it is there the data is neither old nor new. It counts
//! the tries.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use lockstep_transport::durable;

const MARK: &str = "rewind";
/// An interrupted one is tried once more, and then the data is copied anew.
const TRIES_MAX: u32 = 2;

/// Tries that were begun and did not come through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempts(u32);

impl Attempts {
    /// A mark that cannot be read stands for all of them.
    pub fn read(own: &Path) -> Result<Self, String> {
        let mark = own.join(MARK);
        match fs::read_to_string(&mark) {
            Ok(text) => Ok(Self(text.trim().parse().unwrap_or(TRIES_MAX))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self(0)),
            Err(error) => Err(format!("{}: {error}", mark.display())),
        }
    }

    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    pub fn are_all_used(self) -> bool {
        self.0 >= TRIES_MAX
    }

    /// Durable when it returns.
    pub fn begin(self, own: &Path) -> Result<(), String> {
        let mark = own.join(MARK);
        let written = durable::write(&mark, (self.0 + 1).to_string().as_bytes());
        written.map_err(|error| format!("cannot write {}: {error}", mark.display()))
    }
}

/// A rewind of this data was begun and did not come through: it must not be started. `own` as in
/// `Order`.
pub fn is_unfinished(own: &Path) -> bool {
    own.join(MARK).exists()
}

/// The data is whole again, or another's.
pub fn forget(own: &Path) -> Result<(), String> {
    let mark = own.join(MARK);
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", mark.display()))
        }
        _ => durable::sync_dir(own).map_err(|error| format!("{}: {error}", own.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_one_is_tried_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path();
        let read = || Attempts::read(own).unwrap();
        assert!(read().is_none() && !is_unfinished(own));
        read().begin(own).unwrap();
        assert!(is_unfinished(own) && !read().is_none() && !read().are_all_used());
        read().begin(own).unwrap();
        assert!(read().are_all_used());
        forget(own).unwrap();
        assert!(read().is_none() && !is_unfinished(own));
        fs::write(own.join(MARK), "x").unwrap();
        assert!(read().are_all_used());
    }
}
