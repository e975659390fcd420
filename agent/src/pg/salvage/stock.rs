//! Dead instances' logs that this node gives away: to another member of the same cluster with a later
//! term, and only while the offer stands. It reads, and changes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_model::ClusterName;
use lockstep_model::cluster::{Lsn, Term};
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::task::Peer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::{About, HISTORY_MAX, Part};
use crate::data::header::{Answer, WalRequest};
use crate::data::{Stream, refuse};
use crate::pg::wal::{Begin, Segment, WalEnd, history_name, segment_at};

/// Served at once, over all clusters of the node.
const SERVED_MAX: usize = 4;
/// A caller that takes nothing for so long is given up.
const IDLE_MAX: Duration = Duration::from_secs(10);
const CHUNK: usize = 256 << 10;

/// What a dead instance has to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub cluster: ClusterName,
    /// Given up; who asks has a later one.
    pub released: Term,
    pub pg_wal: PathBuf,
    pub begin: Begin,
    pub end: WalEnd,
    /// The other members.
    pub peers: Vec<Peer>,
}

/// All offers of this node; clones are the same.
#[derive(Clone)]
pub struct Stock {
    table: Arc<Mutex<Table>>,
    places: Arc<Semaphore>,
}

type Table = BTreeMap<ClusterName, (Arc<Offer>, CancellationToken)>;

impl Default for Stock {
    fn default() -> Self {
        Self { table: Arc::default(), places: Arc::new(Semaphore::new(SERVED_MAX)) }
    }
}

/// Stands while it is held: dropped before anything changes the log, a start above all. That ends what
/// is being read.
pub struct Offered {
    stock: Stock,
    cluster: ClusterName,
    withdrawn: CancellationToken,
}

impl Stock {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In place of an earlier one of the cluster.
    pub fn offer(&self, offer: Offer) -> Offered {
        let withdrawn = CancellationToken::new();
        let cluster = offer.cluster.clone();
        let former = self.lock().insert(cluster.clone(), (Arc::new(offer), withdrawn.clone()));
        if let Some((_, former)) = former {
            former.cancel();
        }
        Offered { stock: self.clone(), cluster, withdrawn }
    }

    fn admit(
        &self,
        request: &WalRequest,
        caller: &Principal,
    ) -> Result<(Arc<Offer>, CancellationToken), String> {
        let cluster = &request.cluster;
        let found = self.lock().get(cluster).cloned();
        let Some((offer, withdrawn)) = found else {
            return Err(format!("no dead instance of {cluster} is here to take log from"));
        };
        let is_caller = |peer: &Peer| {
            peer.key_hash == caller.key_hash && caller.subject == Subject::Node(peer.node.clone())
        };
        if !offer.peers.iter().any(is_caller) {
            return Err(format!(
                "{} is no member of {cluster} as this node knows it",
                caller.subject
            ));
        }
        if request.term <= offer.released {
            return Err(format!("term {} is not later than {}", request.term, offer.released));
        }
        Ok((offer, withdrawn))
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.withdrawn.cancel();
        let mut table = self.stock.lock();
        if table.get(&self.cluster).is_some_and(|(_, token)| token.is_cancelled()) {
            table.remove(&self.cluster);
        }
    }
}

/// Answers one request on an authenticated connection.
pub async fn serve(
    mut stream: impl Stream,
    caller: &Principal,
    request: &WalRequest,
    stock: &Stock,
) {
    let about = || Some((&request.cluster).into());
    let (offer, withdrawn) = match stock.admit(request, caller) {
        Ok(admitted) => admitted,
        Err(why) => return refuse(&mut stream, caller, about(), &why).await,
    };
    let Ok(_place) = stock.places.try_acquire() else {
        return refuse(&mut stream, caller, about(), "too many take log from here").await;
    };
    let given = offer.clone();
    let from = request.from;
    let planned = tokio::task::spawn_blocking(move || plan(&given, from)).await;
    let parts = match planned.map_err(io::Error::other).and_then(|planned| planned) {
        Ok(parts) => parts,
        Err(error) => return refuse(&mut stream, caller, about(), &error.to_string()).await,
    };
    let total_bytes = parts.iter().map(|(_, _, len)| u64::from(*len)).sum();
    if total_bytes > request.bytes_max {
        let why = format!("{total_bytes} bytes are missing, more than {}", request.bytes_max);
        return refuse(&mut stream, caller, about(), &why).await;
    }
    tracing::info!(target: "audit", cluster = %offer.cluster, caller = %caller.subject, total_bytes, "gives a dead instance's log away");
    tokio::select! {
        () = withdrawn.cancelled() => {
            tracing::warn!(cluster = %offer.cluster, "ended what took log from here: the instance is needed");
        }
        sent = send(&mut stream, &offer, request, parts, total_bytes) => if let Err(error) = sent {
            tracing::warn!(cluster = %offer.cluster, %error, "could not give the log away");
        }
    }
}

type Parts = Vec<(Segment, File, u32)>;

/// The files from a position to the end, each with how much of it is valid.
fn plan(offer: &Offer, from: Lsn) -> io::Result<Parts> {
    let (end, size) = (offer.end.end, offer.begin.segment_size);
    let mut parts = Vec::new();
    if from >= end {
        return Ok(parts);
    }
    for number in size.number(from)..=size.number(Lsn(end.0 - 1)) {
        let found = segment_at(&offer.pg_wal, &offer.end.lineage, &offer.begin, number)?;
        let Some((segment, file)) = found else {
            let missing = format!("the log from {from} on is no longer here");
            return Err(io::Error::new(io::ErrorKind::NotFound, missing));
        };
        let len = end.since(size.begin(number)).min(size.bytes());
        // A segment has at most 1 GiB.
        parts.push((segment, file, len as u32));
    }
    Ok(parts)
}

async fn send(
    stream: &mut impl Stream,
    offer: &Offer,
    request: &WalRequest,
    parts: Parts,
    total_bytes: u64,
) -> io::Result<()> {
    let Offer { begin, end, .. } = offer;
    Answer::Go.write(stream).await?;
    let about = About {
        system_id: begin.system_id,
        segment_size: begin.segment_size,
        lineage: end.lineage.clone(),
        end: end.end,
        total_bytes,
    };
    about.write(stream).await?;
    // In the order in which recovery needs them.
    for fork in end.lineage.0.iter().filter(|fork| fork.timeline > request.timeline) {
        let text = tokio::fs::read(offer.pg_wal.join(history_name(fork.timeline))).await?;
        let len = u32::try_from(text.len()).ok().filter(|len| *len <= HISTORY_MAX);
        let len = len.ok_or_else(|| io::Error::other("a history is far too long"))?;
        Part::History { timeline: fork.timeline, len }.write(stream).await?;
        stream.write_all(&text).await?;
    }
    let mut chunk = vec![0; CHUNK];
    for (segment, file, len) in parts {
        Part::Segment { segment, len }.write(stream).await?;
        let mut file = tokio::fs::File::from_std(file).take(len.into());
        let mut left = u64::from(len);
        while left > 0 {
            let n = file.read(&mut chunk).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let written = timeout(IDLE_MAX, stream.write_all(&chunk[..n])).await;
            written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            left -= n as u64;
        }
    }
    Part::End.write(stream).await?;
    stream.flush().await?;
    stream.shutdown().await
}
