//! What a run wrote, in a file per run beside the tail that the runner keeps. A log that cannot be
//! written costs the log and never the run.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::runner::Output;

/// How many runs' logs are kept of a mirror.
const KEPT_MAX: usize = 14;
/// Most of one log, in bytes; the end of a longer one is only in the runner's tail.
const BYTES_MAX: u64 = 16 << 20;

pub struct Log {
    output: Output,
    file: Mutex<Option<Capped>>,
}

struct Capped {
    file: BufWriter<File>,
    bytes: u64,
}

impl Log {
    /// Goes on with the log of an earlier try of the same run.
    pub fn open(dir: &Path, number: u64, output: Output) -> Self {
        let file = open(dir, number).inspect_err(|error| {
            tracing::warn!(dir = %dir.display(), %error, "no log of this run is kept");
        });
        prune(dir);
        Self { output, file: Mutex::new(file.ok()) }
    }

    pub fn line(&self, text: &str) {
        self.output.line(text);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(capped) = file.as_mut()
            && !capped.write(text)
        {
            *file = None;
        }
    }

    /// What is written so far can be read.
    pub fn flush(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(capped) = file.as_mut() {
            // A full disk is told by what fills it.
            let _ = capped.file.flush();
        }
    }
}

impl Capped {
    /// False when it takes no more.
    fn write(&mut self, text: &str) -> bool {
        self.bytes += text.len() as u64 + 1;
        if self.bytes > BYTES_MAX {
            let _ = writeln!(self.file, "… the log is full; the rest is not kept");
            let _ = self.file.flush();
            return false;
        }
        writeln!(self.file, "{text}").is_ok()
    }
}

fn open(dir: &Path, number: u64) -> std::io::Result<Capped> {
    fs::create_dir_all(dir)?;
    let file = OpenOptions::new().create(true).append(true).open(dir.join(number.to_string()))?;
    let bytes = file.metadata()?.len();
    Ok(Capped { file: BufWriter::new(file), bytes })
}

fn prune(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
    let mut logs: Vec<_> =
        entries.map(|e| e.path()).filter_map(|path| Some((number(&path)?, path))).collect();
    logs.sort_unstable();
    let many = logs.len().saturating_sub(KEPT_MAX);
    for (_, path) in logs.into_iter().take(many) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_bounded_in_number_and_size() {
        let dir = tempfile::tempdir().unwrap();
        for number in 1..=20 {
            let log = Log::open(dir.path(), number, Output::default());
            log.line("first");
            log.flush();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), KEPT_MAX);
        assert!(!dir.path().join("6").exists() && dir.path().join("7").exists());
        let log = Log::open(dir.path(), 20, Output::default());
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            log.line(&long);
        }
        drop(log);
        let size = fs::metadata(dir.path().join("20")).unwrap().len();
        assert!((BYTES_MAX - (1 << 20)..=BYTES_MAX + 100).contains(&size), "{size}");
    }
}
