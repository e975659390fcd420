//! In a tree a target is told what was brought to it, so that it can bring it on: one journal entry
//! after the header, and an answer once it is on its disk. Only a target itself knows whether it is a
//! relay by now; one that is none drops it. What is told is checked like a journal's.

use std::io;
use std::path::Path;
use std::time::Duration;

use lockstep_model::task::Peer;
use lockstep_model::{SyncName, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::header::{Answer, Header, Op};
use super::{Dial, Stream, ask};
use crate::dispatch;
use crate::journal::entry::{BODY_MAX, HEADER_LEN, Step, decode, encode};
use crate::journal::{Appender, Change, Entry};

/// For the entry and its way to the relay's disk.
const TELL_TIMEOUT: Duration = Duration::from_secs(60);

/// Ok when the relay has it on disk.
pub async fn tell(
    dial: &dyn Dial,
    peer: &Peer,
    sync: &SyncName,
    at: Timestamp,
    change: Change,
) -> Result<(), String> {
    let told = async {
        let mut stream = dial.dial(peer).await?;
        let header = Header { sync: sync.clone(), op: Op::Changes };
        expect_go(ask(&mut stream, &header).await?)?;
        let bytes = encode(&Entry { seq: 1, at, change });
        let sent = async {
            stream.write_u32(bytes.len() as u32).await?;
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            Answer::read(&mut stream).await
        };
        let answer = sent.await.map_err(|error| error.to_string())?;
        let _ = stream.shutdown().await;
        expect_go(answer)
    };
    match tokio::time::timeout(TELL_TIMEOUT, told).await {
        Ok(told) => told.map_err(|why| format!("{} was not told what changed: {why}", peer.node)),
        Err(_) => Err(format!("{} did not take in what changed", peer.node)),
    }
}

fn expect_go(answer: Answer) -> Result<(), String> {
    match answer {
        Answer::Go => Ok(()),
        Answer::Unfilled => Err("it needs a complete pass first".to_owned()),
        Answer::Refused(why) => Err(why),
    }
}

/// How far the journal below `state_dir` is.
pub async fn head(state_dir: &Path) -> io::Result<u64> {
    let journal = state_dir.join(dispatch::JOURNAL);
    let open = move || Appender::open(&journal).map(|journal| journal.head());
    tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// Takes one entry into the journal below `state_dir`, if there is one to be brought on; it is on
/// disk when the caller hears so.
pub async fn take(stream: &mut impl Stream, state_dir: Option<&Path>) -> io::Result<()> {
    Answer::Go.write(stream).await?;
    let read = async {
        let len = stream.read_u32().await? as usize;
        if len > HEADER_LEN + BODY_MAX {
            return Err(io::Error::other("the entry is too long"));
        }
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).await?;
        match decode(&bytes, 0) {
            Step::Entry { entry, .. } => Ok(entry),
            _ => Err(io::Error::other("that is no entry")),
        }
    };
    let entry = tokio::time::timeout(TELL_TIMEOUT, read).await.map_err(io::Error::other)??;
    let dir = state_dir.map(Path::to_owned);
    let append = move || {
        let Some(dir) = dir else { return Ok(()) };
        let appended = Appender::open(&dir.join(dispatch::JOURNAL))
            .and_then(|mut journal| journal.append(entry.at, entry.change));
        dispatch::poke(&dir);
        appended.map(drop)
    };
    let appended = tokio::task::spawn_blocking(append).await.map_err(io::Error::other)?;
    let answer = match appended {
        Ok(()) => Answer::Go,
        Err(error) => Answer::Refused(error.to_string()),
    };
    answer.write(stream).await?;
    stream.shutdown().await
}
