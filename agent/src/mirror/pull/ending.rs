//! What the end of a step means to a mirror: whether all came, and if not, whether another try helps.
//! Pure; the exit code alone tells too little.

use std::process::ExitStatus;

use super::argv::{Pull, Source, Step};
use crate::rsync::complaint;
use crate::rsync::exit::{self, Exit, RSH_REFUSED, RSH_UNREACHABLE};
use crate::rsync::trouble::trouble;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    pub end: End,
    /// One line for people: why it failed, or what was left out of a complete one; else empty.
    pub why: String,
    /// Entries that a step with content found to be removed later, at least; there are at most
    /// twice as many, since of a directory that is not empty only what is in it is counted.
    pub left: u64,
    /// None: a signal ended it.
    pub code: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Complete,
    Failed(Retry),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The network or a process had trouble that passes.
    Soon,
    /// The other side is busy or not in order.
    Later,
    /// A person has to change something.
    Never,
}

/// `stderr` may be cut at its beginning; then it is not `whole`.
pub fn ended(pull: &Pull<'_>, step: Step, status: ExitStatus, stderr: &str, whole: bool) -> Ended {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let left = if step == Step::Content { complaint::deletions_cut(stderr) } else { None };
    let ended = |end, why| Ended { end, why, left: left.unwrap_or(0), code };
    let failed = |retry, why| ended(End::Failed(retry), why);
    let said = || exit::text(status, stderr);
    let blocked = whole && complaint::is_only_blocked(stderr);
    match (Exit::of(status, stderr), code) {
        (Exit::Ok, _) => ended(End::Complete, String::new()),
        // What went away meanwhile is not upstream's any more.
        (Exit::Vanished, _) => ended(End::Complete, said()),
        (_, Some(24)) if left.is_some() => ended(End::Complete, said()),
        (_, Some(25)) if left.is_some() => ended(End::Complete, String::new()),
        // What is in the way goes with the removals, of this pull or of the next stage.
        (_, Some(23)) if blocked && (left.is_some() || !pull.late.is_empty()) => {
            ended(End::Complete, String::new())
        }
        (_, Some(23)) if blocked => failed(Retry::Never, in_the_way(stderr)),
        (exit, _) => {
            let (retry, why) = failure(&pull.source, exit, code, stderr);
            failed(retry, why.unwrap_or_else(said))
        }
    }
}

/// Whether a line of standard error only says what a later step sees to: no log needs it.
pub fn is_expected(step: Step, line: &str) -> bool {
    let cut = complaint::deletions_cut(line).is_some() || line.contains("(code 25)");
    step == Step::Content && (cut || complaint::is_only_blocked(line))
}

fn in_the_way(stderr: &str) -> String {
    let name = complaint::blocked(stderr).into_iter().next();
    let name = name.map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
    exit::fit(&format!(
        "{name} has something in it that is not to be removed, and something else should take its \
         place: move it away, or let delete remove it"
    ))
}

fn failure(
    source: &Source<'_>,
    exit: Exit,
    code: Option<u8>,
    stderr: &str,
) -> (Retry, Option<String>) {
    // Lines of rsync's own hold names of files, which may read like anything.
    let plain = || stderr.lines().filter(|line| !line.starts_with("rsync: "));
    let has = |text: &str| plain().any(|line| line.contains(text));
    if let Source::Remote { remote, secrets, password } = source {
        if has("@ERROR: auth failed") && password.is_some() {
            let why = match &remote.user {
                Some(user) => format!(
                    "the rsync daemon at {} does not take user {user} with the mirror's password: \
                     give the right one with --password-file",
                    remote.at
                ),
                None => format!(
                    "the rsync daemon at {} wants a user: rsync://USER@{}/{}",
                    remote.at, remote.at, remote.path
                ),
            };
            return (Retry::Never, Some(exit::fit(&why)));
        }
        if has("@ERROR: access denied") {
            let why = format!("the rsync daemon at {} does not let this node in", remote.at);
            return (Retry::Never, Some(why));
        }
        if let Some((_, why)) = trouble(remote, secrets, stderr) {
            // The disk of the upstream, most likely.
            let outage = has("@ERROR: chdir failed") || has("@ERROR: chroot failed");
            return (if outage { Retry::Later } else { Retry::Never }, Some(why));
        }
        if is_missing(stderr) {
            let why = format!("{} has no directory {}", remote.at, remote.path);
            return (Retry::Never, Some(exit::fit(&why)));
        }
    }
    // The connection may end before the code of it does.
    let refuses = |line: &str| line.contains("The server is configured to refuse ");
    if stderr.lines().any(refuses) {
        return (Retry::Never, None);
    }
    let retry = match (exit, code) {
        _ if stderr.contains(RSH_UNREACHABLE) => Retry::Soon,
        // The other agent may not have heard of the mirror yet.
        _ if stderr.contains(RSH_REFUSED) => Retry::Later,
        (Exit::Unfilled | Exit::Killed | Exit::Partial, _) => Retry::Later,
        // Busy, chatty or not in order: something else may answer next time.
        (_, Some(2 | 5 | 22 | 23)) => Retry::Later,
        (Exit::Config | Exit::Resource, _) => Retry::Never,
        (Exit::Transient | Exit::Ok | Exit::Vanished, _) => Retry::Soon,
    };
    (retry, None)
}

/// What was asked for is not there at all.
fn is_missing(stderr: &str) -> bool {
    stderr.lines().any(|line| {
        let asked = line.contains("] change_dir \"") || line.contains("] link_stat \"");
        asked && line.ends_with(" failed: No such file or directory (2)")
    })
}

#[cfg(test)]
mod tests;
