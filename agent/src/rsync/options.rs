//! What a sync's settings are to rsync: the sender's arguments, and what a receiving daemon lets a
//! sender ask for. The two belong together. Pure.

use lockstep_model::sync::options::{Symlinks, TransferOptions};
use lockstep_model::sync::{DeletePolicy, SyncOptions};

/// Where a target keeps unfinished files, below each directory. Our own names are never delivered.
const PARTIAL_DIR: &str = ".lockstep-partial";

/// The options of every run of a sync. `recursive`: with all that is below what is named.
pub fn flags(transfer: &TransferOptions, recursive: bool) -> Vec<String> {
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
    let letters = [
        (recursive, 'r'),
        (matches!(symlinks, Symlinks::Keep | Symlinks::Safe), 'l'),
        (*symlinks == Symlinks::Follow, 'L'),
        (*perms, 'p'),
        (*times, 't'),
        (*group, 'g'),
        (*owner, 'o'),
        (*devices, 'D'),
        (*hard_links, 'H'),
        (*acls, 'A'),
        (*xattrs, 'X'),
        (*sparse, 'S'),
        (*compress, 'z'),
        (*checksum, 'c'),
        (*whole_file, 'W'),
    ];
    let letters: String =
        letters.into_iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
    let mut flags = Vec::new();
    if !letters.is_empty() {
        flags.push(format!("-{letters}"));
    }
    let words = [
        (*symlinks == Symlinks::Safe, "--safe-links".to_owned()),
        (*inplace, "--inplace".to_owned()),
        (*partial && !*inplace, format!("--partial-dir={PARTIAL_DIR}")),
    ];
    flags.extend(words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word));
    flags.extend(chmod.as_ref().map(|modes| format!("--chmod={}", modes.as_str())));
    flags.extend(chown.as_ref().map(|ids| format!("--chown={}", ids.as_str())));
    // By default times are compared in seconds, and a second edit within one would be missed.
    flags.extend(["--numeric-ids".to_owned(), "--modify-window=-1".to_owned()]);
    flags.push(format!("--timeout={}", timeout.0.div_ceil(1000)));
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
        "timeout",
        "force",
        "ignore-missing-args",
        "numeric-ids",
        "modify-window",
        "stats",
        "max-delete",
        "no-msgs2stderr",
    ];
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
        // Applied by the sender.
        chmod: _,
        chown,
        timeout: _,
    } = transfer;
    let mut allow = |on: bool, more: &[&'static str]| names.extend(more.iter().filter(|_| on));
    allow(matches!(symlinks, Symlinks::Keep | Symlinks::Safe), &["links"]);
    allow(*symlinks == Symlinks::Safe, &["safe-links"]);
    allow(*symlinks == Symlinks::Follow, &["copy-links"]);
    allow(*perms, &["perms"]);
    allow(*times, &["times"]);
    allow(*owner, &["owner"]);
    allow(*group, &["group"]);
    allow(*devices, &["devices", "specials", "D"]);
    allow(*hard_links, &["hard-links"]);
    allow(*acls, &["acls"]);
    allow(*xattrs, &["xattrs"]);
    allow(*sparse, &["sparse"]);
    allow(*compress, &["compress", "new-compress", "old-compress", "compress-choice"]);
    allow(*checksum, &["checksum"]);
    allow(*whole_file, &["whole-file"]);
    allow(*inplace, &["inplace", "partial"]);
    allow(*partial, &["partial", "partial-dir"]);
    allow(chown.is_some(), &["usermap", "groupmap", "owner", "group"]);
    allow(filled && *delete != DeletePolicy::Never, &["delete", "delete-after"]);
    allow(filled && delete.in_batches(), &["delete-missing-args"]);
    names.iter().map(|name| format!("!{name}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
