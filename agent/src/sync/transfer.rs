//! One run of rsync: fed, watched, ended with its whole process group when it is cancelled.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitStatus;

use lockstep_model::sync::Remote;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::host::{Host, Program, tail};
use crate::journal::RelPath;
use crate::rsync::complaint;
use crate::rsync::exit::{self, Exit};
use crate::rsync::remote::{PASSWORD, top};
use crate::rsync::trouble::trouble;
use crate::rsync::{Stats, progress};

/// Bytes of standard error kept: its end.
const STDERR_MAX: usize = 16 << 10;
/// Most names kept in whose way something is; a batch has no more.
const BLOCKED_MAX: usize = crate::deliver::PENDING_MAX;
/// Longest line of output that is looked at, in bytes.
const LINE_MAX: usize = 4096;

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    pub exit: Exit,
    /// One line for people; empty after a success.
    pub error: String,
    pub stats: Stats,
    /// Names that did not make it, from the top of the source; None when that is not known of all.
    pub failed: Option<Vec<RelPath>>,
    /// Where a directory with something in it is in the way, or was not removed.
    pub blocked: Vec<RelPath>,
}

/// What to run and with what.
pub struct Run<'a> {
    pub host: &'a Host,
    pub rsync: &'a Path,
    /// Of the files, as rsync's messages name it.
    pub source: &'a Path,
    pub args: Vec<OsString>,
    /// Of a target without an agent, and the directory of its secrets.
    pub remote: Option<(&'a Remote, &'a Path)>,
    /// Standard input.
    pub input: Option<Vec<u8>>,
    /// Takes lines of progress.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

impl Run<'_> {
    /// None when it was cancelled; then no process is left.
    pub async fn complete(self, cancel: &CancellationToken) -> Option<Transfer> {
        let Self { host, rsync, source, args, remote, input, progress } = self;
        let program = Program { path: rsync.to_owned(), args, fed: input.is_some() };
        let mut child = match host.spawn_with(&program, &[(PASSWORD, OsStr::new(""))]) {
            Ok(child) => child,
            Err(error) => return Some(not_started(rsync, &error)),
        };
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // An rsync that ends early tells why by its exit code.
                let _ = stdin.write_all(&input).await;
            }
        };
        let stdout = child.stdout.take();
        let follow = async {
            match stdout {
                Some(stdout) => follow(stdout, progress).await,
                None => Output::default(),
            }
        };
        let stderr = child.stderr.take();
        let complain = async {
            match stderr {
                Some(stderr) => tail(stderr, STDERR_MAX).await,
                None => String::new(),
            }
        };
        let ended = tokio::select! {
            () = cancel.cancelled() => None,
            (status, (), output, stderr) = async {
                // rsync's own end first: its remote shell may hold the pipes open.
                tokio::join!(child.wait(), feed, follow, complain)
            } => Some((status, output, stderr)),
        };
        let Some((status, output, stderr)) = ended else {
            if let Err(error) = child.end().await {
                tracing::error!(%error, "cannot end rsync");
            }
            return None;
        };
        Some(match status {
            Ok(status) => {
                let ended = sum_up(status, &stderr, output, source, remote.map(|(to, _)| to));
                match remote.and_then(|(to, secrets)| trouble(to, secrets, &stderr)) {
                    Some((exit, error)) if ended.exit != Exit::Ok => {
                        Transfer { exit, error, ..ended }
                    }
                    _ => ended,
                }
            }
            Err(error) => not_started(rsync, &error),
        })
    }
}

fn sum_up(
    status: ExitStatus,
    stderr: &str,
    output: Output,
    source: &Path,
    to: Option<&Remote>,
) -> Transfer {
    let exit = Exit::of(status, stderr);
    let error = if exit == Exit::Ok { String::new() } else { exit::text(status, stderr) };
    // Of a long text only the end is there.
    let whole = stderr.len() < STDERR_MAX;
    let top = to.map(top).unwrap_or_default();
    let failed = if whole { complaint::names(stderr, source, &top) } else { None };
    let Output { stats, mut blocked } = output;
    blocked.extend(complaint::blocked(stderr));
    Transfer { exit, error, stats, failed, blocked }
}

fn not_started(rsync: &Path, error: &std::io::Error) -> Transfer {
    let (exit, error) = match error.kind() {
        std::io::ErrorKind::NotFound => {
            (Exit::Config, "rsync is not installed: apt install rsync".to_owned())
        }
        _ => (Exit::Resource, format!("cannot start {}: {error}", rsync.display())),
    };
    Transfer::not_begun(exit, error)
}

impl Transfer {
    pub fn not_begun(exit: Exit, error: String) -> Self {
        Self { exit, error, stats: Stats::default(), failed: None, blocked: Vec::new() }
    }
}

/// What standard output told.
#[derive(Default)]
struct Output {
    stats: Stats,
    /// rsync does not take it for an error.
    blocked: Vec<RelPath>,
}

/// Passes progress on and returns what else is told.
async fn follow(mut from: impl AsyncRead + Unpin, to: &(dyn Fn(&str) + Sync)) -> Output {
    let mut line = Vec::new();
    let mut chunk = vec![0; 4096];
    let mut output = Output::default();
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        for &byte in &chunk[..n] {
            if byte != b'\n' && byte != b'\r' {
                if line.len() < LINE_MAX {
                    line.push(byte);
                }
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            output.stats.read(&text);
            if output.blocked.len() < BLOCKED_MAX {
                output.blocked.extend(complaint::blocked(&text));
            }
            if let Some(line) = progress(&text) {
                to(&line);
            }
            line.clear();
        }
    }
    output
}
