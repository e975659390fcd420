//! Reads entries below one directory. It never follows a link, whatever is swapped while it reads:
//! every directory is opened by the kernel from the root, and entries are looked at from there.

use std::ffi::CStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxFlags, openat, openat2, statx,
};
use rustix::io::{Errno, Result};

use super::entry::{Entry, Keep, Key, Kind};
use crate::journal::PATH_MAX;

/// Bytes read of a directory at once.
const DIR_BUFFER: usize = 64 << 10;
/// How often the kernel is asked again when a rename came between.
const RACES_MAX: u32 = 16;
/// Longest list of names, or value, of extended attributes that is read, in bytes; Linux has no
/// longer ones.
const XATTR_MAX: usize = 64 << 10;

/// Whether a path below the root, or a directory above it, is left out by the sync. The flag is for
/// directories.
pub type Filter = Arc<dyn Fn(&[u8], bool) -> bool + Send + Sync>;

/// How entries are read for one comparison.
#[derive(Clone)]
pub struct Rules {
    pub key: Key,
    pub keep: Keep,
    pub excluded: Filter,
}

pub struct Root(OwnedFd);

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl Root {
    /// The root itself may be reached by a link, as rsync's is.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// The empty path is the root.
    pub fn dir(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open_below(path, FLAGS | OFlags::DIRECTORY)
    }

    /// A regular file, and nothing else.
    pub fn file(&self, path: &[u8]) -> Result<File> {
        // A FIFO would wait for its writer.
        let fd = self.open_below(path, FLAGS | OFlags::NONBLOCK)?;
        let found = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(Errno::INVAL),
        }
    }

    fn open_below(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        for _ in 0..RACES_MAX {
            match openat2(&self.0, path, flags, Mode::empty(), RESOLVE) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS) => return self.open_by_parts(path, flags),
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    /// For kernels before 5.6: each part by itself, none of them a link.
    fn open_by_parts(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let (above, last) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let mut fd: Option<OwnedFd> = None;
        for part in above.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let at = fd.as_ref().unwrap_or(&self.0);
            fd = Some(openat(at, part, FLAGS | OFlags::DIRECTORY, Mode::empty())?);
        }
        openat(fd.as_ref().unwrap_or(&self.0), last, flags, Mode::empty())
    }

    /// What is at a path, the empty one being the root; None when nothing is, or nothing that counts.
    pub fn look(&self, rules: &Rules, path: &[u8]) -> Result<Option<Entry>> {
        if path.is_empty() {
            return self.own_entry(rules).map(Some);
        }
        let (above, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let read = |dir: OwnedFd| {
            rustix::path::Arg::into_with_c_str(name, |name| read_entry(&dir, name, rules))
        };
        let entry = match self.dir(above).and_then(read) {
            Ok(entry) => entry,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
            Err(error) => return Err(error),
        };
        let counts = |entry: &Entry| {
            rules.keep.keeps(entry.kind) && !(rules.excluded)(path, entry.kind == Kind::Dir)
        };
        Ok(Some(entry).filter(counts))
    }

    /// The root's own entry; its time changes whenever rsync writes into it.
    pub fn own_entry(&self, rules: &Rules) -> Result<Entry> {
        Ok(Entry { mtime: (0, 0), ..read_entry(&self.0, c".", rules)? })
    }

    /// Calls `visit` for every entry of a directory that counts and whose name is `wanted`, in no
    /// order. An entry that goes away meanwhile is passed over.
    pub fn scan(
        &self,
        rules: &Rules,
        path: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], Entry),
    ) -> Result<()> {
        let dir = self.dir(path)?;
        let mut buffer = vec![MaybeUninit::uninit(); DIR_BUFFER];
        let mut whole = path.to_vec();
        if !path.is_empty() {
            whole.push(b'/');
        }
        let above = whole.len();
        let mut names = RawDir::new(&dir, &mut buffer);
        while let Some(found) = names.next() {
            let found = found?;
            let name = found.file_name();
            let bytes = name.to_bytes();
            if matches!(bytes, b"." | b"..") || !wanted(bytes) {
                continue;
            }
            whole.truncate(above);
            whole.extend_from_slice(bytes);
            let entry = match read_entry(&dir, name, rules) {
                Ok(entry) => entry,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            // No path that is longer can be delivered, or named by a peer.
            let counts = rules.keep.keeps(entry.kind)
                && whole.len() <= PATH_MAX
                && !(rules.excluded)(&whole, entry.kind == Kind::Dir);
            if counts {
                visit(bytes, entry);
            }
        }
        Ok(())
    }
}

fn read_entry(dir: &OwnedFd, name: &CStr, rules: &Rules) -> Result<Entry> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(dir, name, flags, StatxFlags::BASIC_STATS)?;
    let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Link,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::RegularFile | FileType::Unknown => Kind::File,
    };
    let link = match kind {
        Kind::Link if rules.keep.links => match rustix::fs::readlinkat(dir, name, Vec::new()) {
            Ok(text) => rules.key.text(text.to_bytes()),
            // It went away, and something else took its name.
            Err(Errno::INVAL) => return Err(Errno::NOENT),
            Err(error) => return Err(error),
        },
        _ => 0,
    };
    let xattrs = match kind {
        Kind::File | Kind::Dir if rules.keep.xattrs || rules.keep.acls => {
            read_xattrs(dir.as_fd(), name, rules)?
        }
        _ => 0,
    };
    let entry = Entry {
        kind,
        mode: found.stx_mode & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        size: found.stx_size,
        mtime: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        rdev: (found.stx_rdev_major, found.stx_rdev_minor),
        link,
        xattrs,
    };
    Ok(entry.keep_only(rules.keep))
}

/// Users' attributes and ACLs: the kernel's own are not the same on two machines.
fn read_xattrs(dir: BorrowedFd<'_>, name: &CStr, rules: &Rules) -> Result<u128> {
    let fd = openat(dir, name, FLAGS | OFlags::PATH, Mode::empty())?;
    // An O_PATH descriptor has no attributes of its own, but its name in /proc is the very inode.
    let at = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut names = vec![0; XATTR_MAX];
    let len = match rustix::fs::listxattr(&*at, &mut names[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut value = vec![0; XATTR_MAX];
    let mut sum = 0u128;
    for name in names[..len].split(|b| *b == 0) {
        let counts = if name.starts_with(b"system.posix_acl_") {
            rules.keep.acls
        } else {
            let is_users = name.starts_with(b"user.") && !name.starts_with(b"user.rsync.%");
            let is_roots = name == b"security.capability" || name.starts_with(b"trusted.");
            (rules.keep.xattrs && is_users) || (rules.keep.system_xattrs && is_roots)
        };
        if counts {
            match rustix::fs::getxattr(&*at, name, &mut value[..]) {
                Ok(len) => sum = sum.wrapping_add(rules.key.xattr(name, &value[..len])),
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_opened_through_a_link_or_above_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(inside.join("a/b/file"), "x").unwrap();
        fs::write(dir.path().join("secret"), "y").unwrap();
        symlink("a", inside.join("link")).unwrap();
        symlink("../secret", inside.join("out")).unwrap();
        let root = Root::open(&inside).unwrap();
        for by_parts in [false, true] {
            let open = if by_parts { Root::open_by_parts } else { Root::open_below };
            assert!(open(&root, b"a/b/file", FLAGS).is_ok());
            assert!(open(&root, b"a/b", FLAGS | OFlags::DIRECTORY).is_ok());
            assert!(open(&root, b".", FLAGS | OFlags::DIRECTORY).is_ok());
            for path in [&b"link/b/file"[..], b"link", b"out", b"a/none", b"a/b/file/x"] {
                assert!(open(&root, path, FLAGS).is_err(), "{}", path.escape_ascii());
            }
        }
        assert!(root.open_below(b"../secret", FLAGS).is_err());
    }
}
