//! Reads and replaces files in directories that belong to the postgres user, by an agent that is root:
//! no link of that user leads it elsewhere. A crash leaves the old bytes or the new ones.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use lockstep_transport::durable::sync_dir;
use rustix::fs::{Gid, OFlags, Uid, fchown};

use super::owner::Owner;

/// Longest file that is read, in bytes: postgresql.conf with all its comments has 30 kB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// None: it is not there. Err for what is no plain file of the owner's or root's.
pub fn read(path: &Path, owner: &Owner) -> Result<Option<String>, String> {
    let fail = |problem: String| format!("{}: {problem}", path.display());
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| fail(error.to_string()))?,
    };
    let found = file.metadata().map_err(|error| fail(error.to_string()))?;
    if !found.is_file() || found.uid() != owner.uid {
        return Err(fail(format!("is no file of {}'s: chown it", owner.name)));
    }
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| fail(error.to_string()))?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(fail("is far too long".to_owned())),
        false => Ok(Some(text)),
    }
}

/// Replaces it durably; true when it was something else before.
pub fn write(path: &Path, text: &str, mode: u32, owner: &Owner) -> Result<bool, String> {
    if read(path, owner).is_ok_and(|old| old.as_deref() == Some(text)) {
        return Ok(false);
    }
    replace(path, text.as_bytes(), mode, owner)
        .map(|()| true)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn replace(path: &Path, bytes: &[u8], mode: u32, owner: &Owner) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push("~");
    let fresh = Path::new(&fresh);
    remove(fresh)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(bytes)?;
    give(&file, owner)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// That there is none is fine. Durable.
pub fn remove_durably(path: &Path) -> io::Result<bool> {
    let there = fs::symlink_metadata(path).is_ok();
    if there {
        remove(path)?;
        path.parent().map_or(Ok(()), sync_dir)?;
    }
    Ok(there)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A directory of the owner's, 0700; those above it are made as root's. One that is there must be a
/// directory, and becomes the owner's.
pub fn make_dir(dir: &Path, owner: &Owner) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(dir)?;
    give(&opened, owner)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Opens a log to be appended to.
pub fn open_log(path: &Path, owner: &Owner) -> io::Result<fs::File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    give(&file, owner)?;
    Ok(file)
}

fn give(file: impl AsFd, owner: &Owner) -> io::Result<()> {
    // Another than root may only have files of its own.
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Ok(fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Owner {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Owner { name: "me".to_owned(), uid, gid, groups: vec![gid] }
    }

    #[test]
    fn links_are_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, link) = (dir.path().join("secret"), dir.path().join("link"));
        fs::write(&secret, "root's").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        assert!(read(&link, &me()).is_err());
        assert!(open_log(&link, &me()).is_err());
        assert_eq!(write(&link, "new", 0o600, &me()), Ok(true));
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root's");
        assert_eq!(write(&link, "new", 0o600, &me()), Ok(false));
        assert_eq!(read(&link, &me()), Ok(Some("new".to_owned())));
        assert_eq!(read(&dir.path().join("none"), &me()), Ok(None));
    }
}
