//! The command lines of rsync, and what its output means. Pure. Names of files never stand in an
//! argument: they go through standard input, each behind `./`.

pub mod exclude;
pub mod exit;
pub mod options;
pub mod remote;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use lockstep_model::{NodeName, SyncName};

/// An rsync that hears nothing for so long gives up; it bounds every run.
const SILENCE_MAX: &str = "--timeout=60";

/// From where to where, and through what.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    pub source: &'a Path,
    pub sync: &'a SyncName,
    pub node: &'a NodeName,
    /// The agent's own binary, which is rsync's remote shell.
    pub agent: &'a Path,
    pub data_dir: &'a Path,
    /// File of exclude patterns, one `- pattern` a line.
    pub excludes: &'a Path,
}

/// The forms of a run; a list of names goes to standard input where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Exactly the listed names, directories without what is in them.
    Batch { delete: bool },
    /// The listed directories with all that is in them.
    Subtrees { delete: bool },
    /// Everything.
    Pass { delete: bool },
}

impl Form {
    pub fn is_listed(self) -> bool {
        !matches!(self, Self::Pass { .. })
    }
}

pub fn argv(route: &Route<'_>, form: Form) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |options: &[&str]| args.extend(options.iter().map(OsString::from));
    // `--delete-after` keeps everything when the source had read errors; plain `--delete` does not.
    match form {
        Form::Batch { delete } => {
            add(&["-lptgoD", "--from0", "--files-from=-"]);
            add(&[if delete { "--delete-missing-args" } else { "--ignore-missing-args" }]);
        }
        Form::Subtrees { delete } => {
            add(&["-rlptgoD", "--from0", "--files-from=-", "--ignore-missing-args"]);
            add(if delete { &["--delete-after"] } else { &[] });
        }
        Form::Pass { delete } => {
            add(&["-rlptgoD", "--info=progress2", "--outbuf=L"]);
            add(if delete { &["--delete-after"] } else { &[] });
        }
    }
    // Without --force a directory in the way of a file stays, and rsync calls that success. By
    // default times are compared in seconds, and a second edit within one would be missed.
    add(&["--force", "--numeric-ids", "--modify-window=-1"]);
    // The far side's errors come through the protocol, and count in the exit code. By default they go to
    // its own standard error and its own exit code, which our remote shell does not carry over.
    add(&["--stderr=client"]);
    add(&["--stats", "--no-human-readable", SILENCE_MAX]);
    let mut exclude_from = OsString::from("--exclude-from=");
    exclude_from.push(route.excludes);
    let mut source = route.source.as_os_str().to_owned();
    source.push("/");
    let destination = format!("{}::{}/", route.node, route.sync);
    args.extend([exclude_from, "-e".into(), shell(route, form), "--".into()]);
    args.extend([source, destination.into()]);
    args
}

/// The text of `-e`: the agent's own `rsh`, told for what; rsync itself tells it the node.
fn shell(route: &Route<'_>, form: Form) -> OsString {
    let mut words: Vec<OsString> = vec![
        route.agent.into(),
        "--data-dir".into(),
        route.data_dir.into(),
        "rsh".into(),
        "--sync".into(),
        route.sync.to_string().into(),
    ];
    if matches!(form, Form::Pass { .. }) {
        words.push("--pass".into());
    }
    let quoted: Vec<Vec<u8>> = words.iter().map(|word| quote(word.as_bytes())).collect();
    OsString::from_vec(quoted.join(&b' '))
}

/// rsync splits `-e` at blanks outside of quotes; a doubled quote inside quotes is one.
fn quote(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for &byte in word {
        out.extend(if byte == b'\'' { &b"''"[..] } else { std::slice::from_ref(&byte) });
    }
    out.push(b'\'');
    out
}

/// Stands for the source itself: an own name that is never there. rsync sends the directory that a
/// listed name is in, while `./` would send all files in it too.
const TOP: &[u8] = b".lockstep-top";

/// Standard input of a listed form.
pub fn list<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for name in names {
        // Without it a name that starts with `#` or `;` is a comment.
        out.extend_from_slice(b"./");
        out.extend_from_slice(if name.is_empty() { TOP } else { name });
        out.push(0);
    }
    out
}

/// `Total bytes sent` of `--stats`; 0 when it is not there.
pub fn sent_bytes(stdout: &str) -> u64 {
    let number = |line: &str| line.strip_prefix("Total bytes sent: ")?.trim().parse().ok();
    stdout.lines().find_map(number).unwrap_or(0)
}

/// A line of `--info=progress2`, blanks made single; None for any other line.
pub fn progress(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [bytes, percent, ..] = words.as_slice() else { return None };
    let is_progress = bytes.bytes().all(|b| b.is_ascii_digit()) && percent.ends_with('%');
    is_progress.then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;

    fn words(form: Form, source: &str) -> Vec<String> {
        let route = Route {
            source: Path::new(source),
            sync: &"webroot".parse().unwrap(),
            node: &"web1".parse().unwrap(),
            agent: Path::new("/usr/bin/lockstep-agent"),
            data_dir: Path::new("/var/lib/it's here"),
            excludes: Path::new("/var/lib/x/excludes"),
        };
        argv(&route, form).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn a_batch_names_nothing_in_its_arguments() {
        let shell = "'/usr/bin/lockstep-agent' '--data-dir' '/var/lib/it''s here' 'rsh' '--sync' \
                     'webroot'";
        assert_eq!(
            words(Form::Batch { delete: true }, "/srv/www"),
            [
                "-lptgoD",
                "--from0",
                "--files-from=-",
                "--delete-missing-args",
                "--force",
                "--numeric-ids",
                "--modify-window=-1",
                "--stderr=client",
                "--stats",
                "--no-human-readable",
                "--timeout=60",
                "--exclude-from=/var/lib/x/excludes",
                "-e",
                shell,
                "--",
                "/srv/www/",
                "web1::webroot/",
            ]
        );
    }

    #[test]
    fn nothing_deletes_unless_told_to() {
        for form in [
            Form::Batch { delete: false },
            Form::Subtrees { delete: false },
            Form::Pass { delete: false },
        ] {
            assert!(words(form, "/s").iter().all(|arg| !arg.contains("delete")), "{form:?}");
        }
    }

    proptest! {
        #[test]
        fn a_source_is_never_an_option(dir in "[ -~]{1,40}") {
            let args = words(Form::Pass { delete: true }, &format!("/{dir}"));
            let operands = args.iter().position(|arg| arg == "--").unwrap();
            prop_assert_eq!(&args[operands + 1], &format!("/{dir}/"));
            prop_assert_eq!(args.len(), operands + 3);
        }

        #[test]
        fn a_name_is_never_an_option_or_a_comment(name in proptest::collection::vec(1u8.., 1..40)) {
            let list = list([&name[..]]);
            prop_assert!(list.starts_with(b"./") && list.ends_with(b"\0"));
            prop_assert_eq!(&list[2..list.len() - 1], &name[..]);
        }

        /// The reader is rsync's own loop, main.c `do_cmd`.
        #[test]
        fn a_quoted_word_is_split_off_whole(words in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(b'\''), Just(b'"'), Just(b' '), 1u8..], 1..12),
            1..5,
        )) {
            let quoted: Vec<_> = words.iter().map(|w| quote(w)).collect();
            let line = quoted.join(&b' ');
            let mut read: Vec<Vec<u8>> = Vec::new();
            let mut at = 0;
            while at < line.len() {
                if line[at] == b' ' {
                    at += 1;
                    continue;
                }
                let mut word = Vec::new();
                let mut inside = None;
                while at < line.len() && (line[at] != b' ' || inside.is_some()) {
                    let byte = line[at];
                    at += 1;
                    match inside {
                        None if byte == b'\'' || byte == b'"' => inside = Some(byte),
                        Some(mark) if byte == mark && line.get(at) == Some(&mark) => {
                            word.push(mark);
                            at += 1;
                        }
                        Some(mark) if byte == mark => inside = None,
                        _ => word.push(byte),
                    }
                }
                read.push(word);
            }
            prop_assert_eq!(read, words);
        }
    }

    #[test]
    fn output_is_read() {
        let line = "  1,234 ";
        assert_eq!(progress(line), None);
        let line = "         12  50%   11.72kB/s    0:00:00 (xfr#1, to-chk=1/3)";
        let short = "12 50% 11.72kB/s 0:00:00 (xfr#1, to-chk=1/3)";
        assert_eq!(progress(line).as_deref(), Some(short));
        assert_eq!(sent_bytes("x\nTotal bytes sent: 512\nTotal bytes received: 3\n"), 512);
        assert_eq!(sent_bytes(""), 0);
        assert_eq!(OsStr::new("a").as_bytes(), b"a");
    }
}
