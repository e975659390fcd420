//! A tree's way to another place on its node: a rename on one file system, else a copy that is
//! compared before it takes the place. At its old name the tree stays whole until then.

use std::path::Path;

use lockstep_model::path::DirPath;

use super::engine::Engine;
use super::publish::{Current, Site};
use crate::host::{Program, tail};
use crate::rsync::exit;

/// Bytes of rsync's messages that are kept.
const MESSAGES_MAX: usize = 16 << 10;

/// What it did, in one line. Repeating it is harmless.
pub async fn carry(engine: &Engine, from: &DirPath, to: &DirPath) -> Result<String, String> {
    let (old, new) = (Site::new(from), Site::new(to));
    let at = |path: &DirPath| {
        let path = path.clone();
        move |error: std::io::Error| format!("moving the tree: {path}: {error}")
    };
    old.heal().map_err(at(from))?;
    match (old.current().map_err(at(from))?, new.current().map_err(at(to))?) {
        (Current::Nothing, _) => return Ok(String::new()),
        (_, Current::Nothing) => {}
        (_, _) => {
            return Err(format!(
                "cannot move the tree from {from}: there is something at {to}: move it away"
            ));
        }
    }
    match old.rename(&new) {
        Ok(()) => return Ok(format!("moved {from} to {to}")),
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
        Err(error) => return Err(at(from)(error)),
    }
    // Of snapshots only the current one goes along.
    let work = new.prepare().map_err(at(to))?;
    let copy = work.path().join("copy");
    let real = std::fs::canonicalize(from.as_str()).map_err(|error| at(from)(error))?;
    let copied = rsync(engine, &real, &copy, &[]).await?;
    if !copied.is_empty() {
        let compared = rsync(engine, &real, &copy, &["--dry-run", "--checksum"]).await?;
        if !compared.is_empty() {
            return Err(format!("the copy of {from} at {to} differs from it: try again"));
        }
    }
    std::fs::rename(&copy, new.tree()).map_err(at(to))?;
    work.clear().map_err(at(to))?;
    let deleted = old.delete().map_err(at(from))?;
    Ok(format!("copied {from} to {to}, {deleted}"))
}

/// What it brought, one line an entry; the end of it.
async fn rsync(engine: &Engine, from: &Path, to: &Path, more: &[&str]) -> Result<String, String> {
    let top = |path: &Path| {
        let mut text = path.as_os_str().to_owned();
        text.push("/");
        text
    };
    let mut args: Vec<std::ffi::OsString> =
        ["-aHAX", "--numeric-ids", "--delete", "--out-format=%i"].map(Into::into).to_vec();
    args.extend(more.iter().map(Into::into));
    args.extend(["--".into(), top(from), top(to)]);
    let program = Program { path: engine.settings.rsync.clone(), args, fed: false };
    let mut child =
        engine.host.spawn(&program).map_err(|error| format!("cannot start rsync: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err("rsync has no output".to_owned());
    };
    let (status, out, err) =
        tokio::join!(child.wait(), tail(stdout, MESSAGES_MAX), tail(stderr, MESSAGES_MAX));
    let status = status.map_err(|error| format!("rsync: {error}"))?;
    match status.success() {
        true => Ok(out),
        false => Err(format!("copying {}: {}", from.display(), exit::text(status, &err))),
    }
}
