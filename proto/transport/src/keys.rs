//! Private keys and what leaves a machine of them: a request that carries the public key, and that
//! key's hash. Keys are ECDSA P-256; no type here shows its secret.

use lockstep_model::KeyHash;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData,
};
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Longest certificate request that is read, in bytes; one for P-256 has some 200.
pub const CSR_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot make a private key: {0}")]
    Make(rcgen::Error),
    #[error("private key cannot be read: {0}; it must be an ECDSA P-256 key in PKCS#8 PEM")]
    Read(rcgen::Error),
    #[error("certificate request is not acceptable: {0}; make one with an ECDSA P-256 key")]
    Request(String),
}

/// A private key. It has no Debug and no Clone, and leaves only through [`PrivateKey::to_pem`].
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(KeyError::Make)
    }

    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(KeyError::Read)
    }

    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    pub fn hash(&self) -> KeyHash {
        key_hash(&self.0.subject_public_key_info())
    }

    /// A certificate request, DER. It says nothing but the public key: names and dates are the
    /// issuer's to choose.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(KeyError::Make)?;
        Ok(request.der().to_vec())
    }

    /// What rcgen signs with: a CA's key is one of these too.
    pub fn signer(&self) -> &KeyPair {
        &self.0
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

/// The public key of a request whose signature proves that the sender holds the private one.
/// Everything else in it is ignored.
pub fn read_request(der: &[u8]) -> Result<PublicKey, KeyError> {
    let refuse = |why: &str| KeyError::Request(why.to_owned());
    if der.len() > CSR_MAX {
        return Err(refuse("it is too long"));
    }
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|e| KeyError::Request(e.to_string()))?;
    if PublicKeyData::algorithm(&request.public_key) != &PKCS_ECDSA_P256_SHA256 {
        return Err(refuse("its key is of another kind"));
    }
    Ok(request.public_key)
}

/// The hash of a key read by [`read_request`].
pub fn public_key_hash(key: &PublicKey) -> KeyHash {
    key_hash(&key.subject_public_key_info())
}

/// The hash of a SubjectPublicKeyInfo, DER.
pub fn key_hash(spki: &[u8]) -> KeyHash {
    KeyHash(Sha256::digest(spki).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_survives_its_pem_and_its_request() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem()).map(|k| k.hash()).ok();
        assert_eq!(again, Some(key.hash()));
        let public = read_request(&key.request().unwrap()).unwrap();
        assert_eq!(public_key_hash(&public), key.hash());
    }

    #[test]
    fn a_request_with_a_foreign_signature_is_refused() {
        let mut der = PrivateKey::generate().unwrap().request().unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(read_request(&der), Err(KeyError::Request(_))));
        assert!(matches!(read_request(&[0; CSR_MAX + 1]), Err(KeyError::Request(_))));
    }

    #[test]
    fn only_p256_is_taken() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = CertificateParams::default();
        let request = params.serialize_request(&other).unwrap();
        assert!(matches!(read_request(request.der()), Err(KeyError::Request(_))));
        assert!(PrivateKey::from_pem(&other.serialize_pem()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_not_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read_request(&bytes).is_err());
            prop_assert!(PrivateKey::from_pem(&String::from_utf8_lossy(&bytes)).is_err());
        }
    }
}
