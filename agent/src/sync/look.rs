//! Looks at the source directory for the planner: is it there, and what is at these paths. It reads
//! names and types only, and follows a link inside the source only for a sync that wants it so.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use lockstep_model::sync::FilePath;
use lockstep_model::sync::options::Symlinks;

use super::context::Context;
use crate::deliver::{Facts, Lists, Look, Pending, Source, resolve};
use crate::journal::RelPath;

pub async fn examine(context: &Context, pass_due: bool) -> Facts {
    let path = context.source.clone();
    let sentinel = context.options().sentinel.clone();
    let source = tokio::task::spawn_blocking(move || look_at_source(&path, sentinel.as_ref()))
        .await
        .unwrap_or_else(|error| Source::Unreadable(error.to_string()));
    Facts { source, known_device: context.known_device(), pass_due }
}

/// What rsync is to be told of `pending`.
pub async fn list(context: &Arc<Context>, pending: Pending) -> Lists {
    let context = context.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let options = context.options();
        let follow = options.transfer.symlinks == Symlinks::Follow;
        let look = |path: &[u8]| look_at(&context.source, path, follow);
        resolve(&pending, &options.excludes, look)
    });
    listed.await.unwrap_or_default()
}

/// Those of `gone` that are directories by now: rsync may have found them there, and then what they
/// had before is still on the target.
pub async fn come_back(context: &Arc<Context>, gone: &[RelPath]) -> Vec<RelPath> {
    if gone.is_empty() {
        return Vec::new();
    }
    let (context, mut gone) = (context.clone(), gone.to_vec());
    let looked = tokio::task::spawn_blocking(move || {
        gone.retain(|path| look_at(&context.source, path, false) == Look::Directory);
        gone
    });
    looked.await.unwrap_or_default()
}

fn look_at_source(path: &Path, sentinel: Option<&FilePath>) -> Source {
    use std::io::ErrorKind;
    let first = match fs::read_dir(path) {
        Ok(mut entries) => entries.next(),
        Err(error) => {
            return match error.kind() {
                ErrorKind::NotFound => Source::Missing,
                ErrorKind::NotADirectory => Source::NotADirectory,
                _ => Source::Unreadable(error.to_string()),
            };
        }
    };
    match first {
        None => Source::Empty,
        Some(Err(error)) => Source::Unreadable(error.to_string()),
        Some(Ok(_)) if sentinel.is_some_and(|name| !has(path, name)) => {
            Source::Unmarked { sentinel: sentinel.map(ToString::to_string).unwrap_or_default() }
        }
        // The file system's id and not the device number, which may change with a reboot.
        Some(Ok(_)) => match rustix::fs::statvfs(path) {
            Ok(system) => Source::Present { device: system.f_fsid },
            Err(error) => Source::Unreadable(error.to_string()),
        },
    }
}

/// Whatever it is; also when it is a link.
fn has(source: &Path, name: &FilePath) -> bool {
    fs::symlink_metadata(source.join(name.as_str())).is_ok()
}

fn look_at(source: &Path, path: &[u8], follow: bool) -> Look {
    let path = source.join(OsStr::from_bytes(path));
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => Look::Directory,
        Ok(found) if found.is_symlink() && follow && path.is_dir() => Look::Linked,
        Ok(_) => Look::Other,
        // What cannot be looked at is left to rsync, which then says why.
        Err(error)
            if error.kind() != std::io::ErrorKind::NotFound
                && error.kind() != std::io::ErrorKind::NotADirectory =>
        {
            Look::Other
        }
        Err(_) => Look::Nothing,
    }
}
