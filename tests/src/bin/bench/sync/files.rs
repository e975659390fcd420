//! The files of a bench: made on the source, and waited for on the targets. The hosts share one
//! clock, so a copy's own change time tells when it took its place.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lockstep_tests::{Host, try_until};

use super::WITHIN;

const BLOCK_BYTES: usize = 1 << 20;
const DIRS: usize = 100;

/// Names of small files, spread over directories, which are made.
pub fn plan(root: &Path, prefix: &str, count: usize) -> Result<Vec<PathBuf>> {
    (0..DIRS).try_for_each(|n| fs::create_dir_all(root.join(dir(n))))?;
    Ok((0..count).map(|n| PathBuf::from(format!("{}/{prefix}-{n}", dir(n % DIRS)))).collect())
}

fn dir(n: usize) -> String {
    format!("d{n:02}")
}

/// One file of a KiB.
pub fn write(root: &Path, name: &Path) -> Result<()> {
    Ok(fs::write(root.join(name), [b'x'; 1024])?)
}

pub fn write_all(root: &Path, names: &[PathBuf]) -> Result<()> {
    names.iter().try_for_each(|name| write(root, name))
}

/// As touch(1) does it.
pub fn touch_all(root: &Path, names: &[PathBuf]) -> Result<()> {
    for name in names {
        let file = File::options().write(true).open(root.join(name))?;
        rustix::fs::futimens(
            &file,
            &rustix::fs::Timestamps { last_access: NOW, last_modification: NOW },
        )?;
    }
    Ok(())
}

const NOW: rustix::fs::Timespec =
    rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };

/// A file that no transport makes smaller.
pub fn write_large(path: &Path, bytes: usize) -> Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut file = File::create(path)?;
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..bytes / BLOCK_BYTES {
        for word in block.chunks_exact_mut(8) {
            // xorshift
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            word.copy_from_slice(&seed.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

/// Waits until each of `copies` has each file as it is in `original`.
pub fn wait_same(original: &Path, copies: &[PathBuf], names: &[PathBuf]) -> Result<()> {
    let wanted = names.iter().map(|name| look(&original.join(name)));
    let wanted: Vec<_> = wanted.map(|seen| seen.context("gone")).collect::<Result<_>>()?;
    for copy in copies {
        // What has arrived stays, so nothing is looked at twice.
        let mut left = names.iter().zip(&wanted).peekable();
        try_until(WITHIN, "the copy has every file", || {
            while left
                .next_if(|(name, as_is)| look(&copy.join(name)).as_ref() == Some(as_is))
                .is_some()
            {}
            match left.peek() {
                None => Ok(()),
                Some((name, _)) => Err(format!("{} lacks {}", copy.display(), name.display())),
            }
        })
        .map_err(|waited| anyhow::anyhow!("{waited}"))?;
    }
    Ok(())
}

/// Size and time of modification.
fn look(path: &Path) -> Option<(u64, i64, i64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// Seconds from the end of each write until it was visible, for each copy.
pub fn lags_s(original: &Path, copies: &[PathBuf], names: &[PathBuf]) -> Result<Vec<f64>> {
    let mut lags = Vec::new();
    for name in names {
        let written = changed_s(&original.join(name))?;
        for copy in copies {
            lags.push(changed_s(&copy.join(name))? - written);
        }
    }
    Ok(lags)
}

fn changed_s(path: &Path) -> Result<f64> {
    let meta = fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(meta.ctime() as f64 + meta.ctime_nsec() as f64 / 1e9)
}

/// Removes everything below a directory, but not itself.
pub fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A disk in memory at a host's directory `www`: where transport is measured and not a disk.
pub fn in_memory(host: &Host, bytes: usize) -> Result<()> {
    // It is unmounted with its world.
    host.disk("www", bytes as u64).map(drop)
}
