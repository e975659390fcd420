//! Renames carried over as renames: what a source tells a target's agent on its data port, and what
//! that answers. A hint only saves bytes; the delivery after it makes the copy right either way.
//! Both sides read with limits.

pub mod apply;
pub mod recent;

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::index::Kind;
use crate::index::absorb::Move;
use crate::journal::entry::is_rel_path;
use apply::Applier;

/// Largest block of hints, in bytes.
const BLOCK_MAX: usize = 1 << 20;
/// Most blocks on one connection.
const BLOCKS_MAX: usize = 256;
/// For one block or its answer to come.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a hint but its names: kinds, size, time, two lengths.
const FIXED_LEN: usize = 1 + 8 + 8 + 2 + 2;

/// What became of one hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Applied,
    /// Nothing is at the old name.
    Missing,
    /// Something else than expected is at the old name.
    Different,
    /// Something unexpected is at the new name.
    Occupied,
    /// A link or a mount is on the way, or the file system cannot do it.
    Failed,
    /// One before it failed, and this might build upon it.
    Left,
}

/// What came of a connection's hints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    pub applied: usize,
    pub skipped: usize,
    pub sent_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum MovesError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("it does not answer")]
    Silent,
    #[error("moves: {0}")]
    Malformed(&'static str),
}

/// Tells a target, after its "go", what moved.
pub async fn tell(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    moves: &[Move],
) -> Result<Told, MovesError> {
    let mut told = Told::default();
    for (block, len) in blocks(moves).into_iter().take(BLOCKS_MAX) {
        let exchange = async {
            stream.write_u32(block.len() as u32).await?;
            stream.write_all(&block).await?;
            stream.flush().await?;
            let mut verdicts = vec![0; len];
            stream.read_exact(&mut verdicts).await?;
            Ok::<_, std::io::Error>(verdicts)
        };
        let verdicts = tokio::time::timeout(BLOCK_TIMEOUT, exchange)
            .await
            .map_err(|_| MovesError::Silent)??;
        let applied = verdicts.iter().filter(|v| **v == Verdict::Applied as u8).count();
        told.applied += applied;
        told.skipped += len - applied;
        told.sent_bytes += block.len() as u64 + 4;
    }
    stream.write_u32(0).await?;
    stream.shutdown().await?;
    Ok(told)
}

/// Takes hints, after its "go", and applies them below `root`, to the connection's end. When it
/// returns, or is dropped, no hint is applied any more but at most the one at work.
pub async fn serve(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    root: PathBuf,
) -> Result<Told, MovesError> {
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let opened = tokio::task::spawn_blocking(move || Applier::open(&root));
    let mut applier = opened.await.map_err(std::io::Error::other)??;
    let mut told = Told::default();
    for _ in 0..=BLOCKS_MAX {
        let block = tokio::time::timeout(BLOCK_TIMEOUT, read_block(stream));
        let block = block.await.map_err(|_| MovesError::Silent)??;
        if block.is_empty() {
            return Ok(told);
        }
        let moves = decode(&block)?;
        let stop = stop.clone();
        let apply = move || {
            let one = |a: &Move| (!stop.is_cancelled()).then(|| applier.apply(a));
            let verdicts: Vec<Verdict> = moves.iter().map_while(one).collect();
            (applier, verdicts)
        };
        let (back, verdicts) =
            tokio::task::spawn_blocking(apply).await.map_err(std::io::Error::other)?;
        applier = back;
        let answer: Vec<u8> = verdicts.iter().map(|verdict| *verdict as u8).collect();
        let applied = verdicts.iter().filter(|v| **v == Verdict::Applied).count();
        told.applied += applied;
        told.skipped += verdicts.len() - applied;
        stream.write_all(&answer).await?;
        stream.flush().await?;
    }
    Err(MovesError::Malformed("too many blocks"))
}

async fn read_block(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, MovesError> {
    let len = stream.read_u32().await? as usize;
    if len > BLOCK_MAX {
        return Err(MovesError::Malformed("a block is too long"));
    }
    let mut block = vec![0; len];
    stream.read_exact(&mut block).await?;
    Ok(block)
}

/// Blocks with the number of hints in each.
fn blocks(moves: &[Move]) -> Vec<(Vec<u8>, usize)> {
    let mut blocks: Vec<(Vec<u8>, usize)> = Vec::new();
    for a in moves {
        let len = FIXED_LEN + a.from.len() + a.to.len();
        match blocks.last_mut() {
            Some((block, count)) if block.len() + len <= BLOCK_MAX => {
                encode(block, a);
                *count += 1;
            }
            _ => {
                let mut block = Vec::new();
                encode(&mut block, a);
                blocks.push((block, 1));
            }
        }
    }
    blocks
}

fn encode(out: &mut Vec<u8>, a: &Move) {
    out.push(number(Some(a.kind)) << 4 | number(a.over));
    out.extend(a.size.to_be_bytes());
    out.extend(a.mtime_ns.to_be_bytes());
    // A path has at most 4096 bytes.
    out.extend((a.from.len() as u16).to_be_bytes());
    out.extend((a.to.len() as u16).to_be_bytes());
    out.extend_from_slice(&a.from);
    out.extend_from_slice(&a.to);
}

fn number(kind: Option<Kind>) -> u8 {
    match kind {
        None => 0,
        Some(Kind::File) => 1,
        Some(Kind::Directory) => 2,
        Some(Kind::Other) => 3,
    }
}

fn decode(mut block: &[u8]) -> Result<Vec<Move>, MovesError> {
    let mut moves = Vec::new();
    while !block.is_empty() {
        let (a, rest) = decode_one(block).ok_or(MovesError::Malformed("a hint makes no sense"))?;
        moves.push(a);
        block = rest;
    }
    Ok(moves)
}

fn decode_one(bytes: &[u8]) -> Option<(Move, &[u8])> {
    let (kinds, rest) = bytes.split_first()?;
    let kind = match kinds >> 4 {
        1 => Kind::File,
        2 => Kind::Directory,
        _ => return None,
    };
    let over = match kinds & 0xf {
        0 => None,
        1 => Some(Kind::File),
        2 => Some(Kind::Directory),
        3 => Some(Kind::Other),
        _ => return None,
    };
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (mtime_ns, rest) = rest.split_first_chunk::<8>()?;
    let (from_len, rest) = rest.split_first_chunk::<2>()?;
    let (to_len, rest) = rest.split_first_chunk::<2>()?;
    let (from, rest) = rest.split_at_checked(u16::from_be_bytes(*from_len).into())?;
    let (to, rest) = rest.split_at_checked(u16::from_be_bytes(*to_len).into())?;
    (is_rel_path(from) && is_rel_path(to)).then(|| {
        let (size, mtime_ns) = (u64::from_be_bytes(*size), i64::from_be_bytes(*mtime_ns));
        (Move { from: from.into(), to: to.into(), kind, size, mtime_ns, over }, rest)
    })
}

#[cfg(test)]
mod tests;
