//! Extended attributes and ACLs of real files: what counts of them, and only where the sync keeps it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Asked, Keep, Side, compare_with, lines, runtime, side, stamp_all, tree, two};

#[test]
fn attributes_and_acls_are_compared_where_they_are_kept() {
    use rustix::fs::{XattrFlags, removexattr, setxattr};
    // A user of number 1 may read: version 2, then tag, rights and number of each entry.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, rights, number) in entries {
        acl.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        acl.extend(number.to_le_bytes());
    }
    let (_dir, source, target) = two();
    for root in [&source, &target] {
        tree(root);
        fs::set_permissions(root.join("a/top"), PermissionsExt::from_mode(0o644)).unwrap();
        stamp_all(root);
    }
    let give = |path: &Path, name: &str, value: &[u8]| {
        setxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    give(&source.join("a/top"), "user.kind", b"one");
    give(&target.join("a/top"), "user.kind", b"two");
    give(&source.join("empty"), "user.only", b"");
    give(&target.join("a/b/c/file"), "user.more", b"1");
    give(&target.join("a/top"), "system.posix_acl_access", &acl);
    give(&target.join("a"), "system.posix_acl_default", &acl);
    // rsync's own, and the kernel's.
    give(&target.join("a/b"), "user.rsync.%stat", b"x");
    give(&target.join("a/b"), "trusted.x", b"x");
    let compare = |xattrs, acls| {
        let keep = Keep { xattrs, acls, ..Keep::ARCHIVE };
        let sides = [&source, &target].map(|root| Side { keep, ..side(root) });
        let compared = compare_with(&sides[0], &sides[1], Asked::default(), &|| {});
        let mut found = lines(&runtime().block_on(compared).unwrap());
        found.iter_mut().for_each(|line| *line = line.replace("differs(xattrs) ", ""));
        found
    };
    assert_eq!(compare(false, false), [""; 0]);
    assert_eq!(compare(true, false), ["a/b/c/file", "a/top", "empty"]);
    assert_eq!(compare(false, true), ["a", "a/top"]);
    assert_eq!(compare(true, true), ["a", "a/b/c/file", "a/top", "empty"]);
    give(&target.join("a/top"), "user.kind", b"one");
    removexattr(target.join("a/top"), "system.posix_acl_access").unwrap();
    assert_eq!(compare(true, true), ["a", "a/b/c/file", "empty"]);
}
