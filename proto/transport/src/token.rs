//! The text of a join token: `ls1.<id>.<secret>.<root-sha256>`. Reading it is total; its secret
//! shows only where `reveal` is called, and no error quotes it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lockstep_model::id::NAME_MAX;
use lockstep_model::{Invalid, TokenId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The first part of every token; a later form gets another one.
const PREFIX: &str = "ls1.";
const SECRET_BYTES: usize = 32;
/// How the id of a token begins that lets a node in,
pub const FOR_NODE: &str = "node-";
/// and of one for a user.
pub const FOR_USER: &str = "user-";
/// Longest token text, in bytes: prefix, id, 43 of base64url, 64 hexadecimal digits, two dots.
pub const TOKEN_MAX: usize = PREFIX.len() + NAME_MAX + 43 + 64 + 2;

/// An invitation in the hands of the one who uses it. Debug shows the id only.
#[derive(Clone)]
pub struct JoinToken {
    id: TokenId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    root_sha256: [u8; 32],
}

impl JoinToken {
    /// A new token with a random secret. Fails only where the kernel gives no randomness.
    pub fn mint(id: TokenId, root_sha256: [u8; 32]) -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(secret.as_mut_slice())?;
        Ok(Self { id, secret, root_sha256 })
    }

    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// SHA-256 of the DER of the root certificate that the controller's chain must end in.
    pub fn root_sha256(&self) -> [u8; 32] {
        self.root_sha256
    }

    /// The secret as it goes over the wire, inside TLS.
    pub fn secret(&self) -> &[u8] {
        self.secret.as_slice()
    }

    /// What the store keeps of the secret.
    pub fn secret_sha256(&self) -> [u8; 32] {
        secret_sha256(self.secret())
    }

    /// The whole text, secret included: to be shown once to the person who asked for it.
    pub fn reveal(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.as_slice()));
        let root: String = self.root_sha256.iter().map(|b| format!("{b:02x}")).collect();
        Zeroizing::new(format!("{PREFIX}{}.{}.{root}", self.id, *secret))
    }
}

/// The hash under which a presented secret is compared, in constant time, by the controller.
pub fn secret_sha256(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

impl FromStr for JoinToken {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |why: &str| {
            Invalid::new("token", format!("{why}; copy the whole text that `token create` printed"))
        };
        if text.len() > TOKEN_MAX {
            return Err(wrong("is too long"));
        }
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| wrong("must start with ls1."))?;
        // From the right, since an id may hold dots and the other two may not.
        let mut parts = rest.rsplitn(3, '.');
        let (Some(root), Some(secret), Some(id)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong("must have four parts, ls1.<id>.<secret>.<root hash>"));
        };
        let id = id.parse().map_err(|_| wrong("has an id that no controller gives"))?;
        let decoded = URL_SAFE_NO_PAD.decode(secret).map(Zeroizing::new).ok();
        let secret = decoded
            .and_then(|bytes| <[u8; SECRET_BYTES]>::try_from(bytes.as_slice()).ok())
            .ok_or_else(|| wrong("has a damaged secret"))?;
        let root_sha256 =
            parse_sha256(root).ok_or_else(|| wrong("must end in 64 digits of 0-9 and a-f"))?;
        Ok(Self { id, secret: Zeroizing::new(secret), root_sha256 })
    }
}

fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if hex.len() != 64 || !hex.as_bytes().iter().all(digit) {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minted(id: &str) -> JoinToken {
        JoinToken::mint(id.parse().unwrap(), [0xab; 32]).unwrap()
    }

    #[test]
    fn reads_back_what_it_reveals() {
        for id in ["t1", "web-3.eu", &"x".repeat(NAME_MAX)] {
            let token = minted(id);
            let text = token.reveal();
            let again: JoinToken = text.parse().unwrap();
            assert_eq!(again.id(), token.id());
            assert_eq!(again.secret(), token.secret());
            assert_eq!(again.root_sha256(), [0xab; 32]);
            assert_eq!(again.secret_sha256(), secret_sha256(token.secret()));
        }
        assert_ne!(minted("t").secret(), minted("t").secret());
    }

    #[test]
    fn neither_debug_nor_errors_show_the_secret() {
        let token = minted("t1");
        let text = token.reveal();
        let secret = text.split('.').nth(2).unwrap();
        assert_eq!(format!("{token:?}"), "JoinToken(t1)");
        for damaged in
            [text[1..].to_owned(), text[..text.len() - 1].to_owned(), format!("{}x", *text)]
        {
            let error = damaged.parse::<JoinToken>().unwrap_err().to_string();
            assert!(error.starts_with("token: ") && !error.contains(secret), "{error}");
        }
    }

    #[test]
    fn refuses_what_is_not_one() {
        let secret = "A".repeat(43);
        let root = "ab".repeat(32);
        for text in [
            String::new(),
            "ls1.".to_owned(),
            format!("ls2.t.{secret}.{root}"),
            format!("ls1..{secret}.{root}"),
            format!("ls1.T.{secret}.{root}"),
            format!("ls1.{secret}.{root}"),
            format!("ls1.t.{secret}A.{root}"),
            format!("ls1.t.{}B.{root}", "A".repeat(42)), // bits beyond the last byte
            format!("ls1.t.{secret}=.{root}"),
            format!("ls1.t.{secret}.{}", root.to_uppercase()),
            format!("ls1.t.{secret}.{root}\n"),
            format!(" ls1.t.{secret}.{root}"),
            format!("ls1.{}.{secret}.{root}", "x".repeat(NAME_MAX + 1)),
        ] {
            assert!(text.parse::<JoinToken>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_is_the_canonical_one(text in "(ls1\\.)?\\PC{0,200}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(&*token.reveal(), &text);
            }
        }

        #[test]
        fn one_changed_character_never_passes_unnoticed(at in 0usize..100, to in "\\PC") {
            let before = minted("t1");
            let text = before.reveal();
            let at = at.min(text.len() - 1);
            let changed: String =
                text.chars().enumerate().map(|(i, c)| if i == at { to.clone() } else { c.into() }).collect();
            if let Ok(after) = changed.parse::<JoinToken>() {
                prop_assert_eq!(&*after.reveal(), &changed);
            }
        }
    }
}
