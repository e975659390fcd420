//! A tiny CA for tests: root, issuing CA, leaves with any dates. The real one is the controller's.

use std::time::Duration;

use lockstep_model::FleetName;
use lockstep_model::identity::{SpiffeId, Subject};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;

use crate::clock;
use crate::identity::{Identity, IdentityHandle, certificate_sha256};
use crate::keys::PrivateKey;

/// Validity of a leaf, relative to now, in seconds.
#[derive(Clone, Copy)]
pub struct Dates {
    pub from_secs: i64,
    pub to_secs: i64,
}

impl Dates {
    pub const GOOD: Self = Self { from_secs: -3600, to_secs: 3600 };
    pub const EXPIRED: Self = Self { from_secs: -7200, to_secs: -60 };
    pub const FUTURE: Self = Self { from_secs: 600, to_secs: 3600 };
}

/// A root with one issuing CA under it.
pub struct TestCa {
    fleet: FleetName,
    root: Certificate,
    issuing: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    /// Each call makes other keys, also for the same name.
    pub fn new(fleet: &str) -> Self {
        let (root_key, issuing_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root_params = ca_params(&format!("{fleet} root"));
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let issuing_params = ca_params(&format!("{fleet} issuing"));
        let issuing = issuing_params.signed_by(&issuing_key, &root_issuer).unwrap();
        let issuer = Issuer::new(issuing_params, issuing_key);
        Self { fleet: fleet.parse().unwrap(), root, issuing, issuer }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    pub fn root_sha256(&self) -> [u8; 32] {
        certificate_sha256(self.root.der())
    }

    /// Leaf and issuing certificate for a public key.
    pub fn issue(
        &self,
        subject: Subject,
        key: &impl PublicKeyData,
        dates: Dates,
    ) -> Vec<CertificateDer<'static>> {
        let spiffe = SpiffeId { fleet: self.fleet.clone(), subject };
        self.issue_named(&[&spiffe.to_string()], key, dates)
    }

    /// The same for any URI names.
    pub fn issue_named(
        &self,
        uris: &[&str],
        key: &impl PublicKeyData,
        dates: Dates,
    ) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now_secs = i64::try_from(clock::now().0 / 1000).unwrap();
        let at = |offset: i64| {
            let secs = u64::try_from(now_secs + offset).unwrap();
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs)
        };
        (params.not_before, params.not_after) = (at(dates.from_secs), at(dates.to_secs));
        let leaf = params.signed_by(key, &self.issuer).unwrap();
        vec![leaf.der().clone(), self.issuing.der().clone()]
    }

    /// A whole identity with a new key, trusting this CA's root alone.
    pub fn identity(&self, subject: Subject, dates: Dates) -> Identity {
        self.renewed(PrivateKey::generate().unwrap(), subject, dates, vec![self.root()])
    }

    /// A whole identity for a given key and roots.
    pub fn renewed(
        &self,
        key: PrivateKey,
        subject: Subject,
        dates: Dates,
        roots: Vec<CertificateDer<'static>>,
    ) -> Identity {
        let chain = self.issue(subject, key.signer(), dates);
        Identity::new(key, chain, roots).unwrap()
    }

    pub fn controller(&self) -> IdentityHandle {
        let subject = Subject::Controller("c1".parse().unwrap());
        IdentityHandle::new(self.identity(subject, Dates::GOOD))
    }

    pub fn node(&self, name: &str) -> IdentityHandle {
        IdentityHandle::new(self.identity(Subject::Node(name.parse().unwrap()), Dates::GOOD))
    }

    pub fn user(&self, name: &str) -> IdentityHandle {
        IdentityHandle::new(self.identity(Subject::User(name.parse().unwrap()), Dates::GOOD))
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}
