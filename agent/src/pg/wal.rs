//! PostgreSQL's write-ahead log on disk, of an instance without processes: where what is valid ends,
//! and on which history. Only reads; a log that is being written may be judged too short.

mod end;
mod history;
mod page;
mod segment;
mod walk;

pub use end::{WalEnd, WalError, find_end};
pub use history::{parse_lineage, read_lineage};
pub use segment::{Segment, SegmentSize, WalFileName, history_name};
pub use walk::segment_at;

use lockstep_model::cluster::{Lsn, SystemId};

use super::instance::Control;

/// What pg_control says of where recovery begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begin {
    pub system_id: SystemId,
    /// Of the latest checkpoint.
    pub timeline: u32,
    /// Of the latest checkpoint; a record begins there.
    pub redo: Lsn,
    /// What the data cannot do without, and its timeline: it went that way. 0/0: nothing, as of a
    /// primary's.
    pub needed: (u32, Lsn),
    pub segment_size: SegmentSize,
    /// Of a page of the log.
    pub page_bytes: u32,
}

/// As every distribution builds it; a log with others is found unusable, not misread.
const PAGE_BYTES: u32 = 8192;

impl Begin {
    /// None: the control file tells a size of segments that there is not.
    pub fn of(control: &Control) -> Option<Self> {
        Some(Self {
            system_id: control.system_id,
            timeline: control.timeline,
            redo: control.redo,
            needed: (control.min_recovery_timeline, control.min_recovery_end),
            segment_size: SegmentSize::new(u32::try_from(control.wal_segment).ok()?)?,
            page_bytes: PAGE_BYTES,
        })
    }
}
