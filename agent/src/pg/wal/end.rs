//! Where the log of a dead instance ends, and on which history: what its recovery would come to, and
//! for data that went two ways, the end of the way that the cluster did not go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use lockstep_model::cluster::wal::Fork;
use lockstep_model::cluster::{Lineage, Lsn};

use super::Begin;
use super::history::{newer_timelines, read_lineage};
use super::walk::{Log, Walk};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalEnd {
    /// Timelines on which something was written before `end`.
    pub lineage: Lineage,
    /// Behind the last complete record.
    pub end: Lsn,
    /// Where that record begins.
    pub last: Lsn,
    /// It is the checkpoint of a clean stop.
    pub is_shutdown: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: there is no valid record at {redo}, where recovery has to begin", path.display())]
    Unusable { path: PathBuf, redo: Lsn },
    #[error("looking for the end of the log was given up")]
    Stopped,
}

/// `flushed`: a position that is known to have been on disk while the instance ran; what lies before
/// is then not read again. Blocks; ends soon after `stop` was set.
pub fn find_end(
    pg_wal: &Path,
    begin: &Begin,
    flushed: Option<Lsn>,
    stop: &AtomicBool,
) -> Result<WalEnd, WalError> {
    let path = || pg_wal.to_owned();
    match (Search { pg_wal, begin, stop }).run(flushed) {
        Ok(Some(end)) => Ok(end),
        Ok(None) => Err(WalError::Unusable { path: path(), redo: begin.redo }),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(WalError::Stopped),
        Err(source) => Err(WalError::Io { path: path(), source }),
    }
}

struct Search<'a> {
    pg_wal: &'a Path,
    begin: &'a Begin,
    stop: &'a AtomicBool,
}

impl Search<'_> {
    fn run(&self, flushed: Option<Lsn>) -> io::Result<Option<WalEnd>> {
        let Begin { timeline, redo, .. } = *self.begin;
        for newer in newer_timelines(self.pg_wal, timeline)? {
            let Ok(lineage) = read_lineage(self.pg_wal, newer) else { continue };
            let own = lineage.0.iter().position(|fork| fork.timeline == timeline);
            let Some(next) = own.and_then(|own| lineage.0.get(own + 1)) else { continue };
            if next.begins < redo {
                continue;
            }
            let found = self.walk(&lineage, None)?;
            // Else its history came, and nothing of it.
            if let Some(found) = found.filter(|found| found.lineage.timeline() == newer) {
                return self.first_way(found).map(Some);
            }
        }
        let lineage = read_lineage(self.pg_wal, timeline)?;
        self.walk(&lineage, flushed.filter(|flushed| *flushed > redo))
    }

    /// What was written on a timeline after it was left may be in the data: then that way counts.
    /// Not once the data needs the other: pg_rewind leaves the log of the way that it took back.
    fn first_way(&self, found: WalEnd) -> io::Result<WalEnd> {
        let forks = &found.lineage.0;
        let (timeline, needed) = self.begin.needed;
        let went_on = forks.iter().any(|fork| fork.timeline == timeline);
        for (at, fork) in forks.iter().enumerate().skip(1) {
            let taken = went_on && fork.timeline <= timeline && fork.begins < needed;
            if taken || fork.begins < self.begin.redo {
                continue;
            }
            let way = self.walk(&Lineage(forks[..at].to_vec()), None)?;
            if let Some(way) = way.filter(|way| way.end > fork.begins) {
                return Ok(way);
            }
        }
        Ok(found)
    }

    fn walk(&self, chain: &Lineage, flushed: Option<Lsn>) -> io::Result<Option<WalEnd>> {
        let log = || Log::new(self.pg_wal, self.begin, chain, self.stop);
        let size = self.begin.segment_size;
        if let Some(flushed) = flushed
            && size.number(flushed) > size.number(self.begin.redo)
            && let Some(mut walk) = Walk::from_segment(log(), size.number(flushed))?
        {
            walk.finish()?;
            if walk.next >= flushed && walk.last.is_some() {
                return Ok(self.result(chain, &walk));
            }
        }
        let mut walk = Walk::from_record(log(), self.begin.redo);
        walk.finish()?;
        Ok(self.result(chain, &walk))
    }

    fn result(&self, chain: &Lineage, walk: &Walk<'_>) -> Option<WalEnd> {
        let last = walk.last?;
        let written =
            |fork: &&Fork| fork.timeline <= self.begin.timeline || fork.begins < walk.next;
        Some(WalEnd {
            lineage: Lineage(chain.0.iter().take_while(written).copied().collect()),
            end: walk.next,
            last: last.start,
            is_shutdown: last.is_shutdown(),
        })
    }
}
