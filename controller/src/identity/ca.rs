//! The certificate authority: `root-<n>.pem` and `issuing.pem` in one directory, each a private key
//! and its certificates. It signs public keys and decides nothing: whose key it is, the caller says.
//!
//! The files are the state. A second root file means that a rotation is under way: both roots are
//! trusted, and the issuing certificate is signed by both, so that members who know only one of
//! them believe what is issued from now on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_model::identity::{SpiffeId, Subject};
use lockstep_model::{FleetName, Millis, Timestamp};
use lockstep_transport::certificate::{self, CERTIFICATES_MAX};
use lockstep_transport::durable;
use lockstep_transport::identity::{BACKDATE, certificate_sha256};
use lockstep_transport::keys::{KeyError, PrivateKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: u64 = 24 * 3600;
const ROOT_LIFE: Millis = Millis::from_secs(3650 * DAY);
const ISSUING_LIFE: Millis = Millis::from_secs(365 * DAY);
/// The issuing key is replaced when this much of its life is left, so a leaf never outlives it.
const ISSUING_RENEW: Millis = LEAF_LIFE_MAX;
/// Longest life of a leaf.
pub const LEAF_LIFE_MAX: Millis = Millis::from_secs(90 * DAY);
/// Most roots at once: the current one and the one it replaces.
pub const ROOTS_MAX: usize = 2;
const ISSUING: &str = "issuing.pem";

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    #[error("{file}: {why}")]
    File { file: String, why: String },
    #[error("private key: {0}")]
    Key(#[from] KeyError),
    #[error("cannot sign a certificate: {0}")]
    Sign(#[from] rcgen::Error),
    #[error("{0}")]
    Refused(String),
}

/// A key that signs, with its certificates: one for a root, one of each root for the issuing key.
struct Signer {
    key: PrivateKey,
    certificates: Vec<CertificateDer<'static>>,
    not_after: Timestamp,
}

/// One root as people are shown it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootInfo {
    pub number: u32,
    pub sha256: [u8; 32],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// An issued certificate: the leaf, then the issuing certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub expires_at: Timestamp,
}

pub struct Ca {
    fleet: FleetName,
    /// Newest first, as are `numbers`.
    roots: Vec<CertificateDer<'static>>,
    numbers: Vec<u32>,
    issuing: Signer,
}

impl Ca {
    /// Makes the first root. The directory must not hold one.
    pub fn create(dir: &Path, fleet: &FleetName, now: Timestamp) -> Result<Self, CaError> {
        durable::make_secret_dir(dir).map_err(|e| io_error(dir, e))?;
        if !root_numbers(dir)?.is_empty() {
            return Err(CaError::Refused(format!("{} holds a CA already", dir.display())));
        }
        make_root(dir, 1, now)?;
        Self::load(dir, fleet, now)
    }

    /// Reads the roots, and the issuing key, which is made anew when it is missing, near its end or
    /// not signed by exactly these roots.
    pub fn load(dir: &Path, fleet: &FleetName, now: Timestamp) -> Result<Self, CaError> {
        let numbers = root_numbers(dir)?;
        let mut roots = Vec::new();
        for number in &numbers {
            roots.push(read_signer(&root_path(dir, *number))?);
        }
        if roots.is_empty() {
            let why = "there is no root-<n>.pem here; restore the directory from its copy";
            return Err(CaError::File { file: dir.display().to_string(), why: why.to_owned() });
        }
        let path = dir.join(ISSUING);
        let kept = if path.exists() { Some(read_signer(&path)?) } else { None };
        let issuing = match kept.filter(|signer| still_good(signer, &roots, now)) {
            Some(signer) => signer,
            None => make_issuing(&path, &roots, now)?,
        };
        let roots = roots.into_iter().flat_map(|root| root.certificates).collect();
        Ok(Self { fleet: fleet.clone(), roots, numbers, issuing })
    }

    /// Begins a rotation: a new root beside the old one. What runs on this directory loads it anew.
    pub fn rotate(dir: &Path, now: Timestamp) -> Result<RootInfo, CaError> {
        let numbers = root_numbers(dir)?;
        let newest = numbers.first().copied().unwrap_or_default();
        if numbers.len() >= ROOTS_MAX {
            let oldest = numbers.last().copied().unwrap_or_default();
            return Err(CaError::Refused(format!(
                "a rotation is under way already; end it first with `ca retire`, which drops root {oldest}"
            )));
        }
        make_root(dir, newest + 1, now)?;
        list(dir)?.into_iter().next().ok_or_else(|| CaError::Refused("no root was made".to_owned()))
    }

    /// Ends a rotation: the old root is trusted no more. Refused before everyone can have renewed.
    pub fn retire(
        dir: &Path,
        leaf_life: Millis,
        force: bool,
        now: Timestamp,
    ) -> Result<RootInfo, CaError> {
        let roots = list(dir)?;
        let [new, old] = roots.as_slice() else {
            let why = "there is one root only; `ca rotate` makes its successor first";
            return Err(CaError::Refused(why.to_owned()));
        };
        let age = now.since(new.not_before + backdate_ca());
        if age < leaf_life && !force {
            return Err(CaError::Refused(format!(
                "root {} is {age} old; certificates under root {} may be in use until it is {leaf_life} old; \
                 wait, or give --force when every node has been connected since",
                new.number, old.number
            )));
        }
        let path = root_path(dir, old.number);
        fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
        durable::sync_dir(dir).map_err(|e| io_error(dir, e))?;
        Ok(old.clone())
    }

    /// A certificate for a public key, for client and server; it lives for `life` and never longer
    /// than the issuing key.
    pub fn issue(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        life: Millis,
        now: Timestamp,
    ) -> Result<Issued, CaError> {
        let id = SpiffeId { fleet: self.fleet.clone(), subject: subject.clone() };
        let expires_at = whole_seconds((now + life).min(self.issuing.not_after));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        set_dates(&mut params, Timestamp(now.0.saturating_sub(BACKDATE.0)), expires_at);
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuing.issuer()?)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.issuing.certificates.iter().cloned());
        Ok(Issued { chain, expires_at })
    }

    /// What members are to trust, newest first.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// What join tokens carry: the newest root.
    pub fn root_sha256(&self) -> [u8; 32] {
        self.roots.first().map(certificate_sha256).unwrap_or_default()
    }

    /// The numbers of the root files this was loaded from, newest first.
    pub fn root_numbers(&self) -> &[u32] {
        &self.numbers
    }

    pub fn fleet(&self) -> &FleetName {
        &self.fleet
    }

    /// When `load` will make another issuing key.
    pub fn renew_at(&self) -> Timestamp {
        Timestamp(self.issuing.not_after.0.saturating_sub(ISSUING_RENEW.0))
    }
}

impl Signer {
    /// What rcgen signs with; the names come from the first certificate, and all have the same.
    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, CaError> {
        let first = self.certificates.first().ok_or(rcgen::Error::CouldNotParseCertificate)?;
        Ok(Issuer::from_ca_cert_der(first, self.key.signer())?)
    }
}

/// The roots of a directory, newest first.
pub fn list(dir: &Path) -> Result<Vec<RootInfo>, CaError> {
    let read = |number| {
        let path = root_path(dir, number);
        let signer = read_signer(&path)?;
        let first = signer.certificates.first();
        let certificate = first.ok_or_else(|| wrong(&path, "holds no certificate"))?;
        let (not_before, not_after) = dates(&path, certificate)?;
        Ok(RootInfo { number, sha256: certificate_sha256(certificate), not_before, not_after })
    };
    root_numbers(dir)?.into_iter().map(read).collect()
}

/// The numbers of the root files, newest first.
pub fn root_numbers(dir: &Path) -> Result<Vec<u32>, CaError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| io_error(dir, e))? {
        let name = entry.map_err(|e| io_error(dir, e))?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("root-")?.strip_suffix(".pem"));
        numbers.extend(number.and_then(|n| n.parse::<u32>().ok()));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.truncate(CERTIFICATES_MAX);
    Ok(numbers)
}

fn root_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("root-{number}.pem"))
}

fn make_root(dir: &Path, number: u32, now: Timestamp) -> Result<(), CaError> {
    let key = PrivateKey::generate()?;
    let params = ca_params(&format!("lockstep root {number}"), ROOT_LIFE, 1, now);
    let certificate = params.self_signed(key.signer())?;
    write_signer(&root_path(dir, number), &key, std::slice::from_ref(certificate.der()))
}

/// A new issuing key, signed by every root, the newest first.
fn make_issuing(path: &Path, roots: &[Signer], now: Timestamp) -> Result<Signer, CaError> {
    let key = PrivateKey::generate()?;
    let mut params = ca_params(&format!("lockstep issuing {}", now.0 / 1000), ISSUING_LIFE, 0, now);
    params.use_authority_key_identifier_extension = true;
    let mut certificates = Vec::new();
    for root in roots {
        certificates.push(params.signed_by(key.signer(), &root.issuer()?)?.der().clone());
    }
    write_signer(path, &key, &certificates)?;
    tracing::info!(file = %path.display(), roots = roots.len(), "made a new issuing key");
    read_signer(path)
}

fn ca_params(name: &str, life: Millis, depth: u8, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_dates(&mut params, Timestamp(now.0.saturating_sub(backdate_ca().0)), now + life);
    params
}

/// Twice a leaf's, so that the CA's certificates are valid whenever a leaf is.
fn backdate_ca() -> Millis {
    Millis(BACKDATE.0 * 2)
}

/// Signed by exactly these roots, in this order, and not near its end.
fn still_good(issuing: &Signer, roots: &[Signer], now: Timestamp) -> bool {
    let signed_by = |certificate: &CertificateDer<'_>, root: &Signer| {
        let Some(root) = root.certificates.first() else { return false };
        match (X509Certificate::from_der(certificate), X509Certificate::from_der(root)) {
            (Ok((_, certificate)), Ok((_, root))) => certificate.issuer() == root.subject(),
            _ => false,
        }
    };
    now + ISSUING_RENEW < issuing.not_after
        && issuing.certificates.len() == roots.len()
        && issuing.certificates.iter().zip(roots).all(|(c, root)| signed_by(c, root))
}

fn write_signer(
    path: &Path,
    key: &PrivateKey,
    certificates: &[CertificateDer<'_>],
) -> Result<(), CaError> {
    let mut text = key.to_pem();
    text.push_str(&certificate::to_pem(certificates));
    durable::write_secret(path, text.as_bytes()).map_err(|e| io_error(path, e))
}

fn read_signer(path: &Path) -> Result<Signer, CaError> {
    let text = durable::read_secret(path).map_err(|e| io_error(path, e))?;
    let key = PrivateKey::from_pem(&text).map_err(|e| wrong(path, &e.to_string()))?;
    let certificates = certificate::from_pem(&text).map_err(|e| wrong(path, &e.to_string()))?;
    let mut not_after = Timestamp(u64::MAX);
    for certificate in &certificates {
        not_after = not_after.min(dates(path, certificate)?.1);
    }
    Ok(Signer { key, certificates, not_after })
}

fn dates(path: &Path, der: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), CaError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|e| wrong(path, &e.to_string()))?;
    let at = |secs: i64| Timestamp(u64::try_from(secs).unwrap_or_default().saturating_mul(1000));
    let validity = certificate.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

/// Certificates know whole seconds. The clock is ours, so the sums do not overflow.
fn set_dates(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before.0 / 1000);
    params.not_after = epoch + Duration::from_secs(not_after.0 / 1000);
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp(at.0 / 1000 * 1000)
}

fn io_error(path: &Path, source: io::Error) -> CaError {
    CaError::Io { file: path.display().to_string(), source }
}

fn wrong(path: &Path, why: &str) -> CaError {
    CaError::File { file: path.display().to_string(), why: why.to_owned() }
}

#[cfg(test)]
mod tests;
