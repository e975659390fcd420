//! The backup format: NDJSON with a header, one line per record, maybe the log, and a trailer that
//! tells a whole file from a torn one. Streams in and out; files and stores are offline.rs's.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

use lockstep_model::record::{Change, Fleet, Key, Record, Versioned};
use lockstep_model::{Revision, Timestamp};
use lockstep_proto::store_v1 as wire;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::audit::Audit;
use super::migrate::{Migration, Raw, migrate};
use super::{SCHEMA, value};

pub const FORMAT: &str = "lockstep-store";
/// Longest line, in bytes: the largest transaction, written out.
pub const LINE_MAX: usize = 64 << 20;

/// The first line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub format: String,
    pub schema: u32,
    /// Empty when a damaged store does not say.
    pub fleet: String,
    /// 16 hexadecimal digits; empty when a damaged store does not say.
    pub incarnation: String,
    pub revision: u64,
    /// Entries of the log follow from here on; equal to `revision` when there are none.
    pub compacted: u64,
    /// UTC; null for an export that a program made before it changed the store.
    pub exported_at: Option<String>,
}

impl Header {
    pub fn new(
        fleet: Option<&Fleet>,
        revision: Revision,
        compacted: Revision,
        now: Option<Timestamp>,
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            schema: SCHEMA,
            fleet: fleet.map(|f| f.name.to_string()).unwrap_or_default(),
            incarnation: fleet.map(|f| f.incarnation.to_string()).unwrap_or_default(),
            revision: revision.0,
            compacted: compacted.0,
            exported_at: now.map(|at| at.to_string()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine {
    key: String,
    revision: u64,
    record: wire::Record,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLine {
    log: bool,
    revision: u64,
    entry: wire::LogEntry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    end: bool,
    /// Lines before this one.
    lines: u64,
    /// How much of the store could not be exported.
    damaged: u64,
    /// Of all bytes before this line.
    sha256: String,
}

/// Writes one export: the header, then records and entries, then `finish`.
pub struct Writer<W: Write> {
    out: W,
    sha256: Sha256,
    lines: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out, sha256: Sha256::new(), lines: 0 };
        writer.line(header)?;
        Ok(writer)
    }

    pub fn record(&mut self, key: &Key, record: &Versioned<Record>) -> io::Result<()> {
        self.raw(&key.to_string(), record.revision, (&record.value).into())
    }

    pub fn raw(&mut self, key: &str, at: Revision, record: wire::Record) -> io::Result<()> {
        self.line(&RecordLine { key: key.to_owned(), revision: at.0, record })
    }

    pub fn entry(&mut self, change: &Change) -> io::Result<()> {
        self.raw_entry(change.revision, change.into())
    }

    pub fn raw_entry(&mut self, revision: Revision, entry: wire::LogEntry) -> io::Result<()> {
        self.line(&LogLine { log: true, revision: revision.0, entry })
    }

    /// Where the lines go: for a writer into memory, whose bytes are taken away in between.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    pub fn finish(mut self, damaged: u64) -> io::Result<W> {
        let sha256 = hex(&self.sha256.clone().finalize());
        let trailer = Trailer { end: true, lines: self.lines, damaged, sha256 };
        self.line(&trailer)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.sha256.update(&line);
        self.lines += 1;
        self.out.write_all(&line)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What an export holds, in this program's schema.
#[derive(Debug)]
pub struct Import {
    pub header: Header,
    pub records: BTreeMap<Key, Versioned<Record>>,
    pub log: Vec<Change>,
    /// Up to which the log is gone: the header's, or all of it.
    pub compacted: Revision,
    /// Names of the migrations that were run.
    pub migrated: Vec<&'static str>,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("line {line}: {problem}")]
    Line { line: usize, problem: String },
    #[error(
        "the export has schema {found} and this program knows up to {known}: import it with the program that wrote it, or a newer one"
    )]
    Newer { found: u32, known: u32 },
    #[error(
        "{0}; take another export, or use --allow-incomplete to import what is there without its log"
    )]
    Incomplete(String),
    #[error(
        "the export contradicts itself: {0}; use --allow-incomplete to import its records without its log"
    )]
    Contradiction(String),
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] super::StoreError),
}

/// Reads a whole export. With `allow_incomplete`, what follows the last whole line is ignored, and
/// so is the log, since it may say what is not there.
pub fn read(
    input: impl BufRead,
    allow_incomplete: bool,
    migrations: &[Migration],
) -> Result<Import, ImportError> {
    let mut lines = Lines { input, sha256: Sha256::new(), number: 0 };
    let header: Header = match lines.next()? {
        Some(line) => parse(1, &line.text)?,
        None => return Err(ImportError::Incomplete("the export is empty".to_owned())),
    };
    if header.format != FORMAT {
        let problem = format!("format must be {FORMAT:?}: this is no export of a store");
        return Err(ImportError::Line { line: 1, problem });
    }
    if header.schema > SCHEMA {
        return Err(ImportError::Newer { found: header.schema, known: SCHEMA });
    }
    let body = Body::read(&mut lines, &header)?;
    if let (Some(why), false) = (body.incomplete, allow_incomplete) {
        return Err(ImportError::Incomplete(why));
    }

    let Body { mut raw, line_of, log, .. } = body;
    let migrated = migrate(&mut raw, header.schema, SCHEMA, migrations)?;
    let mut records = BTreeMap::new();
    for (key, (revision, record)) in raw {
        let line = line_of.get(&key).copied().unwrap_or_default();
        let record = value::understand(&key, record);
        let (key, value) =
            record.map_err(|e| ImportError::Line { line, problem: e.to_string() })?;
        records.insert(key, Versioned { revision, value });
    }
    let revision = Revision(header.revision);
    let keeps_log = !allow_incomplete && header.schema == SCHEMA;
    let (log, compacted) =
        if keeps_log { (log, Revision(header.compacted)) } else { (Vec::new(), revision) };

    let mut audit = Audit::default();
    log.iter().for_each(|change| audit.entry(change));
    records.iter().for_each(|(key, record)| audit.record(key, record, compacted));
    if let Some(damage) = audit.finish(revision, compacted).first() {
        return Err(ImportError::Contradiction(damage.to_string()));
    }
    Ok(Import { header, records, log, compacted, migrated })
}

/// Everything between the header and the trailer.
#[derive(Default)]
struct Body {
    raw: Raw,
    line_of: BTreeMap<String, usize>,
    log: Vec<Change>,
    /// Why it is not the whole of what was exported, if it is not.
    incomplete: Option<String>,
}

impl Body {
    fn read<R: BufRead>(lines: &mut Lines<R>, header: &Header) -> Result<Self, ImportError> {
        let mut body = Self::default();
        loop {
            let before = lines.clone_sha();
            let Some(Line { number, text, whole }) = lines.next()? else {
                body.incomplete = Some("the export has no last line: it was cut off".to_owned());
                return Ok(body);
            };
            if !whole {
                body.incomplete = Some(format!("line {number}: was cut off"));
                return Ok(body);
            }
            let kinds: Kinds = parse(number, &text)?;
            if kinds.end.is_some() {
                let trailer: Trailer = parse(number, &text)?;
                body.incomplete = trailer.problem(number, &hex(&before.finalize()));
                if lines.next()?.is_some() {
                    let problem = "follows the export's last line".to_owned();
                    return Err(ImportError::Line { line: number + 1, problem });
                }
                return Ok(body);
            }
            let added = match kinds.log {
                Some(_) => body.add_entry(header, parse(number, &text)?),
                None => body.add_record(header, number, parse(number, &text)?),
            };
            added.map_err(|problem| ImportError::Line { line: number, problem })?;
        }
    }

    fn add_record(&mut self, header: &Header, line: usize, read: RecordLine) -> Result<(), String> {
        let RecordLine { key, revision, record } = read;
        if revision == 0 || revision > header.revision {
            return Err(format!("{key}: revision must be 1 to {}", header.revision));
        }
        if let Some(first) = self.line_of.insert(key.clone(), line) {
            return Err(format!("{key}: is on line {first} already"));
        }
        self.raw.insert(key, (Revision(revision), record));
        Ok(())
    }

    fn add_entry(&mut self, header: &Header, read: LogLine) -> Result<(), String> {
        let LogLine { log: _, revision, entry } = read;
        let after = self.log.last().map_or(header.compacted, |last| last.revision.0);
        if revision <= after || revision > header.revision {
            return Err(format!("revision must be above {after}, up to {}", header.revision));
        }
        // Entries of an older schema are not kept, and need not make sense.
        if header.schema == SCHEMA {
            let change = entry.into_change(Revision(revision)).map_err(|e| e.to_string())?;
            self.log.push(change);
        }
        Ok(())
    }
}

impl Trailer {
    fn problem(&self, number: usize, sha256: &str) -> Option<String> {
        if self.lines != number as u64 - 1 || self.sha256 != sha256 {
            return Some(format!("line {number}: the checksum does not match: it was changed"));
        }
        let damaged = self.damaged;
        (damaged > 0).then(|| format!("it was made of a damaged store and lacks {damaged} values"))
    }
}

/// Enough of a line to tell which kind it is.
#[derive(Deserialize)]
struct Kinds {
    log: Option<serde::de::IgnoredAny>,
    end: Option<serde::de::IgnoredAny>,
}

fn parse<T: DeserializeOwned>(line: usize, text: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(text).map_err(|e| ImportError::Line { line, problem: e.to_string() })
}

struct Line {
    number: usize,
    text: Vec<u8>,
    /// It ended in a newline.
    whole: bool,
}

struct Lines<R> {
    input: R,
    /// Of everything read so far.
    sha256: Sha256,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn clone_sha(&self) -> Sha256 {
        self.sha256.clone()
    }

    fn next(&mut self) -> Result<Option<Line>, ImportError> {
        let mut text = Vec::new();
        let limit = LINE_MAX as u64 + 1;
        let read = self.input.by_ref().take(limit).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if read > LINE_MAX {
            let problem = format!("is longer than {LINE_MAX} bytes");
            return Err(ImportError::Line { line: self.number, problem });
        }
        self.sha256.update(&text);
        let whole = text.ends_with(b"\n");
        Ok(Some(Line { number: self.number, text, whole }))
    }
}
