//! Counts the directories of a tree, as lsyncd will watch them. It looks at no file: the kinds of
//! names come with the names.

use std::fs;
use std::path::Path;

/// Directories from `root` on down, that one included; links are not followed, and a directory that
/// cannot be read counts alone. None when told not to `go_on`.
pub fn directories(root: &Path, go_on: impl Fn() -> bool) -> Option<u64> {
    let mut count = 0;
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        if !go_on() {
            return None;
        }
        count += 1;
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        waiting.extend(entries.filter(is_directory).map(|entry| entry.path()));
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_count_and_links_to_them_do_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/file"), "").unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("a/b/up")).unwrap();
        assert_eq!(directories(dir.path(), || true), Some(3));
        assert_eq!(directories(dir.path(), || false), None);
        assert_eq!(directories(&dir.path().join("absent"), || true), Some(1));
    }
}
