//! The command line of each step of a pull, and its environment. Pure: secrets are named by their
//! files, and nothing that a peer says stands in an argument.

use std::ffi::OsString;
use std::path::Path;

use lockstep_model::address::HostPort;
use lockstep_model::mirror::options::{Family, Ionice};
use lockstep_model::mirror::rsync::{Delete, Hop};
use lockstep_model::rate::Rate;
use lockstep_model::sync::Remote;
use lockstep_model::sync::filter::{Filter, Pattern};
use lockstep_model::sync::remote::Scheme;
use lockstep_model::{Millis, MirrorName, NodeName};

use crate::rsync::quoted;
use crate::rsync::remote::{PASSWORD, Terms, Way, way};

/// The other side of a pull.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// `agent` is the own binary, which is rsync's remote shell.
    Agent { mirror: &'a MirrorName, node: &'a NodeName, agent: &'a Path, data_dir: &'a Path },
    /// `secrets` is the directory of its key or password; `password` a file with the mirror's own.
    Remote { remote: &'a Remote, secrets: &'a Path, password: Option<&'a Path> },
}

#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    pub source: Source<'a>,
    pub hop: &'a Hop,
    /// The first that matches decides.
    pub filters: &'a [Filter],
    /// What is this node's own in the tree: it is neither brought nor removed, whatever the filters.
    pub own: &'a [Pattern],
    /// What is left to a later stage; then nothing is removed either.
    pub late: &'a [Pattern],
    pub rate: Option<Rate>,
    /// Whole seconds, as is the next.
    pub io_timeout: Millis,
    pub connect_timeout: Millis,
    pub family: Family,
    pub into: &'a Path,
    /// Complete trees, files of which are linked where they are the same, the likeliest first. Then
    /// `into` was made for this pull and has nothing that could be removed.
    pub links: &'a [&'a Path],
    /// A directory on the tree's file system for what is not complete, which no reader sees.
    pub work: Option<&'a Path>,
    /// What is cut is kept there, and what is kept is gone on with. rsync looks there for every file
    /// of the tree, which takes a third of a pull that finds nothing new.
    pub keeps: bool,
}

/// In the directory for what is not complete.
pub const TEMPORARY: &str = "tmp";
pub const PARTIAL: &str = "partial";
/// Most trees that rsync takes to link from.
pub const LINKS_MAX: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Changes nothing: how much is to be brought, and to be removed.
    Count,
    /// Brings everything and removes nothing. Where removals come afterwards it tells how much is
    /// left to remove, as [`super::output::Output::left`].
    Content,
    /// Brings everything and removes at most so many entries.
    Removing { most: u64 },
}

pub fn argv(pull: &Pull<'_>, step: Step) -> Vec<OsString> {
    let Pull { source, hop, filters, own, late, family, into, links, work, keeps, .. } = pull;
    // In front of the hop's own rules, since the first that matches decides.
    let mut args: Vec<OsString> = Vec::new();
    let mut rule =
        |kind: &str, pattern: &str| args.push(format!("--filter={kind} {pattern}").into());
    for pattern in own.iter() {
        // Both sides by name: a plain exclude does not protect from --delete-excluded.
        rule("H", pattern.as_str());
        rule("P", pattern.as_str());
        // What it is in stays with it, also where the other side has no such directory.
        let dirs = pattern.as_str().trim_end_matches('/').match_indices('/').map(|(at, _)| at);
        for end in dirs.filter(|end| *end > 0) {
            rule("P", &format!("{}/", &pattern.as_str()[..end]));
        }
    }
    for pattern in late.iter() {
        rule("-", pattern.as_str());
    }
    for Filter { include, pattern } in filters.iter() {
        rule(if *include { "+" } else { "-" }, pattern.as_str());
    }
    args.extend(hop.argv().into_iter().map(Into::into));
    args.extend(removals(pull, step).into_iter().map(Into::into));
    for tree in links.iter().take(LINKS_MAX) {
        let mut option = OsString::from("--link-dest=");
        option.push(tree);
        args.push(option);
    }
    let keeps = *keeps && step != Step::Count;
    args.extend(work.map(|work| unfinished(hop, work, keeps)).into_iter().flatten());
    // Each changed entry is a line that begins with rsync's letters, so that no name begins one.
    let names = hop.is_verbose() && step != Step::Count;
    args.push(if names { "--out-format=%i %n%L" } else { "--out-format=%i" }.into());
    args.extend(["--stats", "--no-human-readable", "--no-motd"].map(Into::into));
    args.extend(match step {
        Step::Count => vec!["--dry-run".into()],
        Step::Content | Step::Removing { .. } => {
            vec!["--info=progress2".into(), "--outbuf=L".into()]
        }
    });
    args.push(format!("--timeout={}", seconds(pull.io_timeout)).into());
    args.extend(match family {
        Family::Any => None,
        Family::Ipv4 => Some("--ipv4".into()),
        Family::Ipv6 => Some("--ipv6".into()),
    });
    let Way { options, end } = reach(pull, source);
    args.extend(options);
    let mut into = into.as_os_str().to_owned();
    into.push("/");
    args.extend(["--".into(), end, into]);
    args
}

/// Where temporary files are, and those that are gone on with if any are kept, unless the mirror's own options
/// say that they are in place or where each file will be.
fn unfinished(hop: &Hop, work: &Path, keeps: bool) -> Vec<OsString> {
    let names = hop.names();
    let has = |given: &[&str]| given.iter().any(|name| names.contains(name));
    let option = |text: &str, name: &str| {
        let mut option = OsString::from(text);
        option.push(work.join(name));
        option
    };
    if has(&["inplace", "append", "append-verify"]) {
        return Vec::new();
    }
    let mut options = vec![option("--temp-dir=", TEMPORARY)];
    if keeps && !has(&["partial-dir", "delay-updates"]) {
        options.push(option("--partial-dir=", PARTIAL));
    }
    options
}

/// `--delete-after` keeps everything when the other side had errors in reading; the modes that
/// remove before or meanwhile do not, and are for those who chose them.
fn removals(pull: &Pull<'_>, step: Step) -> Vec<String> {
    if !pull.late.is_empty() || !pull.links.is_empty() {
        return Vec::new();
    }
    let after = |more: &[&str]| {
        let after = ["--delete-after"].iter().chain(more);
        after.map(|option| (*option).to_owned()).collect::<Vec<_>>()
    };
    let mut options = match pull.hop.delete {
        Delete::None => return Vec::new(),
        Delete::After => after(&[]),
        Delete::Excluded => after(&["--delete-excluded"]),
        _ if step == Step::Content => return Vec::new(),
        Delete::Plain => vec!["--delete".to_owned()],
        Delete::Del => vec!["--del".to_owned()],
        Delete::Before => vec!["--delete-before".to_owned()],
        Delete::During => vec!["--delete-during".to_owned()],
        Delete::Delay => vec!["--delete-delay".to_owned()],
    };
    match step {
        Step::Count => {}
        // It counts what it must leave.
        Step::Content => options.push("--max-delete=0".to_owned()),
        Step::Removing { most } => {
            let most = most.min(i32::MAX.unsigned_abs().into());
            options.push(format!("--max-delete={most}"));
        }
    }
    options
}

fn reach(pull: &Pull<'_>, source: &Source<'_>) -> Way {
    let terms = |secrets, password| Terms {
        secrets,
        password,
        rate: pull.rate.map(Rate::bytes_per_s),
        connect_s: seconds(pull.connect_timeout),
    };
    match *source {
        Source::Remote { remote, secrets, password } => {
            way(remote, &terms(secrets, password), true)
        }
        Source::Agent { mirror, node, agent, data_dir } => {
            let words: [OsString; 6] = [
                agent.into(),
                "--data-dir".into(),
                data_dir.into(),
                "rsh".into(),
                "--mirror".into(),
                mirror.to_string().into(),
            ];
            // The far side's errors come through the protocol, and count in the exit code.
            let mut options = vec!["--stderr=client".into(), "-e".into(), quoted(&words)];
            options.extend(pull.rate.map(|rate| {
                let rate = (rate.bytes_per_s() >> 10).max(1);
                OsString::from(format!("--bwlimit={rate}"))
            }));
            Way { options, end: format!("{node}::{mirror}/").into() }
        }
    }
}

/// A pattern of this very path from the top.
pub fn anchored(path: &str) -> String {
    let mut text = String::from("/");
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn seconds(time: Millis) -> u64 {
    time.0.div_ceil(1000).max(1)
}

/// What rsync's environment has besides the usual; nothing of the agent's own reaches it, so that no
/// variable names a program.
pub fn environment(source: &Source<'_>, proxy: Option<&HostPort>) -> Vec<(&'static str, String)> {
    let daemon = matches!(source, Source::Remote { remote, .. } if remote.scheme == Scheme::Rsync);
    let proxy = proxy.filter(|_| daemon).map(|at| ("RSYNC_PROXY", at.to_string()));
    [(PASSWORD, String::new())].into_iter().chain(proxy).collect()
}

/// For the `refuse options = * …` of a daemon that only lends: what the pull of this hop asks it for
/// and no more, whatever the one who pulls would like.
pub fn lent(hop: &Hop) -> String {
    let mut names = hop.names();
    // Limits of time and speed, and where errors go.
    names.extend(["timeout", "bwlimit", "no-msgs2stderr"]);
    // As a receiver spells them.
    if names.contains("devices") || names.contains("specials") {
        names.extend(["D", "devices", "specials", "no-specials"]);
    }
    if names.contains("inplace") || names.contains("append") {
        names.extend(["inplace", "partial"]);
    }
    if names.iter().any(|name| name.starts_with("compress")) {
        names.extend(["compress", "new-compress", "old-compress", "compress-choice"]);
    }
    names.into_iter().map(|name| format!("!{name}")).collect::<Vec<_>>().join(" ")
}

/// What stands in front of rsync's own path to make it yield to others; empty when nothing is asked.
pub fn yielding(nice: u8, ionice: Ionice) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if nice > 0 {
        words.extend(["nice".to_owned(), "-n".to_owned(), nice.to_string()]);
    }
    words.extend(match ionice {
        Ionice::None => vec![],
        // 7 is the last of the class.
        Ionice::BestEffort => vec!["ionice".to_owned(), "-c2".to_owned(), "-n7".to_owned()],
        Ionice::Idle => vec!["ionice".to_owned(), "-c3".to_owned()],
    });
    words
}

#[cfg(test)]
mod tests;
