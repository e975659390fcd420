//! How one journal entry looks as bytes. Pure; a decoder never trusts what it reads.
//!
//! Layout, little endian: body length u32, sequence u64, CRC of these 12 bytes u32, CRC of the
//! body u32, body. The header has its own checksum so that an entry that a crash cut short (good
//! header, short body) is told apart from damage.

use std::sync::Arc;

use lockstep_model::Timestamp;

/// Largest body, in bytes; a larger batch is written as `Full`.
pub const BODY_MAX: usize = 8 << 20;
/// Longest path, in bytes: PATH_MAX of Linux.
pub const PATH_MAX: usize = 4096;
pub const HEADER_LEN: usize = 20;

/// Relative to the source, without `.`, `..`, empty parts or NUL; any other bytes.
pub type RelPath = Arc<[u8]>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub seq: u64,
    /// Agent's clock when it was written.
    pub at: Timestamp,
    pub change: Change,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Anything may have changed.
    Full,
    Batch(Vec<Changed>),
}

/// A path that may have been made, changed or deleted: what is there now decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    pub path: RelPath,
    /// All that is here may differ, whatever it looks like: what is below a directory, such as one
    /// that was deleted and made again, or the content of a file.
    pub subtree: bool,
}

/// What the bytes at an offset are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Entry {
        entry: Entry,
        len: usize,
    },
    End,
    /// The start of an entry whose rest was never written.
    Torn,
    Damaged,
}

pub fn is_rel_path(path: &[u8]) -> bool {
    path.len() <= PATH_MAX
        && !path.contains(&0)
        && path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// An entry too large for one body becomes `Full`: that is always true, only slower.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let body =
        body(entry.at, &entry.change).or_else(|| body(entry.at, &Change::Full)).unwrap_or_default();
    let mut out = Vec::with_capacity(HEADER_LEN + body.len());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&entry.seq.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

fn body(at: Timestamp, change: &Change) -> Option<Vec<u8>> {
    let mut out = at.0.to_le_bytes().to_vec();
    match change {
        Change::Full => out.push(0),
        Change::Batch(paths) => {
            out.push(1);
            for Changed { path, subtree } in paths {
                let len = u16::try_from(path.len()).ok().filter(|_| is_rel_path(path))?;
                out.extend_from_slice(&len.to_le_bytes());
                out.push(u8::from(*subtree));
                out.extend_from_slice(path);
                if out.len() > BODY_MAX {
                    return None;
                }
            }
        }
    }
    Some(out)
}

/// Reads the entry at the start of `bytes`; its sequence must be above `after`.
pub fn decode(bytes: &[u8], after: u64) -> Step {
    if bytes.is_empty() {
        return Step::End;
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER_LEN) else { return Step::Torn };
    let mut header = Fields(header);
    let (Some(len), Some(seq), Some(header_crc), Some(body_crc)) =
        (header.u32(), header.u64(), header.u32(), header.u32())
    else {
        return Step::Damaged;
    };
    let len = len as usize;
    if crc32fast::hash(&bytes[..12]) != header_crc || len > BODY_MAX || seq <= after {
        return Step::Damaged;
    }
    let Some(body) = rest.get(..len) else { return Step::Torn };
    if crc32fast::hash(body) != body_crc {
        return Step::Damaged;
    }
    match decode_body(body) {
        Some((at, change)) => {
            Step::Entry { entry: Entry { seq, at, change }, len: HEADER_LEN + len }
        }
        None => Step::Damaged,
    }
}

fn decode_body(body: &[u8]) -> Option<(Timestamp, Change)> {
    let mut fields = Fields(body);
    let at = Timestamp(fields.u64()?);
    let change = match fields.take(1)? {
        [0] => Change::Full,
        [1] => {
            let mut paths = Vec::new();
            while !fields.0.is_empty() {
                let len = fields.u16()?;
                let subtree = fields.take(1)? == [1];
                let path = fields.take(len.into())?;
                is_rel_path(path).then_some(())?;
                paths.push(Changed { path: path.into(), subtree });
            }
            Change::Batch(paths)
        }
        _ => return None,
    };
    fields.0.is_empty().then_some((at, change))
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn any_change() -> impl Strategy<Value = Change> {
        let part = proptest::collection::vec(
            any::<u8>().prop_filter("in a name", |b| !matches!(b, 0 | b'/' | b'.')),
            1..8,
        );
        let path = proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join(&b'/'));
        let changed = (path, any::<bool>())
            .prop_map(|(path, subtree)| Changed { path: path.into(), subtree });
        prop_oneof![
            1 => Just(Change::Full),
            4 => proptest::collection::vec(changed, 0..8).prop_map(Change::Batch),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seq in 1u64.., at: u64, change in any_change()) {
            let entry = Entry { seq, at: Timestamp(at), change };
            let bytes = encode(&entry);
            prop_assert_eq!(
                decode(&bytes, seq - 1),
                Step::Entry { entry, len: bytes.len() }
            );
        }

        #[test]
        fn a_prefix_is_torn_and_a_flipped_bit_is_damage(
            change in any_change(), cut: prop::sample::Index, bit: prop::sample::Index,
        ) {
            let bytes = encode(&Entry { seq: 7, at: Timestamp(1), change });
            let cut = cut.index(bytes.len());
            let expected = if cut == 0 { Step::End } else { Step::Torn };
            prop_assert_eq!(decode(&bytes[..cut], 6), expected);
            let mut flipped = bytes.clone();
            let bit = bit.index(bytes.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&flipped, 6), Step::Damaged);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, after: u64) {
            let step = decode(&bytes, after);
            let is_entry = matches!(step, Step::Entry { .. });
            prop_assert!(!is_entry);
        }
    }

    #[test]
    fn a_batch_too_large_for_one_entry_is_full() {
        let changed = Changed { path: vec![b'a'; PATH_MAX].into(), subtree: false };
        let change = Change::Batch(vec![changed; BODY_MAX / PATH_MAX + 1]);
        let bytes = encode(&Entry { seq: 1, at: Timestamp(0), change });
        let Step::Entry { entry, .. } = decode(&bytes, 0) else { panic!("not readable") };
        assert_eq!(entry.change, Change::Full);
    }
}
