//! Watches the directories of a survey with an inotify instance of its own, and says which paths of
//! the sync changed. It reads no file and decides nothing about deliveries.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::{Meaning, Survey};
use crate::index::walk::join;
use crate::journal::RelPath;

/// Room for events that are read at once, in bytes.
const BUFFER_LEN: usize = 64 << 10;

pub struct Watcher {
    inotify: OwnedFd,
    meanings: HashMap<i32, BTreeSet<Meaning>>,
}

/// What events tell.
#[derive(Default, Debug)]
pub struct Events {
    /// Paths, and whether all below may have changed.
    pub paths: BTreeMap<RelPath, bool>,
    /// Names came or went: the links may lead elsewhere, or to more.
    pub moved: bool,
    /// Some were lost.
    pub overflow: bool,
}

impl Watcher {
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, meanings: HashMap::new() })
    }

    /// Watches what the survey found, and nothing else any more. An error leaves out what did not fit.
    pub fn watch(&mut self, survey: &Survey) -> io::Result<()> {
        let changes = WatchFlags::ATTRIB | WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY;
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        let flags = changes | names | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        let mut meanings: HashMap<i32, BTreeSet<Meaning>> = HashMap::new();
        let mut refused = None;
        for (directory, told) in &survey.directories {
            match inotify::add_watch(&self.inotify, directory, flags) {
                Ok(wd) => meanings.entry(wd).or_default().extend(told.iter().cloned()),
                Err(error) if error == rustix::io::Errno::NOSPC => {
                    refused = Some(error);
                    break;
                }
                // It is gone again, or not to be read by rsync either.
                Err(_) => {}
            }
        }
        for wd in self.meanings.keys().filter(|wd| !meanings.contains_key(wd)) {
            // Those of directories that are gone went with them.
            let _ = inotify::remove_watch(&self.inotify, *wd);
        }
        self.meanings = meanings;
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Waits for events, so long at most, and takes in all that are there.
    pub fn next(&mut self, most: Duration) -> io::Result<Events> {
        let mut events = Events::default();
        let timeout = Timespec::try_from(most).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(events),
            other => other?,
        };
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_LEN];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(std::ffi::CStr::to_bytes);
                    take(&self.meanings, event.wd(), event.events(), name, &mut events);
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(events),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn take(
    meanings: &HashMap<i32, BTreeSet<Meaning>>,
    wd: i32,
    what: ReadFlags,
    name: Option<&[u8]>,
    events: &mut Events,
) {
    events.overflow |= what.contains(ReadFlags::QUEUE_OVERFLOW);
    let (Some(name), Some(meanings)) = (name, meanings.get(&wd)) else { return };
    let names = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
    let moved = what.intersects(names);
    for Meaning { path, only } in meanings {
        let (path, below) = match only {
            // Whatever hangs on a link is looked at with it.
            Some(only) if **only == *name => (path.clone(), false),
            Some(_) => continue,
            None => (join(path, name).into(), moved && what.contains(ReadFlags::ISDIR)),
        };
        events.moved |= moved;
        *events.paths.entry(path).or_default() |= below;
    }
}

#[cfg(test)]
mod tests {
    use super::super::survey;
    use super::*;
    use std::fs;

    #[test]
    fn what_happens_behind_links_is_told_by_the_sync_s_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("src")).unwrap();
        fs::create_dir_all(at("out/sub")).unwrap();
        fs::write(at("out/file"), "").unwrap();
        std::os::unix::fs::symlink("../out", at("src/app")).unwrap();
        std::os::unix::fs::symlink("../out/file", at("src/f")).unwrap();
        let mut watcher = Watcher::new().unwrap();
        watcher.watch(&survey(&at("src"), || true)).unwrap();
        let mut told = || {
            let events = watcher.next(Duration::from_secs(5)).unwrap();
            let names = events.paths.iter();
            let names = names.map(|(path, below)| (String::from_utf8_lossy(path).into(), *below));
            (names.collect::<Vec<(String, bool)>>(), events.moved)
        };
        fs::write(at("out/sub/new"), "1").unwrap();
        assert_eq!(told(), (vec![("app/sub/new".into(), false)], true));
        fs::write(at("out/file"), "2").unwrap();
        assert_eq!(told(), (vec![("app/file".into(), false), ("f".into(), false)], false));
        fs::rename(at("out"), at("away")).unwrap();
        assert_eq!(told(), (vec![("app".into(), false), ("f".into(), false)], true));
        let none = watcher.watch(&Survey::default());
        assert!(none.is_ok() && watcher.meanings.is_empty());
    }
}
