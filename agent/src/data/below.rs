//! In a tree a feeder hears how far those are that its target feeds in turn: after the header frames
//! come, one at once and one with each change, until either side goes. Only tells; nothing is decided.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_model::sync::TARGETS_MAX;
use lockstep_model::task::Peer;
use lockstep_model::{NodeName, SyncName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::header::{Answer, Header, Op};
use super::{Dial, Stream, ask};

/// How far each copy has everything, by the source's journal; None: it owes a pass, or nobody knows.
pub type Standing = BTreeMap<NodeName, Option<u64>>;

/// How often a frame comes when nothing has changed.
const REPEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a feeder goes without one before it takes the connection for dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a frame may take to be taken.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Largest frame, in bytes: a name of 63 with its length, and a sequence, of each target.
const FRAME_MAX: usize = TARGETS_MAX * (1 + 63 + 8);

/// Tells the caller until it is gone, or this copy is nobody's.
pub async fn tell(stream: &mut impl Stream, mut standing: watch::Receiver<Standing>) {
    if Answer::Go.write(stream).await.is_err() {
        return;
    }
    loop {
        let frame = encode(&standing.borrow_and_update());
        let write = async {
            stream.write_u32(frame.len() as u32).await?;
            stream.write_all(&frame).await?;
            stream.flush().await
        };
        if !matches!(tokio::time::timeout(WRITE_MAX, write).await, Ok(Ok(()))) {
            return;
        }
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(REPEAT_INTERVAL) => {}
        }
    }
}

/// Hands on what the target tells, until it does no more; the error says why.
pub async fn hear(
    dial: &dyn Dial,
    peer: &Peer,
    sync: &SyncName,
    mut take: impl FnMut(Standing),
) -> Result<(), String> {
    let mut stream = dial.dial(peer).await?;
    let header = Header { sync: sync.clone(), op: Op::Below };
    match ask(&mut stream, &header).await? {
        Answer::Go => {}
        Answer::Unfilled => return Err("it needs a complete pass first".to_owned()),
        Answer::Refused(why) => return Err(why),
    }
    loop {
        let read = async {
            let len = stream.read_u32().await.map_err(|error| error.to_string())? as usize;
            if len > FRAME_MAX {
                return Err("it tells of too many copies".to_owned());
            }
            let mut frame = vec![0; len];
            stream.read_exact(&mut frame).await.map_err(|error| error.to_string())?;
            decode(&frame)
        };
        let read = tokio::time::timeout(SILENCE_MAX, read).await;
        take(read.map_err(|_| "it went silent".to_owned())??);
    }
}

fn encode(standing: &Standing) -> Vec<u8> {
    let mut out = Vec::new();
    for (node, upto) in standing.iter().take(TARGETS_MAX) {
        // A name has at most 63 bytes.
        out.push(node.as_str().len() as u8);
        out.extend(node.as_str().as_bytes());
        out.extend(upto.unwrap_or(0).to_be_bytes());
    }
    out
}

fn decode(mut frame: &[u8]) -> Result<Standing, String> {
    let mut standing = Standing::new();
    while let [len, rest @ ..] = frame {
        let cut = || "what it tells is cut short".to_owned();
        let (name, rest) = rest.split_at_checked(usize::from(*len)).ok_or_else(cut)?;
        let (upto, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let name = str::from_utf8(name).map_err(|_| "a node's name is not text".to_owned())?;
        let node = name.parse::<NodeName>().map_err(|error| error.to_string())?;
        let upto = u64::from_be_bytes(*upto);
        standing.insert(node, (upto > 0).then_some(upto));
        frame = rest;
    }
    Ok(standing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_is_read_as_written(
            told in prop::collection::btree_map("[a-z0-9]{1,63}", prop::option::of(1u64..), 0..9)
        ) {
            let standing: Standing =
                told.into_iter().map(|(node, upto)| (node.parse().unwrap(), upto)).collect();
            let frame = encode(&standing);
            prop_assert_eq!(decode(&frame).unwrap(), standing);
            prop_assert!(frame.is_empty() || decode(&frame[..frame.len() - 1]).is_err());
        }

        #[test]
        fn garbage_is_an_error(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
