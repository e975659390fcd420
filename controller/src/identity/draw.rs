//! What has to be random: ids and secrets of tokens, the incarnation of a store. The kernel's
//! randomness, or an error.

use lockstep_model::identity::TokenFor;
use lockstep_model::{Code, Incarnation, LifeId, Reject, TokenId};
use lockstep_transport::token::{self, JoinToken};
use zeroize::Zeroizing;

/// Bytes of a token's id: short enough to read aloud, too many to meet twice.
const ID_BYTES: usize = 5;
/// Bytes of a push token's secret.
const PUSH_SECRET_BYTES: usize = 32;
const PASSWORD_BYTES: usize = 24;

/// A new token; its secret is shown nowhere else. The id says for whom, so that one in the wrong
/// hands is noticed before it is used up.
pub fn token(grants: &TokenFor, root_sha256: [u8; 32]) -> Result<JoinToken, Reject> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    let kind = match grants {
        TokenFor::Node { .. } => token::FOR_NODE,
        TokenFor::User { .. } => token::FOR_USER,
    };
    JoinToken::mint(format!("{kind}{}", hex(&bytes)).parse()?, root_sha256).map_err(no_randomness)
}

/// A new token for pushes: its id, and the text that is shown nowhere else.
pub fn push_token() -> Result<(TokenId, Zeroizing<String>), Reject> {
    let mut id = [0; ID_BYTES];
    let mut secret = Zeroizing::new([0; PUSH_SECRET_BYTES]);
    getrandom::fill(&mut id).map_err(no_randomness)?;
    getrandom::fill(secret.as_mut_slice()).map_err(no_randomness)?;
    let text = Zeroizing::new(format!("lsp_{}", *Zeroizing::new(hex(secret.as_slice()))));
    Ok((format!("push-{}", hex(&id)).parse()?, text))
}

/// A new password of a role that only Lockstep uses.
pub fn password() -> Result<Zeroizing<String>, Reject> {
    let mut secret = Zeroizing::new([0; PASSWORD_BYTES]);
    getrandom::fill(secret.as_mut_slice()).map_err(no_randomness)?;
    Ok(Zeroizing::new(hex(secret.as_slice())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Never 0, which means "never told".
pub fn incarnation() -> Result<Incarnation, Reject> {
    number().map(Incarnation)
}

/// Never `LifeId::NONE`.
pub fn life() -> Result<LifeId, Reject> {
    number().map(LifeId)
}

fn number() -> Result<u64, Reject> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    Ok(u64::from_be_bytes(bytes).max(1))
}

fn no_randomness(error: getrandom::Error) -> Reject {
    let message = format!("the kernel gives no randomness: {error}");
    Reject::new(Code::Internal, "no_randomness", "controller", message)
}
