//! What changed at a source, durably: an append-only log in segments. Dispatchers append, one at a
//! time by a lock; the agent reads and deletes whole segments that every target has passed.
//! It knows nothing of targets. Damage is never skipped silently: it reads as `Full`.

pub mod entry;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_model::Timestamp;
use lockstep_transport::durable;

pub use entry::{Change, Changed, Entry, PATH_MAX, RelPath, is_rel_path};
use entry::{HEADER_LEN, Step};

/// A segment that reached this many bytes gets no more entries.
pub const SEGMENT_MAX: u64 = 1 << 20;
/// Most tries for the lock, `LOCK_PAUSE` apart: 10 s.
const LOCK_TRIES_MAX: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
#[error("journal {path}: cannot {doing}: {source}")]
pub struct JournalError {
    path: PathBuf,
    doing: &'static str,
    source: io::Error,
}

fn at(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError { path: path.to_owned(), doing, source }
}

/// The one writer, while it lives. Opening it repairs what a crash left.
pub struct Appender {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    next_seq: u64,
    /// Held open: its flock is the right to write.
    _lock: File,
}

impl Appender {
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        fs::create_dir_all(dir).map_err(at(dir, "create it"))?;
        let lock = lock(&dir.join("lock"))?;
        let Some(&first) = segments(dir)?.last() else {
            return Self::start_segment(dir, 1, lock);
        };
        let path = segment_path(dir, first);
        let mut file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(at(&path, "open it"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at(&path, "read it"))?;
        let mut seq = first - 1;
        let mut offset = 0;
        loop {
            match entry::decode(&bytes[offset..], seq) {
                Step::Entry { entry, len } => {
                    seq = entry.seq;
                    offset += len;
                }
                Step::End => break,
                Step::Torn => {
                    // Never acknowledged, so lsyncd has kept its events and tells them again.
                    file.set_len(offset as u64).map_err(at(&path, "cut its torn end"))?;
                    file.sync_data().map_err(at(&path, "sync it"))?;
                    break;
                }
                Step::Damaged => {
                    // The next number is above all that the unreadable rest can have held.
                    let lost = (bytes.len() - offset) / HEADER_LEN + 1;
                    return Self::start_segment(dir, seq + 1 + lost as u64, lock);
                }
            }
        }
        let len = offset as u64;
        Ok(Self { dir: dir.to_owned(), path, file, len, next_seq: seq + 1, _lock: lock })
    }

    fn start_segment(dir: &Path, first: u64, lock: File) -> Result<Self, JournalError> {
        let (path, file) = create_segment(dir, first)?;
        Ok(Self { dir: dir.to_owned(), path, file, len: 0, next_seq: first, _lock: lock })
    }

    /// Sequence of the last entry, 0 when there never was one.
    pub fn head(&self) -> u64 {
        self.next_seq - 1
    }

    /// On disk when it returns; the sequence it got. After an error nothing was appended.
    pub fn append(&mut self, now: Timestamp, change: Change) -> Result<u64, JournalError> {
        if self.len >= SEGMENT_MAX {
            (self.path, self.file) = create_segment(&self.dir, self.next_seq)?;
            self.len = 0;
        }
        let seq = self.next_seq;
        let bytes = entry::encode(&Entry { seq, at: now, change });
        let written = self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Best effort: the next appender cuts a torn end as well.
            let _ = self.file.set_len(self.len);
            return Err(at(&self.path, "append to it")(error));
        }
        self.len += bytes.len() as u64;
        self.next_seq += 1;
        Ok(seq)
    }
}

/// Reads on where it stopped. Needs no lock: an entry that is being written looks torn.
pub struct Reader {
    dir: PathBuf,
    /// Last sequence read.
    seq: u64,
    /// First sequence of the segment being read, and the offset in it.
    place: Option<(u64, u64)>,
}

impl Reader {
    /// Will read the entries above `seq`.
    pub fn after(dir: &Path, seq: u64) -> Self {
        Self { dir: dir.to_owned(), seq, place: None }
    }

    /// Last sequence read.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The next entries, at most one segment's; none when all were read.
    pub fn read(&mut self) -> Result<Vec<Entry>, JournalError> {
        let mut entries = Vec::new();
        let segments = segments(&self.dir)?;
        let (first, offset) = match self.place {
            Some(place) => place,
            None => {
                let holding = segments.iter().rev().find(|first| **first <= self.seq + 1);
                let Some(&first) = holding.or(segments.first()) else { return Ok(entries) };
                if first > self.seq + 1 {
                    entries.push(self.full(first - 1));
                }
                (first, 0)
            }
        };
        let next = segments.iter().copied().find(|other| *other > first);
        let path = segment_path(&self.dir, first);
        let bytes = match read_from(&path, offset) {
            Ok(bytes) => bytes,
            // Deleted by someone else: what it held is unknown.
            Err(error) if error.kind() == io::ErrorKind::NotFound && next.is_some() => vec![0],
            Err(error) => return Err(at(&path, "read it")(error)),
        };
        // Entries below the wanted ones come by when a segment is read from its start.
        let mut seen = if offset == 0 { first - 1 } else { self.seq };
        let mut used = 0;
        let ending = loop {
            match entry::decode(&bytes[used..], seen) {
                Step::Entry { entry, len } => {
                    seen = entry.seq;
                    used += len;
                    if entry.seq > self.seq {
                        self.seq = entry.seq;
                        entries.push(entry);
                    }
                }
                ending => break ending,
            }
        };
        self.place = Some((first, offset + used as u64));
        match (ending, next) {
            (Step::End, Some(next)) if next == seen + 1 => self.place = Some((next, 0)),
            // A segment that is not the last gets no more entries: all else in it is damage.
            (_, Some(next)) => {
                if next - 1 > self.seq {
                    entries.push(self.full(next - 1));
                }
                self.place = Some((next, 0));
            }
            (Step::Damaged, None) => {
                // An appender closes the segment; the next read goes on behind it.
                drop(Appender::open(&self.dir)?);
            }
            (_, None) => return Ok(entries),
        }
        if entries.is_empty() { self.read() } else { Ok(entries) }
    }

    fn full(&mut self, seq: u64) -> Entry {
        self.seq = seq;
        Entry { seq, at: Timestamp::default(), change: Change::Full }
    }
}

/// Deletes the segments whose every entry is at or below `passed`; the last one always stays,
/// because it holds the numbering. Returns how many are left.
pub fn prune(dir: &Path, passed: u64) -> Result<usize, JournalError> {
    let segments = segments(dir)?;
    let passed = segments.windows(2).take_while(|pair| pair[1] - 1 <= passed).count();
    for first in &segments[..passed] {
        let path = segment_path(dir, *first);
        fs::remove_file(&path).map_err(at(&path, "delete it"))?;
    }
    Ok(segments.len() - passed)
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let file = File::create(path).map_err(at(path, "open it"))?;
    for _ in 0..LOCK_TRIES_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(at(path, "lock it")(error)),
        }
    }
    Err(at(path, "lock it")(io::Error::new(io::ErrorKind::TimedOut, "another writer holds it")))
}

fn create_segment(dir: &Path, first: u64) -> Result<(PathBuf, File), JournalError> {
    let path = segment_path(dir, first);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(at(&path, "create it"))?;
    durable::sync_dir(dir).map_err(at(dir, "sync it"))?;
    Ok((path, file))
}

fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}

/// First sequences of all segments, ascending.
fn segments(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let list = || -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
            found.extend(number.and_then(|n| n.parse::<u64>().ok()).filter(|first| *first > 0));
        }
        found.sort_unstable();
        Ok(found)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(at(dir, "list it")),
    }
}

fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
