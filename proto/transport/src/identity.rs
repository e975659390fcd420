//! Who this process is: its key, its certificate chain and the roots it trusts; read from a
//! directory, written to it atomically, and handed to all who speak for it. Decides nothing about
//! peers.

pub mod disk;

use std::sync::Arc;

use lockstep_model::identity::SpiffeId;
use lockstep_model::{KeyHash, Millis, Timestamp};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::certificate::{self, CertError, PeerCert};
use crate::keys::{KeyError, PrivateKey};
use crate::verify;

/// Every certificate starts this long before it is made, so that clocks may differ by as much.
pub const BACKDATE: Millis = Millis::from_secs(3600);
/// A certificate is renewed this long after it was made, or at half of its life if that is sooner.
const RENEW_AFTER: Millis = Millis::from_secs(24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{file}: {why}")]
    File { file: String, why: String },
    #[error("{file}: {source}")]
    Io { file: String, source: std::io::Error },
    #[error("key: {0}")]
    Key(#[from] KeyError),
    #[error("certificate: {0}")]
    Certificate(#[from] CertError),
    #[error("certificate chain: {0}")]
    Chain(&'static str),
    #[error("private key does not fit the certificate: {0}")]
    Pair(rustls::Error),
}

/// A complete identity. It is never changed, only replaced.
pub struct Identity {
    pub spiffe: SpiffeId,
    pub key_hash: KeyHash,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub(crate) key: PrivateKey,
    /// Leaf first, then issuing.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) anchors: Arc<[TrustAnchor<'static>]>,
    pub(crate) presented: Arc<SingleCertAndKey>,
}

impl Identity {
    /// Checks that the parts belong together: the key is the leaf's, the chain ends in one of the
    /// roots. An expired certificate passes, since it can still be renewed.
    pub fn new(
        key: PrivateKey,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Chain("holds no certificate"))?;
        let PeerCert { spiffe, key_hash, not_before, not_after } = PeerCert::read(leaf)?;
        if key_hash != key.hash() {
            return Err(IdentityError::Chain("is for another private key than ours"));
        }
        let root = verify::root_of(&chain, &roots, not_after)
            .ok_or(IdentityError::Chain("does not end in one of the roots"))?;
        // The root goes along so that a joining agent can compare it with the hash in its token.
        let presented = chain.iter().cloned().chain([root]).collect();
        let certified = CertifiedKey::from_der(presented, key.to_der(), &verify::provider())
            .map_err(IdentityError::Pair)?;
        let anchors = verify::anchors(&roots)?.into();
        let presented = Arc::new(SingleCertAndKey::from(certified));
        Ok(Self { spiffe, key_hash, not_before, not_after, key, chain, roots, anchors, presented })
    }

    /// From PEM text: the chain with the leaf first, and one or more roots.
    pub fn from_pem(key: PrivateKey, chain: &str, roots: &str) -> Result<Self, IdentityError> {
        Self::new(key, certificate::from_pem(chain)?, certificate::from_pem(roots)?)
    }

    /// The same key with a renewed chain and the roots of now, as they came over the wire (DER).
    pub fn renewed(&self, chain: Vec<Vec<u8>>, roots: Vec<Vec<u8>>) -> Result<Self, IdentityError> {
        self.with(certificate::from_der(chain), certificate::from_der(roots))
    }

    /// From an enrollment's answer: the chain with the leaf first, and one or more roots.
    pub fn from_der(
        key: PrivateKey,
        chain: Vec<Vec<u8>>,
        roots: Vec<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        Self::new(key, certificate::from_der(chain), certificate::from_der(roots))
    }

    /// The same key with another chain or other roots.
    pub fn with(
        &self,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        Self::new(PrivateKey::from_pem(&self.key.to_pem())?, chain, roots)
    }

    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// A request to renew with the same key.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        self.key.request()
    }

    /// When to renew; the same at every start, and not the same for every node.
    pub fn renew_at(&self) -> Timestamp {
        let [a, b, c, d, e, f, g, h, ..] = self.key_hash.0;
        let seed = u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ self.not_after.0;
        renew_at(self.not_before, self.not_after, seed)
    }
}

/// A day after the certificate was made, or at half of its life, a tenth more or less by `seed`.
/// Always before `not_after`.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, seed: u64) -> Timestamp {
    let made = Some(not_before + BACKDATE).filter(|made| *made < not_after).unwrap_or(not_before);
    let wait = RENEW_AFTER.0.min(not_after.since(made).0 / 2);
    // 0..=200 thousandths, taken from all bits of the seed.
    let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let jittered = wait / 10 * 9 + (wait / 1000) * (spread % 201);
    made + Millis(jittered)
}

/// SHA-256 of a certificate, DER: what a token carries of the root.
pub fn certificate_sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// The identity that is current now. Whoever opens a connection takes it from here; what is open
/// keeps the one it began with, so renewal and rotation of roots disturb nothing.
#[derive(Clone)]
pub struct IdentityHandle {
    current: Arc<watch::Sender<Arc<Identity>>>,
}

impl IdentityHandle {
    pub fn new(identity: Identity) -> Self {
        Self { current: Arc::new(watch::Sender::new(Arc::new(identity))) }
    }

    pub fn current(&self) -> Arc<Identity> {
        self.current.borrow().clone()
    }

    pub fn replace(&self, identity: Identity) {
        self.current.send_replace(Arc::new(identity));
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Identity>> {
        self.current.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_model::identity::Subject;
    use proptest::prelude::*;

    use super::*;
    use crate::test_ca::{Dates, TestCa};

    const DAY: u64 = 24 * 3600 * 1000;

    fn within_a_tenth(got: u64, want: u64) -> bool {
        // Rounding of the thousandths may cost a little at the edges.
        (want * 89 / 100..=want * 111 / 100).contains(&got)
    }

    #[test]
    fn month_long_certificates_are_renewed_daily() {
        let made = Timestamp(100 * DAY);
        let not_before = Timestamp(made.0 - BACKDATE.0);
        let waits: Vec<u64> = (0..100)
            .map(|seed| renew_at(not_before, made + Millis(30 * DAY), seed).since(made).0)
            .collect();
        assert!(waits.iter().all(|wait| within_a_tenth(*wait, DAY)), "{waits:?}");
        let (min, max) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(max - min > DAY / 10, "spread over the fleet: {min} to {max}");
    }

    #[test]
    fn certificates_of_seconds_are_renewed_at_half_of_their_life() {
        let made = Timestamp(100 * DAY);
        for not_before in [made, Timestamp(made.0 - BACKDATE.0)] {
            let at = renew_at(not_before, made + Millis(10_000), 7);
            assert!(within_a_tenth(at.since(made).0, 5000), "{not_before:?}: {at:?}");
        }
    }

    proptest! {
        #[test]
        fn renewal_comes_before_the_end(
            not_before in 0u64..1 << 42, life in 2u64..1 << 36, seed in any::<u64>(),
        ) {
            let not_after = Timestamp(not_before + life);
            let at = renew_at(Timestamp(not_before), not_after, seed);
            prop_assert!(Timestamp(not_before) <= at && at < not_after);
        }
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let (ca, other) = (TestCa::new("prod"), TestCa::new("prod"));
        let subject = Subject::Node("web1".parse().unwrap());
        let key = || PrivateKey::generate().unwrap();
        let (mine, another) = (key(), key());
        let chain = ca.issue(subject.clone(), mine.signer(), Dates::GOOD);
        let refusal =
            |key, chain, roots| Identity::new(key, chain, roots).err().map(|e| e.to_string());
        for (got, want) in [
            (refusal(another, chain.clone(), vec![ca.root()]), "another private key"),
            (refusal(mine, chain.clone(), vec![other.root()]), "does not end in one of the roots"),
            (refusal(key(), vec![], vec![ca.root()]), "holds no certificate"),
            (refusal(key(), vec![CertificateDer::from(vec![1])], vec![]), "not readable X.509"),
        ] {
            assert!(got.as_ref().is_some_and(|got| got.contains(want)), "{got:?}");
        }
        let expired = ca.identity(subject, Dates::EXPIRED);
        assert!(expired.not_after < crate::clock::now(), "an expired one can still be renewed");
    }
}
