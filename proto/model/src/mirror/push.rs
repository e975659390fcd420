//! Tokens that let somebody else's program ask for runs of one mirror, and do nothing else.

use crate::id::TokenId;
use crate::time::Timestamp;

/// Only the secret's hash is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushToken {
    pub id: TokenId,
    pub secret_sha256: [u8; 32],
    pub created_at: Timestamp,
}

impl PushToken {
    /// Most of one mirror.
    pub const MAX: usize = 16;

    /// In a time that tells nothing about either.
    pub fn fits(&self, secret_sha256: &[u8; 32]) -> bool {
        let pairs = self.secret_sha256.iter().zip(secret_sha256);
        pairs.fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}
