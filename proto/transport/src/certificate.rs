//! Reads what a certificate says: name, key, dates; and PEM in and out. It verifies nothing: what
//! is read here is a claim until `verify` has seen the chain.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lockstep_model::identity::{Principal, SpiffeId};
use lockstep_model::{Invalid, KeyHash, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use crate::keys::key_hash;

/// Most certificates of one PEM text: a chain or a bundle of roots.
pub const CERTIFICATES_MAX: usize = 8;

#[derive(Clone, Debug, thiserror::Error)]
pub enum CertError {
    #[error("is not readable X.509: {0}")]
    Malformed(String),
    #[error("must carry exactly one URI name, spiffe://…, and has {0}")]
    Names(usize),
    #[error("{0}")]
    Name(#[from] Invalid),
    #[error("must be PEM with one to {CERTIFICATES_MAX} certificates: {0}")]
    Pem(String),
}

/// What a certificate says of its holder. Dates are whole seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerCert {
    pub spiffe: SpiffeId,
    pub key_hash: KeyHash,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl PeerCert {
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertError> {
        let malformed = |why: &dyn fmt::Display| CertError::Malformed(why.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| malformed(&e))?;
        let names = certificate.subject_alternative_name().map_err(|e| malformed(&e))?;
        let names = names.map(|san| san.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris.as_slice() else { return Err(CertError::Names(uris.len())) };
        Ok(Self {
            spiffe: uri.parse()?,
            key_hash: key_hash(certificate.public_key().raw),
            not_before: timestamp(certificate.validity().not_before),
            not_after: timestamp(certificate.validity().not_after),
        })
    }

    pub fn principal(&self) -> Principal {
        Principal { subject: self.spiffe.subject.clone(), key_hash: self.key_hash }
    }
}

/// Dates before 1970 read as 1970.
fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp(u64::try_from(time.timestamp()).unwrap_or_default().saturating_mul(1000))
}

/// As they stand in a message: DER.
pub fn from_der(certificates: Vec<Vec<u8>>) -> Vec<CertificateDer<'static>> {
    certificates.into_iter().map(CertificateDer::from).collect()
}

/// All certificates of a PEM text; at least one.
pub fn from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        if found.len() == CERTIFICATES_MAX {
            return Err(CertError::Pem("there are more".to_owned()));
        }
        found.push(certificate.map_err(|e| CertError::Pem(e.to_string()))?);
    }
    if found.is_empty() {
        return Err(CertError::Pem("there is none".to_owned()));
    }
    Ok(found)
}

pub fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    const LINE: usize = 64;
    let mut out = String::new();
    for certificate in certificates {
        out += "-----BEGIN CERTIFICATE-----\n";
        let mut text = STANDARD.encode(certificate);
        while text.len() > LINE {
            let rest = text.split_off(LINE);
            out += &text;
            out.push('\n');
            text = rest;
        }
        out += &text;
        out += "\n-----END CERTIFICATE-----\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::keys::PrivateKey;
    use crate::test_ca::{Dates, TestCa};

    fn leaf(uris: &[&str]) -> (CertificateDer<'static>, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let mut chain = TestCa::new("prod").issue_named(uris, key.signer(), Dates::GOOD);
        (chain.remove(0), key)
    }

    #[test]
    fn says_who_and_with_which_key() {
        let (der, key) = leaf(&["spiffe://prod/node/web1"]);
        let peer = PeerCert::read(&der).unwrap();
        assert_eq!(peer.spiffe.to_string(), "spiffe://prod/node/web1");
        assert_eq!(peer.key_hash, key.hash());
        assert_eq!(peer.not_after.since(peer.not_before).0, 7_200_000);
        assert_eq!(peer.principal().subject.to_string(), "node/web1");
    }

    #[test]
    fn has_exactly_one_name_and_a_good_one() {
        for (uris, want) in [
            (&[][..], "exactly one URI name, spiffe://…, and has 0"),
            (&["spiffe://prod/node/a", "spiffe://prod/node/b"], "and has 2"),
            (&["https://prod/node/a"], "spiffe id: must be"),
            (&["spiffe://prod/root/a"], "spiffe id: must be"),
            (&["spiffe://prod/node/a/b"], "spiffe id: must be"),
            (&["spiffe://prod/node/.."], "node name: "),
            (&["spiffe://PROD/node/a"], "fleet name: "),
            (&["spiffe://prod/node/a%0a"], "node name: "),
        ] {
            let error = PeerCert::read(&leaf(uris).0).unwrap_err().to_string();
            assert!(error.contains(want), "{uris:?}: {error}");
        }
    }

    #[test]
    fn pem_reads_back() {
        let all: Vec<_> = (0..CERTIFICATES_MAX).map(|_| TestCa::new("x").root()).collect();
        assert_eq!(from_pem(&to_pem(&all)).unwrap(), all);
        let more = to_pem(&all) + &to_pem(&all[..1]);
        assert!(matches!(from_pem(&more), Err(CertError::Pem(_))));
        assert!(matches!(from_pem("text without any"), Err(CertError::Pem(_))));
    }

    static GOOD: LazyLock<CertificateDer<'static>> =
        LazyLock::new(|| leaf(&["spiffe://prod/node/web1"]).0);

    proptest! {
        #[test]
        fn damaged_certificates_are_no_crash(at in 0usize..600, to in any::<u8>(), cut in 0usize..600) {
            let mut der = GOOD.to_vec();
            let at = at % der.len();
            der[at] = to;
            let _ = PeerCert::read(&CertificateDer::from(der.clone()));
            der.truncate(cut.min(der.len() - 1));
            prop_assert!(PeerCert::read(&CertificateDer::from(der)).is_err());
        }

        #[test]
        fn garbage_is_no_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PeerCert::read(&CertificateDer::from(bytes.clone()));
            let _ = from_pem(&String::from_utf8_lossy(&bytes));
        }
    }
}
