//! What is known of a mirror's tree over restarts: where it is, what it holds, and whether something
//! in it has changed that nobody was told. A mark that cannot be read counts as none: then the tree
//! counts as not complete.

use std::fs;
use std::io;
use std::path::Path;

use lockstep_model::path::DirPath;
use lockstep_transport::durable;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Mark {
    /// Where the tree is.
    pub tree: Option<DirPath>,
    /// The generation that is there completely.
    pub generation: Option<u64>,
    /// The one whose first stage is there.
    pub staged: u64,
    /// Something may have changed for this one, and nobody was told that it is there.
    pub pending: Option<u64>,
    /// Of a complete tree: its file system.
    pub system: Option<u64>,
    /// Of a tree that its owner fills, when it was looked at last.
    pub fingerprint: Option<String>,
}

impl Mark {
    pub fn is_filled(&self) -> bool {
        self.generation.is_some()
    }

    pub fn load(path: &Path) -> Self {
        fs::read_to_string(path).ok().and_then(|text| Self::read(&text)).unwrap_or_default()
    }

    /// Durable when it returns.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        durable::write(path, self.write().as_bytes())
    }

    fn read(text: &str) -> Option<Self> {
        let mut mark = Self::default();
        let mut lines = text.lines();
        if lines.next()? != HEAD {
            return None;
        }
        for line in lines {
            let (key, value) = line.split_once(' ')?;
            match key {
                "tree" => mark.tree = Some(value.parse().ok()?),
                "generation" => mark.generation = Some(value.parse().ok()?),
                "staged" => mark.staged = value.parse().ok()?,
                "pending" => mark.pending = Some(value.parse().ok()?),
                "system" => mark.system = Some(value.parse().ok()?),
                "fingerprint" => mark.fingerprint = Some(value.to_owned()),
                _ => return None,
            }
        }
        Some(mark)
    }

    fn write(&self) -> String {
        let Self { tree, generation, staged, pending, system, fingerprint } = self;
        let mut text = format!("{HEAD}\nstaged {staged}\n");
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                text += &format!("{key} {value}\n");
            }
        };
        line("tree", tree.as_ref().map(ToString::to_string));
        line("generation", generation.map(|n| n.to_string()));
        line("pending", pending.map(|n| n.to_string()));
        line("system", system.map(|n| n.to_string()));
        line("fingerprint", fingerprint.clone());
        text
    }
}

const HEAD: &str = "lockstep mirror 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_written_and_garbage_counts_as_none() {
        let full = Mark {
            tree: Some("/srv/my tree".parse().unwrap()),
            generation: Some(0),
            staged: 7,
            pending: Some(8),
            system: Some(u64::MAX),
            fingerprint: Some("ab12".to_owned()),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        for mark in [full, Mark::default()] {
            mark.save(&path).unwrap();
            assert_eq!(Mark::load(&path), mark);
        }
        for text in ["", "x", "lockstep mirror 1\nstaged", "lockstep mirror 1\nstaged -1\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(Mark::load(&path), Mark::default(), "{text}");
        }
    }
}
