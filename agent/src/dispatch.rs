//! What lsyncd calls in place of rsync: it writes what lsyncd tells into the journal, pokes the
//! agent and ends. It is the agent's own binary under another name and needs no running agent; it
//! transfers nothing.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use lockstep_model::Timestamp;

use crate::journal::entry::is_rel_path;
use crate::journal::{Appender, Change, Changed, JournalError};

/// Name of the symlink to the agent in a sync's state directory.
pub const NAME: &str = "lockstep-dispatch";
/// Socket in the state directory where the agent listens for pokes.
pub const POKE: &str = "poke.sock";
/// Journal in the state directory.
pub const JOURNAL: &str = "journal";
/// lsyncd keeps its events and calls again after this exit code.
pub const TRY_AGAIN: u8 = 12;
/// The argument by which lsyncd says that paths follow on standard input.
pub const BATCH: &str = "--include-from=-";
/// Most bytes of path list taken; a longer one is recorded as "anything may have changed".
const INPUT_MAX: usize = 64 << 20;

/// The state directory, when the program was called as the dispatcher.
pub fn state_dir(argv0: &OsStr) -> Option<&Path> {
    called_as(argv0, NAME)
}

/// The directory of the symlink by which the program was called, if that has this name.
pub fn called_as<'a>(argv0: &'a OsStr, name: &str) -> Option<&'a Path> {
    let path = Path::new(argv0);
    (path.file_name()? == name).then(|| path.parent()).flatten()
}

/// The whole dispatcher; returns its exit code.
pub fn run(
    state_dir: &Path,
    args: impl IntoIterator<Item = OsString>,
    stdin: impl Read,
    now: Timestamp,
) -> u8 {
    match record(state_dir, args, stdin, now) {
        Ok(()) => 0,
        Err(error) => {
            // lsyncd passes it on to the agent's log.
            let _ = writeln!(io::stderr(), "lockstep-dispatch: {error}");
            TRY_AGAIN
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error("cannot read the list of paths from lsyncd: {0}")]
    Input(#[from] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

fn record(
    state_dir: &Path,
    args: impl IntoIterator<Item = OsString>,
    stdin: impl Read,
    now: Timestamp,
) -> Result<(), DispatchError> {
    let batch = args.into_iter().any(|arg| arg == BATCH);
    let change = read_change(batch, stdin)?;
    // An empty batch too: the agent counts entries against the calls that lsyncd saw succeed.
    Appender::open(&state_dir.join(JOURNAL))?.append(now, change)?;
    poke(state_dir);
    Ok(())
}

/// What lsyncd tells on standard input; `batch` when its arguments say that paths stand there.
pub fn read_change(batch: bool, mut stdin: impl Read) -> io::Result<Change> {
    // All of it, whatever it is: lsyncd dies of SIGPIPE when its reader leaves early.
    let mut input = Vec::new();
    stdin.by_ref().take(INPUT_MAX as u64).read_to_end(&mut input)?;
    let excess = io::copy(&mut stdin, &mut io::sink())?;
    Ok(if batch && excess == 0 { parse(&input) } else { Change::Full })
}

/// Best effort: an agent that is away reads the journal when it is back.
pub fn poke(state_dir: &Path) {
    let sent = UnixDatagram::unbound()
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .and_then(|socket| socket.send_to(&[1], state_dir.join(POKE)));
    drop(sent);
}

/// Reads lsyncd's filter list: NUL between items; each absolute in the tree; directories end in
/// `/`, deleted ones in `/***`; `? * [ ]` escaped by a backslash, the backslash itself not.
fn parse(input: &[u8]) -> Change {
    let mut paths = Vec::new();
    for item in input.split(|b| *b == 0).filter(|item| !item.is_empty()) {
        let Some(item) = item.strip_prefix(b"/") else { return Change::Full };
        let (item, subtree) = match item.strip_suffix(b"***") {
            // A `*` of a name is escaped, so this is lsyncd's own.
            Some(dir) if dir.is_empty() || dir.ends_with(b"/") => (dir, true),
            _ => (item, false),
        };
        let path = unescape(item.strip_suffix(b"/").unwrap_or(item));
        match path.is_empty() {
            true if subtree => return Change::Full,
            // The source itself comes with each batch as the end of a parent chain.
            true => continue,
            false if !is_rel_path(&path) => return Change::Full,
            false => paths.push(Changed { path: path.into(), subtree }),
        }
    }
    Change::Batch(paths)
}

fn unescape(item: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(item.len());
    for &byte in item {
        if matches!(byte, b'?' | b'*' | b'[' | b']') && out.last() == Some(&b'\\') {
            out.pop();
        }
        out.push(byte);
    }
    out
}

/// Absolute path of the symlink of this name in `dir`, made to point at `agent`.
pub fn install(dir: &Path, name: &str, agent: &Path) -> io::Result<PathBuf> {
    let link = dir.join(name);
    if std::fs::read_link(&link).is_ok_and(|to| to == agent) {
        return Ok(link);
    }
    let fresh = dir.join(format!("{name}.new"));
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(agent, &fresh)?;
    std::fs::rename(&fresh, &link)?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Reader;
    use proptest::prelude::*;

    #[test]
    fn lsyncds_lists_are_read() {
        type Case<'a> = (&'a [u8], Option<&'a [(&'a str, bool)]>);
        let cases: [Case; 8] = [
            (
                b"/a\0/\0/x y/\0/x y/n\nl",
                Some(&[("a", false), ("x y", false), ("x y/n\nl", false)]),
            ),
            (b"/#h\\*\\[1\\]\\?", Some(&[("#h*[1]?", false)])),
            (b"/a\\b\\*c\0/z\\", Some(&[("a\\b*c", false), ("z\\", false)])),
            (b"/sub/deep/***\0/sub/", Some(&[("sub/deep", true), ("sub", false)])),
            (b"/\\*\\*\\*", Some(&[("***", false)])),
            (b"/", Some(&[])),
            (b"/***", None),
            (b"/../etc", None),
        ];
        for (input, expected) in cases {
            let expected = match expected {
                None => Change::Full,
                Some(paths) => Change::Batch(
                    paths
                        .iter()
                        .map(|(p, subtree)| Changed {
                            path: p.as_bytes().into(),
                            subtree: *subtree,
                        })
                        .collect(),
                ),
            };
            assert_eq!(parse(input), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_call_without_a_list_means_everything() {
        let dir = tempfile::tempdir().unwrap();
        let call = |args: &[&str], input: &[u8]| {
            run(dir.path(), args.iter().map(OsString::from), input, Timestamp(5))
        };
        assert_eq!(call(&["--delete", "-r", "/s/", "lockstep::journal/"], b""), 0);
        assert_eq!(call(&["-r", "--include-from=-", "--exclude=*", "/s/"], b"/a\0/"), 0);
        let mut reader = Reader::after(&dir.path().join(JOURNAL), 0);
        let changes: Vec<_> = reader.read().unwrap().into_iter().map(|e| e.change).collect();
        let a = Changed { path: b"a"[..].into(), subtree: false };
        assert_eq!(changes, [Change::Full, Change::Batch(vec![a])]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_makes_lsyncd_try_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(JOURNAL), "a file in the way").unwrap();
        assert_eq!(run(dir.path(), [], &b""[..], Timestamp(5)), TRY_AGAIN);
    }

    #[test]
    fn the_name_tells_the_dispatcher_from_the_agent() {
        let dir = state_dir(OsStr::new("/var/lib/lockstep/sync/w/lockstep-dispatch"));
        assert_eq!(dir, Some(Path::new("/var/lib/lockstep/sync/w")));
        assert_eq!(state_dir(OsStr::new("/usr/bin/lockstep-agent")), None);
        assert_eq!(state_dir(OsStr::new("")), None);
    }

    /// As `lsyncd -x` does it.
    fn escape(name: &[u8]) -> Vec<u8> {
        let special = |b: &u8| b"?*[]".contains(b);
        name.iter().flat_map(|b| if special(b) { vec![b'\\', *b] } else { vec![*b] }).collect()
    }

    proptest! {
        #[test]
        fn every_name_survives_the_escaping(name in proptest::collection::vec(
            prop_oneof![Just(b'\\'), Just(b'*'), Just(b'['), Just(b'?'), 1u8..], 1..30
        )) {
            prop_assert_eq!(unescape(&escape(&name)), name);
        }

        #[test]
        fn any_list_is_read_without_panic(input: Vec<u8>) {
            parse(&input);
        }
    }
}
