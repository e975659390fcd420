//! One run of rsync in a pull: followed line by line, ended with its whole process group when it is
//! stopped. What its words mean is `pull`'s.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use lockstep_model::Timestamp;
use lockstep_model::mirror::report::PullPhase;
use lockstep_model::mirror::{MirrorOptions, PullProgress};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::local::Local;
use super::log::Log;
use super::pull::argv::{self, Pull, Step};
use super::pull::ending::{Ended, ended};
use super::pull::output::{Line, Output};
use crate::host::{Host, Program};
use crate::tools;

/// Bytes of standard error kept: its end.
const STDERR_MAX: usize = 64 << 10;
/// Longest line of output that is looked at, in bytes.
const LINE_MAX: usize = 4096;
/// Between two reports of how far it is.
const SHOW_INTERVAL: Duration = Duration::from_millis(500);

/// Why a step did not come to its end.
pub enum Cut {
    /// It was stopped; no process is left.
    Stopped,
    /// It could not be started.
    Failed(String),
}

pub struct Run<'a> {
    pub host: &'a Host,
    pub rsync: &'a Path,
    pub local: &'a Local,
    pub log: &'a Log,
    pub options: &'a MirrorOptions,
    pub number: u64,
    pub started_at: Timestamp,
    pub phase: PullPhase,
    /// What is to come, if it was counted.
    pub counted_bytes: Option<u64>,
    pub stop: &'a CancellationToken,
}

impl Run<'_> {
    pub async fn complete(&self, pull: &Pull<'_>, step: Step) -> Result<(Ended, Output), Cut> {
        let program = self.program(argv::argv(pull, step))?;
        let words: Vec<_> = program.args.iter().map(|arg| arg.to_string_lossy()).collect();
        self.log.line(&format!("{} {}", program.path.display(), words.join(" ")));
        let environment = argv::environment(&pull.source, self.options.proxy.as_ref());
        let environment: Vec<(&str, &OsStr)> =
            environment.iter().map(|(name, value)| (*name, OsStr::new(value))).collect();
        let mut child = self.host.spawn_with(&program, &environment).map_err(|error| {
            Cut::Failed(match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "rsync is not installed: apt install rsync".to_owned()
                }
                _ => format!("cannot start {}: {error}", program.path.display()),
            })
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut output = Output::new(self.counted_bytes);
        let follow = async {
            if let Some(stdout) = stdout {
                self.follow(stdout, &mut output).await;
            }
        };
        let complain = async {
            match stderr {
                Some(stderr) => self.complain(stderr).await,
                None => (String::new(), true),
            }
        };
        let done = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            // rsync's own end first: its remote shell may hold the pipes open.
            done = async { tokio::join!(child.wait(), follow, complain) } => Some(done),
        };
        self.log.flush();
        let Some((status, (), (stderr, whole))) = done else {
            if let Err(error) = child.end().await {
                tracing::error!(mirror = %self.local.mirror, %error, "cannot end rsync");
            }
            return Err(Cut::Stopped);
        };
        let status = status.map_err(|error| Cut::Failed(format!("rsync: {error}")))?;
        Ok((ended(pull, step, status, &stderr, whole), output))
    }

    /// rsync, behind what makes it yield to others.
    fn program(&self, args: Vec<OsString>) -> Result<Program, Cut> {
        let limits = &self.options.limits;
        let mut words: Vec<OsString> =
            argv::yielding(limits.nice, limits.ionice).into_iter().map(Into::into).collect();
        words.push(self.rsync.into());
        words.extend(args);
        // Each finds the next by its name or path.
        let name = words.remove(0);
        let path = Path::new(&name);
        let path = match name.to_str().filter(|name| !name.contains('/')) {
            None => path.to_owned(),
            Some(name) => tools::find(name, None)
                .ok_or_else(|| Cut::Failed(format!("{name} is not installed")))?,
        };
        Ok(Program { path, args: words, fed: false })
    }

    async fn follow(&self, from: impl AsyncRead + Unpin, output: &mut Output) {
        let began = Instant::now();
        let mut shown = began - SHOW_INTERVAL;
        lines(from, b"\r\n", |text| {
            let at = began.elapsed();
            match output.take(text, at) {
                Line::Progress => {
                    if shown.elapsed() >= SHOW_INTERVAL {
                        shown = Instant::now();
                        self.show(output, at);
                    }
                }
                // Letters alone, of a mirror that wants no names.
                Line::Changed if text.len() <= 11 => {}
                Line::Changed | Line::Removed | Line::Left | Line::Other if text.is_empty() => {}
                Line::Changed | Line::Removed | Line::Left | Line::Other => self.log.line(text),
            }
        })
        .await;
        self.show(output, began.elapsed());
    }

    fn show(&self, output: &Output, at: Duration) {
        let done = output.done();
        self.local.show(Some(PullProgress {
            number: self.number,
            phase: self.phase,
            started_at: self.started_at,
            percent: output.percent(at),
            done_bytes: done.bytes,
            done_files: done.files,
            rate_bytes_per_s: output.rate(at),
            eta: output.left(at),
        }));
    }

    /// The end of it, and whether that is all.
    async fn complain(&self, from: impl AsyncRead + Unpin) -> (String, bool) {
        let (mut kept, mut whole) = (String::new(), true);
        lines(from, b"\n", |text| {
            self.log.line(text);
            kept.push_str(text);
            kept.push('\n');
            if kept.len() > STDERR_MAX {
                let cut = kept.ceil_char_boundary(kept.len() - STDERR_MAX / 2);
                kept.drain(..cut);
                whole = false;
            }
        })
        .await;
        (kept, whole)
    }
}

/// Calls with each line, at its end or the end of all.
async fn lines(mut from: impl AsyncRead + Unpin, ends: &[u8], mut take: impl FnMut(&str)) {
    let mut line = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        for &byte in &chunk[..n] {
            if ends.contains(&byte) {
                take(&String::from_utf8_lossy(&line));
                line.clear();
            } else if line.len() < LINE_MAX {
                line.push(byte);
            }
        }
    }
    if !line.is_empty() {
        take(&String::from_utf8_lossy(&line));
    }
}
