//! What postgres says before and beside its own log: one file with a bound, and its last words for
//! messages.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::files;
use super::layout::Layout;

const FILE: &str = "postgres.log";
/// One more of the same size is kept.
const BYTES_MAX: u64 = 32 << 20;
/// Of the last words, in bytes.
const TAIL_MAX: u64 = 4096;
/// Last words in a message.
const LINES_MAX: usize = 6;

pub fn path(layout: &Layout) -> PathBuf {
    layout.private.join(FILE)
}

pub fn open(layout: &Layout) -> io::Result<fs::File> {
    files::open_log(&path(layout), &layout.owner)
}

/// postgres holds the file open and appends: so it is copied aside and emptied; lines written between
/// the two are lost.
pub fn bound(layout: &Layout) -> io::Result<()> {
    bound_at(&path(layout), BYTES_MAX)
}

fn bound_at(path: &Path, most: u64) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_file() || found.len() <= most {
        return Ok(());
    }
    let aside = path.with_extension("log.1");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut from = fs::File::open(path)?;
    let mut to = fs::OpenOptions::new().write(true).create_new(true).open(&aside)?;
    io::copy(&mut from, &mut to)?;
    fs::OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// How long the log is now: what follows is of the next start.
pub fn end(layout: &Layout) -> u64 {
    fs::symlink_metadata(path(layout)).map_or(0, |found| found.len())
}

/// The last words since `from`, on one line; those of errors first choice.
pub fn last_words(layout: &Layout, from: u64) -> String {
    let tail = read_tail(&path(layout), from).unwrap_or_default();
    // Why a socket cannot be had stands in a line that is no error's.
    const ERRORS: [&str; 4] = ["FATAL:", "PANIC:", "ERROR:", "could not bind"];
    let is_error = |line: &&str| ERRORS.iter().any(|part| line.contains(part));
    let errors: Vec<&str> = tail.lines().filter(is_error).collect();
    let all: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
    let lines = if errors.is_empty() { all } else { errors };
    let last = lines.iter().skip(lines.len().saturating_sub(LINES_MAX));
    let last: Vec<String> =
        last.map(|line| line.trim().replace(|c: char| c.is_control(), " ")).collect();
    match last.is_empty() {
        true => format!("it said nothing; see {}", path(layout).display()),
        false => last.join("; "),
    }
}

fn read_tail(path: &Path, from: u64) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    let from = if from > len { 0 } else { from };
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(TAIL_MAX))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_while_it_is_written() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgres.log");
        bound_at(&path, 10).unwrap();
        let mut log = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        log.write_all(b"short").unwrap();
        bound_at(&path, 10).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        log.write_all(b" and longer").unwrap();
        bound_at(&path, 10).unwrap();
        log.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("postgres.log.1")).unwrap(), b"short and longer");
    }
}
