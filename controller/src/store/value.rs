//! Keys and values as they are stored: an envelope with a checksum around each record and each
//! entry of the log. What is read is checked before it is believed.

use lockstep_model::record::{Change, Key, Record, Versioned, Write};
use lockstep_model::{Invalid, Revision};
use lockstep_proto::store_v1 as wire;
use prost::Message;

use super::{CommitError, StoreError, TXN_BYTES_MAX};

/// Start of every key of the log.
pub const LOG: &str = "log/";
/// The first text after all of them: '0' follows '/'.
pub const LOG_END: &str = "log0";

pub fn log_key(revision: Revision) -> String {
    format!("{LOG}{:016x}", revision.0)
}

/// None when it is not the key of a log entry.
pub fn log_revision(key: &str) -> Option<Revision> {
    let revision = Revision(u64::from_str_radix(key.strip_prefix(LOG)?, 16).ok()?);
    (log_key(revision) == key).then_some(revision)
}

/// What one change puts on disk; None deletes.
pub type Values = Vec<(String, Option<Vec<u8>>)>;

/// The records of a change and its log entry.
pub fn encode(change: &Change) -> Result<Values, CommitError> {
    let mut values = Values::with_capacity(change.writes.len() + 1);
    let mut bytes = 0;
    for write in &change.writes {
        let key = write.key().to_string();
        let value = match write {
            Write::Put(record) => Some(seal(&key, change.revision, &wire::Record::from(record))),
            Write::Delete(_) => None,
        };
        bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        values.push((key, value));
    }
    if bytes > TXN_BYTES_MAX {
        let problem = format!("{bytes} bytes, at most {TXN_BYTES_MAX} fit");
        return Err(CommitError::TooLarge { problem });
    }
    let (key, entry) = encode_entry(change);
    values.push((key, Some(entry)));
    Ok(values)
}

fn seal(key: &str, revision: Revision, body: &impl Message) -> Vec<u8> {
    let body = body.encode_to_vec();
    let crc32 = checksum(key, revision, &body);
    wire::Envelope { crc32, revision: revision.0, body }.encode_to_vec()
}

fn checksum(key: &str, revision: Revision, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key.as_bytes());
    crc.update(&revision.0.to_be_bytes());
    crc.update(body);
    crc.finalize()
}

/// The body of a value that belongs to `key`, and the revision that wrote it.
fn unseal<T: Message + Default>(key: &str, value: &[u8]) -> Result<(Revision, T), StoreError> {
    let not_protobuf = |e: prost::DecodeError| StoreError::damaged(key, e);
    let wire::Envelope { crc32, revision, body } =
        wire::Envelope::decode(value).map_err(not_protobuf)?;
    let revision = Revision(revision);
    if checksum(key, revision, &body) != crc32 {
        return Err(StoreError::damaged(key, "the checksum does not match"));
    }
    Ok((revision, T::decode(body.as_slice()).map_err(not_protobuf)?))
}

/// A record as it is written, which an older schema's need not mean anything to the model.
pub fn decode_raw(key: &str, value: &[u8]) -> Result<(Revision, wire::Record), StoreError> {
    unseal::<wire::Record>(key, value)
}

pub fn decode_record(key: &str, value: &[u8]) -> Result<(Key, Versioned<Record>), StoreError> {
    let (revision, record) = decode_raw(key, value)?;
    let (key, value) = understand(key, record).map_err(|e| StoreError::damaged(key, e))?;
    Ok((key, Versioned { revision, value }))
}

/// The record that must be the one its key names.
pub fn understand(key: &str, record: wire::Record) -> Result<(Key, Record), Invalid> {
    let record = Record::try_from(record)?;
    let names = record.key();
    if names.to_string() != key {
        return Err(Invalid::new("key", format!("{key} holds the record {names}")));
    }
    Ok((names, record))
}

pub fn encode_raw(key: &str, revision: Revision, record: &wire::Record) -> Vec<u8> {
    seal(key, revision, record)
}

pub fn encode_entry(change: &Change) -> (String, Vec<u8>) {
    let key = log_key(change.revision);
    let entry = seal(&key, change.revision, &wire::LogEntry::from(change));
    (key, entry)
}

/// An entry as it is written; see `decode_raw`.
pub fn decode_raw_entry(key: &str, value: &[u8]) -> Result<(Revision, wire::LogEntry), StoreError> {
    let (revision, entry) = unseal::<wire::LogEntry>(key, value)?;
    if log_revision(key) != Some(revision) {
        return Err(StoreError::damaged(key, format!("holds the entry of revision {revision}")));
    }
    Ok((revision, entry))
}

pub fn decode_entry(key: &str, value: &[u8]) -> Result<Change, StoreError> {
    let (revision, entry) = decode_raw_entry(key, value)?;
    entry.into_change(revision).map_err(|e| StoreError::damaged(key, e))
}
