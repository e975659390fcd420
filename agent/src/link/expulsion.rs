//! Whether this node was expelled, on disk: a restart, or a controller that has since forgotten the
//! node, does not make it serve again. Only a controller that welcomes it does, or a new identity.

use std::fs;
use std::io;
use std::path::PathBuf;

use lockstep_transport::durable;

/// The file in the data directory; it holds why.
pub const FILE: &str = "expelled";

pub(super) struct Expulsion {
    file: PathBuf,
    why: Option<String>,
}

impl Expulsion {
    pub(super) fn open(file: PathBuf) -> Self {
        // A file that cannot be read was written for a reason all the same.
        let why = match fs::read(&file) {
            Ok(why) => Some(String::from_utf8_lossy(&why).into_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some("the reason cannot be read".to_owned()),
        };
        Self { file, why }
    }

    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    pub(super) fn note(&mut self, why: &str) {
        if self.why() != Some(why) {
            self.why = Some(why.to_owned());
            if let Err(error) = durable::write(&self.file, why.as_bytes()) {
                tracing::error!(%error, "cannot note that this node was expelled; it holds until a restart");
            }
        }
    }

    pub(super) fn lift(&mut self) {
        if self.why.take().is_some()
            && let Err(error) = fs::remove_file(&self.file)
        {
            tracing::error!(%error, "cannot note that this node is welcome again; it holds until a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_over_a_restart_until_it_is_lifted() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Expulsion::open(dir.path().join(FILE));
        assert_eq!(open().why(), None);
        open().note("by user/ann");
        assert_eq!(open().why(), Some("by user/ann"));
        open().lift();
        assert_eq!(open().why(), None);
        open().lift();
    }
}
