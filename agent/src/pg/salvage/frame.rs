//! What goes over the connection after the go: what the dead log is, and then its files. Read with
//! limits; says nothing of what is done with it.

use std::io;

use lockstep_model::cluster::wal::{Fork, TIMELINES_MAX};
use lockstep_model::cluster::{Lineage, Lsn, SystemId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pg::wal::{Segment, SegmentSize};

/// Largest history, in bytes.
pub const HISTORY_MAX: u32 = 1 << 20;

/// The dead log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    pub system_id: SystemId,
    pub segment_size: SegmentSize,
    pub lineage: Lineage,
    pub end: Lsn,
    /// Of all segments that follow.
    pub total_bytes: u64,
}

/// Its bytes follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    History {
        timeline: u32,
        len: u32,
    },
    /// Its first `len` bytes; behind them it is empty.
    Segment {
        segment: Segment,
        len: u32,
    },
    End,
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl About {
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let Self { system_id, segment_size, lineage, end, total_bytes } = self;
        let mut out = Vec::new();
        for number in [system_id.0, segment_size.bytes(), end.0, *total_bytes] {
            out.extend(number.to_be_bytes());
        }
        let forks = &lineage.0[..lineage.0.len().min(TIMELINES_MAX)];
        out.extend((forks.len() as u16).to_be_bytes());
        for Fork { timeline, begins } in forks {
            out.extend(timeline.to_be_bytes());
            out.extend(begins.0.to_be_bytes());
        }
        to.write_all(&out).await
    }

    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let system_id = SystemId(from.read_u64().await?);
        let size = u32::try_from(from.read_u64().await?).ok().and_then(SegmentSize::new);
        let segment_size = size.ok_or_else(|| invalid("segments of such a size do not exist"))?;
        let (end, total_bytes) = (Lsn(from.read_u64().await?), from.read_u64().await?);
        let count = usize::from(from.read_u16().await?);
        if count > TIMELINES_MAX {
            return Err(invalid("it tells of too many timelines"));
        }
        let mut forks = Vec::with_capacity(count);
        for _ in 0..count {
            let timeline = from.read_u32().await?;
            forks.push(Fork { timeline, begins: Lsn(from.read_u64().await?) });
        }
        Ok(Self { system_id, segment_size, lineage: Lineage(forks), end, total_bytes })
    }
}

impl Part {
    pub async fn write(self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (kind, timeline, number, len) = match self {
            Self::End => (0u8, 0, 0, 0),
            Self::History { timeline, len } => (1, timeline, 0, len),
            Self::Segment { segment, len } => (2, segment.timeline, segment.number, len),
        };
        let mut out = vec![kind];
        out.extend(timeline.to_be_bytes());
        out.extend(number.to_be_bytes());
        out.extend(len.to_be_bytes());
        to.write_all(&out).await
    }

    pub async fn read(from: &mut (impl AsyncRead + Unpin), size: SegmentSize) -> io::Result<Self> {
        let (kind, timeline) = (from.read_u8().await?, from.read_u32().await?);
        let (number, len) = (from.read_u64().await?, from.read_u32().await?);
        match kind {
            0 => Ok(Self::End),
            1 if len <= HISTORY_MAX && timeline > 0 => Ok(Self::History { timeline, len }),
            2 if u64::from(len) <= size.bytes() && timeline > 0 => {
                Ok(Self::Segment { segment: Segment { timeline, number }, len })
            }
            _ => Err(invalid("it sends something that is no part of a log")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    proptest! {
        #[test]
        fn what_is_told_is_read_as_written(
            numbers: [u64; 3], power in 20u32..=30, forks: Vec<(u32, u64)>, timeline in 1u32.., number: u64
        ) {
            let segment_size = SegmentSize::new(1 << power).unwrap();
            let forks = forks.into_iter().map(|(timeline, begins)| Fork { timeline, begins: Lsn(begins) });
            let about = About {
                system_id: SystemId(numbers[0]),
                segment_size,
                lineage: Lineage(forks.collect()),
                end: Lsn(numbers[1]),
                total_bytes: numbers[2],
            };
            let segment = Segment { timeline, number };
            let parts = [Part::Segment { segment, len: 1 << 20 }, Part::History { timeline, len: 7 }, Part::End];
            let mut bytes = Vec::new();
            run(async {
                about.write(&mut bytes).await.unwrap();
                for part in parts {
                    part.write(&mut bytes).await.unwrap();
                }
                let mut from = &bytes[..];
                assert_eq!(About::read(&mut from).await.unwrap(), about);
                for part in parts {
                    assert_eq!(Part::read(&mut from, segment_size).await.unwrap(), part);
                }
                assert!(from.is_empty());
            });
        }

        #[test]
        fn garbage_is_an_error(bytes: Vec<u8>) {
            run(async {
                let _ = About::read(&mut &bytes[..]).await;
                let _ = Part::read(&mut &bytes[..], SegmentSize::new(1 << 20).unwrap()).await;
            });
        }
    }
}
