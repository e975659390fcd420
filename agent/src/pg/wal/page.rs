//! The head of a page of the log: is it the page that belongs there.

use lockstep_model::cluster::Lsn;

use super::Begin;

/// Bytes of a head, and of the longer one of a segment's first page.
pub const SHORT: usize = 24;
pub const LONG: usize = 40;

const CONTINUES: u16 = 1;
const IS_LONG: u16 = 2;
const OVERWRITES: u16 = 8;
const FLAGS: u16 = 15;

/// Of PostgreSQL 13 to 18.
const MAGIC: [u16; 6] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub timeline: u32,
    /// Bytes that are left of a record that began before.
    pub rest_bytes: u32,
    /// The page begins within a record.
    pub continues: bool,
    /// What began before and should go on here was given up by a recovery.
    pub overwrites: bool,
    pub len: usize,
}

impl Head {
    /// None: the page is another one, of another database or damaged. `page` is at `at`.
    pub fn read(page: &[u8], at: Lsn, begin: &Begin) -> Option<Self> {
        let (magic, flags) = (u16_at(page, 0)?, u16_at(page, 2)?);
        let is_first = begin.segment_size.offset(at) == 0;
        let is_long = flags & IS_LONG != 0;
        let own = MAGIC.contains(&magic)
            && flags & !FLAGS == 0
            && is_long == is_first
            && u64_at(page, 8)? == at.0
            && (!is_long
                || u64_at(page, 24)? == begin.system_id.0
                    && u64::from(u32_at(page, 32)?) == begin.segment_size.bytes()
                    && u32_at(page, 36)? == begin.page_bytes);
        own.then_some(Self {
            timeline: u32_at(page, 4)?,
            rest_bytes: u32_at(page, 16)?,
            continues: flags & CONTINUES != 0,
            overwrites: flags & OVERWRITES != 0,
            len: if is_long { LONG } else { SHORT },
        })
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
