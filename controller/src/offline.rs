//! `lockstep-controller store export|import|check`: what is done to a store while no controller
//! runs, also to a damaged one. Nothing here is half done: an import is a whole store or none.

use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use lockstep_model::record::{Key, Record, Versioned};
use lockstep_model::{Revision, Timestamp};
use lockstep_transport::durable;

use crate::store::audit::{Audit, Damage};
use crate::store::export::{Header, Import, ImportError, Writer, read};
use crate::store::lock::DirLock;
use crate::store::migrate::MIGRATIONS;
use crate::store::{EXPORTS_DIR, Opened, RECORD_PREFIXES, SCHEMA, STORE_DIR, StoreError, value};

/// Below the data directory while an import is under way.
const IMPORTING_DIR: &str = "store.importing";

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write the export: {0}")]
    Io(#[from] io::Error),
}

/// What was written. Any damage is a reason for an exit code other than 0.
#[derive(Debug, Default)]
pub struct Exported {
    pub records: u64,
    pub entries: u64,
    /// What could not be exported, or can, but means nothing to this program.
    pub damage: Vec<Damage>,
}

/// Everything that can be read, as NDJSON. Blocks.
pub fn export(
    data_dir: &Path,
    out: impl Write,
    with_log: bool,
    now: Timestamp,
) -> Result<Exported, ExportError> {
    write(&Opened::open(data_dir)?, out, with_log, Some(now))
}

/// Into `exports/` below the data directory; refuses to lose anything.
pub(crate) fn export_before_migration(opened: &Opened) -> Result<PathBuf, StoreError> {
    let dir = opened.data_dir().join(EXPORTS_DIR);
    let name = format!("schema-{}-revision-{}.ndjson", opened.schema()?, opened.revision());
    let path = dir.join(name);
    let part = path.with_extension("part");
    let write = || {
        fs::create_dir_all(&dir)?;
        let file = File::create(&part)?;
        let exported = write(opened, BufWriter::new(&file), true, None)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        durable::sync_dir(&dir)?;
        Ok::<_, ExportError>(exported)
    };
    let exported = write().map_err(|e| match e {
        ExportError::Store(e) => e,
        ExportError::Io(e) => StoreError::io(&path, e),
    })?;
    match exported.damage.into_iter().next() {
        None => Ok(path),
        Some(Damage { key, problem }) => Err(StoreError::Damaged { key, problem }),
    }
}

fn write(
    opened: &Opened,
    out: impl Write,
    with_log: bool,
    now: Option<Timestamp>,
) -> Result<Exported, ExportError> {
    let (revision, schema) = (opened.revision(), opened.schema()?);
    let compacted = if with_log { opened.compacted() } else { revision };
    let mut fleet = None;
    opened.readable(&Key::Fleet.to_string(), |key, bytes| {
        let record = bytes.and_then(|bytes| value::decode_record(key, &bytes));
        if let Ok((_, Versioned { value: Record::Fleet(found), .. })) = record {
            fleet = Some(found);
        }
    });
    let header = Header { schema, ..Header::new(fleet.as_ref(), revision, compacted, now) };
    let mut writer = Writer::new(out, &header)?;

    let mut done = Exported::default();
    let (mut lost, mut failed) = (0, None);
    if let Err(e) = opened.check_mark() {
        lost += 1;
        done.damage.push(damage("meta/revision", e));
    }
    for prefix in RECORD_PREFIXES {
        opened.readable(prefix, |key, bytes| {
            match bytes.and_then(|bytes| value::decode_raw(key, &bytes)) {
                Ok((at, record)) => {
                    if schema == SCHEMA
                        && let Err(e) = value::understand(key, record.clone())
                    {
                        done.damage.push(damage(key, StoreError::damaged(key, e)));
                    }
                    done.records += 1;
                    keep_first(&mut failed, writer.raw(key, at, record));
                }
                Err(e) => {
                    lost += 1;
                    done.damage.push(damage(key, e));
                }
            }
        });
    }
    if with_log {
        opened.readable(value::LOG, |key, bytes| {
            match bytes.and_then(|bytes| value::decode_raw_entry(key, &bytes)) {
                Ok((at, _)) if at <= compacted => {}
                Ok((at, entry)) => {
                    done.entries += 1;
                    keep_first(&mut failed, writer.raw_entry(at, entry));
                }
                Err(e) => {
                    lost += 1;
                    done.damage.push(damage(key, e));
                }
            }
        });
    }
    if let Some(e) = failed {
        return Err(e.into());
    }
    writer.finish(lost)?;
    Ok(done)
}

fn keep_first(failed: &mut Option<io::Error>, done: io::Result<()>) {
    if let Err(e) = done {
        failed.get_or_insert(e);
    }
}

fn damage(key: &str, error: StoreError) -> Damage {
    let problem = match error {
        StoreError::Damaged { problem, .. } => problem,
        other => other.to_string(),
    };
    Damage { key: key.to_owned(), problem }
}

/// Makes a store out of an export, in a data directory that has none. Blocks.
pub fn import(
    data_dir: &Path,
    input: impl BufRead,
    allow_incomplete: bool,
) -> Result<Import, ImportError> {
    fs::create_dir_all(data_dir).map_err(|e| StoreError::io(data_dir, e))?;
    let _lock = DirLock::acquire(data_dir)?;
    let dir = data_dir.join(STORE_DIR);
    if fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(StoreError::Exists { dir: data_dir.into() }.into());
    }
    let import = read(input, allow_incomplete, MIGRATIONS)?;

    let part = data_dir.join(IMPORTING_DIR);
    if part.exists() {
        fs::remove_dir_all(&part).map_err(|e| StoreError::io(&part, e))?;
    }
    Opened::fill(data_dir, &part, &import)?;
    let publish = || {
        fs::rename(&part, &dir)?;
        durable::sync_dir(data_dir)
    };
    publish().map_err(|e| StoreError::io(&dir, e))?;
    Ok(import)
}

/// What is in a store, and what is wrong with it.
#[derive(Debug)]
pub struct Checked {
    pub schema: u32,
    pub revision: Revision,
    pub records: u64,
    pub entries: u64,
    pub damage: Vec<Damage>,
}

/// Reads every value and holds the records against the log. Blocks.
pub fn check(data_dir: &Path) -> Result<Checked, StoreError> {
    let opened = Opened::open(data_dir)?;
    let (schema, revision, compacted) = (opened.schema()?, opened.revision(), opened.compacted());
    if schema != SCHEMA {
        return Err(StoreError::Newer { found: schema, known: SCHEMA });
    }
    let mut checked = Checked { schema, revision, records: 0, entries: 0, damage: Vec::new() };
    let mut audit = Audit::default();
    opened.readable(value::LOG, |key, bytes| {
        match bytes.and_then(|bytes| value::decode_entry(key, &bytes)) {
            // Left by a compaction that was cut off; the next one takes it.
            Ok(change) if change.revision <= compacted => {}
            Ok(change) => {
                checked.entries += 1;
                audit.entry(&change);
            }
            Err(e) => checked.damage.push(damage(key, e)),
        }
    });
    for prefix in RECORD_PREFIXES {
        opened.readable(prefix, |key, bytes| {
            match bytes.and_then(|bytes| value::decode_record(key, &bytes)) {
                Ok((key, record)) => {
                    checked.records += 1;
                    audit.record(&key, &record, compacted);
                }
                Err(e) => checked.damage.push(damage(key, e)),
            }
        });
    }
    if let Err(e) = opened.check_mark() {
        checked.damage.push(damage("meta/revision", e));
    }
    // What could not be read would be named again, as missing.
    if checked.damage.is_empty() {
        checked.damage.extend(audit.finish(revision, compacted));
    }
    let strange = |key| Damage { key, problem: "is not a key of this program".to_owned() };
    checked.damage.extend(opened.strange_keys().into_iter().map(strange));
    Ok(checked)
}

#[cfg(test)]
mod tests;
