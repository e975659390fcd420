//! One run of rsync: fed, watched, ended with its whole process group when it is cancelled.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::host::{Host, Program, tail};
use crate::rsync::exit::{self, Exit};
use crate::rsync::{progress, sent_bytes};

/// Bytes of standard error kept: its end.
const STDERR_MAX: usize = 16 << 10;
/// Longest line of output that is looked at, in bytes.
const LINE_MAX: usize = 4096;

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    pub exit: Exit,
    /// One line for people; empty after a success.
    pub error: String,
    pub sent_bytes: u64,
}

/// What to run and with what.
pub struct Run<'a> {
    pub host: &'a Host,
    pub rsync: &'a Path,
    pub args: Vec<OsString>,
    /// Standard input.
    pub input: Option<Vec<u8>>,
    /// Takes progress lines; those that find it full are dropped.
    pub progress: Option<&'a mpsc::Sender<String>>,
}

impl Run<'_> {
    /// None when it was cancelled; then no process is left.
    pub async fn complete(self, cancel: &CancellationToken) -> Option<Transfer> {
        let Self { host, rsync, args, input, progress } = self;
        let program = Program { path: rsync.to_owned(), args, fed: input.is_some() };
        let mut child = match host.spawn(&program) {
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
                None => 0,
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
            (status, (), sent_bytes, stderr) = async {
                // rsync's own end first: its remote shell may hold the pipes open.
                tokio::join!(child.wait(), feed, follow, complain)
            } => Some((status, sent_bytes, stderr)),
        };
        let Some((status, sent_bytes, stderr)) = ended else {
            if let Err(error) = child.end().await {
                tracing::error!(%error, "cannot end rsync");
            }
            return None;
        };
        Some(match status {
            Ok(status) => sum_up(status, &stderr, sent_bytes),
            Err(error) => not_started(rsync, &error),
        })
    }
}

fn sum_up(status: ExitStatus, stderr: &str, sent_bytes: u64) -> Transfer {
    let exit = Exit::of(status, stderr);
    let error = if exit == Exit::Ok { String::new() } else { exit::text(status, stderr) };
    Transfer { exit, error, sent_bytes }
}

fn not_started(rsync: &Path, error: &std::io::Error) -> Transfer {
    let (exit, error) = match error.kind() {
        std::io::ErrorKind::NotFound => {
            (Exit::Config, "rsync is not installed: apt install rsync".to_owned())
        }
        _ => (Exit::Resource, format!("cannot start {}: {error}", rsync.display())),
    };
    Transfer { exit, error, sent_bytes: 0 }
}

/// Passes progress on and returns the bytes sent, from the statistics at the end.
async fn follow(mut from: impl AsyncRead + Unpin, to: Option<&mpsc::Sender<String>>) -> u64 {
    let mut line = Vec::new();
    let mut chunk = vec![0; 4096];
    let mut sent = 0;
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        for &byte in &chunk[..n] {
            if byte != b'\n' && byte != b'\r' {
                if line.len() < LINE_MAX {
                    line.push(byte);
                }
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            sent = sent.max(sent_bytes(&text));
            if let (Some(to), Some(progress)) = (to, progress(&text)) {
                let _ = to.try_send(progress);
            }
            line.clear();
        }
    }
    sent
}
