//! Goes through the log record by record, as recovery does, until the next one is not there whole.
//! Knows nothing of what records mean but the one that leaves the rest of a segment empty.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_model::cluster::{Lineage, Lsn};

use super::Begin;
use super::page::{Head, LONG, u32_at, u64_at};
use super::segment::Segment;

/// Read at once; a multiple of every page's size.
const CHUNK_BYTES: u64 = 1 << 20;
const RECORD_HEAD: usize = 24;
/// Largest record, in bytes: PostgreSQL makes none of more than 1020 MiB.
const RECORD_MAX: u64 = 1 << 30;
/// Where a record's checksum is; it covers what follows the head, and then the head up to here.
const CHECKSUM_AT: usize = 20;

/// A complete record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub start: Lsn,
    /// Where the next one is looked for.
    pub end: Lsn,
    manager: u8,
    info: u8,
}

impl Record {
    /// What was logged of the log itself: resource manager 0.
    fn is_log(&self, info: u8) -> bool {
        self.manager == 0 && self.info & 0xF0 == info
    }

    /// The last of a clean stop.
    pub fn is_shutdown(&self) -> bool {
        self.is_log(0x00)
    }

    fn is_switch(&self) -> bool {
        self.is_log(0x40)
    }
}

/// The file that recovery would read: of the newest timeline that had begun by then.
pub fn segment_at(
    pg_wal: &Path,
    chain: &Lineage,
    begin: &Begin,
    number: u64,
) -> io::Result<Option<(Segment, File)>> {
    let size = begin.segment_size;
    for fork in chain.0.iter().rev().filter(|fork| size.number(fork.begins) <= number) {
        let segment = Segment { timeline: fork.timeline, number };
        match File::open(pg_wal.join(segment.name(size))) {
            Ok(file) => return Ok(Some((segment, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Pages of the log along one history.
pub struct Log<'a> {
    pg_wal: &'a Path,
    begin: &'a Begin,
    chain: &'a Lineage,
    stop: &'a AtomicBool,
    open: Option<(Segment, File)>,
    chunk: Vec<u8>,
    chunk_at: Lsn,
    /// Timelines do not go back from page to page.
    timeline: u32,
}

impl<'a> Log<'a> {
    pub fn new(
        pg_wal: &'a Path,
        begin: &'a Begin,
        chain: &'a Lineage,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            pg_wal,
            begin,
            chain,
            stop,
            open: None,
            chunk: Vec::new(),
            chunk_at: Lsn(0),
            timeline: 0,
        }
    }

    fn page_begin(&self, at: Lsn) -> Lsn {
        Lsn(at.0 - at.0 % u64::from(self.begin.page_bytes))
    }

    /// Makes the page that begins at `at` the one that is read; None: it is not there.
    fn turn(&mut self, at: Lsn) -> io::Result<Option<Head>> {
        if !self.load(at)? {
            return Ok(None);
        }
        let head = Head::read(self.bytes(at, self.begin.page_bytes.into()), at, self.begin);
        let file_timeline = self.open.as_ref().map_or(0, |(segment, _)| segment.timeline);
        let fits = |head: &Head| {
            let known = self.chain.0.iter().any(|fork| fork.timeline == head.timeline);
            known && (self.timeline..=file_timeline).contains(&head.timeline)
        };
        let head = head.filter(fits);
        if let Some(head) = head {
            self.timeline = head.timeline;
        }
        Ok(head)
    }

    fn load(&mut self, at: Lsn) -> io::Result<bool> {
        let has = |chunk: &[u8], chunk_at: Lsn| {
            let end = at.0.checked_add(self.begin.page_bytes.into());
            at >= chunk_at && end.is_some_and(|end| end <= chunk_at.0 + chunk.len() as u64)
        };
        if has(&self.chunk, self.chunk_at) {
            return Ok(true);
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size = self.begin.segment_size;
        let number = size.number(at);
        if self.open.as_ref().is_none_or(|(segment, _)| segment.number != number) {
            self.open = segment_at(self.pg_wal, self.chain, self.begin, number)?;
            // Its first page tells whose it is, wherever reading in it begins.
            let mut first = [0; LONG];
            let read =
                self.open.as_ref().map(|(_, file)| file.read_at(&mut first, 0)).transpose()?;
            let page = &first[..read.unwrap_or(0)];
            if Head::read(page, size.begin(number), self.begin).is_none() {
                self.open = None;
            }
        }
        let Some((_, file)) = &self.open else { return Ok(false) };
        let offset = size.offset(at) / CHUNK_BYTES * CHUNK_BYTES;
        self.chunk_at = Lsn(size.begin(number).0 + offset);
        self.chunk.resize(CHUNK_BYTES as usize, 0);
        let mut filled = 0;
        while let Some(rest) = self.chunk.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        self.chunk.truncate(filled);
        Ok(has(&self.chunk, self.chunk_at))
    }

    /// Within the page that was turned to; shorter when it is not all there.
    fn bytes(&self, at: Lsn, len: u64) -> &[u8] {
        let from = at.0.saturating_sub(self.chunk_at.0) as usize;
        let rest = self.chunk.get(from..).unwrap_or_default();
        &rest[..rest.len().min(len as usize)]
    }
}

/// How far it is through the log.
pub struct Walk<'a> {
    log: Log<'a>,
    /// Where the next record begins, if there is one.
    pub next: Lsn,
    /// The latest one.
    pub last: Option<Record>,
}

impl<'a> Walk<'a> {
    /// A record begins at `at`.
    pub fn from_record(log: Log<'a>, at: Lsn) -> Self {
        Self { log, next: at, last: None }
    }

    /// From the first record that begins in a segment; None: there is none.
    pub fn from_segment(mut log: Log<'a>, number: u64) -> io::Result<Option<Self>> {
        let mut page = log.begin.segment_size.begin(number);
        let Some(mut head) = log.turn(page)? else { return Ok(None) };
        if !head.continues {
            return Ok(Some(Self { log, next: page, last: None }));
        }
        loop {
            let room = u64::from(log.begin.page_bytes) - head.len as u64;
            if u64::from(head.rest_bytes) <= room {
                let next = aligned(page.0 + head.len as u64 + u64::from(head.rest_bytes));
                return Ok(Some(Self { log, next, last: None }));
            }
            page = Lsn(page.0 + u64::from(log.begin.page_bytes));
            head = match log.turn(page)? {
                Some(head) if head.continues => head,
                _ => return Ok(None),
            };
        }
    }

    /// To the end.
    pub fn finish(&mut self) -> io::Result<()> {
        loop {
            match self.step()? {
                Step::Record(record) => (self.next, self.last) = (record.end, Some(record)),
                Step::GivenUp { on } => self.next = on,
                Step::End => return Ok(()),
            }
        }
    }

    fn step(&mut self) -> io::Result<Step> {
        let page_bytes = u64::from(self.log.begin.page_bytes);
        let mut at = aligned(self.next.0);
        let page = self.log.page_begin(at);
        let Some(head) = self.log.turn(page)? else { return Ok(Step::End) };
        match at.0 - page.0 {
            0 if head.continues => return Ok(Step::End),
            0 => at.0 += head.len as u64,
            offset if offset < head.len as u64 => return Ok(Step::End),
            _ => {}
        }
        let start = at;
        let total = u64::from(u32_at(self.log.bytes(at, 4), 0).unwrap_or(0));
        if !(RECORD_HEAD as u64..=RECORD_MAX).contains(&total) {
            return Ok(Step::End);
        }
        let (mut front, mut sum, mut got) = ([0; RECORD_HEAD], 0, 0);
        loop {
            let len = (page_bytes - at.0 % page_bytes).min(total - got);
            let piece = self.log.bytes(at, len);
            let of_front = (RECORD_HEAD - (got as usize).min(RECORD_HEAD)).min(piece.len());
            let (head_piece, body) = piece.split_at(of_front);
            front[got.min(RECORD_HEAD as u64) as usize..][..of_front].copy_from_slice(head_piece);
            sum = crc32c::crc32c_append(sum, body);
            got += len;
            at.0 += len;
            if got == total {
                break;
            }
            match self.log.turn(at)? {
                Some(head) if head.overwrites => return Ok(Step::GivenUp { on: at }),
                Some(head) if head.continues && u64::from(head.rest_bytes) == total - got => {
                    at.0 += head.len as u64;
                }
                _ => return Ok(Step::End),
            }
        }
        sum = crc32c::crc32c_append(sum, &front[..CHECKSUM_AT]);
        let prev = u64_at(&front, 8).map(Lsn);
        let follows = match &self.last {
            Some(last) => prev == Some(last.start),
            None => prev.is_some_and(|prev| prev < start),
        };
        if !follows || u32_at(&front, CHECKSUM_AT) != Some(sum) {
            return Ok(Step::End);
        }
        let mut record = Record { start, end: aligned(at.0), manager: front[17], info: front[16] };
        if record.is_switch() {
            let size = self.log.begin.segment_size;
            record.end = size.begin(size.number(Lsn(record.end.0 - 1)) + 1);
        }
        Ok(Step::Record(record))
    }
}

enum Step {
    Record(Record),
    /// It was never completed; what a recovery wrote instead begins `on` that page.
    GivenUp {
        on: Lsn,
    },
    End,
}

fn aligned(at: u64) -> Lsn {
    Lsn(at.next_multiple_of(8))
}
