//! What a sync's settings are to rsync: the sender's arguments, and what a receiving daemon lets a
//! sender ask for. The two belong together. Pure.

use lockstep_model::setting::Settings;
use lockstep_model::sync::options::{Symlinks, TransferOptions};
use lockstep_model::sync::{DeletePolicy, SyncOptions};

/// Where a target keeps unfinished files, below each directory. Our own names are never delivered.
const PARTIAL_DIR: &str = ".lockstep-partial";

/// The settings that say what copies look like, but for the filters: how they are sent is no matter
/// of a copy that is there.
const SHAPING: [&str; 11] = [
    "symlinks",
    "perms",
    "times",
    "owner",
    "group",
    "devices",
    "hard-links",
    "acls",
    "xattrs",
    "chmod",
    "chown",
];

/// What copies look like, as a text to be compared with that of other settings.
pub fn shape(options: &SyncOptions) -> String {
    let shaping = options.all_values().into_iter().filter(|(name, _)| SHAPING.contains(name));
    shaping.map(|(name, values)| format!("{name}={}\n", values.join(" "))).collect()
}

/// How a sender asks for something.
enum Ask {
    Letter(char),
    Word(String),
}

/// What a sync wants of rsync: how its sender asks for it, and what a receiving daemon calls it.
fn wanted(transfer: &TransferOptions) -> impl Iterator<Item = (Ask, &'static [&'static str])> {
    use Ask::{Letter, Word};
    let TransferOptions {
        symlinks,
        perms,
        times,
        owner,
        group,
        devices,
        hard_links,
        acls,
        xattrs,
        sparse,
        compress,
        checksum,
        whole_file,
        inplace,
        partial,
        chmod,
        chown,
        timeout,
    } = transfer;
    let word = |text: &str| Word(text.to_owned());
    let chmod = chmod.as_ref().map(|modes| format!("--chmod={}", modes.as_str()));
    let chown = chown.as_ref().map(|ids| format!("--chown={}", ids.as_str()));
    let rows: [(bool, Ask, &[&str]); 22] = [
        (matches!(symlinks, Symlinks::Keep | Symlinks::Safe), Letter('l'), &["links"]),
        (*symlinks == Symlinks::Follow, Letter('L'), &["copy-links"]),
        (*perms, Letter('p'), &["perms"]),
        (*times, Letter('t'), &["times"]),
        (*group, Letter('g'), &["group"]),
        (*owner, Letter('o'), &["owner"]),
        (*devices, Letter('D'), &["devices", "specials", "D"]),
        (*hard_links, Letter('H'), &["hard-links"]),
        (*acls, Letter('A'), &["acls"]),
        (*xattrs, Letter('X'), &["xattrs"]),
        (*sparse, Letter('S'), &["sparse"]),
        (*compress, Letter('z'), &["compress", "new-compress", "old-compress", "compress-choice"]),
        (*checksum, Letter('c'), &["checksum"]),
        (*whole_file, Letter('W'), &["whole-file"]),
        (*symlinks == Symlinks::Safe, word("--safe-links"), &["safe-links"]),
        (*inplace, word("--inplace"), &["inplace", "partial"]),
        (
            *partial && !*inplace,
            Word(format!("--partial-dir={PARTIAL_DIR}")),
            &["partial", "partial-dir"],
        ),
        // Applied by the sender.
        (chmod.is_some(), Word(chmod.unwrap_or_default()), &[]),
        (
            chown.is_some(),
            Word(chown.unwrap_or_default()),
            &["usermap", "groupmap", "owner", "group"],
        ),
        (true, word("--numeric-ids"), &["numeric-ids"]),
        // By default times are compared in seconds, and a second edit within one would be missed. Only
        // the receiver compares, and rrsync does not take the short form that rsync would send it.
        (true, word("--remote-option=--modify-window=-1"), &["modify-window"]),
        (true, Word(format!("--timeout={}", timeout.0.div_ceil(1000))), &["timeout"]),
    ];
    rows.into_iter().filter(|(on, ..)| *on).map(|(_, ask, names)| (ask, names))
}

/// The options of every run of a sync. `recursive`: with all that is below what is named.
pub fn flags(transfer: &TransferOptions, recursive: bool) -> Vec<String> {
    let mut letters = String::from(if recursive { "-r" } else { "-" });
    let mut flags = Vec::new();
    for (ask, _) in wanted(transfer) {
        match ask {
            Ask::Letter(letter) => letters.push(letter),
            Ask::Word(word) => flags.push(word),
        }
    }
    if letters != "-" {
        flags.insert(0, letters);
    }
    flags
}

/// For a daemon's `refuse options = * …`: what this sync needs and no more. No reading, no other
/// directories, no daemon options of the sender's choice, no removal that the policy forbids.
/// A target that is not filled may hold what is somebody else's.
pub fn allowed(options: &SyncOptions, filled: bool) -> String {
    let SyncOptions { delete, transfer, .. } = options;
    let mut names = vec![
        "recursive",
        "relative",
        "dirs",
        "force",
        "ignore-missing-args",
        "ignore-times",
        "stats",
        "max-delete",
        "no-msgs2stderr",
    ];
    names.extend(wanted(transfer).flat_map(|(_, names)| names));
    if filled && *delete != DeletePolicy::Never {
        names.extend(["delete", "delete-after"]);
    }
    if filled && delete.in_batches() {
        names.push("delete-missing-args");
    }
    names.iter().map(|name| format!("!{name}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
