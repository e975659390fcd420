//! What the symlinks of a tree lead to, for syncs that follow them: which directories have to be
//! watched besides the tree, and what a change there is to the sync. It reads names, links and
//! types, and watches nothing itself.

pub mod watcher;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::index::walk::join;
use crate::journal::RelPath;

/// Most meanings that directories behind links have for one tree; what is beyond is not watched.
pub const MEANINGS_MAX: usize = 100_000;
/// Links on the way to one place; Linux follows no more.
const HOPS_MAX: usize = 40;

/// What a change in a directory is to the sync.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Meaning {
    /// As rsync names it: below the source, through the links.
    pub path: RelPath,
    /// Only this name counts, and everything at `path` hangs on it. None: each name is one below
    /// `path`.
    pub only: Option<Box<[u8]>>,
}

/// Real directories, and what they mean.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Survey {
    pub directories: BTreeMap<PathBuf, BTreeSet<Meaning>>,
    pub meanings: usize,
    /// There is more than is watched.
    pub is_cut: bool,
}

/// What a link leads through and to.
struct Trace {
    /// Each name that was looked at, with the real directory it is in.
    names: Vec<(PathBuf, OsString)>,
    /// None when it leads nowhere.
    end: Option<PathBuf>,
}

/// A directory that is still to be read.
struct Waiting {
    real: PathBuf,
    path: Vec<u8>,
    /// Real directories that links led to on the way here; empty in the tree itself.
    through: Vec<PathBuf>,
}

/// Reads a tree for its links, and what is behind these, other links included.
pub fn survey(source: &Path, go_on: impl Fn() -> bool) -> Survey {
    let mut survey = Survey::default();
    let Ok(real) = fs::canonicalize(source) else { return survey };
    let mut waiting = vec![Waiting { real, path: Vec::new(), through: Vec::new() }];
    while let Some(here) = waiting.pop() {
        if !go_on() || survey.is_cut {
            break;
        }
        if !here.through.is_empty() {
            survey.add(&here.real, Meaning { path: here.path.as_slice().into(), only: None });
        }
        for entry in fs::read_dir(&here.real).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            let path = join(&here.path, name.as_bytes());
            if kind.is_dir() {
                let (real, through) = (here.real.join(name), here.through.clone());
                waiting.push(Waiting { real, path, through });
            } else if kind.is_symlink() {
                waiting.extend(survey.follow(&here, &name, path));
            }
        }
    }
    survey
}

impl Survey {
    fn add(&mut self, directory: &Path, meaning: Meaning) {
        if self.meanings >= MEANINGS_MAX {
            self.is_cut = true;
        } else if self.directories.entry(directory.to_owned()).or_default().insert(meaning) {
            self.meanings += 1;
        }
    }

    /// The directory that a link leads to, if that is to be read.
    fn follow(&mut self, here: &Waiting, name: &OsStr, path: Vec<u8>) -> Option<Waiting> {
        let Trace { names, end } = trace(&here.real, name);
        // The link itself is in a directory that is watched already.
        for (directory, name) in names.into_iter().skip(1) {
            let only = Some(name.as_bytes().into());
            self.add(&directory, Meaning { path: path.as_slice().into(), only });
        }
        let end = end.filter(|end| end.is_dir())?;
        // rsync goes round in such a circle until names get too long; what is in it is known.
        if here.real.starts_with(&end) || here.through.contains(&end) {
            return None;
        }
        let through = here.through.iter().cloned().chain([end.clone()]).collect();
        Some(Waiting { real: end, path, through })
    }

    /// The paths that mean something new since `before`, the outermost of them.
    pub fn news(&self, before: &Self) -> Vec<RelPath> {
        let is_new = |directory: &PathBuf, meaning: &&Meaning| {
            !before.directories.get(directory).is_some_and(|known| known.contains(*meaning))
        };
        let new: BTreeSet<&RelPath> = self
            .directories
            .iter()
            .flat_map(|(directory, all)| all.iter().filter(move |m| is_new(directory, m)))
            .map(|meaning| &meaning.path)
            .collect();
        let inner = |path: &RelPath| {
            let mut ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
            ends.any(|end| new.contains(&RelPath::from(&path[..end])))
        };
        new.iter().filter(|path| !inner(path)).map(|path| (*path).clone()).collect()
    }
}

/// Follows a name as the kernel does. `directory` is real.
fn trace(directory: &Path, name: &OsStr) -> Trace {
    let mut at = directory.to_owned();
    let mut todo = VecDeque::from([name.to_owned()]);
    let mut names = Vec::new();
    let mut hops = 0;
    while let Some(part) = todo.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(_)) => {
                let next = at.join(&part);
                names.push((at.clone(), part));
                // When there is nothing, it is known what would have to come.
                let Ok(found) = fs::symlink_metadata(&next) else {
                    return Trace { names, end: None };
                };
                if !found.is_symlink() {
                    at = next;
                    continue;
                }
                hops += 1;
                let Some(target) = fs::read_link(&next).ok().filter(|_| hops <= HOPS_MAX) else {
                    return Trace { names, end: None };
                };
                for part in target.components().rev() {
                    todo.push_front(part.as_os_str().to_owned());
                }
            }
            _ => {}
        }
    }
    Trace { names, end: Some(at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn told(survey: &Survey, root: &Path) -> Vec<String> {
        let mut told = Vec::new();
        for (directory, meanings) in &survey.directories {
            let Ok(directory) = directory.strip_prefix(root) else { continue };
            for Meaning { path, only } in meanings {
                let only = only.as_ref().map(|name| String::from_utf8_lossy(name).into_owned());
                let (path, only) = (String::from_utf8_lossy(path), only.unwrap_or("*".into()));
                told.push(format!("{}/{only} is {path}", directory.display()));
            }
        }
        told
    }

    #[test]
    fn every_place_that_a_link_hangs_on_has_a_meaning() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| root.join(name);
        for name in ["src/d", "out/v1/sub", "out/v2"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("out/file"), "").unwrap();
        symlink("v1", at("out/now")).unwrap();
        symlink(at("out/now"), at("src/app")).unwrap();
        symlink("../../out/file", at("src/d/f")).unwrap();
        symlink("../missing/x", at("src/lost")).unwrap();
        symlink("..", at("src/d/round")).unwrap();
        symlink(at("src"), at("out/v1/sub/back")).unwrap();
        symlink(at("out/v1"), at("out/v1/sub/up")).unwrap();
        let first = survey(&at("src"), || true);
        let lines = told(&first, &root);
        for line in [
            "out/now is app",
            "out/v1 is app",
            "out/v1/* is app",
            "out/v1/sub/* is app/sub",
            "out/file is d/f",
            "/missing is lost",
            "/out is app",
        ] {
            assert!(lines.iter().any(|told| told == line), "{line} is not in {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("round/")), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("app/sub/up/")), "{lines:#?}");
        let names = |news: Vec<RelPath>| -> Vec<String> {
            news.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
        };
        assert!(first.news(&first).is_empty());
        assert_eq!(names(first.news(&Survey::default()))[..2], ["app", "d/f"]);

        fs::remove_file(at("out/now")).unwrap();
        symlink("v2", at("out/now")).unwrap();
        fs::create_dir_all(at("out/v2/a/b")).unwrap();
        let second = survey(&at("src"), || true);
        assert_eq!(names(second.news(&first)), ["app"]);
        fs::create_dir_all(at("out/v2/a/c/d")).unwrap();
        assert_eq!(names(survey(&at("src"), || true).news(&second)), ["app/a/c"]);
        assert!(!second.is_cut && second.meanings >= 6);
    }
}
