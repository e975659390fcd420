//! The arguments against a real receiving daemon with the configuration that goes with them.

use lockstep_model::setting::Settings;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use super::*;

fn options(values: &[(&str, &str)]) -> SyncOptions {
    SyncOptions::from_values(values.iter().copied()).unwrap()
}

/// Pushes `from` to `to` through `rsync --server --daemon`, as two agents do.
#[allow(clippy::disallowed_methods)] // the test asks rsync itself
fn push(dir: &Path, sender: &[String], receiver: &SyncOptions, more: &[&str]) -> Output {
    let root = rustix::process::geteuid().is_root();
    // Without a chroot the daemon rewrites symlinks.
    let (chroot, ids) = if root { ("yes", "uid = 0\ngid = 0\n") } else { ("no", "") };
    let to = dir.join("to");
    fs::create_dir_all(&to).unwrap();
    let config = format!(
        "use chroot = {chroot}\nmunge symlinks = no\nlog file = /dev/null\n[m]\npath = {}\nread only = no\nwrite only = yes\n\
         numeric ids = yes\nrefuse options = * {}\n{ids}",
        to.display(),
        allowed(receiver, true)
    );
    fs::write(dir.join("rsyncd.conf"), config).unwrap();
    let shell = dir.join("shell");
    let script = format!(
        "#!/bin/sh\nexec rsync --server --daemon --config={} .\n",
        dir.join("rsyncd.conf").display()
    );
    fs::write(&shell, script).unwrap();
    fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Command::new("rsync")
        .args(sender)
        .args(more)
        .arg("-e")
        .arg(&shell)
        .arg("--")
        .arg(format!("{}/", dir.join("from").display()))
        .arg("x::m/")
        .output()
        .unwrap()
}

fn tree(dir: &Path) {
    let from = dir.join("from");
    fs::create_dir_all(from.join("d")).unwrap();
    fs::write(from.join("d/a"), vec![0u8; 200_000]).unwrap();
    fs::write(from.join("b"), "b").unwrap();
    fs::hard_link(from.join("b"), from.join("c")).unwrap();
    symlink("b", from.join("in")).unwrap();
    fs::write(dir.join("outside"), "o").unwrap();
    symlink(dir.join("outside"), from.join("out")).unwrap();
}

#[test]
fn a_receiver_takes_what_its_sync_needs() {
    for values in [
        &[][..],
        &[("delete", "never")],
        &[("delete", "startup")],
        &[("delete", "running")],
        &[("symlinks", "follow")],
        &[("symlinks", "skip")],
        &[("symlinks", "safe")],
        &[("perms", "no"), ("owner", "no"), ("group", "no"), ("devices", "no"), ("times", "no")],
        &[("hard-links", "yes"), ("sparse", "yes"), ("compress", "yes")],
        &[("acls", "yes"), ("xattrs", "yes")],
        &[("checksum", "yes"), ("whole-file", "yes"), ("partial", "yes")],
        &[("inplace", "yes"), ("chmod", "D750,F640"), ("io-timeout", "90s")],
        &[("chown", "12:34")],
    ] {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let options = options(values);
        let mut more = vec!["--force", "--stats"];
        if options.delete.in_full_pass() {
            more.push("--delete-after");
        }
        let out = push(dir.path(), &flags(&options.transfer, true), &options, &more);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{values:?}: {stderr}");
        let to = dir.path().join("to");
        assert_eq!(fs::read(to.join("d/a")).unwrap().len(), 200_000);
        let found = |name: &str| fs::symlink_metadata(to.join(name)).ok();
        let (inside, outside) = (found("in"), found("out"));
        match options.transfer.symlinks {
            Symlinks::Keep => {
                assert!(inside.unwrap().is_symlink() && outside.unwrap().is_symlink())
            }
            Symlinks::Follow => assert!(inside.unwrap().is_file() && outside.unwrap().is_file()),
            Symlinks::Skip => assert!(inside.is_none() && outside.is_none()),
            Symlinks::Safe => assert!(inside.unwrap().is_symlink() && outside.is_none()),
        }
        let (b, c) = (found("b").unwrap(), found("c").unwrap());
        assert_eq!(b.ino() == c.ino(), options.transfer.hard_links, "{values:?}");
        if options.transfer.chmod.is_some() {
            assert_eq!(b.mode() & 0o777, 0o640);
        }
        if options.transfer.chown.is_some() && rustix::process::geteuid().is_root() {
            assert_eq!((b.uid(), b.gid()), (12, 34));
        }
        if options.transfer.sparse {
            assert!(found("d/a").unwrap().blocks() * 512 < 200_000);
        }
    }
}

#[test]
fn a_receiver_refuses_what_its_sync_does_not_need() {
    let plain = options(&[]);
    let never = options(&[("delete", "never")]);
    for (receiver, more) in [
        (&never, &["--delete-after"][..]),
        (&never, &["--delete"]),
        (&plain, &["--delete-excluded"]),
        (&plain, &["-X"]),
        (&plain, &["-A"]),
        (&plain, &["-H"]),
        (&plain, &["--inplace"]),
        (&plain, &["--partial-dir=x"]),
        (&plain, &["--backup", "--backup-dir=/tmp"]),
        (&plain, &["--temp-dir=/tmp"]),
        (&plain, &["--remove-source-files"]),
        (&plain, &["--write-devices"]),
        (&plain, &["--chown=1:1"]),
        (&plain, &["--link-dest=/etc"]),
        (&plain, &["--log-file=/tmp/x", "--remote-option=--log-file=/tmp/y"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let out = push(dir.path(), &flags(&plain.transfer, true), receiver, more);
        // --remove-source-files acts on the sender's side alone and is none of the receiver's.
        let harmless = more == ["--remove-source-files"];
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(harmless || !out.status.success(), "{more:?} was let through: {stderr}");
        assert!(harmless || !dir.path().join("to/b").exists(), "{more:?} wrote something");
    }
}

/// A missing name is told by its mode of 0, which only a receiver that was allowed to takes for one.
#[test]
fn names_that_are_gone_are_removed_only_where_the_policy_says_so() {
    for (delete, removed) in
        [("always", true), ("running", true), ("startup", false), ("never", false)]
    {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        fs::create_dir(dir.path().join("to")).unwrap();
        fs::write(dir.path().join("to/gone"), "g").unwrap();
        fs::write(dir.path().join("list"), b"./gone\0./b\0").unwrap();
        let options = options(&[("delete", delete)]);
        let list = format!("--files-from={}", dir.path().join("list").display());
        let more = ["--from0", "--delete-missing-args", &list];
        let out = push(dir.path(), &flags(&options.transfer, false), &options, &more);
        assert_eq!(out.status.success(), removed, "{delete}");
        assert_eq!(!dir.path().join("to/gone").exists(), removed, "{delete}");
    }
}

/// What a comparison of contents found is sent though size and time are the same.
#[test]
fn a_listed_file_may_be_sent_though_it_looks_the_same() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let plain = options(&[]);
    let flags = flags(&plain.transfer, false);
    fs::write(dir.path().join("list"), b"./d/a\0./b\0").unwrap();
    let list = format!("--files-from={}", dir.path().join("list").display());
    let listed = ["--from0", "--ignore-missing-args", &list];
    assert!(push(dir.path(), &flags, &plain, &listed).status.success());
    let copy = dir.path().join("to/d/a");
    let at = fs::metadata(&copy).unwrap().modified().unwrap();
    fs::write(&copy, vec![1u8; 200_000]).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_modified(at).unwrap();
    for (more, content) in [(&[][..], 1), (&["--ignore-times"], 0)] {
        let out = push(dir.path(), &flags, &plain, &[&listed[..], more].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(fs::read(&copy).unwrap(), vec![content; 200_000], "{more:?}");
    }
}
