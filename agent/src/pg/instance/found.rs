//! What is found without asking postgres: data, processes, room on the disks.

use lockstep_model::rate::Size;
use rustix::fs::{StatVfsMountFlags, statvfs};

use super::data::Data;
use super::layout::Layout;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Found {
    pub data: Data,
    pub processes: Processes,
    /// A start by hand would not open it writable.
    pub standby_signal: bool,
    pub space: Space,
    /// The disk does not answer: all but `processes` is as it was found last.
    pub storage_hangs: bool,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Processes {
    #[default]
    None,
    /// The postmaster lives.
    Running { pid: i32, stage: PostmasterStage },
    /// No postmaster has the data directory, and there are processes that may still commit. Their ids.
    Orphans(Vec<i32>),
}

/// The word that a postmaster writes into postmaster.pid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PostmasterStage {
    /// Crash recovery, or a standby that takes no sessions yet.
    Starting,
    Ready,
    /// A standby that takes sessions.
    Standby,
    Stopping,
}

/// What the file systems of an instance have left for its user.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Space {
    /// None: not known.
    pub data_free: Option<Size>,
    pub wal_free: Option<Size>,
    pub read_only: bool,
}

pub fn space(layout: &Layout) -> Space {
    let look = |path: &std::path::Path| statvfs(path).ok();
    let (data, wal) = (look(&layout.data), look(&layout.pg_wal()));
    let free = |found: &rustix::fs::StatVfs| Size(found.f_bavail.saturating_mul(found.f_frsize));
    let read_only = |found: &rustix::fs::StatVfs| found.f_flag.contains(StatVfsMountFlags::RDONLY);
    Space {
        data_free: data.as_ref().map(free),
        wal_free: wal.as_ref().map(free),
        read_only: [&data, &wal].into_iter().flatten().any(read_only),
    }
}
