//! Each option of the allow-list, given to the installed rsync with a small tree.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use lockstep_agent::mirror::pull::argv::{Step, lent};
use lockstep_agent::mirror::pull::course::Place;
use lockstep_agent::mirror::pull::ending::End;
use lockstep_model::mirror::rsync::table::{self, Rule, TABLE};
use lockstep_model::mirror::rsync::{Delete, Hop, RsyncOption, RsyncOptions};

use super::daemon::{Daemon, Mirror};

#[allow(clippy::disallowed_methods)] // the test asks rsync itself
fn rsync(args: &[String]) -> Output {
    let mut command = Command::new("rsync");
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.output().unwrap()
}

/// A value that is taken for each option that has one.
fn value(name: &str) -> String {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    match name {
        "modify-window" | "checksum-seed" => "1".to_owned(),
        "chmod" => "D755,Fu=rw,go+r".to_owned(),
        "max-size" | "min-size" => "1.5K".to_owned(),
        "max-alloc" => "1G".to_owned(),
        "filter" => "protect lost found".to_owned(),
        "exclude" | "include" => "- *.o".to_owned(),
        "checksum-choice" | "cc" => "md5".to_owned(),
        "block-size" => "1000".to_owned(),
        "compress-choice" | "zc" => "zlib".to_owned(),
        "skip-compress" => "gz/mp[34]".to_owned(),
        "compress-level" | "zl" => "3".to_owned(),
        "compress-threads" | "zt" => "2".to_owned(),
        "partial-dir" => ".partial/of-it".to_owned(),
        "usermap" => format!("*:{}", uid.as_raw()),
        "groupmap" => format!("0-9999:{}", gid.as_raw()),
        "chown" => format!("{}:{}", uid.as_raw(), gid.as_raw()),
        "iconv" => "utf8,iso-8859-1".to_owned(),
        other => panic!("no value for --{other}"),
    }
}

/// What the installed build says that it cannot do, or is too old for.
fn is_lacking(name: &str, version: &str) -> bool {
    let has =
        |feature: &str| version.contains(feature) && !version.contains(&format!("no {feature}"));
    let release: Vec<u32> = version
        .split_whitespace()
        .nth(2)
        .unwrap()
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    match name.strip_prefix("no-").unwrap_or(name) {
        "acls" | "A" => !has("ACLs"),
        "xattrs" | "X" => !has("xattrs"),
        "crtimes" | "N" => !has("crtimes"),
        "atimes" | "U" => !has("atimes"),
        "iconv" => !has("iconv"),
        "preallocate" => !has("prealloc"),
        "compress-threads" | "zt" => release < vec![3, 4],
        "drop-D" => release < vec![3, 5],
        _ => false,
    }
}

fn tree(dir: &Path) -> (String, String) {
    let from = dir.join("from");
    fs::create_dir_all(from.join("d")).unwrap();
    fs::write(from.join("d/a"), vec![1u8; 5000]).unwrap();
    fs::write(from.join("b"), "b").unwrap();
    fs::hard_link(from.join("b"), from.join("c")).unwrap();
    symlink("b", from.join("l")).unwrap();
    (format!("{}/", from.display()), format!("{}/", dir.join("to").display()))
}

fn copied(args: Vec<String>) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = tree(dir.path());
    let output = rsync(&[args, vec!["--".to_owned(), from, to]].concat());
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn every_option_that_is_allowed_is_taken_by_rsync() {
    let version = String::from_utf8(rsync(&["--version".to_owned()]).stdout).unwrap();
    let mut tried = 0;
    for row in TABLE.iter().filter(|row| !is_lacking(row.name, &version)) {
        let (long, short) = match row.rule {
            Rule::Refused(_) => continue,
            Rule::Flag => (format!("--{}", row.name), row.letter.map(|c| format!("-{c}"))),
            Rule::Value(_) => {
                let value = value(row.name);
                let short = row.letter.map(|c| format!("-{c}{value}"));
                (format!("--{}={value}", row.name), short)
            }
        };
        for text in short.into_iter().chain((row.name.len() > 1).then_some(long)) {
            let option: RsyncOption = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            let hop = Hop {
                defaults: "-r".parse().unwrap(),
                options: RsyncOptions(vec![option]),
                delete: Delete::None,
            };
            hop.check().unwrap();
            copied(hop.argv()).unwrap_or_else(|e| panic!("{text}: {e}"));
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

/// With a daemon that refuses all else, as a master's agent is to those that pull from it.
#[test]
fn a_daemon_lends_what_each_option_asks_for() {
    let version = String::from_utf8(rsync(&["--version".to_owned()]).stdout).unwrap();
    let mut hops = Vec::new();
    for row in TABLE.iter().filter(|row| !is_lacking(row.name, &version)) {
        let text = match (row.rule, row.letter) {
            (Rule::Refused(_), _) => continue,
            // A daemon takes it only when its own configuration names a charset.
            (Rule::Value(_), _) if row.name == "iconv" => continue,
            (Rule::Value(_), _) => format!("--{}={}", row.name, value(row.name)),
            (Rule::Flag, Some(letter)) => format!("-{letter}"),
            (Rule::Flag, None) => format!("--{}", row.name),
        };
        hops.push(("-r", text));
    }
    hops.extend(["-v", "-zz", "-yy"].map(|text| ("-avH", text.to_owned())));
    // Most of their time both ends wait for each other to be gone.
    let refused: Vec<String> = std::thread::scope(|scope| {
        let parts: Vec<_> =
            hops.chunks(hops.len().div_ceil(8)).map(|part| scope.spawn(|| refused(part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert!(refused.is_empty(), "{refused:?}");
}

/// Defaults and an option each that a daemon refuses which lends for just these.
fn refused(hops: &[(&str, String)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    fs::rename(dir.path().join("from"), dir.path().join("up")).unwrap();
    let mut refused = Vec::new();
    for (defaults, text) in hops {
        let options = RsyncOptions(vec![text.parse().unwrap()]);
        let hop = Hop { defaults: defaults.parse().unwrap(), options, delete: Delete::After };
        let daemon = Daemon::start(dir.path(), &format!("refuse options = * {}\n", lent(&hop)));
        let mut mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
        mirror.hop = hop;
        let (ended, _) = mirror.step(Step::Content, &mirror.tree(), &[]);
        if ended.end != End::Complete {
            refused.push(format!("{text}: {}", ended.why));
        }
    }
    refused
}

#[test]
fn a_daemon_lends_nothing_that_its_mirror_has_not() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("up")).unwrap();
    let hop = |options: &str| Hop {
        defaults: "-avH".parse().unwrap(),
        options: options.parse().unwrap(),
        delete: Delete::After,
    };
    let daemon = Daemon::start(dir.path(), &format!("refuse options = * {}\n", lent(&hop(""))));
    let mut mirror = Mirror::new(dir.path(), &daemon.url(""), Delete::After);
    mirror.guards.allow.empty = true;
    assert!(mirror.pull(Place::First).next.is_ok());
    for text in ["--checksum", "--numeric-ids", "-X"] {
        mirror.hop = hop(text);
        let ended = mirror.pull(Place::Tree).next.expect_err("it is refused");
        assert!(matches!(ended.code, Some(4 | 10 | 12)), "{text}: {ended:?}");
    }
}

/// The two must not drift apart: what the list has that rsync does not, and what rsync's own help
/// names that the list does not.
#[test]
fn rsync_has_no_option_that_the_list_does_not_name() {
    let help = String::from_utf8(rsync(&["--help".to_owned()]).stdout).unwrap();
    let mut named = 0;
    for word in help.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(name) = word.strip_prefix("--").filter(|name| *name != "no-OPTION") else {
            continue;
        };
        let name = name.split(['=', ',']).next().unwrap();
        assert!(TABLE.iter().any(|row| row.name == name), "--{name}");
        named += 1;
    }
    assert!(named > 100, "{named}");
}

/// What the list takes for a contradiction rsync refuses too, or takes without what was asked for.
#[test]
fn what_excludes_each_other_is_refused_by_rsync_too() {
    for text in [
        "-a --inplace --partial-dir=.p",
        "-a --inplace --delay-updates",
        "-a --append-verify --delay-updates",
        "-aW --append-verify",
        "-a --usermap=*:0 --usermap=*:1",
        "-a --chown=0:0 --groupmap=*:0",
    ] {
        let defaults: RsyncOptions = text.parse().unwrap();
        let hop = Hop { defaults, options: RsyncOptions::default(), delete: Delete::None };
        assert!(hop.check().is_err(), "{text}");
        assert!(copied(hop.argv()).is_err(), "{text}");
    }
}

/// What is printed for programs is so whatever the options say.
#[test]
fn numbers_and_progress_read_the_same_with_all_that_concerns_output() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = tree(dir.path());
    let hop: RsyncOptions = "-avvhHP --no-motd".parse().unwrap();
    let mut args: Vec<String> = hop.0.iter().map(ToString::to_string).collect();
    for own in ["--stats", "--no-human-readable", "--info=progress2", "--outbuf=L", "--"] {
        args.push(own.to_owned());
    }
    let output = rsync(&[args, vec![from, to]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nTotal file size: 5003 bytes\n"), "{text}");
    let lines: Vec<_> =
        text.split(['\n', '\r']).filter_map(lockstep_agent::rsync::progress).collect();
    assert!(lines.last().unwrap().starts_with("5001 "), "{lines:?}");
}

/// Set to write the manual's lists anew instead of comparing them.
const WRITE: &str = "LOCKSTEP_TEST_WRITE";

#[test]
fn the_manual_has_the_list() {
    let shown = |row: &table::Row| {
        let long = (row.name.len() > 1).then(|| match row.rule {
            Rule::Value(_) => format!("`--{}=…`", row.name),
            Rule::Flag | Rule::Refused(_) => format!("`--{}`", row.name),
        });
        let short = row.letter.map(|letter| format!("`-{letter}`"));
        long.into_iter().chain(short).collect::<Vec<_>>().join(" ")
    };
    let mut allowed = Vec::new();
    let mut refused: Vec<(&str, Vec<String>)> = Vec::new();
    for row in TABLE {
        match row.rule {
            Rule::Flag | Rule::Value(_) => allowed.push(shown(row)),
            Rule::Refused(why) => match refused.iter_mut().find(|(of, _)| *of == why) {
                Some((_, names)) => names.push(shown(row)),
                None => refused.push((why, vec![shown(row)])),
            },
        }
    }
    let mut table = "| options | because |\n|---|---|\n".to_owned();
    for (why, names) in refused {
        table.push_str(&format!("| {} | {why} |\n", names.join(", ")));
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rsync-options.md");
    let text = fs::read_to_string(file).unwrap();
    let (head, _) = text.split_once("<!-- allowed -->\n").unwrap();
    let made = format!(
        "{head}<!-- allowed -->\n\n{}\n\n## Options that are refused\n\n<!-- refused -->\n\n{table}",
        allowed.join(", ")
    );
    if std::env::var_os(WRITE).is_some() {
        fs::write(file, &made).unwrap();
    } else {
        assert_eq!(text, made, "docs/rsync-options.md is behind: run with {WRITE}=1");
    }
}
