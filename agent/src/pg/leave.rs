//! The end of a member on this node: its instance runs on as it is, or goes with its data.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::guard::GuardClient;
use super::instance::{FenceEnd, Instance, StopMode};
use crate::runner::Output;

const STOP_MAX: Duration = Duration::from_secs(30);
const ASK_MAX: Duration = Duration::from_secs(5);
const FENCE_MAX: Duration = Duration::from_secs(30);

/// `dir`: the member's own. Again is fine.
pub async fn leave(
    instance: Option<&Instance>,
    dir: &Path,
    delete: bool,
    output: &Output,
) -> Result<(), String> {
    // Before anything else: a lease that nobody renews any more must not end what is to run on.
    if let Some((guard, _)) = GuardClient::attach(dir).await {
        guard.quit().await;
    }
    let Some(instance) = instance else { return Ok(()) };
    if !delete {
        return let_go(instance).await;
    }
    if let Err(problem) = instance.stop(StopMode::Fast, STOP_MAX).await {
        output.line(&problem);
    }
    if let FenceEnd::Unfenced(pids) = instance.fence(FENCE_MAX).await {
        return Err(format!("processes {pids:?} of postgres do not end: look at its disk"));
    }
    let layout = instance.layout();
    // What says whose data it is goes first: half of a database is none.
    let mut gone = vec![layout.data.join("PG_VERSION"), layout.data.clone()];
    gone.extend(layout.wal.clone());
    gone.push(layout.private.clone());
    let removed = tokio::task::spawn_blocking(move || gone.iter().try_for_each(|at| remove(at)));
    removed.await.map_err(|e| e.to_string())?
}

/// A primary is to be one after its next start by hand too.
async fn let_go(instance: &Instance) -> Result<(), String> {
    let is_primary = match instance.status(ASK_MAX).await {
        Ok(status) => !status.in_recovery,
        Err(_) => false,
    };
    match is_primary {
        true => remove(&instance.layout().data.join("standby.signal")),
        false => Ok(()),
    }
}

/// That it is gone already is fine.
fn remove(path: &Path) -> Result<(), String> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}
