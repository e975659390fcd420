//! What the two sides of a comparison say: the one that asks sends requests, the other answers each
//! in turn. Frames of a length and a body, all limited; a decoder never trusts what it reads.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::entry::{Entry, KEY_LEN, Keep, Kind};
use super::walk::Walked;
use crate::journal::{RelPath, is_rel_path};

/// The only version so far.
pub const VERSION: u8 = 1;
/// Longest frame, in bytes.
pub const FRAME_MAX: usize = 1 << 20;
/// Most entries of one listing; the worst names of all fit into a frame.
pub const LISTING_MAX: usize = 2048;
/// Most buckets of a directory: two to the power of so many.
pub const BITS_MAX: u8 = 14;
/// Most directories of one request, and so most answers to it.
pub const PARTS_MAX: usize = 64;
/// Most buckets of one part of a request for a listing.
pub const BUCKETS_MAX: usize = 16;
/// Most paths of one request to look.
pub const LOOK_MAX: usize = 128;
const NAME_MAX: usize = 255;
const TEXT_MAX: usize = 512;
/// A peer that says nothing for so long is gone; both sides speak more often than that.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    Hello {
        version: u8,
        key: [u8; KEY_LEN],
        keep: Keep,
        /// Stands for all that both sides must agree on and that is not sent.
        rules: u128,
    },
    /// Keeps the connection alive; has no answer.
    Alive,
    /// The sum of the whole tree.
    Tree,
    /// The sums of a directory's buckets.
    Sums(Vec<Part>),
    List(Vec<Part>),
    Look {
        /// Bytes of content per second to be read; None: no content.
        content: Option<u64>,
        paths: Vec<RelPath>,
    },
}

/// A directory, or some of its two to the power of `bits` buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Empty for the root.
    pub dir: RelPath,
    pub bits: u8,
    pub buckets: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Ready {
        keep: Keep,
    },
    /// Work goes on.
    Alive {
        entries: u64,
        bytes: u64,
    },
    Tree {
        sum: u128,
        walked: Walked,
    },
    Sums(Vec<u128>),
    Listing(Vec<Named>),
    /// So many, which is more than [`LISTING_MAX`]; ask for less.
    TooMany(u64),
    /// The directory is not there, or cannot be read.
    Gone,
    Seen(Vec<Seen>),
    Refused(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    pub name: Box<[u8]>,
    pub entry: Entry,
    /// Sum of a directory's content; None when it is not known.
    pub tree: Option<u128>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Nothing,
    Unreadable,
    /// Content is the hash of a file's, if asked for and readable.
    Entry(Entry, Option<[u8; 32]>),
}

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the peer was silent for too long")]
    Silent,
    #[error("the peer sent what it must not: {0}")]
    Malformed(&'static str),
}

/// None at the end of the stream, which is between two frames.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, WireError> {
    let frame = async {
        let len = match from.read_u32().await {
            Ok(len) => len as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if len > FRAME_MAX {
            return Err(WireError::Malformed("a frame that is too long"));
        }
        let mut body = vec![0; len];
        from.read_exact(&mut body).await?;
        Ok(Some(body))
    };
    tokio::time::timeout(SILENCE_MAX, frame).await.map_err(|_| WireError::Silent)?
}

pub async fn write(to: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<(), WireError> {
    let written = async {
        to.write_u32(u32::try_from(body.len()).unwrap_or(u32::MAX)).await?;
        to.write_all(body).await?;
        to.flush().await
    };
    let written = tokio::time::timeout(SILENCE_MAX, written).await;
    Ok(written.map_err(|_| WireError::Silent)??)
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hello { version, key, keep, rules } => {
                out.extend([0, *version]);
                out.extend(key);
                out.extend(keep.bits().to_be_bytes());
                out.extend(rules.to_be_bytes());
            }
            Self::Alive => out.push(1),
            Self::Tree => out.push(2),
            Self::Sums(parts) => put_parts(&mut out, 3, parts),
            Self::List(parts) => put_parts(&mut out, 4, parts),
            Self::Look { content, paths } => {
                out.push(5);
                out.extend(content.unwrap_or(0).to_be_bytes());
                paths.iter().for_each(|path| put_bytes(&mut out, path));
            }
        }
        out
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields(body);
        let request = match fields.u8()? {
            0 => Self::Hello {
                version: fields.u8()?,
                key: fields.array()?,
                keep: Keep::from_bits(fields.u16()?),
                rules: fields.u128()?,
            },
            1 => Self::Alive,
            2 => Self::Tree,
            3 => Self::Sums(fields.parts()?),
            4 => Self::List(fields.parts()?),
            5 => {
                let content = Some(fields.u64()?).filter(|rate| *rate > 0);
                let path = |fields: &mut Fields<'_>| {
                    let path = fields.bytes()?;
                    (path.is_empty() || is_rel_path(path)).then_some(path.into()).ok_or(BAD_PATH)
                };
                Self::Look { content, paths: fields.many(LOOK_MAX, path)? }
            }
            _ => return Err(WireError::Malformed("an unknown request")),
        };
        fields.end().map(|()| request)
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Ready { keep } => {
                out.push(0);
                out.extend(keep.bits().to_be_bytes());
            }
            Self::Alive { entries, bytes } => {
                out.push(1);
                out.extend(entries.to_be_bytes());
                out.extend(bytes.to_be_bytes());
            }
            Self::Tree { sum, walked } => {
                out.push(2);
                out.extend(sum.to_be_bytes());
                out.extend(walked.entries.to_be_bytes());
                out.extend(walked.unreadable.to_be_bytes());
            }
            Self::Sums(sums) => {
                out.push(3);
                sums.iter().for_each(|sum| out.extend(sum.to_be_bytes()));
            }
            Self::Listing(listing) => {
                out.push(4);
                for Named { name, entry, tree } in listing {
                    put_bytes(&mut out, name);
                    out.extend(entry.encode());
                    out.push(u8::from(tree.is_some()));
                    out.extend(tree.unwrap_or(0).to_be_bytes());
                }
            }
            Self::TooMany(count) => {
                out.push(5);
                out.extend(count.to_be_bytes());
            }
            Self::Gone => out.push(6),
            Self::Seen(all) => {
                out.push(7);
                for seen in all {
                    match seen {
                        Seen::Nothing => out.push(0),
                        Seen::Unreadable => out.push(1),
                        Seen::Entry(entry, content) => {
                            out.push(2 + u8::from(content.is_some()));
                            out.extend(entry.encode());
                            out.extend(content.iter().flatten());
                        }
                    }
                }
            }
            Self::Refused(why) => {
                out.push(8);
                out.extend(&why.as_bytes()[..why.floor_char_boundary(TEXT_MAX)]);
            }
        }
        out
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields(body);
        let answer = match fields.u8()? {
            0 => Self::Ready { keep: Keep::from_bits(fields.u16()?) },
            1 => Self::Alive { entries: fields.u64()?, bytes: fields.u64()? },
            2 => Self::Tree {
                sum: fields.u128()?,
                walked: Walked { entries: fields.u64()?, unreadable: fields.u64()? },
            },
            3 => Self::Sums(fields.many(1 << BITS_MAX, Fields::u128)?),
            4 => Self::Listing(fields.many(LISTING_MAX, Fields::named)?),
            5 => Self::TooMany(fields.u64()?),
            6 => Self::Gone,
            7 => Self::Seen(fields.many(LOOK_MAX, Fields::seen)?),
            8 => {
                let text = fields.take(fields.0.len().min(TEXT_MAX))?;
                Self::Refused(String::from_utf8_lossy(text).into_owned())
            }
            _ => return Err(WireError::Malformed("an unknown answer")),
        };
        fields.end().map(|()| answer)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // No name or path is longer than PATH_MAX.
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

fn put_parts(out: &mut Vec<u8>, tag: u8, parts: &[Part]) {
    out.push(tag);
    for Part { dir, bits, buckets } in parts {
        put_bytes(out, dir);
        out.extend([*bits, buckets.len() as u8]);
        buckets.iter().for_each(|bucket| out.extend(bucket.to_be_bytes()));
    }
}

const SHORT: WireError = WireError::Malformed("a frame that is cut short");
const BAD_PATH: WireError = WireError::Malformed("a path that is none");

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(&self) -> Result<(), WireError> {
        self.0.is_empty().then_some(()).ok_or(WireError::Malformed("a frame that is too long"))
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], WireError> {
        self.take(LEN)?.try_into().map_err(|_| SHORT)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    fn u128(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_be_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// To the end of the frame.
    fn many<T>(
        &mut self,
        max: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            if all.len() == max {
                return Err(WireError::Malformed("more than was allowed"));
            }
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn parts(&mut self) -> Result<Vec<Part>, WireError> {
        self.many(PARTS_MAX, |fields| {
            let dir = fields.bytes()?;
            if !dir.is_empty() && !is_rel_path(dir) {
                return Err(BAD_PATH);
            }
            let (bits, count) = (fields.u8()?, usize::from(fields.u8()?));
            if bits > BITS_MAX || count > BUCKETS_MAX {
                return Err(WireError::Malformed("too many buckets"));
            }
            let buckets = (0..count).map(|_| fields.u32()).collect::<Result<_, _>>()?;
            Ok(Part { dir: dir.into(), bits, buckets })
        })
    }

    fn entry(&mut self) -> Result<Entry, WireError> {
        let kind = usize::from(self.u8()?);
        let kind = *Kind::ALL.get(kind).ok_or(WireError::Malformed("an unknown kind of file"))?;
        Ok(Entry {
            kind,
            mode: self.u16()?,
            uid: self.u32()?,
            gid: self.u32()?,
            size: self.u64()?,
            mtime: (self.array().map(i64::from_be_bytes)?, self.u32()?),
            rdev: (self.u32()?, self.u32()?),
            link: self.u128()?,
            xattrs: self.u128()?,
        })
    }

    fn named(&mut self) -> Result<Named, WireError> {
        let name = self.bytes()?;
        if name.len() > NAME_MAX || name.contains(&b'/') || !is_rel_path(name) {
            return Err(WireError::Malformed("a name that is none"));
        }
        let entry = self.entry()?;
        let tree = match self.u8()? {
            0 => self.u128().map(|_| None)?,
            _ => Some(self.u128()?),
        };
        Ok(Named { name: name.into(), entry, tree })
    }

    fn seen(&mut self) -> Result<Seen, WireError> {
        Ok(match self.u8()? {
            0 => Seen::Nothing,
            1 => Seen::Unreadable,
            2 => Seen::Entry(self.entry()?, None),
            3 => Seen::Entry(self.entry()?, Some(self.array()?)),
            _ => return Err(WireError::Malformed("an unknown answer")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn any_entry() -> impl Strategy<Value = Entry> {
        let numbers = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u64>());
        let more = (any::<(i64, u32)>(), any::<(u32, u32)>(), any::<u128>(), any::<u128>());
        (0usize..7, numbers, more).prop_map(|(kind, (mode, uid, gid, size), more)| {
            let (mtime, rdev, link, xattrs) = more;
            Entry { kind: Kind::ALL[kind], mode, uid, gid, size, mtime, rdev, link, xattrs }
        })
    }

    fn any_name() -> impl Strategy<Value = Vec<u8>> {
        let byte = any::<u8>().prop_filter("in a name", |b| !matches!(b, 0 | b'/' | b'.'));
        proptest::collection::vec(byte, 1..255)
    }

    fn any_part() -> impl Strategy<Value = Part> {
        let buckets = proptest::collection::vec(any::<u32>(), 0..BUCKETS_MAX);
        (any_name(), 0..=BITS_MAX, buckets).prop_map(|(dir, bits, buckets)| Part {
            dir: dir.into(),
            bits,
            buckets,
        })
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(
            parts in proptest::collection::vec(any_part(), 0..4),
            named in proptest::collection::vec((any_name(), any_entry(), any::<Option<u128>>()), 0..4),
            seen in any_entry(), content: Option<[u8; 32]>,
        ) {
            for request in [Request::Sums(parts.clone()), Request::List(parts.clone())] {
                prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
            }
            let paths = parts.into_iter().map(|part| part.dir).collect();
            let look = Request::Look { content: Some(5), paths };
            prop_assert_eq!(Request::decode(&look.encode()).unwrap(), look);
            let listing = named.into_iter().map(|(name, entry, tree)| Named { name: name.into(), entry, tree });
            let listing = Answer::Listing(listing.collect());
            prop_assert_eq!(Answer::decode(&listing.encode()).unwrap(), listing);
            let seen = Answer::Seen(vec![Seen::Nothing, Seen::Entry(seen, content), Seen::Unreadable]);
            prop_assert_eq!(Answer::decode(&seen.encode()).unwrap(), seen);
        }

        #[test]
        fn garbage_is_an_error_or_harmless(tag in 0u8..10, bytes: Vec<u8>) {
            let body = [&[tag], &bytes[..]].concat();
            let _ = Answer::decode(&body);
            if let Ok(Request::List(parts) | Request::Sums(parts)) = Request::decode(&body) {
                prop_assert!(parts.iter().all(|p| p.dir.is_empty() || is_rel_path(&p.dir)));
            }
        }
    }

    #[test]
    fn no_path_leads_out() {
        for path in ["..", "a/../b", "/etc", "a//b", ".", "a\0"] {
            let look = Request::Look { content: None, paths: vec![path.as_bytes().into()] };
            assert!(Request::decode(&look.encode()).is_err(), "{path:?}");
            let part = Part { dir: path.as_bytes().into(), bits: 0, buckets: vec![] };
            assert!(Request::decode(&Request::List(vec![part]).encode()).is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_largest_messages_fit_into_a_frame() {
        let entry = Entry {
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            rdev: (0, 0),
            link: 0,
            xattrs: 0,
        };
        let named = Named { name: [b'n'; NAME_MAX].into(), entry, tree: None };
        assert!(Answer::Listing(vec![named; LISTING_MAX]).encode().len() <= FRAME_MAX);
        assert!(Answer::Sums(vec![0; 1 << BITS_MAX]).encode().len() <= FRAME_MAX);
        let path: RelPath = [b'p'; crate::journal::PATH_MAX].into();
        let paths = vec![path.clone(); LOOK_MAX];
        assert!(Request::Look { content: None, paths }.encode().len() <= FRAME_MAX);
        let part = Part { dir: path, bits: 14, buckets: vec![0; BUCKETS_MAX] };
        assert!(Request::List(vec![part; PARTS_MAX]).encode().len() <= FRAME_MAX);
    }
}
