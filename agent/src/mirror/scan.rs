//! A look at a tree that its owner fills: how much it is, and a sum by which a later look tells
//! whether anything is other than it was. Contents are not read: sizes and times stand for them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::publish::WORK;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Below the top.
    pub entries: u64,
    /// Of the files, those with several names once each.
    pub bytes: u64,
    pub fingerprint: String,
}

/// `skip` is a directory from the top that does not count. None when stopped.
pub fn scan(
    tree: &Path,
    skip: Option<PathBuf>,
    stop: &CancellationToken,
) -> io::Result<Option<Found>> {
    let mut sum = Sha256::new();
    let (mut entries, mut bytes) = (0, 0);
    let skip = skip.map(|skip| tree.join(skip));
    let tree = fs::canonicalize(tree)?;
    let mut dirs = vec![tree.clone()];
    while let Some(dir) = dirs.pop() {
        if stop.is_cancelled() {
            return Ok(None);
        }
        let mut names = fs::read_dir(&dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        for path in names {
            let is_work = dir == tree && path.file_name().is_some_and(|name| name == WORK);
            if is_work || skip.as_ref() == Some(&path) {
                continue;
            }
            let found = match fs::symlink_metadata(&path) {
                // It went away meanwhile: the next look tells.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found?,
            };
            entries += 1;
            let below = path.strip_prefix(&tree).unwrap_or(&path).as_os_str().as_bytes();
            sum.update((below.len() as u64).to_le_bytes());
            sum.update(below);
            // The size and time of a directory tell nothing that its entries do not.
            let (size, at) = match found.is_dir() {
                true => (0, (0, 0)),
                false => (found.len(), (found.mtime(), found.mtime_nsec())),
            };
            for number in [u64::from(found.mode()), u64::from(found.uid()), u64::from(found.gid())]
            {
                sum.update(number.to_le_bytes());
            }
            sum.update(size.to_le_bytes());
            sum.update(at.0.to_le_bytes());
            sum.update(at.1.to_le_bytes());
            if found.is_symlink() {
                sum.update(fs::read_link(&path)?.as_os_str().as_bytes());
            }
            if found.is_dir() {
                dirs.push(path);
            } else if found.is_file() {
                bytes += found.len();
            }
        }
    }
    let hex = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Found { entries, bytes, fingerprint: hex }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_change_shows_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        fs::create_dir(tree.join("d")).unwrap();
        fs::write(tree.join("d/a"), "a").unwrap();
        fs::write(tree.join("b"), "bb").unwrap();
        let stop = CancellationToken::new();
        let look = || scan(tree, Some("trace".into()), &stop).unwrap().unwrap();
        let first = look();
        assert_eq!((first.entries, first.bytes), (3, 3));
        fs::create_dir_all(tree.join("trace")).unwrap();
        fs::write(tree.join("trace/web1"), "now").unwrap();
        assert_eq!(look(), first);
        let mut seen = vec![first.fingerprint];
        let mut changed = |what: &str| {
            let now = look().fingerprint;
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::set_permissions(tree.join("b"), fs::Permissions::from_mode(0o600)).unwrap();
        changed("a mode");
        fs::write(tree.join("b"), "bbb").unwrap();
        changed("a size");
        fs::rename(tree.join("b"), tree.join("c")).unwrap();
        changed("a name");
        fs::create_dir(tree.join("e")).unwrap();
        changed("an empty directory");
        std::os::unix::fs::symlink("c", tree.join("l")).unwrap();
        changed("a link");
        stop.cancel();
        assert_eq!(scan(tree, None, &stop).unwrap(), None);
    }
}
