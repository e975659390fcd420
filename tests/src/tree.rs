//! What a directory holds, so that two can be compared: types, modes, owners, times, contents. It
//! reads only, and names are bytes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// How many differences are told.
const SHOWN_MAX: usize = 8;

/// Everything below a directory, itself left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree(pub BTreeMap<PathBuf, Entry>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Type and permissions, as `stat` has them. Always equal for symlinks.
    pub mode: u32,
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    pub content: Content,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    Directory,
    File { bytes: u64, sha256: [u8; 32] },
    Symlink(OsString),
    Other { device: u64 },
}

/// How one tree differs from another; empty when it does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Differences(Vec<String>);

impl Tree {
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut found = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(below) = left.pop() {
            for entry in fs::read_dir(dir.join(&below))? {
                let entry = entry?;
                let path = below.join(entry.file_name());
                let meta = entry.metadata()?;
                if meta.is_dir() {
                    left.push(path.clone());
                }
                found.insert(path, Entry::read(&entry.path(), &meta)?);
            }
        }
        Ok(Self(found))
    }

    /// Without the parts of seconds, which rsync leaves as they are.
    pub fn whole_seconds(mut self) -> Self {
        self.0.values_mut().for_each(|entry| entry.modified.1 = 0);
        self
    }

    /// What is not as in `original`.
    pub fn differences(&self, original: &Self) -> Differences {
        let paths = self.0.keys().chain(original.0.keys().filter(|p| !self.0.contains_key(*p)));
        let differ = paths.filter_map(|path| match (self.0.get(path), original.0.get(path)) {
            (Some(here), Some(there)) if here == there => None,
            (Some(here), Some(there)) => Some(format!("{path:?}: {here:?} is not {there:?}")),
            (Some(_), None) => Some(format!("{path:?} is too much")),
            (None, _) => Some(format!("{path:?} is missing")),
        });
        Differences(differ.collect())
    }
}

impl Entry {
    fn read(path: &Path, meta: &Metadata) -> io::Result<Self> {
        let kind = meta.file_type();
        let content = if kind.is_dir() {
            Content::Directory
        } else if kind.is_symlink() {
            Content::Symlink(fs::read_link(path)?.into())
        } else if kind.is_file() {
            Content::File { bytes: meta.len(), sha256: Sha256::digest(fs::read(path)?).into() }
        } else {
            Content::Other { device: meta.rdev() }
        };
        Ok(Self {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            content,
        })
    }
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.0.iter().take(SHOWN_MAX) {
            writeln!(f, "{line}")?;
        }
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

/// `a\n` and the like: names that are hard on parsers, and legal.
pub fn hard_names() -> Vec<OsString> {
    [
        &b"new\nline"[..],
        b"-n",
        b"--delete",
        b"#hash",
        b";semi",
        b" lead",
        b"trail ",
        b"tab\tbed",
        b"back\\slash",
        b"\\#012",
        b"star*",
        b"[brackets]?",
        b"quote'\"",
        b"$(touch hacked)",
        b"nul\xff\xfelike",
        b"caf\xc3\xa9",
        b".hidden",
        b"..dots",
        b"+ plus",
        b"- minus",
        b"carriage\rreturn",
    ]
    .into_iter()
    .map(|name| std::ffi::OsStr::from_bytes(name).to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn tells_every_kind_of_difference() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for side in [&a, &b] {
            fs::create_dir_all(side.join("sub"))?;
            fs::write(side.join("sub/file"), "same")?;
            symlink("file", side.join("sub/link"))?;
            for name in ["sub/file", "sub", ""] {
                let at = std::time::UNIX_EPOCH;
                fs::File::open(side.join(name))?.set_modified(at)?;
            }
        }
        // The links were made at different times.
        let without_link = |dir: &Path| -> io::Result<Tree> {
            let mut tree = Tree::read(dir)?;
            let link = tree.0.remove(Path::new("sub/link"));
            assert!(link.is_some_and(|l| l.content == Content::Symlink("file".into())));
            Ok(tree)
        };
        let original = without_link(&a)?;
        assert!(without_link(&b)?.differences(&original).is_empty());

        fs::write(b.join("more"), "")?;
        fs::set_permissions(b.join("sub"), fs::Permissions::from_mode(0o700))?;
        fs::remove_file(b.join("sub/file"))?;
        let told = without_link(&b)?.differences(&original).to_string();
        for expected in ["\"more\" is too much", "\"sub\": ", "\"sub/file\" is missing"] {
            assert!(told.contains(expected), "{told}");
        }
        Ok(())
    }
}
