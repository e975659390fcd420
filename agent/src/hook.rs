//! Programs of the site's own: looked up in the one hook directory, checked, and run with an empty
//! environment and a limit. They get no arguments and no input; when they run is not decided here.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_model::sync::HookName;
use tokio_util::sync::CancellationToken;

use crate::host::{Child, Host, Program, tail};

/// Where hooks are, unless told otherwise.
pub const DIR: &str = "/etc/lockstep/hooks";
/// Bytes kept of the end of each of a hook's two outputs.
pub const OUTPUT_MAX: usize = 2 << 10;
/// How long outputs are read on when the hook itself has ended.
const LINGER: Duration = Duration::from_secs(1);

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub name: &'a HookName,
    /// What it is told, besides the usual.
    pub environment: &'a [(&'a str, &'a OsStr)],
    /// After so long it is killed with all that it started.
    pub limit: Duration,
}

/// How a run ended that was not stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// One line for people; None after a success.
    pub problem: Option<String>,
    /// The end of what it wrote.
    pub output: String,
}

/// None when stopped; then no process is left of it.
pub async fn run(
    host: &Host,
    dir: &Path,
    call: &Call<'_>,
    stop: &CancellationToken,
) -> Option<Ran> {
    let not_run = |problem| Some(Ran { problem: Some(problem), output: String::new() });
    let path = match find(dir, call.name) {
        Ok(path) => path,
        Err(why) => return not_run(why),
    };
    let program = Program { path, args: Vec::new(), fed: false };
    let mut child = match host.spawn_with(&program, call.environment) {
        Ok(child) => child,
        Err(error) => return not_run(format!("hook {} cannot be started: {error}", call.name)),
    };
    follow(&mut child, call, stop).await
}

async fn follow(child: &mut Child, call: &Call<'_>, stop: &CancellationToken) -> Option<Ran> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = stdout.map(|pipe| tokio::spawn(tail(pipe, OUTPUT_MAX)));
    let err = stderr.map(|pipe| tokio::spawn(tail(pipe, OUTPUT_MAX)));
    let ended = tokio::select! {
        () = stop.cancelled() => Err(None),
        () = tokio::time::sleep(call.limit) => {
            Err(Some(format!("hook {} took longer than {} s and was killed", call.name, call.limit.as_secs())))
        }
        status = child.wait() => Ok(status),
    };
    let problem = match ended {
        Ok(Ok(status)) if status.success() => None,
        Ok(Ok(status)) => Some(format!("hook {} failed: {status}", call.name)),
        Ok(Err(error)) => Some(format!("hook {} cannot be waited for: {error}", call.name)),
        Err(why) => {
            if let Err(error) = child.end().await {
                tracing::error!(hook = %call.name, %error, "cannot end a hook");
            }
            Some(why?)
        }
    };
    // Something that left the hook's process group may hold the pipes open.
    let mut output = String::new();
    for reading in [out, err].into_iter().flatten() {
        if let Ok(Ok(read)) = tokio::time::timeout(LINGER, reading).await {
            output.push_str(&read);
        }
    }
    Some(Ran { problem, output })
}

/// The checked path of a hook. Whoever may write the file or its directory runs what he likes as
/// the agent, so both must be root's or the agent's own and nobody else's to write.
fn find(dir: &Path, name: &HookName) -> Result<PathBuf, String> {
    let path = dir.join(name.as_str());
    let problem = |what: &str| Err(format!("hook {}: {what}", path.display()));
    match fs::metadata(dir) {
        Ok(found) if !is_safe(&found) => {
            return problem("its directory must be writable by root or the agent's user alone");
        }
        Ok(_) => {}
        Err(error) => return problem(&error.to_string()),
    }
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => problem("there is none"),
        Err(error) => problem(&error.to_string()),
        Ok(found) if !found.is_file() => problem("it is not a regular file"),
        Ok(found) if !is_safe(&found) => {
            problem("it must belong to root or the agent's user, and be writable by no one else")
        }
        Ok(found) if found.mode() & 0o111 == 0 => problem("it is not executable"),
        Ok(_) => Ok(path),
    }
}

fn is_safe(found: &fs::Metadata) -> bool {
    let owner = found.uid();
    let own = owner == 0 || owner == rustix::process::geteuid().as_raw();
    own && found.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests;
