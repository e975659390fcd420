//! What stdout shows: tables for people, proto3 JSON or YAML for programs.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use lockstep_model::{Millis, Timestamp};
use lockstep_proto::convert::from_wire_time;
use lockstep_transport::clock;
use serde::Serialize;

use crate::args::Format;
use crate::error::Failure;

/// Prints `message` in the chosen format; `table` is asked for only where a person reads.
pub fn show<M: Serialize>(
    format: Format,
    message: &M,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(),
        Format::Json => {
            serde_json::to_string_pretty(message).map_err(|e| Failure::failed(e.to_string()))?
        }
        Format::Yaml => {
            serde_yaml_ng::to_string(message).map_err(|e| Failure::failed(e.to_string()))?
        }
    };
    line(text.trim_end())
}

/// One message of a stream: a line of JSON, a YAML document, or a line of text.
pub fn show_next<M: Serialize>(
    format: Format,
    message: &M,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => text(),
        Format::Json => {
            serde_json::to_string(message).map_err(|e| Failure::failed(e.to_string()))?
        }
        Format::Yaml => {
            let text =
                serde_yaml_ng::to_string(message).map_err(|e| Failure::failed(e.to_string()))?;
            format!("---\n{}", text.trim_end())
        }
    };
    line(&text)
}

pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

pub fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// For people, beside the data: stderr.
pub fn note(text: &str) {
    if !text.is_empty() {
        eprintln!("{text}");
    }
}

/// A table without lines, as other command lines of the field print them.
pub fn table<R, C>(header: &[&str], rows: R) -> String
where
    R: IntoIterator<Item = C>,
    C: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// As [`table`], without the columns in which nothing stands; elsewhere nothing is "-".
pub fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let used =
        |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|c| !c.is_empty()));
    let kept: Vec<usize> = (0..header.len()).filter(|column| used(*column)).collect();
    let names: Vec<&str> = kept.iter().map(|column| header[*column]).collect();
    let cell =
        |row: &Vec<String>, column: usize| or_dash(row.get(column).map_or("", String::as_str));
    table(&names, rows.iter().map(|row| kept.iter().map(|at| cell(row, *at)).collect::<Vec<_>>()))
}

/// `name: value` lines, the names aligned.
pub fn fields<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<(&str, String)> = rows.into_iter().filter(|(_, v)| !v.is_empty()).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let lines: Vec<String> =
        rows.iter().map(|(name, value)| format!("{:width$} {value}", format!("{name}:"))).collect();
    lines.join("\n")
}

/// "3m10s ago", or "-".
pub fn ago(time: Option<&pbjson_types::Timestamp>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |t| format!("{} ago", clock::now().since(from_wire_time(t))),
    )
}

/// "in 12m", "passed".
pub fn ahead(time: Option<&pbjson_types::Timestamp>) -> String {
    let Some(time) = time.map(from_wire_time) else { return "-".to_owned() };
    match time.since(clock::now()) {
        Millis(0) => "passed".to_owned(),
        left => format!("in {left}"),
    }
}

/// RFC 3339, UTC, seconds.
pub fn time(time: Option<&pbjson_types::Timestamp>) -> String {
    let Some(Timestamp(ms)) = time.map(from_wire_time) else { return "-".to_owned() };
    i64::try_from(ms / 1000)
        .ok()
        .and_then(|s| jiff::Timestamp::from_second(s).ok())
        .map_or_else(|| "-".to_owned(), |t| t.to_string())
}

/// The word of a protobuf enum value: `NODE_HEALTH_DOWN` with prefix `NODE_HEALTH_` is "down".
pub fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', "-")
}

/// "-" for nothing.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

pub fn labels(labels: &std::collections::HashMap<String, String>) -> String {
    let mut all: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    all.sort();
    or_dash(&all.join(","))
}

/// 1.5 MiB and the like.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
