//! Every option of rsync 3.2 to 3.5 by its name: allowed, with what its value must look like, or
//! refused, with the reason. Says nothing about how options go together.

use super::value::{
    Check, block_size, charset, choice, chown, filter, id_map, level, max_alloc, modes, pattern,
    relative_dir, seed, size, suffixes, threads, window,
};

/// One option. An option that only has a letter is called by that.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub letter: Option<char>,
    pub rule: Rule,
}

#[derive(Clone, Copy, Debug)]
pub enum Rule {
    Flag,
    Value(Check),
    /// It may not be given, because.
    Refused(&'static str),
}

/// What else an option means; second names among it.
pub fn meant(name: &str) -> &'static [&'static str] {
    match name {
        "archive" => {
            &["recursive", "links", "perms", "times", "group", "owner", "devices", "specials"]
        }
        "D" => &["devices", "specials"],
        "P" => &["partial"],
        "no-D" => &["no-devices", "no-specials"],
        "ignore-non-existing" => &["existing"],
        "append-verify" => &["append"],
        "cc" => &["checksum-choice"],
        "zc" | "old-compress" | "new-compress" => &["compress-choice"],
        "zl" => &["compress-level"],
        "zt" => &["compress-threads"],
        "chown" => &["usermap", "groupmap", "owner", "group"],
        "usermap" => &["owner"],
        "groupmap" => &["group"],
        "acls" => &["perms"],
        _ => &[],
    }
}

pub fn by_name(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

pub fn by_letter(letter: char) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.letter == Some(letter))
}

const PROGRAM: &str = "it runs a program";
const REMOTE: &str = "it tells the far side what this list would not allow";
const DAEMON: &str = "it makes a daemon or a server of rsync";
const FILES: &str = "it reads or writes files that are not of the tree";
const OUTSIDE: &str = "it follows links out of the tree";
const TREE: &str = "a mirror is one whole tree, and always in the same place";
const BACKUP: &str = "old versions are kept by the setting publish, and not in the tree";
const BASIS: &str = "other trees are linked from by the setting publish";
const DELETE: &str = "the settings delete and delete-limit are for that";
const ERRORS: &str = "what is missing because of an error would be taken for removed";
const SOURCE: &str = "a mirror takes nothing away from where it pulls from";
const OUTPUT: &str = "what rsync prints is Lockstep's to choose, since it reads it";
const OWN: &str = "it is Lockstep's to give";
const TIME: &str = "the settings run-timeout, io-timeout and connect-timeout are for that";
const RATE: &str = "the setting bwlimit is for that";
const NETWORK: &str = "the URL says where and how";
const FAMILY: &str = "the setting address-family is for that";
const PASSWORD: &str = "the password is given apart, and kept as a secret";
const RIGHTS: &str = "the rights are those of the agent";
const DEVICES: &str = "it reads or writes the contents of devices";
const TRUST: &str = "it takes away rsync's own protection";
const PRINTS: &str = "it prints something and copies nothing";

const fn row(name: &'static str, letter: Option<char>, rule: Rule) -> Row {
    Row { name, letter, rule }
}
const fn flag(name: &'static str) -> Row {
    row(name, None, Rule::Flag)
}
const fn short(name: &'static str, letter: char) -> Row {
    row(name, Some(letter), Rule::Flag)
}
const fn with(name: &'static str, check: Check) -> Row {
    row(name, None, Rule::Value(check))
}
const fn short_with(name: &'static str, letter: char, check: Check) -> Row {
    row(name, Some(letter), Rule::Value(check))
}
const fn no(name: &'static str, why: &'static str) -> Row {
    row(name, None, Rule::Refused(why))
}
const fn short_no(name: &'static str, letter: char, why: &'static str) -> Row {
    row(name, Some(letter), Rule::Refused(why))
}

/// In the order of rsync's own table.
pub const TABLE: &[Row] = &[
    no("help", PRINTS),
    short_no("version", 'V', PRINTS),
    short("verbose", 'v'),
    flag("no-verbose"),
    flag("no-v"),
    no("info", OUTPUT),
    no("debug", OUTPUT),
    no("stderr", OUTPUT),
    no("msgs2stderr", OUTPUT),
    no("no-msgs2stderr", OUTPUT),
    short_no("quiet", 'q', OUTPUT),
    no("motd", OUTPUT),
    flag("no-motd"),
    no("stats", OUTPUT),
    // Taken because it is so often in a bundle; what is printed for programs comes last and wins.
    short("human-readable", 'h'),
    flag("no-human-readable"),
    flag("no-h"),
    short_no("dry-run", 'n', OWN),
    short("archive", 'a'),
    short("recursive", 'r'),
    no("no-recursive", TREE),
    no("no-r", TREE),
    flag("inc-recursive"),
    flag("no-inc-recursive"),
    flag("i-r"),
    flag("no-i-r"),
    short_no("dirs", 'd', TREE),
    no("no-dirs", TREE),
    no("no-d", TREE),
    no("old-dirs", TREE),
    no("old-d", TREE),
    short("perms", 'p'),
    flag("no-perms"),
    flag("no-p"),
    short("executability", 'E'),
    short("acls", 'A'),
    flag("no-acls"),
    flag("no-A"),
    short("xattrs", 'X'),
    flag("no-xattrs"),
    flag("no-X"),
    short("times", 't'),
    flag("no-times"),
    flag("no-t"),
    short("atimes", 'U'),
    flag("no-atimes"),
    flag("no-U"),
    flag("open-noatime"),
    flag("no-open-noatime"),
    short("crtimes", 'N'),
    flag("no-crtimes"),
    flag("no-N"),
    short("omit-dir-times", 'O'),
    flag("no-omit-dir-times"),
    flag("no-O"),
    short("omit-link-times", 'J'),
    flag("no-omit-link-times"),
    flag("no-J"),
    short_with("modify-window", '@', window),
    no("super", RIGHTS),
    flag("no-super"),
    no("fake-super", RIGHTS),
    short("owner", 'o'),
    flag("no-owner"),
    flag("no-o"),
    short("group", 'g'),
    flag("no-group"),
    flag("no-g"),
    short("D", 'D'),
    flag("no-D"),
    flag("devices"),
    flag("no-devices"),
    no("copy-devices", DEVICES),
    no("write-devices", DEVICES),
    no("no-write-devices", DEVICES),
    flag("specials"),
    flag("no-specials"),
    flag("drop-D"),
    flag("no-drop-D"),
    no("confine-root", OWN),
    short("links", 'l'),
    flag("no-links"),
    flag("no-l"),
    short_no("copy-links", 'L', OUTSIDE),
    no("copy-unsafe-links", OUTSIDE),
    flag("safe-links"),
    no("insecure-links", TRUST),
    no("no-insecure-links", TRUST),
    flag("munge-links"),
    flag("no-munge-links"),
    short_no("copy-dirlinks", 'k', OUTSIDE),
    short_no("keep-dirlinks", 'K', OUTSIDE),
    short("hard-links", 'H'),
    flag("no-hard-links"),
    flag("no-H"),
    short_no("relative", 'R', TREE),
    no("no-relative", TREE),
    no("no-R", TREE),
    no("implied-dirs", TREE),
    no("no-implied-dirs", TREE),
    no("i-d", TREE),
    no("no-i-d", TREE),
    with("chmod", modes),
    short("ignore-times", 'I'),
    flag("size-only"),
    short("one-file-system", 'x'),
    flag("no-one-file-system"),
    flag("no-x"),
    short("update", 'u'),
    flag("existing"),
    flag("ignore-non-existing"),
    flag("ignore-existing"),
    with("max-size", size),
    with("min-size", size),
    with("max-alloc", max_alloc),
    short("sparse", 'S'),
    flag("no-sparse"),
    flag("no-S"),
    flag("preallocate"),
    flag("inplace"),
    flag("no-inplace"),
    no("append", "it takes for right what is there: give --append-verify"),
    flag("append-verify"),
    flag("no-append"),
    no("del", DELETE),
    no("delete", DELETE),
    no("delete-before", DELETE),
    no("delete-during", DELETE),
    no("delete-delay", DELETE),
    no("delete-after", DELETE),
    no("delete-excluded", DELETE),
    no("delete-missing-args", ERRORS),
    no("ignore-missing-args", ERRORS),
    no("remove-sent-files", SOURCE),
    no("remove-source-files", SOURCE),
    no("force", DELETE),
    no("no-force", DELETE),
    no("ignore-errors", ERRORS),
    no("no-ignore-errors", ERRORS),
    no("max-delete", DELETE),
    short_no("F", 'F', FILES),
    short_with("filter", 'f', filter),
    with("exclude", pattern),
    with("include", pattern),
    no("exclude-from", FILES),
    no("include-from", FILES),
    short_no("cvs-exclude", 'C', FILES),
    short("whole-file", 'W'),
    flag("no-whole-file"),
    flag("no-W"),
    short("checksum", 'c'),
    flag("no-checksum"),
    flag("no-c"),
    with("checksum-choice", choice),
    with("cc", choice),
    short_with("block-size", 'B', block_size),
    no("compare-dest", BASIS),
    no("copy-dest", BASIS),
    no("link-dest", BASIS),
    short("fuzzy", 'y'),
    flag("no-fuzzy"),
    flag("no-y"),
    short("compress", 'z'),
    flag("old-compress"),
    flag("new-compress"),
    flag("no-compress"),
    flag("no-z"),
    with("compress-choice", choice),
    with("zc", choice),
    with("skip-compress", suffixes),
    with("compress-level", level),
    with("zl", level),
    with("compress-threads", threads),
    with("zt", threads),
    // Its progress is not shown: Lockstep's own comes later and wins.
    short("P", 'P'),
    no("progress", OUTPUT),
    no("no-progress", OUTPUT),
    flag("partial"),
    flag("no-partial"),
    with("partial-dir", relative_dir),
    flag("delay-updates"),
    flag("no-delay-updates"),
    short("prune-empty-dirs", 'm'),
    flag("no-prune-empty-dirs"),
    flag("no-m"),
    no("log-file", FILES),
    no("log-file-format", OUTPUT),
    no("out-format", OUTPUT),
    no("log-format", OUTPUT),
    short_no("itemize-changes", 'i', OUTPUT),
    no("no-itemize-changes", OUTPUT),
    no("no-i", OUTPUT),
    no("bwlimit", RATE),
    no("no-bwlimit", RATE),
    short_no("backup", 'b', BACKUP),
    no("no-backup", BACKUP),
    no("backup-dir", BACKUP),
    no("suffix", BACKUP),
    no("list-only", PRINTS),
    no("read-batch", FILES),
    no("write-batch", FILES),
    no("only-write-batch", FILES),
    no("files-from", FILES),
    short_no("from0", '0', FILES),
    no("no-from0", FILES),
    no("old-args", TRUST),
    no("no-old-args", OWN),
    short_no("secluded-args", 's', OWN),
    no("no-secluded-args", OWN),
    no("protect-args", OWN),
    no("no-protect-args", OWN),
    no("no-s", OWN),
    no("trust-sender", TRUST),
    flag("numeric-ids"),
    flag("no-numeric-ids"),
    with("usermap", id_map),
    with("groupmap", id_map),
    with("chown", chown),
    no("timeout", TIME),
    no("no-timeout", TIME),
    no("contimeout", TIME),
    no("no-contimeout", TIME),
    flag("fsync"),
    no("stop-after", TIME),
    no("time-limit", TIME),
    no("stop-at", TIME),
    short_no("rsh", 'e', PROGRAM),
    no("rsync-path", PROGRAM),
    short_no("temp-dir", 'T', FILES),
    with("iconv", charset),
    flag("no-iconv"),
    short_no("ipv4", '4', FAMILY),
    short_no("ipv6", '6', FAMILY),
    short_no("8-bit-output", '8', OUTPUT),
    no("no-8-bit-output", OUTPUT),
    no("no-8", OUTPUT),
    no("mkpath", "a directory above the tree that is missing may be a disk that is not mounted"),
    no("no-mkpath", OWN),
    no("qsort", OWN),
    no("copy-as", RIGHTS),
    no("address", NETWORK),
    no("port", NETWORK),
    no("sockopts", NETWORK),
    no("password-file", PASSWORD),
    no("early-input", FILES),
    no("blocking-io", NETWORK),
    no("no-blocking-io", NETWORK),
    no("outbuf", OUTPUT),
    short_no("remote-option", 'M', REMOTE),
    no("protocol", TRUST),
    with("checksum-seed", seed),
    no("server", DAEMON),
    no("sender", DAEMON),
    no("config", DAEMON),
    no("daemon", DAEMON),
    no("dparam", DAEMON),
    no("detach", DAEMON),
    no("no-detach", DAEMON),
];
