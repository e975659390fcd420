//! The removals of a target as a file: one line of text with a checksum. What cannot be read counts as
//! nothing known, which holds sooner and never later for shares, and begins an empty window.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use lockstep_model::Timestamp;
use lockstep_transport::durable;

use super::{Allowance, Hold, Removals};

impl Removals {
    /// Empty when there is no readable file.
    pub fn load(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self::decode(&text).unwrap_or_default()
    }

    pub fn save(&self, path: &Path) -> io::Result<()> {
        durable::write(path, self.encode().as_bytes())
    }

    pub(super) fn encode(&self) -> String {
        let Self { window, begun: [batch, pass], hold, released, total, trimmed } = self;
        let pair =
            |pair: Option<(u64, u64)>| pair.map_or("-".to_owned(), |(a, b)| format!("{a}:{b}"));
        let mut text = format!(
            "removals 1 batch={batch} pass={pass} total={total} trimmed={trimmed} hold={} released={}",
            pair(hold.map(|h| (h.entries, h.within))),
            pair(released.map(|r| (r.entries, r.at.0))),
        );
        for (at, entries) in window {
            text.push_str(&format!(" {}:{entries}", at.0));
        }
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().skip(2).peekable();
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        let begun = [value("batch")?.parse().ok()?, value("pass")?.parse().ok()?];
        let total = value("total")?.parse().ok()?;
        let trimmed = value("trimmed")?.parse().ok()?;
        let hold = pair_or_none(value("hold")?)?;
        let released = pair_or_none(value("released")?)?;
        let window: VecDeque<_> =
            words.map_while(pair).map(|(at, entries)| (Timestamp(at), entries)).collect();
        let removals = Self {
            window,
            begun,
            hold: hold.map(|(entries, within)| Hold { entries, within }),
            released: released.map(|(entries, at)| Allowance { entries, at: Timestamp(at) }),
            total,
            trimmed,
        };
        // The checksum too: anything that is not what would be written is damaged.
        (removals.encode() == text).then_some(removals)
    }
}

fn pair(word: &str) -> Option<(u64, u64)> {
    let (a, b) = word.split_once(':')?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

fn pair_or_none(word: &str) -> Option<Option<(u64, u64)>> {
    if word == "-" { Some(None) } else { pair(word).map(Some) }
}
