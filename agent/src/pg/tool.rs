//! PostgreSQL's own programs, run to their end as the data's owner: within a limit, stopped when asked,
//! and with a bound on what they say. What the words mean is for others to know.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

use super::instance::Instance;
use crate::host::tail;

/// Most that is kept of standard output, in bytes; a longer one is an error.
const OUTPUT_MAX: u64 = 1 << 20;
/// Most that is kept of the end of its messages, in bytes.
const MESSAGES_MAX: usize = 4096;

/// How a program came to its end.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub output: String,
    pub messages: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("cannot run {program}: {why}")]
    Start { program: String, why: String },
    #[error("{program} did not end within {} s", limit.as_secs())]
    Late { program: String, limit: Duration },
    #[error("stopped")]
    Stopped,
}

/// Waits for its end, whatever that is.
pub async fn run(
    instance: &Instance,
    program: &str,
    args: &[&str],
    limit: Option<Duration>,
    stop: &CancellationToken,
) -> Result<Said, ToolError> {
    let start = |why: String| ToolError::Start { program: program.to_owned(), why };
    let host = &instance.programs().host;
    let mut child = host.spawn(&instance.as_owner(program, args)).map_err(|error| {
        start(format!("{error}; is it in {}?", instance.layout().bin.display()))
    })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(start("it has no output".to_owned()));
    };
    let ended = async {
        let (output, messages, status) =
            tokio::join!(read(stdout), tail(stderr, MESSAGES_MAX), child.wait());
        (output, messages, status)
    };
    let late = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let cut = tokio::select! {
        (output, messages, status) = ended => {
            let status = status.map_err(|error| start(error.to_string()))?;
            return Ok(Said { status, output, messages });
        }
        () = late => ToolError::Late { program: program.to_owned(), limit: limit.unwrap_or_default() },
        () = stop.cancelled() => ToolError::Stopped,
    };
    if let Err(error) = child.end().await {
        tracing::error!(program, %error, "cannot end a program");
    }
    Err(cut)
}

/// As `run`; Err also when it failed, with its last words.
pub async fn succeed(
    instance: &Instance,
    program: &str,
    args: &[&str],
    limit: Option<Duration>,
    stop: &CancellationToken,
) -> Result<String, String> {
    let said = run(instance, program, args, limit, stop).await.map_err(|e| e.to_string())?;
    match said.status.success() {
        true => Ok(said.output),
        false => Err(format!("{program}: {}", last_words(&said.messages))),
    }
}

/// The last line that tells of an error, else the last one that says something: libpq goes on with where
/// it had a password from.
pub fn last_words(messages: &str) -> String {
    const ERRORS: [&str; 4] = ["error:", "fatal:", "ERROR:", "FATAL:"];
    let lines = || messages.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let is_error = |line: &&str| ERRORS.iter().any(|word| line.contains(word));
    let last = lines().find(is_error).or_else(|| lines().next());
    last.map_or_else(|| "it failed and said nothing".to_owned(), str::to_owned)
}

/// What goes beyond the limit is read and forgotten, so that the program comes to its end.
async fn read(mut from: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let _ = (&mut from).take(OUTPUT_MAX).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn the_line_that_tells_of_the_error_counts() {
        let refused = "pg_basebackup: error: connection to server at \"db1\", port 5432 failed: \
                       FATAL:  password authentication failed for user \"x\"";
        assert_eq!(
            last_words(&format!("{refused}\npassword retrieved from file \"y\"\n")),
            refused
        );
        assert_eq!(last_words("first\n\nlast \n\n"), "last");
        assert_eq!(last_words(" \n"), "it failed and said nothing");
    }
}
