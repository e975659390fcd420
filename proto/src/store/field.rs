//! Single fields: what a missing, empty or misshapen one means. Errors name the field.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use lockstep_model::label::{LABELS_MAX, LabelKey, Labels, parse_label};
use lockstep_model::{Invalid, KeyHash};

pub fn missing(field: &str) -> Invalid {
    Invalid::new(field, "is missing")
}

/// An enum's zero, which is never written, or a value of a newer version.
pub fn unknown(field: &str) -> Invalid {
    Invalid::new(field, "is missing or unknown to this version")
}

/// A field whose text the model reads.
pub fn parse<T>(field: impl fmt::Display, text: &str) -> Result<T, Invalid>
where
    T: FromStr<Err = Invalid>,
{
    text.parse().map_err(|e: Invalid| e.within(field))
}

/// Empty: none.
pub fn optional<T>(field: &str, text: &str) -> Result<Option<T>, Invalid>
where
    T: FromStr<Err = Invalid>,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

pub fn from_option(value: Option<&impl fmt::Display>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A list of at most `max`, each read by the model.
pub fn parse_all<T>(field: &str, texts: Vec<String>, max: usize) -> Result<Vec<T>, Invalid>
where
    T: FromStr<Err = Invalid>,
{
    check_count(field, texts.len(), max)?;
    texts.iter().enumerate().map(|(i, text)| parse(format!("{field}[{i}]"), text)).collect()
}

pub fn check_count(field: &str, count: usize, max: usize) -> Result<(), Invalid> {
    if count > max {
        return Err(Invalid::new(field, format!("holds {count}, at most {max} are allowed")));
    }
    Ok(())
}

pub fn hash(field: &str, bytes: &[u8]) -> Result<[u8; 32], Invalid> {
    let wrong = |_| Invalid::new(field, format!("must have 32 bytes, has {}", bytes.len()));
    bytes.try_into().map_err(wrong)
}

pub fn key_hash(field: &str, bytes: &[u8]) -> Result<KeyHash, Invalid> {
    hash(field, bytes).map(KeyHash)
}

/// Empty: none.
pub fn optional_key_hash(field: &str, bytes: &[u8]) -> Result<Option<KeyHash>, Invalid> {
    if bytes.is_empty() { Ok(None) } else { key_hash(field, bytes).map(Some) }
}

pub fn from_key_hash(hash: KeyHash) -> Vec<u8> {
    hash.0.to_vec()
}

pub fn from_optional_key_hash(hash: Option<KeyHash>) -> Vec<u8> {
    hash.map(from_key_hash).unwrap_or_default()
}

pub fn labels(pairs: BTreeMap<String, String>) -> Result<Labels, Invalid> {
    check_count("labels", pairs.len(), LABELS_MAX)?;
    let read = |(key, value): (String, String)| {
        let key: LabelKey = parse("labels", &key)?;
        parse_label(&format!("{key}={value}")).map_err(|e| e.within("labels"))
    };
    pairs.into_iter().map(read).collect()
}

pub fn from_labels(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
}

pub fn from_all(values: &[impl fmt::Display]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
