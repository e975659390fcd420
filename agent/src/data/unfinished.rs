//! The file that a receiver had not finished when it was killed: noted by its descriptor while it is
//! written, and removed when that receiver is gone. Nothing that was not seen so is ever removed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat};

/// How often it is looked what is written: a file that takes less is missed.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Most processes of one receiver; rsync has two.
const PROCESSES_MAX: usize = 8;

/// A file below the top of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfinished {
    parent: PathBuf,
    name: OsString,
    device: u64,
    inode: u64,
}

/// Keeps in `noted` what the rsync with this process id, or its children, writes below `top`; ends
/// never.
pub async fn follow(pid: i32, top: &Path, noted: &mut Option<Unfinished>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let top = top.to_owned();
        let found = tokio::task::spawn_blocking(move || look(pid, &top)).await;
        if let Ok(Some(found)) = found {
            *noted = Some(found);
        }
    }
}

fn look(pid: i32, top: &Path) -> Option<Unfinished> {
    let mut pids = vec![pid];
    for at in 0..PROCESSES_MAX {
        let Some(pid) = pids.get(at).copied() else { break };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
    }
    pids.into_iter().take(PROCESSES_MAX).find_map(|pid| written(pid, top))
}

fn written(pid: i32, top: &Path) -> Option<Unfinished> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    open.flatten().find_map(|open| {
        let at = fs::read_link(open.path()).ok()?;
        let (parent, name) = (at.strip_prefix(top).ok()?.parent()?, at.file_name()?);
        let info = open.path().to_string_lossy().replacen("/fd/", "/fdinfo/", 1);
        if !is_temporary(name.as_bytes()) || !is_for_writing(&fs::read_to_string(info).ok()?) {
            return None;
        }
        let found = fs::metadata(open.path()).ok().filter(fs::Metadata::is_file)?;
        let (device, inode) = (found.dev(), found.ino());
        Some(Unfinished { parent: parent.to_owned(), name: name.to_owned(), device, inode })
    })
}

/// `.NAME.a1B2c3`, as rsync calls what it writes.
fn is_temporary(name: &[u8]) -> bool {
    let Some((base, [b'.', end @ ..])) = name.split_last_chunk::<7>() else { return false };
    base.first() == Some(&b'.') && base.len() > 1 && end.iter().all(u8::is_ascii_alphanumeric)
}

/// By the access mode, in the lowest two bits.
fn is_for_writing(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 != 0)
}

/// Of a receiver that is gone. Whatever else has come to that name stays.
pub async fn remove(top: &Path, noted: Unfinished) {
    let of = top.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_now(&of, &noted)).await;
    match removed.map_err(io::Error::other).and_then(|removed| removed) {
        Ok(true) => {
            tracing::info!(top = %top.display(), "removed what a killed rsync left unfinished")
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(top = %top.display(), %error, "cannot remove what a killed rsync left");
        }
    }
}

fn remove_now(top: &Path, noted: &Unfinished) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(top, flags, Mode::empty())?;
    if !noted.parent.as_os_str().is_empty() {
        let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        dir = openat2(&dir, &noted.parent, flags, Mode::empty(), stay)?;
    }
    match statat(&dir, &noted.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if (found.st_dev, found.st_ino) == (noted.device, noted.inode) => {
            unlinkat(&dir, &noted.name, AtFlags::empty())?;
            Ok(true)
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_under_such_a_name_is_noted_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir(top.join("d")).unwrap();
        let path = |name: &str| top.join("d").join(name);
        for name in [".read.a1B2c3", ".written.a1B2c3", "written.a1B2c3", ".written.a1B2c"] {
            fs::write(path(name), name).unwrap();
        }
        let own = std::process::id() as i32;
        let _read = fs::File::open(path(".read.a1B2c3")).unwrap();
        let write = |name: &str| fs::File::options().append(true).open(path(name)).unwrap();
        let _others = [write("written.a1B2c3"), write(".written.a1B2c")];
        assert_eq!(written(own, &top), None);
        let writes = write(".written.a1B2c3");
        assert_eq!(written(own, &top.join("other")), None);
        let noted = written(own, &top).unwrap();
        drop(writes);
        // Something else by the same name.
        fs::rename(path(".written.a1B2c3"), path("away")).unwrap();
        assert!(!remove_now(&top, &noted).unwrap());
        fs::write(path(".written.a1B2c3"), "another").unwrap();
        assert!(!remove_now(&top, &noted).unwrap() && path(".written.a1B2c3").exists());
        fs::rename(path("away"), path(".written.a1B2c3")).unwrap();
        assert!(remove_now(&top, &noted).unwrap() && !path(".written.a1B2c3").exists());
        assert!(path(".read.a1B2c3").exists() && path("written.a1B2c3").exists());
    }
}
