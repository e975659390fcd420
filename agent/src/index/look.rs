//! Looks at single names of the source for the index, from its directory down and never through a
//! symlink. It reads names, types and times, and opens no file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};

use super::{Kind, Seen};

/// A source directory, with the directory last looked into kept open.
pub struct Looker {
    root: OwnedFd,
    near: Option<(Vec<u8>, Option<OwnedFd>)>,
}

impl Looker {
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(Self { root, near: None })
    }

    pub fn root(&self) -> io::Result<Seen> {
        see(&self.root, b"")
    }

    /// None when nothing is there, or nothing that can be looked at.
    pub fn look(&mut self, path: &[u8]) -> Option<Seen> {
        let (dir, name) = split(path);
        if self.near.as_ref().is_none_or(|(near, _)| near != dir) {
            self.near = Some((dir.to_vec(), self.directory(dir, OFlags::PATH).ok()));
        }
        let (_, opened) = self.near.as_ref()?;
        see(opened.as_ref()?, name).ok()
    }

    /// Opens a directory below the root; the root itself is the empty path.
    pub fn directory(&self, path: &[u8], how: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = how | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(&self.root, path, flags, Mode::empty(), beneath())?)
    }
}

/// Stays below the directory it starts from and follows no link.
pub fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// Directory and last name of a relative path; the root is the empty path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// An empty name is the directory itself.
pub fn see(dir: &OwnedFd, name: &[u8]) -> io::Result<Seen> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW;
    flags.set(AtFlags::EMPTY_PATH, name.is_empty());
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let found = statx(dir, OsStr::from_bytes(name), flags, wanted)?;
    let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    };
    let sure = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let mut tag = crc32fast::Hasher::new();
    tag.update(&found.stx_dev_major.to_ne_bytes());
    tag.update(&found.stx_dev_minor.to_ne_bytes());
    if sure {
        tag.update(&found.stx_btime.tv_sec.to_ne_bytes());
        tag.update(&found.stx_btime.tv_nsec.to_ne_bytes());
    }
    let mtime = found.stx_mtime;
    Ok(Seen {
        kind,
        ino: found.stx_ino,
        tag: tag.finalize(),
        sure,
        size: found.stx_size,
        mtime_ns: mtime.tv_sec.saturating_mul(1_000_000_000).saturating_add(mtime.tv_nsec.into()),
    })
}
