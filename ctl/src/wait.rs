//! Waiting for effects, and asking before what cannot be undone.

use std::future::Future;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use crate::error::Failure;
use crate::render;

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Looks again and again until `look` has an answer. The whole command's --timeout bounds it.
pub async fn until<T, F>(mut look: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<Option<T>, Failure>>,
{
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// As [`until`], saying on stderr whom it waits for, each time that this changes.
pub async fn telling<T, F>(mut look: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<Result<T, String>, Failure>>,
{
    let mut said = String::new();
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(missing) if missing != said => {
                render::note(&missing);
                said = missing;
            }
            Err(_) => {}
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// For a command that has something to do when `--timeout` passes; without one it never does.
pub async fn late(limit: Option<Duration>, gave_up: &str) -> Failure {
    let Some(limit) = limit else { return std::future::pending().await };
    tokio::time::sleep(limit).await;
    Failure::timed_out(format!("{gave_up} after {limit:?}"))
}

/// Goes on only with --yes or with a person's "yes" on a terminal.
pub fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!("{what} Give --yes to do it.")));
    }
    eprint!("{what} Type yes to do it: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::failed("not done"))
}
