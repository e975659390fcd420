//! Random changes to a tree, decided by a seed and by the tree alone. Paths are drawn from few names,
//! so that files, directories and links take each other's places all the time.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, ensure};
use lockstep_tests::chance::Chance;
use lockstep_tests::tree::hard_names;

use super::clock;

const DEPTH_MAX: usize = 4;
const SMALL_BYTES_MAX: usize = 20_000;
const LARGE_BYTES_MAX: usize = 2_000_000;
/// One of so many files is large.
const LARGE_EACH: usize = 50;
const NAME_BYTES_MAX: usize = 255;
/// Paths that are met again rather than others.
const NEAR_MAX: usize = 64;
/// What takes no name away. A further name that is made, changed through and taken away within the
/// delay is told to nobody, as docs/syncs.md says: inotify knows names only.
const IN_PLACE: [&str; 7] =
    ["write", "append", "edit in place", "truncate", "mode", "owner", "time"];
/// So many changes a further name of a file stays: at the pace of a round, twice the delay.
const NAME_STAYS: usize = 500;
/// Changes that are remembered.
const TOLD_MAX: usize = 20_000;

pub struct Ops {
    root: PathBuf,
    /// On the same file system, outside of the tree.
    aside: PathBuf,
    names: Vec<OsString>,
    /// Changes that are not made.
    without: Vec<String>,
    chance: Chance,
    /// What the newest changes left.
    near: VecDeque<PathBuf>,
    /// Further names of files, and until which change they stay.
    further: VecDeque<(PathBuf, usize)>,
    count: usize,
    told: VecDeque<Told>,
}

struct Told {
    text: String,
    paths: [PathBuf; 2],
}

type Op = (&'static str, usize, fn(&mut Ops, &Path, &Path) -> io::Result<()>);

/// With their weights. Paths are below the root; the second one matters to some only.
const OPS: &[Op] = &[
    ("write", 20, |ops, a, _| ops.write(a)),
    ("append", 8, |ops, a, _| {
        let more = ops.bytes(SMALL_BYTES_MAX);
        File::options().append(true).open(a)?.write_all(&more)
    }),
    ("edit in place", 8, |ops, a, _| ops.edit(a)),
    ("truncate", 2, |ops, a, _| {
        let bytes = ops.chance.below(100) as u64;
        File::options().write(true).open(a)?.set_len(bytes)
    }),
    ("save", 8, |ops, a, b| {
        ops.write(b)?;
        fs::rename(b, a)
    }),
    ("rename", 12, |_, a, b| fs::rename(a, b)),
    ("remove", 10, |_, a, _| fs::remove_file(a)),
    ("remove tree", 2, |_, a, _| fs::remove_dir_all(a)),
    ("make directories", 10, |_, a, _| fs::create_dir_all(a)),
    ("remove directory", 4, |_, a, _| fs::remove_dir(a)),
    ("make, fill", 6, |ops, a, _| {
        fs::create_dir_all(a)?;
        for name in ["p", "q"] {
            ops.write(&a.join(name))?;
        }
        Ok(())
    }),
    ("make, fill, remove", 4, |ops, a, _| {
        fs::create_dir_all(a)?;
        ops.write(&a.join("p"))?;
        fs::remove_dir_all(a)
    }),
    ("make, fill, rename", 4, |ops, a, b| {
        fs::create_dir_all(a)?;
        ops.write(&a.join("p"))?;
        fs::rename(a, b)
    }),
    ("link", 4, |ops, a, b| symlink(ops.pointer(b), a)),
    ("swap link", 4, |ops, a, b| {
        symlink(ops.pointer(a), b)?;
        fs::rename(b, a)
    }),
    ("directory to link", 2, |ops, a, b| {
        fs::remove_dir_all(a)?;
        symlink(ops.pointer(b), a)
    }),
    ("file to directory", 3, |ops, a, _| {
        fs::remove_file(a)?;
        fs::create_dir(a)?;
        ops.write(&a.join("p"))
    }),
    ("directory to file", 2, |ops, a, _| {
        fs::remove_dir_all(a)?;
        ops.write(a)
    }),
    ("hard link", 8, |_, a, b| fs::hard_link(a, b)),
    ("mode", 4, |ops, a, _| {
        let mode = [0o644, 0o600, 0o755, 0o4711, 0o2770][ops.chance.below(5)];
        fs::set_permissions(a, Permissions::from_mode(mode))
    }),
    ("owner", 3, |ops, a, _| {
        let id = 1000 + ops.chance.below(3) as u32;
        lchown(a, Some(id), Some(id))
    }),
    ("time", 3, |ops, a, _| {
        let at = UNIX_EPOCH + Duration::from_secs(ops.chance.below(1 << 30) as u64);
        File::open(a)?.set_modified(at)
    }),
    ("move out", 2, |ops, a, _| fs::rename(a, &ops.aside)),
    ("move in", 3, |ops, a, _| fs::rename(&ops.aside, a)),
];

impl Ops {
    pub fn new(root: &Path, chance: Chance, without: &[String]) -> Result<Self> {
        for name in without {
            ensure!(OPS.iter().any(|(op, ..)| op == name), "there is no change {name:?}");
        }
        let mut names: Vec<OsString> = ["a", "b", "c", "d", "e", "f"].map(Into::into).into();
        names.extend(hard_names());
        names.push("n".repeat(NAME_BYTES_MAX).into());
        let (root, aside) = (root.to_owned(), root.with_file_name("aside"));
        let without = without.to_vec();
        Ok(Self {
            root,
            aside,
            without,
            names,
            chance,
            near: VecDeque::new(),
            further: VecDeque::new(),
            count: 0,
            told: VecDeque::new(),
        })
    }

    pub fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// One change. Most of those that make no sense fail, which is no matter.
    pub fn step(&mut self) {
        let (a, b) = (self.known(), self.beside());
        let total: usize = OPS.iter().map(|(_, weight, _)| weight).sum();
        let mut left = self.chance.below(total);
        let drawn = OPS.iter().find(|(_, weight, _)| match left.checked_sub(*weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        let Some((name, _, op)) = drawn else { return };
        if self.without.iter().any(|without| without == name) {
            return;
        }
        let (from, to) = (self.root.join(&a), self.root.join(&b));
        let takes =
            !IN_PLACE.contains(name) && (self.takes_further(&from) || self.takes_further(&to));
        if takes {
            return;
        }
        let began = clock();
        let outcome = op(self, &from, &to);
        if *name == "hard link" && outcome.is_ok() {
            self.further.push_back((real(&to), self.count + NAME_STAYS));
        }
        self.count += 1;
        let when = format!("{} {began} {}", self.count, clock());
        let text = match &outcome {
            Ok(()) => format!("{when} {name} {a:?} {b:?}"),
            Err(e) => format!("{when} {name} {a:?} {b:?}: {:?}", e.kind()),
        };
        if outcome.is_ok() {
            let there = |path: &&PathBuf| fs::symlink_metadata(self.root.join(path)).is_ok();
            self.near.extend([&a, &b].into_iter().filter(there).cloned());
            self.near.drain(..self.near.len().saturating_sub(NEAR_MAX));
        }
        if self.told.len() == TOLD_MAX {
            self.told.pop_front();
        }
        self.told.push_back(Told { text, paths: [a, b] });
    }

    /// A further name that nobody may have seen yet goes with this path.
    fn takes_further(&mut self, path: &Path) -> bool {
        let stays = self.further.iter().position(|(_, until)| self.count < *until);
        self.further.drain(..stays.unwrap_or(self.further.len()));
        let path = real(path);
        self.further.iter().any(|(name, _)| name.starts_with(&path))
    }

    /// The changes that named a path, or what is above or below it.
    pub fn told_of(&self, path: &Path) -> impl Iterator<Item = &str> {
        let near = move |other: &PathBuf| path.starts_with(other) || other.starts_with(path);
        self.told.iter().filter(move |told| told.paths.iter().any(near)).map(|t| t.text.as_str())
    }

    /// Most likely there.
    fn known(&mut self) -> PathBuf {
        match self.chance.below(4) {
            0 => self.path(),
            _ => self.recent(),
        }
    }

    /// Most likely free, in a directory that is there.
    fn beside(&mut self) -> PathBuf {
        match self.chance.below(4) {
            0 => self.recent(),
            1 => self.path(),
            _ => self.recent().with_file_name(self.name()),
        }
    }

    fn recent(&mut self) -> PathBuf {
        if self.near.is_empty() {
            return self.path();
        }
        let at = self.chance.below(self.near.len());
        self.near.get(at).cloned().unwrap_or_default()
    }

    /// Shallow ones are likelier.
    fn path(&mut self) -> PathBuf {
        let mut path = PathBuf::from(self.name());
        while path.components().count() < DEPTH_MAX && self.chance.below(2) == 0 {
            path.push(self.name());
        }
        path
    }

    /// A plain one half of the time, so that paths are met again.
    fn name(&mut self) -> OsString {
        let plain = self.chance.below(4) > 0;
        let names = if plain { self.names.get(..6).unwrap_or_default() } else { &self.names };
        let at = self.chance.below(names.len());
        names.get(at).cloned().unwrap_or_default()
    }

    fn write(&mut self, path: &Path) -> io::Result<()> {
        let large = self.chance.below(LARGE_EACH) == 0;
        let bytes = self.bytes(if large { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX });
        fs::write(path, bytes)
    }

    /// Other bytes, as many, most likely in the same second.
    fn edit(&mut self, path: &Path) -> io::Result<()> {
        let bytes = fs::metadata(path)?.len();
        let stamp = self.chance.number().to_le_bytes();
        let part = stamp.get(..stamp.len().min(bytes as usize)).unwrap_or_default();
        File::options().write(true).open(path)?.write_all(part)
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let size = self.chance.below(max);
        let stamp = self.chance.number().to_le_bytes();
        stamp.iter().copied().cycle().take(size).collect()
    }

    /// Where a symlink leads: into the tree or nowhere, never out of it.
    fn pointer(&mut self, path: &Path) -> OsString {
        match self.chance.below(3) {
            0 => "/nowhere/at all".into(),
            1 => path.as_os_str().to_owned(),
            _ => path.file_name().unwrap_or(OsStr::new("a")).to_owned(),
        }
    }
}

/// Without the links on its way.
fn real(path: &Path) -> PathBuf {
    match (path.parent().map(fs::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_tests::tree::Tree;

    const STEPS: usize = 3000;

    fn churn(seed: u64, dir: &Path) -> Result<(Ops, Vec<PathBuf>)> {
        let root = dir.join("www");
        fs::create_dir(&root)?;
        let mut ops = Ops::new(&root, Chance::new(seed), &[])?;
        (0..STEPS).for_each(|_| ops.step());
        Ok((ops, Tree::read(&root)?.0.into_keys().collect()))
    }

    #[test]
    fn a_seed_is_a_tree_and_every_change_takes_effect() -> Result<()> {
        let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let (ops, paths) = churn(7, one.path())?;
        assert_eq!(paths, churn(7, two.path())?.1);
        assert!(paths.len() > 50, "{} paths", paths.len());
        for (name, ..) in OPS {
            let done = |told: &&Told| told.text.contains(name) && !told.text.contains(": ");
            let count = ops.told.iter().filter(done).count();
            assert!(count > 0, "no {name} took effect");
        }
        Ok(())
    }
}
