//! What a target's own lsyncd calls in place of rsync where a sync has engine=classic: it hands
//! what lsyncd tells to the agent beside it and ends with the outcome as an exit code that lsyncd
//! understands. It is the agent's own binary under another name and transfers nothing.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lockstep_model::Timestamp;

use crate::data::call::connect;
use crate::dispatch::{BATCH, TRY_AGAIN, called_as, read_change};
use crate::journal::entry::encode;
use crate::journal::{Change, Entry};

/// Name of the symlink to the agent in the directory of a target's lsyncd.
pub const NAME: &str = "lockstep-rsync";
/// Socket in that directory where the agent takes calls.
pub const SOCKET: &str = "calls.sock";
/// Everything that was told is on the target.
pub const DELIVERED: u8 = 0;
/// lsyncd goes on: the agent keeps what did not make it and tries it again.
pub const PARTIAL: u8 = 23;
/// lsyncd ends, and its log says why.
const USAGE: u8 = 1;
/// How a line on standard error begins that tells of a call that cannot be ours.
pub const REFUSED: &str = "lockstep-rsync: refused: ";

/// What our configuration makes lsyncd give, besides two places and the letters.
const WORDS: [&str; 6] =
    ["--delete", "--ignore-errors", "--force", "--from0", BATCH, "--exclude=*"];
const LETTERS: &[u8] = b"tslr";

/// The directory of the target's lsyncd, when the program was called as its rsync.
pub fn unit_dir(argv0: &OsStr) -> Option<&Path> {
    called_as(argv0, NAME)
}

/// All of it; returns the exit code. `dir` is named after the target.
pub fn run(
    dir: &Path,
    args: impl IntoIterator<Item = OsString>,
    stdin: impl Read,
    now: Timestamp,
) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    // First of all: lsyncd dies of SIGPIPE when nobody reads what it writes.
    let change = read_change(args.iter().any(|arg| arg == BATCH), stdin);
    // Nobody reads what is said: nothing to be done about it.
    if let Err(why) = check(&args, dir.file_name().unwrap_or_default()) {
        let _ = writeln!(io::stderr(), "{REFUSED}{why}");
        return USAGE;
    }
    match change.and_then(|change| hand_over(dir, change, now)) {
        Ok(code @ (DELIVERED | PARTIAL)) => code,
        Ok(_) => TRY_AGAIN,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lockstep-rsync: this node's agent: {error}");
            TRY_AGAIN
        }
    }
}

/// Nothing of the arguments is used, so one that is not ours would be lost silently.
fn check(args: &[OsString], target: &OsStr) -> Result<(), String> {
    let mut places = Vec::new();
    for arg in args {
        let bytes = arg.as_bytes();
        let is_ours = match bytes {
            [b'-', b'-', ..] => WORDS.iter().any(|word| *arg == **word),
            [b'-', letters @ ..] => {
                !letters.is_empty() && letters.iter().all(|letter| LETTERS.contains(letter))
            }
            _ => {
                places.push(bytes);
                true
            }
        };
        if !is_ours {
            let arg = arg.display();
            return Err(format!("{arg} is not in the configuration that lsyncd was given"));
        }
    }
    let is_target = |place: &[u8]| {
        place.strip_prefix(target.as_bytes()).is_some_and(|rest| rest.starts_with(b"::"))
    };
    match places[..] {
        [[b'/', ..], to] if is_target(to) => Ok(()),
        _ => Err(format!("it is not from the source to {}", target.display())),
    }
}

/// Waits for the outcome, which may take as long as the target is away.
fn hand_over(dir: &Path, change: Change, now: Timestamp) -> io::Result<u8> {
    let mut agent = connect(dir, SOCKET)?;
    agent.write_all(&encode(&Entry { seq: 1, at: now, change }))?;
    agent.shutdown(Shutdown::Write)?;
    let mut code = [0];
    agent.read_exact(&mut code)?;
    Ok(code[0])
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::data::call::listen;
    use crate::journal::entry::{Step, decode};

    const FULL: [&str; 6] =
        ["--delete", "--ignore-errors", "-tsl", "-r", "/srv/www/", "web1::webroot/"];

    fn os(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn only_what_our_configuration_gives_is_taken() {
        let check = |args: &[&str]| check(&os(args), OsStr::new("web1"));
        assert_eq!(check(&FULL), Ok(()));
        let batch = ["-slt", "-r", "--delete", "--force", "--from0", BATCH, "--exclude=*", "/s/"];
        assert_eq!(check(&[&batch[..], &["web1::webroot/"]].concat()), Ok(()));
        for more in ["-a", "--rsh=x", "-", "--", "--delete-excluded", "/third/"] {
            assert!(check(&[&FULL[..], &[more]].concat()).is_err(), "{more}");
        }
        for to in ["web10::webroot/", "web1:/srv", "x::web1"] {
            assert!(check(&["-r", "/srv/www/", to]).is_err(), "{to}");
        }
        assert!(check(&["-r", "/srv/www/"]).is_err());
    }

    #[test]
    fn the_agents_word_is_the_exit_code_and_all_input_is_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("web1");
        std::fs::create_dir(&dir).unwrap();
        let mut args = os(&FULL);
        args.push(BATCH.into());
        let call = |args: &[OsString]| {
            let mut input = Cursor::new(&b"/a\0/"[..]);
            let code = run(&dir, args.to_vec(), &mut input, Timestamp(5));
            assert_eq!(input.position(), 4, "lsyncd's pipe is read to its end");
            code
        };
        assert_eq!(call(&args), TRY_AGAIN, "no agent is there");
        let listener = listen(&dir, SOCKET).unwrap();
        listener.set_nonblocking(false).unwrap();
        let agent = std::thread::spawn(move || {
            for answer in [&[DELIVERED][..], &[PARTIAL], &[77], &[]] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut told = Vec::new();
                stream.read_to_end(&mut told).unwrap();
                let Step::Entry { entry, .. } = decode(&told, 0) else { panic!("no entry") };
                let Change::Batch(changed) = entry.change else { panic!("not a batch") };
                assert_eq!(&*changed[0].path, b"a");
                stream.write_all(answer).unwrap();
            }
        });
        for expected in [DELIVERED, PARTIAL, TRY_AGAIN, TRY_AGAIN] {
            assert_eq!(call(&args), expected);
        }
        agent.join().unwrap();
        args.push("--rsh=x".into());
        assert_eq!(call(&args), USAGE);
    }
}
