//! What has to be random: ids and secrets of tokens, the incarnation of a store. The kernel's
//! randomness, or an error.

use lockstep_model::identity::TokenFor;
use lockstep_model::{Code, Incarnation, Reject};
use lockstep_transport::token::{self, JoinToken};

/// Bytes of a token's id: short enough to read aloud, too many to meet twice.
const ID_BYTES: usize = 5;

/// A new token; its secret is shown nowhere else. The id says for whom, so that one in the wrong
/// hands is noticed before it is used up.
pub fn token(grants: &TokenFor, root_sha256: [u8; 32]) -> Result<JoinToken, Reject> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    let kind = match grants {
        TokenFor::Node { .. } => token::FOR_NODE,
        TokenFor::User { .. } => token::FOR_USER,
    };
    let random: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    JoinToken::mint(format!("{kind}{random}").parse()?, root_sha256).map_err(no_randomness)
}

/// Never 0, which means "never told".
pub fn incarnation() -> Result<Incarnation, Reject> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    Ok(Incarnation(u64::from_be_bytes(bytes).max(1)))
}

fn no_randomness(error: getrandom::Error) -> Reject {
    let message = format!("the kernel gives no randomness: {error}");
    Reject::new(Code::Internal, "no_randomness", "controller", message)
}
