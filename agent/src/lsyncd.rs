//! lsyncd's configuration and what its log says. Pure: it renders text and reads lines; running
//! lsyncd is `sync::watch`'s part. Nothing from outside becomes Lua code.

use std::fmt::Write;
use std::path::Path;

use lockstep_model::Millis;

use crate::inotify::Shortage;

/// Changes that lsyncd collects at most before it hands them over early. Its work for each grows with
/// how many it holds: 10,000 touched files take a third of the CPU that they take with 1000.
const DELAYS_MAX: u32 = 200;

/// What the configuration of one source depends on; lsyncd is restarted when it changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config<'a> {
    pub source: &'a Path,
    /// What lsyncd calls the target in its log.
    pub target: &'a str,
    /// Absolute path of what it calls in place of rsync.
    pub dispatcher: &'a Path,
    /// Whole seconds count.
    pub delay: Millis,
}

/// One sync whose rsync is the dispatcher: lsyncd only tells what changed. Deletes are always
/// told; whether they reach a target is decided at delivery, and so are excludes.
pub fn render(config: &Config<'_>) -> String {
    let Config { source, target, dispatcher, delay } = config;
    let source = quote(source);
    let target = quote(Path::new(target));
    let dispatcher = quote(dispatcher);
    let delay = delay.0 / 1000;
    format!(
        "settings {{
    nodaemon = true,
    insist = true,
    inotifyMode = \"CloseWrite or Modify\",
}}
sync {{
    default.rsync,
    source = {source},
    target = {target},
    delay = {delay},
    maxDelays = {DELAYS_MAX},
    maxProcesses = 1,
    rsync = {{ binary = {dispatcher} }},
}}
"
    )
}

/// A Lua string in which every byte but a letter or a digit is a decimal escape.
fn quote(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::from("\"");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() => out.push(char::from(*b)),
            // Always three digits: a digit may follow.
            b => drop(write!(out, "\\{b:03}")),
        }
    }
    out.push('"');
    out
}

/// What lsyncd is about to end for want of, from a line of its log.
pub fn shortage(line: &str) -> Option<Shortage> {
    let says = |text: &str| line.contains(text);
    if says("out of inotify watches") || says("max_user_watches") {
        return Some(Shortage::Watches);
    }
    says("Cannot access inotify monitor").then_some(Shortage::Instances)
}

/// lsyncd missed changes. It lets its children end, reads the whole tree again with a new queue, and
/// calls for everything once, which reaches the journal as one "full".
pub fn is_overflow(line: &str) -> bool {
    line.contains("OVERFLOW")
}

/// Why lsyncd could not be started at all.
pub fn start_problem(error: &std::io::Error, binary: &Path) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "lsyncd is not installed: apt install lsyncd".to_owned(),
        _ => format!("cannot start {}: {error}", binary.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_configuration_is_data_in_a_fixed_frame() {
        let config = Config {
            source: Path::new("/srv/www"),
            target: "lockstep::journal",
            dispatcher: Path::new("/var/lib/x/lockstep-dispatch"),
            delay: Millis(2999),
        };
        expect_test::expect![[r#"
            settings {
                nodaemon = true,
                insist = true,
                inotifyMode = "CloseWrite or Modify",
            }
            sync {
                default.rsync,
                source = "\047srv\047www",
                target = "lockstep\058\058journal",
                delay = 2,
                maxDelays = 200,
                maxProcesses = 1,
                rsync = { binary = "\047var\047lib\047x\047lockstep\045dispatch" },
            }
        "#]]
        .assert_eq(&render(&config));
    }

    proptest! {
        #[test]
        fn a_quoted_path_is_one_string_and_the_same_bytes(bytes: Vec<u8>) {
            let quoted = quote(Path::new(&OsString::from_vec(bytes.clone())));
            let inner = quoted.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
            let harmless = inner.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'\\');
            prop_assert!(harmless);
            // Read as Lua reads it: a backslash and three digits are one byte.
            let mut rest = inner.as_bytes();
            let mut read = Vec::new();
            while let [first, tail @ ..] = rest {
                if *first == b'\\' {
                    let digits = std::str::from_utf8(&tail[..3]).unwrap();
                    read.push(digits.parse::<u8>().unwrap());
                    rest = &tail[3..];
                } else {
                    read.push(*first);
                    rest = tail;
                }
            }
            prop_assert_eq!(read, bytes);
        }
    }

    #[test]
    fn what_lsyncd_says_is_understood() {
        let line = "Error: Terminating since out of inotify watches.";
        assert_eq!(shortage(line), Some(Shortage::Watches));
        let line = "Error: Cannot access inotify monitor! ( 24 : Too many open files )";
        assert_eq!(shortage(line), Some(Shortage::Instances));
        assert!(is_overflow("Normal: --- OVERFLOW in event queue ---"));
        assert_eq!(shortage("Normal: Finished a list after exitcode: 0"), None);
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let text = start_problem(&missing, Path::new("/usr/bin/lsyncd"));
        assert_eq!(text, "lsyncd is not installed: apt install lsyncd");
    }
}
