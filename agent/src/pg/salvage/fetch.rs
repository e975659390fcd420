//! A candidate's side: asks the old one's agent for the log that it lacks, and puts it where its
//! recovery finds it. It replays nothing and promotes nobody.

use std::io::Write;
use std::time::Duration;

use lockstep_model::cluster::{Lineage, Lsn, Term};
use lockstep_model::task::Peer;
use lockstep_model::{ClusterName, Millis};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::{About, Part};
use super::shelf::Shelf;
use crate::data::header::{Answer, Request, WalRequest};
use crate::data::{self, Dial, Stream};
use crate::pg::copy::Moved;
use crate::pg::instance::Instance;
use crate::pg::wal::{Begin, Segment, SegmentSize, history_name};

const CHUNK: usize = 256 << 10;

/// What a candidate lacks.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub cluster: &'a ClusterName,
    /// The one that it is sealed for.
    pub term: Term,
    /// Its own.
    pub lineage: &'a Lineage,
    /// Replayed; what lies before its segment is not asked for.
    pub from: Lsn,
    /// More than this is refused, in bytes.
    pub bytes_max: u64,
    /// For all of it.
    pub limit: Millis,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Salvaged {
    /// Brought over in this call.
    pub bytes: u64,
    /// Where the dead instance's log ends: replayed up to here nothing is lost.
    pub end: Lsn,
}

/// Brings segments and histories to where recovery finds them. Again is fine: what is there already
/// is not brought again. The error is one line.
pub async fn fetch(
    instance: &Instance,
    dial: &dyn Dial,
    from: &Peer,
    wish: Wish<'_>,
    progress: &watch::Sender<Moved>,
    stop: &CancellationToken,
) -> Result<Salvaged, String> {
    let limit = Duration::from_millis(wish.limit.0);
    let brought = async {
        let begin = instance.data().await.control().and_then(Begin::of);
        let own = begin.ok_or("this member's own control file cannot be read")?;
        let shelf = Shelf::open(instance, &from.node, wish.term)?;
        bring(&shelf, &own, dial, from, wish, progress).await
    };
    tokio::select! {
        () = stop.cancelled() => Err("it was stopped".to_owned()),
        brought = timeout(limit, brought) => match brought {
            Ok(brought) => brought.map_err(|why| format!("log of {}: {why}", from.node)),
            Err(_) => Err(format!(
                "log of {}: it was not here within {} ms; {} bytes were",
                from.node, wish.limit.0, progress.borrow().done_bytes
            )),
        },
    }
}

async fn bring(
    shelf: &Shelf,
    own: &Begin,
    dial: &dyn Dial,
    peer: &Peer,
    wish: Wish<'_>,
    progress: &watch::Sender<Moved>,
) -> Result<Salvaged, String> {
    let size = own.segment_size;
    let request = WalRequest {
        cluster: wish.cluster.clone(),
        term: wish.term,
        timeline: wish.lineage.timeline(),
        from: first_missing(shelf, size, &wish),
        bytes_max: wish.bytes_max,
    };
    let mut stream = dial.dial(peer).await?;
    match data::ask(&mut stream, Request::Wal(request)).await? {
        Answer::Go => {}
        Answer::Unfilled => return Err("it has none".to_owned()),
        Answer::Refused(why) => return Err(why),
    }
    let cut = |error: std::io::Error| format!("it was cut short: {error}");
    let about = About::read(&mut stream).await.map_err(cut)?;
    check(&about, own, &wish)?;
    let mut done = Moved { done_bytes: 0, total_bytes: Some(about.total_bytes) };
    progress.send_replace(done);
    loop {
        let part = Part::read(&mut stream, size).await.map_err(cut)?;
        let (name, len, bytes) = match part {
            Part::End => return Ok(Salvaged { bytes: done.done_bytes, end: about.end }),
            Part::History { timeline, len } => (history_name(timeline), len, u64::from(len)),
            Part::Segment { segment, len } => {
                done.done_bytes += u64::from(len);
                if done.done_bytes > wish.bytes_max {
                    return Err("it sends more than it said".to_owned());
                }
                (segment.name(size), len, size.bytes())
            }
        };
        take(shelf, &mut stream, &name, len, bytes).await?;
        progress.send_replace(done);
    }
}

/// The same database, and a log that goes on from where this one is.
fn check(about: &About, own: &Begin, wish: &Wish<'_>) -> Result<(), String> {
    if about.system_id != own.system_id || about.segment_size != own.segment_size {
        return Err(format!("it is of database {}, not {}", about.system_id, own.system_id));
    }
    if !wish.lineage.is_part_of(wish.from, &about.lineage) {
        return Err("its history is another one than this member's".to_owned());
    }
    match about.total_bytes <= wish.bytes_max {
        true => Ok(()),
        false => Err(format!("{} bytes are more than {}", about.total_bytes, wish.bytes_max)),
    }
}

/// What an earlier try brought is whole.
fn first_missing(shelf: &Shelf, size: SegmentSize, wish: &Wish<'_>) -> Lsn {
    let mut number = size.number(wish.from);
    let has = |number| {
        let timelines = wish.lineage.0.iter().map(|fork| fork.timeline);
        timelines.into_iter().any(|timeline| shelf.has(&Segment { timeline, number }.name(size)))
    };
    if !has(number) {
        return wish.from;
    }
    while has(number) {
        number += 1;
    }
    size.begin(number)
}

async fn take(
    shelf: &Shelf,
    stream: &mut impl Stream,
    name: &str,
    len: u32,
    bytes: u64,
) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{name}: {error}");
    let mut file = shelf.begin(name).map_err(fail)?;
    let mut chunk = vec![0; CHUNK.min(len as usize)];
    let mut left = len as usize;
    while left > 0 {
        let piece = CHUNK.min(left);
        stream.read_exact(&mut chunk[..piece]).await.map_err(fail)?;
        file.write_all(&chunk[..piece]).map_err(fail)?;
        left -= piece;
    }
    shelf.put(name, &file, bytes).map_err(fail)
}
