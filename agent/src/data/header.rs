//! The first words on a connection between two agents' data ports: which sync, mirror or cluster and
//! what for, and the answer. After a "go" the stream belongs to what was asked for. Both sides read with limits.

use std::fmt;

use lockstep_model::cluster::{Lsn, Term};
use lockstep_model::{ClusterName, Invalid, Millis, MirrorName, SyncName, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The one that is spoken here; a peer that speaks another is refused by number.
const VERSION: u8 = 3;
/// What is wanted of a mirror; of a sync it is an `Op`, whose numbers are others.
const PULL: u8 = 8;
/// Of a cluster.
const PROMISE: u8 = 9;
const WAL: u8 = 10;
/// Largest header, in bytes.
pub const HEADER_MAX: usize = 128;
/// In a mark that does not tell it.
const LAG_UNTOLD: u64 = u64::MAX;
/// Longest text of an answer, in bytes.
pub const TEXT_MAX: usize = 512;

/// What a connection is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    Sync(Header),
    /// A mirror's tree is read; rsync follows.
    Pull(MirrorName),
    /// A primary wants a member's promise; after a go its length follows, 8 bytes big-endian.
    Promise(Question),
    /// A dead instance's log is taken; frames of `pg::salvage` follow.
    Wal(WalRequest),
}

/// Take part in no later term for so long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    pub cluster: ClusterName,
    pub term: Term,
    pub length: Millis,
}

/// The log from a position on, of a member's dead instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalRequest {
    pub cluster: ClusterName,
    /// What the caller is sealed for.
    pub term: Term,
    /// What the caller's data is on.
    pub timeline: u32,
    pub from: Lsn,
    pub bytes_max: u64,
}

/// What a connection is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum About {
    Sync(SyncName),
    Mirror(MirrorName),
    Cluster(ClusterName),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub sync: SyncName,
    pub op: Op,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// rsync follows; `pass` when it brings everything and not only what changed.
    Push { pass: bool },
    /// All of it is here; no more follows.
    Mark(Mark),
    /// The two copies are compared; frames of `verify` follow.
    Verify,
    /// Names that moved on the source; frames of `moves` follow.
    Move,
    /// A relay is told what changed on it; frames of the journal follow.
    Changes,
    /// In a tree, before a delivery; no more follows.
    Offer(Offer),
    /// So many entries may be removed behind a relay on top of what the limit allows, since they may
    /// on the relay itself; no more follows.
    Allow { entries: u64 },
    /// In a tree, how far those are that the target feeds; frames of `below` follow.
    Below,
}

/// Where a feeder is in the journal of the source, and its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The feeder has everything up to here.
    pub has: u64,
    /// Nothing above this will come.
    pub upto: u64,
    /// The target has everything up to here, as the feeder knows; 0 when it does not.
    pub target_has: u64,
}

impl Offer {
    /// What the source itself has.
    pub const ALL: u64 = u64::MAX;
}

/// What the source knows of the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// A complete pass has just come through.
    pub filled: bool,
    /// Something was brought since the mark before.
    pub changed: bool,
    /// Everything up to this journal sequence is there.
    pub acked: u64,
    /// Source's clock.
    pub at: Timestamp,
    /// How old the oldest change is that is not there; None: as it was told before.
    pub lag: Option<Millis>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Go,
    /// The target needs a complete pass first.
    Unfilled,
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("header version {0} is not known here: agents must be of about the same version")]
    Version(u8),
    #[error("header: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Name(#[from] Invalid),
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = head(self.sync.as_str());
        match self.op {
            Op::Push { pass } => body.extend([0, u8::from(pass)]),
            Op::Mark(Mark { filled, changed, acked, at, lag }) => {
                body.extend([1, u8::from(filled), u8::from(changed)]);
                body.extend(acked.to_be_bytes());
                body.extend(at.0.to_be_bytes());
                body.extend(lag.map_or(LAG_UNTOLD, |lag| lag.0).to_be_bytes());
            }
            Op::Verify => body.push(2),
            Op::Move => body.push(3),
            Op::Changes => body.push(4),
            Op::Offer(Offer { has, upto, target_has }) => {
                body.push(5);
                [has, upto, target_has].iter().for_each(|n| body.extend(n.to_be_bytes()));
            }
            Op::Allow { entries } => {
                body.push(6);
                body.extend(entries.to_be_bytes());
            }
            Op::Below => body.push(7),
        }
        envelope(&body)
    }

    pub fn decode(body: &[u8]) -> Result<Self, HeaderError> {
        let (name, rest) = split(body)?;
        let op = match rest {
            [0, pass @ (0 | 1)] => Op::Push { pass: *pass == 1 },
            [1, filled @ (0 | 1), changed @ (0 | 1), numbers @ ..] => {
                let [acked, at, lag] = read_numbers(numbers)?;
                Op::Mark(Mark {
                    filled: *filled == 1,
                    changed: *changed == 1,
                    acked,
                    at: Timestamp(at),
                    lag: (lag != LAG_UNTOLD).then_some(Millis(lag)),
                })
            }
            [2] => Op::Verify,
            [3] => Op::Move,
            [4] => Op::Changes,
            [5, numbers @ ..] => {
                let [has, upto, target_has] = read_numbers(numbers)?;
                Op::Offer(Offer { has, upto, target_has })
            }
            [6, numbers @ ..] => {
                let [entries] = read_numbers(numbers)?;
                Op::Allow { entries }
            }
            [7] => Op::Below,
            _ => return Err(HeaderError::Malformed("unknown request")),
        };
        Ok(Self { sync: name.parse()?, op })
    }
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Sync(header) => header.encode(),
            Self::Pull(mirror) => envelope(&[head(mirror.as_str()), vec![PULL]].concat()),
            Self::Promise(Question { cluster, term, length }) => {
                let mut body = head(cluster.as_str());
                body.push(PROMISE);
                [term.0, length.0].iter().for_each(|n| body.extend(n.to_be_bytes()));
                envelope(&body)
            }
            Self::Wal(WalRequest { cluster, term, timeline, from, bytes_max }) => {
                let mut body = head(cluster.as_str());
                body.push(WAL);
                let numbers = [term.0, (*timeline).into(), from.0, *bytes_max];
                numbers.iter().for_each(|n| body.extend(n.to_be_bytes()));
                envelope(&body)
            }
        }
    }

    pub fn decode(body: &[u8]) -> Result<Self, HeaderError> {
        match split(body)? {
            (name, [PULL]) => Ok(Self::Pull(name.parse()?)),
            (name, [PROMISE, numbers @ ..]) => {
                let [term, length] = read_numbers(numbers)?;
                let cluster = name.parse()?;
                Ok(Self::Promise(Question { cluster, term: Term(term), length: Millis(length) }))
            }
            (name, [WAL, numbers @ ..]) => {
                let [term, timeline, from, bytes_max] = read_numbers(numbers)?;
                let timeline = timeline.try_into();
                Ok(Self::Wal(WalRequest {
                    cluster: name.parse()?,
                    term: Term(term),
                    timeline: timeline.map_err(|_| HeaderError::Malformed("no such timeline"))?,
                    from: Lsn(from),
                    bytes_max,
                }))
            }
            _ => Header::decode(body).map(Self::Sync),
        }
    }

    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, HeaderError> {
        let len = usize::from(from.read_u16().await?);
        if len > HEADER_MAX {
            return Err(HeaderError::Malformed("it is too long"));
        }
        let mut body = vec![0; len];
        from.read_exact(&mut body).await?;
        Self::decode(&body)
    }

    pub fn about(&self) -> About {
        match self {
            Self::Sync(header) => (&header.sync).into(),
            Self::Pull(mirror) => mirror.into(),
            Self::Promise(question) => (&question.cluster).into(),
            Self::Wal(request) => (&request.cluster).into(),
        }
    }
}

impl From<&Header> for Request {
    fn from(header: &Header) -> Self {
        Self::Sync(header.clone())
    }
}

impl From<&SyncName> for About {
    fn from(sync: &SyncName) -> Self {
        Self::Sync(sync.clone())
    }
}

impl From<&MirrorName> for About {
    fn from(mirror: &MirrorName) -> Self {
        Self::Mirror(mirror.clone())
    }
}

impl From<&ClusterName> for About {
    fn from(cluster: &ClusterName) -> Self {
        Self::Cluster(cluster.clone())
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync(sync) => write!(f, "{sync}"),
            Self::Mirror(mirror) => write!(f, "mirror {mirror}"),
            Self::Cluster(cluster) => write!(f, "cluster {cluster}"),
        }
    }
}

fn head(name: &str) -> Vec<u8> {
    // A name has at most 63 bytes.
    [&[VERSION, name.len() as u8], name.as_bytes()].concat()
}

fn envelope(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes(), body].concat()
}

/// The name, and what is wanted of it.
fn split(body: &[u8]) -> Result<(&str, &[u8]), HeaderError> {
    let short = HeaderError::Malformed("it is cut short");
    let [version, name_len, rest @ ..] = body else { return Err(short) };
    if *version != VERSION {
        return Err(HeaderError::Version(*version));
    }
    let Some((name, rest)) = rest.split_at_checked(usize::from(*name_len)) else {
        return Err(short);
    };
    let name =
        std::str::from_utf8(name).map_err(|_| HeaderError::Malformed("the name is not text"))?;
    Ok((name, rest))
}

/// Exactly so many.
fn read_numbers<const N: usize>(bytes: &[u8]) -> Result<[u64; N], HeaderError> {
    let (numbers, []) = bytes.as_chunks::<8>() else {
        return Err(HeaderError::Malformed("it has half a number"));
    };
    let numbers: &[[u8; 8]; N] = numbers
        .try_into()
        .map_err(|_| HeaderError::Malformed("it has too many or too few numbers"))?;
    Ok(numbers.map(u64::from_be_bytes))
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        let (code, text) = match self {
            Self::Go => (0, ""),
            Self::Unfilled => (1, ""),
            Self::Refused(why) => (2, &why[..why.floor_char_boundary(TEXT_MAX)]),
        };
        let mut out = vec![code];
        out.extend((text.len() as u16).to_be_bytes());
        out.extend(text.as_bytes());
        out
    }

    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        to.write_all(&self.encode()).await?;
        to.flush().await
    }

    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, HeaderError> {
        let code = from.read_u8().await?;
        let len = usize::from(from.read_u16().await?);
        if len > TEXT_MAX {
            return Err(HeaderError::Malformed("the answer is too long"));
        }
        let mut text = vec![0; len];
        from.read_exact(&mut text).await?;
        match code {
            0 => Ok(Self::Go),
            1 => Ok(Self::Unfilled),
            2 => Ok(Self::Refused(String::from_utf8_lossy(&text).into_owned())),
            _ => Err(HeaderError::Malformed("unknown answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_op() -> impl Strategy<Value = Op> {
        let lag = prop::option::of((0..LAG_UNTOLD).prop_map(Millis));
        let mark = (any::<bool>(), any::<bool>(), any::<u64>(), any::<u64>(), lag).prop_map(
            |(filled, changed, acked, at, lag)| {
                Op::Mark(Mark { filled, changed, acked, at: Timestamp(at), lag })
            },
        );
        let plain =
            prop_oneof![Just(Op::Verify), Just(Op::Move), Just(Op::Changes), Just(Op::Below)];
        let offer = any::<[u64; 3]>()
            .prop_map(|[has, upto, target_has]| Op::Offer(Offer { has, upto, target_has }));
        let allow = any::<u64>().prop_map(|entries| Op::Allow { entries });
        prop_oneof![any::<bool>().prop_map(|pass| Op::Push { pass }), mark, plain, offer, allow]
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_written(name in "[a-z0-9]{1,63}", op in any_op()) {
            let header = Header { sync: name.parse().unwrap(), op };
            let bytes = header.encode();
            prop_assert!(bytes.len() <= HEADER_MAX + 2);
            prop_assert_eq!(Header::decode(&bytes[2..]).unwrap(), header);
            for cut in 2..bytes.len() {
                prop_assert!(Header::decode(&bytes[2..cut]).is_err());
            }
            let longer = [&bytes[2..], &[0]].concat();
            prop_assert!(Header::decode(&longer).is_err());
        }

        #[test]
        fn a_byte_means_what_one_writer_writes(name in "[a-z0-9]{1,63}", op in any_op(), at: usize, by in 1u8..) {
            let mut body = Header { sync: name.parse().unwrap(), op }.encode().split_off(2);
            let at = at % body.len();
            body[at] = body[at].wrapping_add(by);
            if let Ok(read) = Header::decode(&body) {
                prop_assert_eq!(read.encode().split_off(2), body);
            }
        }

        #[test]
        fn garbage_is_an_error(bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
        }

        #[test]
        fn a_question_is_read_as_written(name in "[a-z0-9]{1,63}", n: [u64; 2]) {
            let cluster = name.parse().unwrap();
            let request =
                Request::Promise(Question { cluster, term: Term(n[0]), length: Millis(n[1]) });
            let bytes = request.encode();
            prop_assert!(bytes.len() <= HEADER_MAX + 2);
            prop_assert_eq!(Request::decode(&bytes[2..]).unwrap(), request);
            for cut in 2..bytes.len() {
                prop_assert!(Request::decode(&bytes[2..cut]).is_err());
            }
            prop_assert!(Request::decode(&[&bytes[2..], &[0]].concat()).is_err());
        }

        #[test]
        fn a_request_for_log_is_read_as_written(name in "[a-z0-9]{1,63}", n: [u64; 3], timeline: u32) {
            let request = Request::Wal(WalRequest {
                cluster: name.parse().unwrap(),
                term: Term(n[0]),
                timeline,
                from: Lsn(n[1]),
                bytes_max: n[2],
            });
            let bytes = request.encode();
            prop_assert!(bytes.len() <= HEADER_MAX + 2);
            prop_assert_eq!(Request::decode(&bytes[2..]).unwrap(), request);
            for cut in 2..bytes.len() {
                prop_assert!(Request::decode(&bytes[2..cut]).is_err());
            }
        }

        #[test]
        fn a_pull_is_no_header_of_a_sync(name in "[a-z0-9]{1,63}") {
            let request = Request::Pull(name.parse().unwrap());
            let bytes = request.encode();
            prop_assert_eq!(Request::decode(&bytes[2..]).unwrap(), request);
            prop_assert!(Header::decode(&bytes[2..]).is_err());
        }
    }

    #[tokio::test]
    async fn answers_are_read_as_written_and_bounded() {
        for answer in [Answer::Go, Answer::Unfilled, Answer::Refused("no".into())] {
            assert_eq!(Answer::read(&mut &answer.encode()[..]).await.unwrap(), answer);
        }
        let long = Answer::Refused("ä".repeat(TEXT_MAX)).encode();
        assert!(Answer::read(&mut &long[..]).await.is_ok());
        assert!(Answer::read(&mut &[2, 255, 255, 0][..]).await.is_err());
    }
}
