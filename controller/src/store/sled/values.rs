//! Values and the pieces they are cut into.

use std::iter::Peekable;

use sled::IVec;

use crate::store::StoreError;

pub type Pair = Result<(IVec, IVec), sled::Error>;

/// Whole values, their pieces joined; ends at the first that sled cannot read.
pub(crate) struct Values<I: Iterator<Item = Pair>>(Peekable<I>);

impl<I: Iterator<Item = Pair>> Values<I> {
    pub fn of(pairs: I) -> Self {
        Self(pairs.peekable())
    }
}

impl<I: Iterator<Item = Pair>> Iterator for Values<I> {
    type Item = Result<(String, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = match self.0.next()? {
            Ok(pair) => pair,
            Err(e) => return Some(Err(StoreError::damaged("a page of the database", e))),
        };
        let mut joined = value.to_vec();
        let is_piece = |pair: &Pair| matches!(pair, Ok((k, _)) if is_piece_of(k, &key));
        while let Some(Ok((_, piece))) = self.0.next_if(is_piece) {
            joined.extend_from_slice(&piece);
        }
        let key = String::from_utf8_lossy(&key).into_owned();
        Some(Ok((key, joined)))
    }
}

/// Pieces sort right after the value's own key: no key holds a zero byte.
pub fn piece_key(key: &str, n: u32) -> Vec<u8> {
    format!("{key}\0{n:08x}").into_bytes()
}

pub fn is_piece_of(piece: &[u8], key: &[u8]) -> bool {
    piece.strip_prefix(key).is_some_and(|rest| rest.first() == Some(&0))
}
