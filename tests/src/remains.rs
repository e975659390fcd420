//! What killed processes leave in the kernel of the machine, where a machine of their own would forget it
//! with its power: shared memory and cgroups. It is found while they live, and taken away after them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::proc::cmd;

/// Where POSIX shared memory is.
const SHARED: &str = "/dev/shm/";

#[derive(Default, Debug, PartialEq, Eq)]
pub struct Remains {
    files: BTreeSet<PathBuf>,
    /// Ids of System V segments.
    segments: BTreeSet<u64>,
    /// Paths in the hierarchy of version 2.
    cgroups: BTreeSet<String>,
}

impl Remains {
    pub fn of(pids: &BTreeSet<u32>) -> Self {
        let mut found = Self::default();
        for pid in pids {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
            found.note_maps(&read("maps").unwrap_or_default());
            found.note_cgroup(&read("cgroup").unwrap_or_default());
        }
        found
    }

    fn note_maps(&mut self, text: &str) {
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace().skip(4);
            let (Some(inode), Some(path)) = (fields.next(), fields.next()) else { continue };
            if path.starts_with(SHARED) {
                self.files.insert(path.into());
            } else if path.starts_with("/SYSV") {
                self.segments.extend(inode.parse::<u64>());
            }
        }
    }

    fn note_cgroup(&mut self, text: &str) {
        let own = text.lines().find_map(|line| line.strip_prefix("0::"));
        self.cgroups.extend(own.map(Into::into));
    }

    /// What others still use stays: a cgroup with processes is not removed, a segment lives as long as
    /// somebody has it.
    pub fn clear(&self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for segment in &self.segments {
            let _ = cmd("ipcrm").arg("-m").arg(segment.to_string()).output();
        }
        let Some(mount) = cgroups() else { return };
        for cgroup in &self.cgroups {
            let _ = fs::remove_dir(mount.join(cgroup.trim_start_matches('/')));
        }
    }
}

/// Where the hierarchy of version 2 is mounted.
pub(crate) fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(Path::new(line.split(' ').nth(4)?).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_and_the_cgroup_are_found() {
        let mut found = Remains::default();
        found.note_maps(
            "7f00-7f01 rw-s 00000000 00:01 32770      /SYSV0044a1b2 (deleted)\n\
             7f02-7f03 rw-s 00000000 00:19 88         /dev/shm/PostgreSQL.4711\n\
             7f04-7f05 rw-s 00000000 00:01 1024       /dev/zero (deleted)\n\
             7f06-7f07 r-xp 00000000 fe:00 4242       /usr/bin/postgres\n\
             7f08-7f09 rw-p 00000000 00:00 0\n",
        );
        found.note_cgroup("4:cpu:/elsewhere\n0::/lockstep/main.0badcafe\n");
        let expected = Remains {
            files: ["/dev/shm/PostgreSQL.4711".into()].into(),
            segments: [32770].into(),
            cgroups: ["/lockstep/main.0badcafe".to_owned()].into(),
        };
        assert_eq!(found, expected);
    }
}
