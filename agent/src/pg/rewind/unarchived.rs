//! Log that is in no archive yet, kept aside before a rewind takes it away: the archive's owner can
//! still complete it. Nothing that was kept is ever overwritten or removed here.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use lockstep_transport::durable::sync_dir;

use crate::pg::instance::{Layout, files};

const DIR: &str = "unarchived";
const READY: &str = ".ready";
/// Most files kept of one rewind.
const FILES_MAX: usize = 100_000;

/// Where they are.
pub fn dir(layout: &Layout) -> PathBuf {
    layout.private.join(DIR)
}

/// How many there were. Durable when it returns.
pub fn keep(layout: &Layout) -> Result<usize, String> {
    let pg_wal = layout.pg_wal();
    let names = waiting(&pg_wal).map_err(|e| format!("{}: {e}", pg_wal.display()))?;
    if names.is_empty() {
        return Ok(0);
    }
    let dir = dir(layout);
    let fail = |error: io::Error| format!("cannot keep log in {}: {error}", dir.display());
    files::make_dir(&dir, &layout.owner).map_err(fail)?;
    for name in &names {
        copy(&pg_wal.join(name), &dir.join(name)).map_err(fail)?;
    }
    sync_dir(&dir).map_err(fail)?;
    Ok(names.len())
}

/// Names of what the archiver has been told of and not done.
fn waiting(pg_wal: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(pg_wal.join("archive_status")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let ready = name.to_str().and_then(|name| name.strip_suffix(READY));
        if let Some(name) = ready.filter(|name| pg_wal.join(name).is_file()) {
            names.push(name.to_owned());
        }
        if names.len() > FILES_MAX {
            return Err(io::Error::other(
                "too many segments wait for the archiver: repair it first",
            ));
        }
    }
    names.sort();
    Ok(names)
}

/// What has been kept before stays: it is the same, or the older one.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let half = to.with_extension("half");
    if to.exists() {
        return Ok(());
    }
    match fs::remove_file(&half) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut target = File::create_new(&half)?;
    io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_all()?;
    fs::rename(&half, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("archive_status");
        fs::create_dir(&status).unwrap();
        for (name, mark) in
            [("1", "1.ready"), ("2", "2.done"), ("3", "x"), ("4.history", "4.history.ready")]
        {
            fs::write(dir.path().join(name), name).unwrap();
            fs::write(status.join(mark), "").unwrap();
        }
        fs::write(status.join("gone.ready"), "").unwrap();
        assert_eq!(waiting(dir.path()).unwrap(), ["1", "4.history"]);
        let to = dir.path().join("to");
        copy(&dir.path().join("1"), &to).unwrap();
        copy(&dir.path().join("2"), &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "1");
    }
}
