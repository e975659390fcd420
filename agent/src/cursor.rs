//! How far one target is, on disk: small, replaced atomically, synced before it counts. A cursor
//! that cannot be read starts again with a pass that deletes nothing.

use std::fs;
use std::io;
use std::path::Path;

use lockstep_transport::durable;

/// Everything up to `acked` is on the target, unless `full` says that only a pass can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub acked: u64,
    pub full: bool,
    /// The first complete pass is through.
    pub filled: bool,
}

impl Cursor {
    /// Of a target that was just added, when the journal's last entry is `head`.
    pub fn fresh(head: u64) -> Self {
        Self { acked: head, full: true, filled: false }
    }

    /// Whether everything up to `acked` really is there.
    pub fn is_complete(&self) -> bool {
        self.filled && !self.full
    }

    /// None when there is no readable one.
    pub fn load(path: &Path) -> Option<Self> {
        Self::decode(&fs::read_to_string(path).ok()?)
    }

    pub fn save(&self, path: &Path) -> io::Result<()> {
        durable::write(path, self.encode().as_bytes())
    }

    fn encode(&self) -> String {
        let text = self.text();
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    fn text(&self) -> String {
        let Self { acked, full, filled } = self;
        format!("cursor 1 acked={acked} full={full} filled={filled}")
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().skip(2);
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        let acked = value("acked")?.parse().ok()?;
        let full = value("full")?.parse().ok()?;
        let filled = value("filled")?.parse().ok()?;
        let cursor = Self { acked, full, filled };
        (cursor.encode() == text).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_and_a_damaged_one_does_not(
            acked: u64, full: bool, filled: bool, at: prop::sample::Index, bit in 0u32..7,
        ) {
            let cursor = Cursor { acked, full, filled };
            let text = cursor.encode();
            prop_assert_eq!(Cursor::decode(&text), Some(cursor));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let damaged = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(Cursor::decode(&damaged), None);
        }
    }

    #[test]
    fn a_saved_cursor_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web1");
        assert_eq!(Cursor::load(&path), None);
        let cursor = Cursor { acked: 7, full: false, filled: true };
        cursor.save(&path).unwrap();
        assert_eq!(Cursor::load(&path), Some(cursor));
    }
}
