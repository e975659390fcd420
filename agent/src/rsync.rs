//! The command lines of rsync, and what its output means. Pure. Names of files never stand in an
//! argument: they go through standard input, each behind `./`.

pub mod complaint;
pub mod exclude;
pub mod exit;
pub mod options;
pub mod progress;
pub mod remote;
pub mod trouble;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use lockstep_model::sync::Remote;
use lockstep_model::sync::options::TransferOptions;
use lockstep_model::{NodeName, SyncName};
use remote::{Terms, Way};

/// How long it may take to connect to a target without an agent.
const CONNECT_S: u64 = 10;

/// From where to where, and through what.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    pub transfer: &'a TransferOptions,
    pub source: &'a Path,
    /// File of exclude patterns, one `- pattern` a line.
    pub excludes: &'a Path,
    pub to: End<'a>,
}

/// The far end of a run.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// `agent` is the own binary, which is rsync's remote shell.
    Agent { sync: &'a SyncName, node: &'a NodeName, agent: &'a Path, data_dir: &'a Path },
    /// `secrets` is the directory of its key or password, `rate` is in bytes per second.
    Remote { remote: &'a Remote, secrets: &'a Path, rate: Option<u64> },
}

/// What a run brings; a list of names goes to standard input where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Exactly the listed names, directories without what is in them.
    Batch,
    /// Exactly the listed names, files also where they look the same. They are known to differ, so
    /// that no checksum is asked for first: it would read both sides once more.
    Contents,
    /// The listed directories with all that is in them.
    Subtrees,
    /// Everything.
    Pass,
}

/// What a run may remove on the target. Only a run whose removals were counted before may remove a
/// directory with something in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    Nothing,
    /// Of a batch's names those that are gone: one entry each.
    Names,
    /// Nothing yet: tells how much [`Power::Most`] would.
    Count,
    /// At most so many entries, if a number is given.
    Most(Option<u64>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    pub scope: Scope,
    /// What the source does not have goes, and not only what is in the way of something else.
    pub delete: bool,
    pub power: Power,
}

impl Form {
    pub fn is_listed(self) -> bool {
        self.scope != Scope::Pass
    }

    /// Whether a target that is not filled may take it.
    fn fills(self) -> bool {
        let removes = matches!(self.power, Power::Count | Power::Most(_));
        self.scope == Scope::Pass && !(self.delete && removes)
    }
}

pub fn argv(route: &Route<'_>, form: Form) -> Vec<OsString> {
    let recursive = !matches!(form.scope, Scope::Batch | Scope::Contents);
    let mut args: Vec<OsString> =
        options::flags(route.transfer, recursive).into_iter().map(Into::into).collect();
    let mut add = |options: &[&str]| args.extend(options.iter().map(OsString::from));
    let counted = matches!(form.power, Power::Count | Power::Most(_));
    let removes = form.delete && counted;
    // `--delete-after` keeps everything when the source had read errors; plain `--delete` does not.
    match form.scope {
        Scope::Batch | Scope::Contents => {
            let missing = removes || (form.delete && form.power == Power::Names);
            add(&["--from0", "--files-from=-"]);
            add(&[if missing { "--delete-missing-args" } else { "--ignore-missing-args" }]);
            add(if form.scope == Scope::Contents { &["--ignore-times"] } else { &[] });
        }
        Scope::Subtrees => {
            add(&["--from0", "--files-from=-", "--ignore-missing-args"]);
            add(if removes { &["--delete-after"] } else { &[] });
        }
        Scope::Pass => {
            add(&["--info=progress2", "--outbuf=L"]);
            add(if removes { &["--delete-after"] } else { &[] });
        }
    }
    // Without --force a directory with something in it stays, gone or in the way.
    add(if counted { &["--force"] } else { &[] });
    match form.power {
        Power::Count => add(&["--dry-run"]),
        // What is removed is bounded by the count, whatever happened to the source since.
        Power::Most(Some(most)) => add(&[&format!("--max-delete={most}")]),
        Power::Most(None) | Power::Names | Power::Nothing => {}
    }
    add(&["--stats", "--no-human-readable"]);
    let mut exclude_from = OsString::from("--exclude-from=");
    exclude_from.push(route.excludes);
    let mut source = route.source.as_os_str().to_owned();
    source.push("/");
    let Way { options, end } = match route.to {
        End::Agent { sync, node, agent, data_dir } => Way {
            // The far side's errors come through the protocol, and count in the exit code. By
            // default they go to its own standard error and its own exit code, which our remote
            // shell does not carry over.
            options: vec![
                "--stderr=client".into(),
                "-e".into(),
                shell(sync, agent, data_dir, form),
            ],
            end: format!("{node}::{sync}/").into(),
        },
        End::Remote { remote, secrets, rate } => {
            let terms = Terms { secrets, password: None, rate, connect_s: CONNECT_S };
            remote::way(remote, &terms, form.fills())
        }
    };
    args.push(exclude_from);
    args.extend(options);
    args.extend(["--".into(), source, end]);
    args
}

/// The text of `-e`: the agent's own `rsh`, told for what; rsync itself tells it the node.
fn shell(sync: &SyncName, agent: &Path, data_dir: &Path, form: Form) -> OsString {
    let mut words: Vec<OsString> = vec![
        agent.into(),
        "--data-dir".into(),
        data_dir.into(),
        "rsh".into(),
        "--sync".into(),
        sync.to_string().into(),
    ];
    if form.fills() {
        words.push("--pass".into());
    }
    quoted(&words)
}

/// The words of `-e`.
pub(crate) fn quoted(words: &[OsString]) -> OsString {
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
pub const TOP: &[u8] = b".lockstep-top";

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

/// What `--stats` tells; 0 where it tells nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Files that were brought, or would be.
    pub brought: u64,
    /// Of the files that were brought, or would be.
    pub brought_bytes: u64,
    /// Entries that the source has, of those that were to be brought, the top included.
    pub files: u64,
    /// Of all files that the source has.
    pub total_bytes: u64,
    pub created: u64,
    /// Entries, contents of directories included.
    pub deleted: u64,
}

impl Stats {
    pub fn read(&mut self, line: &str) {
        let Some((key, rest)) = line.split_once(": ") else { return };
        let field = match key {
            "Total bytes sent" => &mut self.sent_bytes,
            "Total bytes received" => &mut self.received_bytes,
            "Number of regular files transferred" => &mut self.brought,
            "Total file size" => &mut self.total_bytes,
            "Total transferred file size" => &mut self.brought_bytes,
            "Number of files" => &mut self.files,
            "Number of created files" => &mut self.created,
            "Number of deleted files" => &mut self.deleted,
            _ => return,
        };
        let number = rest.split_ascii_whitespace().next().and_then(|n| n.parse().ok());
        *field = number.unwrap_or(*field);
    }

    /// Entries on the target before a run of everything.
    pub fn before(&self) -> u64 {
        self.files.saturating_sub(self.created).saturating_add(self.deleted)
    }
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
            transfer: &TransferOptions::default(),
            source: Path::new(source),
            excludes: Path::new("/var/lib/x/excludes"),
            to: End::Agent {
                sync: &"webroot".parse().unwrap(),
                node: &"web1".parse().unwrap(),
                agent: Path::new("/usr/bin/lockstep-agent"),
                data_dir: Path::new("/var/lib/it's here"),
            },
        };
        argv(&route, form).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn a_batch_names_nothing_in_its_arguments() {
        let shell = "'/usr/bin/lockstep-agent' '--data-dir' '/var/lib/it''s here' 'rsh' '--sync' \
                     'webroot'";
        assert_eq!(
            words(deleting(Scope::Batch, Power::Names), "/srv/www"),
            [
                "-lptgoD",
                "--numeric-ids",
                "--remote-option=--modify-window=-1",
                "--timeout=60",
                "--from0",
                "--files-from=-",
                "--delete-missing-args",
                "--stats",
                "--no-human-readable",
                "--exclude-from=/var/lib/x/excludes",
                "--stderr=client",
                "-e",
                shell,
                "--",
                "/srv/www/",
                "web1::webroot/",
            ]
        );
    }

    fn deleting(scope: Scope, power: Power) -> Form {
        Form { scope, delete: true, power }
    }

    #[test]
    fn nothing_is_removed_unless_it_was_counted_or_named() {
        use Power::{Count, Most, Names, Nothing};
        let powers = [Nothing, Names, Count, Most(Some(5)), Most(None)];
        for scope in [Scope::Batch, Scope::Contents, Scope::Subtrees, Scope::Pass] {
            for (power, delete) in powers.into_iter().flat_map(|p| [(p, true), (p, false)]) {
                let form = Form { scope, delete, power };
                let words = words(form, "/s");
                let has = |text: &str| words.iter().any(|word| word.starts_with(text));
                let counted = matches!(power, Count | Most(_));
                assert_eq!(has("--force"), counted, "{form:?}");
                assert_eq!(has("--dry-run"), power == Count);
                assert_eq!(has("--max-delete=5"), power == Most(Some(5)));
                let named = matches!(scope, Scope::Batch | Scope::Contents) && power == Names;
                assert_eq!(has("--ignore-times"), scope == Scope::Contents);
                assert_eq!(has("--delete"), delete && (counted || named), "{form:?}");
                let fills = words.iter().any(|word| word.ends_with("'--pass'"));
                assert!(!(fills && has("--delete")), "{form:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_source_is_never_an_option(dir in "[ -~]{1,40}") {
            let args = words(deleting(Scope::Pass, Power::Count), &format!("/{dir}"));
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
        let mut stats = Stats::default();
        for line in [
            "Number of files: 12 (reg: 9, dir: 3)",
            "Number of created files: 2 (reg: 2)",
            "Number of deleted files: 102 (reg: 100, dir: 2)",
            "Number of regular files transferred: 1",
            "Total file size: 5000 bytes",
            "Total transferred file size: 400 bytes",
            "Total bytes sent: 512",
            "Total bytes received: 3",
            "x",
        ] {
            stats.read(line);
        }
        let expected = Stats {
            sent_bytes: 512,
            received_bytes: 3,
            brought: 1,
            brought_bytes: 400,
            files: 12,
            total_bytes: 5000,
            created: 2,
            deleted: 102,
        };
        assert_eq!(stats, expected);
        assert_eq!(stats.before(), 112);
        assert_eq!(OsStr::new("a").as_bytes(), b"a");
    }
}
