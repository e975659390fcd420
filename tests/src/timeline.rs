//! What controller, agents and postgres logged after an instant, in one order: where the time of an
//! event went. It reads logs and judges nothing. `LOCKSTEP_TEST_TIMELINE=1` has tests print it.

use std::fs;
use std::path::Path;

use anyhow::Result;
use lockstep_model::{Millis, Timestamp};

use crate::fleet::Fleet;
use crate::host::Host;

/// Set, and not empty: timelines are printed.
const PRINT: &str = "LOCKSTEP_TEST_TIMELINE";
const MICROS_PER_DAY: u64 = 86_400_000_000;

/// One line of a log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Line {
    /// Microseconds since the instant.
    after: u64,
    host: String,
    text: String,
}

impl Fleet {
    /// Prints what was logged in `within` after `from`, when that was asked for.
    pub fn show_timeline(&self, event: &str, from: Timestamp, within: Millis) -> Result<()> {
        if std::env::var_os(PRINT).is_none_or(|value| value.is_empty()) {
            return Ok(());
        }
        let mut lines = Vec::new();
        for host in self.hosts() {
            lines.extend(of(host, from)?);
        }
        lines.retain(|line| line.after <= within.0 * 1000);
        lines.sort();
        eprintln!("timeline of {event}");
        for Line { after, host, text } in lines {
            let (ms, tenth) = (after / 1000, after / 100 % 10);
            eprintln!("{ms:>6}.{tenth} {host:<10} {text}");
        }
        Ok(())
    }
}

/// Of every program that the host ran, and of its postgres.
fn of(host: &Host, from: Timestamp) -> Result<Vec<Line>> {
    let mut files = vec![host.path("pg/data.lockstep/postgres.log")];
    for entry in fs::read_dir(host.path("log"))? {
        files.push(entry?.path());
    }
    let mut lines = Vec::new();
    for file in files {
        lines.extend(read(&file, host.name(), from));
    }
    Ok(lines)
}

fn read(file: &Path, host: &str, from: Timestamp) -> Vec<Line> {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let parts = text.lines().filter_map(|line| ours(line).or_else(|| of_postgres(line)));
    let lines = parts.filter_map(|(at, text)| {
        let after = micros(&at)?.checked_sub(from.0 % (MICROS_PER_DAY / 1000) * 1000)?;
        Some(Line { after, host: host.to_owned(), text })
    });
    lines.collect()
}

/// A line of JSON: when, and what it says.
fn ours(line: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let at = value.get("timestamp")?.as_str()?.to_owned();
    let mut text = String::new();
    for (name, value) in value.get("fields").unwrap_or(&value).as_object()? {
        if ["timestamp", "level", "target"].contains(&name.as_str()) {
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += &if name == "message" { format!("{value} ") } else { format!("{name}={value} ") };
    }
    Some((at, text))
}

/// `2026-11-21 20:15:02.123 UTC [77] LOG:  words`.
fn of_postgres(line: &str) -> Option<(String, String)> {
    let (at, text) = line.split_once(" UTC [")?;
    Some((at.to_owned(), format!("postgres [{text}")))
}

/// Microseconds of its day, of `2026-11-21T20:15:02.123456Z` and `2026-11-21 20:15:02.123`.
fn micros(at: &str) -> Option<u64> {
    let time = at.get(11..)?.trim_end_matches('Z');
    let (time, part) = time.split_once('.')?;
    let mut seconds = 0;
    for number in time.split(':') {
        seconds = seconds * 60 + number.parse::<u64>().ok()?;
    }
    let part: u64 = format!("{part:0<6}").get(..6)?.parse().ok()?;
    Some(seconds * 1_000_000 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kinds_have_their_time() {
        assert_eq!(micros("2026-11-21T00:01:02.123456Z"), Some(62_123_456));
        assert_eq!(micros("2026-11-21 00:01:02.5"), Some(62_500_000));
        assert_eq!(micros("nonsense"), None);
        let said = ours(
            r#"{"timestamp":"2026-11-21T00:00:01.000001Z","level":"INFO","fields":{"message":"step","n":1}}"#,
        );
        let (at, text) = said.unwrap();
        assert_eq!((micros(&at), text.as_str()), (Some(1_000_001), "step n=1 "));
        assert_eq!(
            of_postgres("2026-11-21 00:00:01.5 UTC [7] LOG:  up").unwrap().1,
            "postgres [7] LOG:  up"
        );
    }
}
