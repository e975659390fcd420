//! The cgroup of an instance: made below the version 2 hierarchy, killed as one, asked whether any
//! process is left. Where there is none, processes are found by other means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Of every instance's cgroup.
const PARENT: &str = "lockstep";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes it when it is missing. None: this machine has no version 2 hierarchy that may be written.
    pub fn open(name: &str) -> Option<Self> {
        let dir = mount()?.join(PARENT).join(name);
        fs::create_dir_all(&dir).ok()?;
        dir.join("cgroup.procs").exists().then_some(Self { dir })
    }

    /// One that somebody else makes and takes away, such as a systemd unit's; `path` is from the
    /// hierarchy's root.
    pub fn at(path: &Path) -> Option<Self> {
        Some(Self { dir: mount()?.join(path) })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Processes that are no zombies, in it and below.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        collect(&self.dir, &mut found);
        found
    }

    /// True while any process is in it or below; a directory that is gone has none.
    pub fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.dir.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// SIGKILL to all, those that are just being made too. Err where the kernel is older than 5.14.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.kill"), "1")
    }

    /// Stops or continues all; where that is not possible, nothing happens.
    pub fn freeze(&self, frozen: bool) {
        let _ = fs::write(self.dir.join("cgroup.freeze"), if frozen { "1" } else { "0" });
    }

    /// Only an empty one goes.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.dir);
    }

    pub fn take(&self, pid: i32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }
}

fn collect(dir: &Path, found: &mut Vec<i32>) {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

/// Of process 1, from the hierarchy's root.
pub fn of_init() -> Option<String> {
    let text = fs::read_to_string("/proc/1/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Where the version 2 hierarchy is: `/sys/fs/cgroup`, or below it beside version 1.
fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    find_mount(&mounts)
}

/// Fields of a line: id, parent, device, root, mount point, options, … `-`, type, …
fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let here = kind.split(' ').next() == Some("cgroup2");
        here.then(|| place.split(' ').nth(4)).flatten().map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hierarchy_is_found_beside_the_first() {
        let mixed = "31 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                     33 31 0:28 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                     42 31 0:37 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(mixed), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_mount("1 0 0:1 / / rw - ext4 /dev/sda rw\n"), None);
    }
}
