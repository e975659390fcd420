//! What of an entry matters to targets: our own names stand for the directory they are in, whose
//! times they changed. Pure.

use crate::journal::{Change, Changed, Entry, RelPath};
use crate::rsync::exclude::RESERVED;

/// Which of our own names it is, when one of its parts is.
pub fn own_name(path: &[u8]) -> Option<&[u8]> {
    path.split(|b| *b == b'/').find(|part| part.starts_with(RESERVED.as_bytes()))
}

/// The entry as workers are to see it.
pub fn strain(entry: &Entry) -> Entry {
    let change = match &entry.change {
        Change::Full => Change::Full,
        Change::Batch(changed) => Change::Batch(changed.iter().map(strain_one).collect()),
    };
    Entry { change, ..entry.clone() }
}

fn strain_one(changed: &Changed) -> Changed {
    match own_name(&changed.path) {
        Some(name) => Changed { path: directory_of(&changed.path, name), subtree: false },
        None => changed.clone(),
    }
}

/// The empty path is the source itself.
fn directory_of(path: &[u8], name: &[u8]) -> RelPath {
    let mut at = 0;
    for part in path.split(|b| *b == b'/') {
        if part == name {
            break;
        }
        at += part.len() + 1;
    }
    path[..at.saturating_sub(1)].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_model::Timestamp;

    #[test]
    fn own_names_stand_for_their_directory() {
        let changed = |path: &str, subtree| Changed { path: path.as_bytes().into(), subtree };
        let told = vec![
            changed("a/b", false),
            changed(".lockstep-now-1", false),
            changed("a/.lockstep-x/y", true),
            changed("a.lockstep-x", true),
        ];
        let entry = Entry { seq: 3, at: Timestamp(1), change: Change::Batch(told) };
        let seen = vec![
            changed("a/b", false),
            changed("", false),
            changed("a", false),
            changed("a.lockstep-x", true),
        ];
        assert_eq!(strain(&entry), Entry { change: Change::Batch(seen), ..entry });
        let full = Entry { seq: 4, at: Timestamp(1), change: Change::Full };
        assert_eq!(strain(&full), full);
    }
}
