//! What a run wrote, in a file per run beside the tail that the runner keeps, and read again by who
//! asks for it. A log that cannot be written costs the log and never the run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lockstep_model::mirror::RunId;

use crate::runner::{Output, one_line};

/// Of a mirror's state directory.
pub const DIR: &str = "log";

/// How many runs' logs are kept of a mirror.
const KEPT_MAX: usize = 14;
/// Most of one log, in bytes; the end of a longer one is only in the runner's tail.
const BYTES_MAX: u64 = 16 << 20;
/// Most of one log that is read at once, in bytes: its end.
const READ_MAX: u64 = 1 << 20;

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

/// The logs of all mirrors of a node.
#[derive(Clone, Debug)]
pub struct Logs {
    /// Of the mirrors' state directories.
    root: PathBuf,
}

impl Logs {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The end of a run's log, line by line. The error says what to do.
    pub fn read(&self, run: &RunId) -> Result<Vec<String>, String> {
        let path = self.root.join(run.mirror.as_str()).join(DIR).join(run.number.to_string());
        let read = File::open(&path).and_then(|mut file| end(&mut file));
        let (text, dropped) = read.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "it keeps those of a mirror's last {KEPT_MAX} runs there: see lockstepctl mirror \
                 runs {}",
                run.mirror
            ),
            _ => format!("cannot read {}: {error}", path.display()),
        })?;
        let earlier = format!("… {dropped} bytes before this are in {}", path.display());
        let earlier = (dropped > 0).then_some(earlier);
        let lines = String::from_utf8_lossy(&text);
        Ok(earlier.into_iter().chain(lines.lines().map(one_line)).collect())
    }
}

/// At most [`READ_MAX`], from the beginning of a line, and how many bytes there are before.
fn end(file: &mut File) -> io::Result<(Vec<u8>, u64)> {
    let mut dropped = file.metadata()?.len().saturating_sub(READ_MAX);
    file.seek(SeekFrom::Start(dropped))?;
    let mut text = Vec::new();
    // It may grow meanwhile.
    file.take(READ_MAX).read_to_end(&mut text)?;
    if dropped > 0 {
        let rest = text.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        text.drain(..rest);
        dropped += rest as u64;
    }
    Ok((text, dropped))
}

fn open(dir: &Path, number: u64) -> io::Result<Capped> {
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

    #[test]
    fn the_end_of_a_log_is_read_and_a_lost_one_is_told() {
        let root = tempfile::tempdir().unwrap();
        let logs = Logs::new(root.path().to_owned());
        let run: RunId = "fedora/17".parse().unwrap();
        assert!(logs.read(&run).unwrap_err().contains("last 14 runs"));
        let log = Log::open(&root.path().join("fedora").join(DIR), 17, Output::default());
        log.line("first");
        log.line("a\x1b[31mname");
        log.flush();
        assert_eq!(logs.read(&run).unwrap(), ["first", "a [31mname"]);
        for n in 0..40_000 {
            log.line(&format!("line {n:05} {}", "x".repeat(40)));
        }
        log.flush();
        let lines = logs.read(&run).unwrap();
        assert!(lines[0].starts_with("… ") && lines[0].contains("/fedora/log/17"), "{}", lines[0]);
        assert!(lines[1].starts_with("line ") && lines.last().unwrap().contains("39999"));
        let bytes: usize = lines[1..].iter().map(|line| line.len() + 1).sum();
        assert!(bytes as u64 <= READ_MAX && bytes > 1_000_000, "{bytes}");
    }
}
