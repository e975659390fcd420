//! Small files that a crash leaves with the old bytes or the new ones, never with half of them; secret
//! ones for their owner's eyes only. All calls block on the disk; one writer per file.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest secret file that is read, in bytes.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Replaces a file, durably when it returns. Its directory exists.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o644)
}

/// As [`write`], and its owner alone may read it.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o600)
}

/// Reads a text file of a plausible size.
pub fn read_secret(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is far too long for its kind"));
    }
    Ok(text)
}

/// Makes a directory, and those above it, of mode 0700; that it exists already is fine.
pub fn make_secret_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes what was created, renamed and removed in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = fresh(path);
    // What a crash left of an earlier try; its mode need not be ours.
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => sync_dir(dir),
        _ => sync_dir(Path::new(".")),
    }
}

/// `~` is in no name that we give, so this is no other file's.
fn fresh(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push("~");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_whatever_a_crash_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let other = dir.path().join("key.new");
        fs::write(&other, "another file").unwrap();
        write(&path, b"old, and open to all").unwrap();
        // Half of an earlier try, which others may read.
        fs::write(dir.path().join("key.pem~"), "half of something that was much longer").unwrap();
        write_secret(&path, b"new").unwrap();
        assert_eq!(*read_secret(&path).unwrap(), "new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left over");

        // What cannot be replaced stays as it is.
        fs::create_dir(dir.path().join("key.pem~")).unwrap();
        assert!(write(&path, b"newer").is_err());
        assert_eq!(*read_secret(&path).unwrap(), "new");
    }

    #[test]
    fn a_secret_file_is_read_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("a/b");
        make_secret_dir(&secret).unwrap();
        make_secret_dir(&secret).unwrap();
        assert_eq!((mode(&secret), mode(secret.parent().unwrap())), (0o700, 0o700));
        let path = secret.join("long");
        let most = usize::try_from(SECRET_BYTES_MAX).unwrap();
        write_secret(&path, &vec![b'x'; most]).unwrap();
        assert_eq!(read_secret(&path).unwrap().len(), most);
        write_secret(&path, &vec![b'x'; most + 1]).unwrap();
        assert_eq!(read_secret(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
