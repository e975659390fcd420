//! Whom we believe: a chain is checked with webpki, a name with our own rules. Signatures are never
//! skipped; only expiry may be waived, for keys that the caller vouches for.

mod verifiers;

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use lockstep_model::identity::{SpiffeId, Subject};
use lockstep_model::{FleetName, KeyHash, NodeName, Timestamp};
use rustls::CertificateError;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{CertError, PeerCert};
use crate::identity::{Identity, certificate_sha256};

pub(crate) use verifiers::{ClientVerifier, ServerVerifier};

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// The one crypto provider, passed explicitly everywhere: no process default is ever set.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// Why a peer's certificate was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("its certificate {0}")]
    Unreadable(#[from] CertError),
    #[error("its certificate was not issued under a root that we trust; is it of another fleet?")]
    UnknownRoot,
    #[error(
        "the controller's root certificate does not match the token; is this the controller that made the token?"
    )]
    RootMismatch,
    #[error("its certificate expired at {0}")]
    Expired(Timestamp),
    #[error("its certificate is valid only from {0}; compare the clocks of both machines")]
    NotYetValid(Timestamp),
    #[error("it belongs to fleet {got}, we to {want}")]
    WrongFleet { got: FleetName, want: FleetName },
    #[error("it is {got}, not {want}")]
    WrongPeer { got: Subject, want: String },
    #[error(
        "{who} has another key than the recorded one; was it joined anew, or is its name taken?"
    )]
    WrongKey { who: Subject },
    #[error("its certificate is not valid here: {0}")]
    Chain(String),
}

impl From<VerifyError> for rustls::Error {
    /// The alert tells the peer the kind of reason and no more.
    fn from(error: VerifyError) -> Self {
        use VerifyError::{
            Chain, Expired, NotYetValid, RootMismatch, UnknownRoot, Unreadable, WrongFleet,
            WrongKey, WrongPeer,
        };
        Self::InvalidCertificate(match error {
            Unreadable(_) => CertificateError::BadEncoding,
            UnknownRoot | RootMismatch => CertificateError::UnknownIssuer,
            Expired(_) => CertificateError::Expired,
            NotYetValid(_) => CertificateError::NotValidYet,
            WrongFleet { .. } | WrongPeer { .. } | WrongKey { .. } => {
                CertificateError::ApplicationVerificationFailure
            }
            Chain(_) => CertificateError::InvalidPurpose,
        })
    }
}

/// A refusal with the name that the certificate claimed, for the audit log.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub claimed: Option<SpiffeId>,
    pub why: VerifyError,
}

/// What a verifier found, for the one who runs the handshake; rustls itself passes on less. Only
/// after the handshake has ended well is the peer proven to hold the key.
pub type Outcome = Arc<OnceLock<Result<PeerCert, Refusal>>>;

/// Says of a certificate that is expired and otherwise good whether it may pass.
pub type AcceptExpired = Arc<dyn Fn(&PeerCert) -> bool + Send + Sync>;

/// What a server asks of its clients.
#[derive(Clone)]
pub struct ClientPolicy {
    /// Clients without a certificate are let in, to join.
    pub anonymous: bool,
    pub accept_expired: AcceptExpired,
}

impl ClientPolicy {
    /// Only members of the fleet, only with a certificate that has not expired.
    pub fn members() -> Self {
        Self { anonymous: false, accept_expired: Arc::new(|_| false) }
    }
}

/// Whom a client wants to find at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    Controller,
    /// A node with, if known, its key.
    Node {
        name: NodeName,
        pin: Option<Pin>,
    },
}

/// The key that a peer must have. With `accept_expired` its certificate may have run out: so it is
/// between agents while the controller is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin {
    pub key_hash: KeyHash,
    pub accept_expired: bool,
}

pub(crate) fn anchors(
    roots: &[CertificateDer<'_>],
) -> Result<Vec<TrustAnchor<'static>>, CertError> {
    let anchor = |root| {
        webpki::anchor_from_trusted_cert(root)
            .map(|anchor| anchor.to_owned())
            .map_err(|e| CertError::Malformed(format!("root certificate: {e}")))
    };
    roots.iter().map(anchor).collect()
}

/// The root under which a chain was issued, its dates judged at `at`.
pub(crate) fn root_of(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    at: Timestamp,
) -> Option<CertificateDer<'static>> {
    let (leaf, rest) = chain.split_first()?;
    let issued = |root: &&CertificateDer<'static>| {
        anchors(std::slice::from_ref(root)).is_ok_and(|anchors| {
            check_chain(leaf, rest, &anchors, at, KeyUsage::client_auth()).is_ok()
        })
    };
    roots.iter().find(issued).cloned()
}

fn check_chain(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    at: Timestamp,
    usage: KeyUsage,
) -> Result<(), VerifyError> {
    let chain = |e: webpki::Error| VerifyError::Chain(e.to_string());
    let algorithms = PROVIDER.signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(Duration::from_millis(at.0));
    let leaf = EndEntityCert::try_from(leaf).map_err(chain)?;
    match leaf.verify_for_usage(algorithms, anchors, rest, at, usage, None, None) {
        Ok(_) => Ok(()),
        // The latter: a CA of the same name, and not the same CA.
        Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
            Err(VerifyError::UnknownRoot)
        }
        Err(e) => Err(chain(e)),
    }
}

/// The common part of all verifiers.
fn check(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    usage: KeyUsage,
    now: Timestamp,
    accept: impl FnOnce(&PeerCert) -> Result<Waiver, VerifyError>,
) -> Result<PeerCert, Refusal> {
    let peer = PeerCert::read(leaf).map_err(|e| Refusal { claimed: None, why: e.into() })?;
    let checked = || {
        // First whether it is one of us at all: what a stranger's certificate says is no reason.
        let expired = now > peer.not_after;
        let early = now < peer.not_before;
        let at = if expired {
            peer.not_after
        } else if early {
            peer.not_before
        } else {
            now
        };
        check_chain(leaf, rest, anchors, at, usage)?;
        let waiver = accept(&peer)?;
        if early {
            return Err(VerifyError::NotYetValid(peer.not_before));
        }
        if expired && waiver == Waiver::None {
            return Err(VerifyError::Expired(peer.not_after));
        }
        Ok(())
    };
    match checked() {
        Ok(()) => Ok(peer),
        Err(why) => Err(Refusal { claimed: Some(peer.spiffe), why }),
    }
}

#[derive(PartialEq, Eq)]
enum Waiver {
    None,
    Expiry,
}

impl Waiver {
    fn expiry_if(yes: bool) -> Self {
        if yes { Self::Expiry } else { Self::None }
    }
}

fn check_fleet(peer: &PeerCert, ours: &FleetName) -> Result<(), VerifyError> {
    if peer.spiffe.fleet == *ours {
        return Ok(());
    }
    Err(VerifyError::WrongFleet { got: peer.spiffe.fleet.clone(), want: ours.clone() })
}

/// On what a client's belief stands.
pub(crate) enum Belief {
    /// Our own roots and a name.
    Member { identity: Arc<Identity>, expect: Expect },
    /// Nothing but the hash of the root, out of a token.
    Token { root_sha256: [u8; 32] },
}

/// What a server makes of a client's certificate.
fn check_client(
    identity: &Identity,
    policy: &ClientPolicy,
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<PeerCert, Refusal> {
    check(leaf, rest, &identity.anchors, KeyUsage::client_auth(), now, |peer| {
        check_fleet(peer, &identity.spiffe.fleet)?;
        Ok(Waiver::expiry_if((policy.accept_expired)(peer)))
    })
}

/// What a client makes of a server's certificate.
fn check_server(
    belief: &Belief,
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<PeerCert, Refusal> {
    let usage = KeyUsage::server_auth();
    match belief {
        Belief::Member { identity, expect } => {
            check(leaf, rest, &identity.anchors, usage, now, |peer| {
                check_fleet(peer, &identity.spiffe.fleet)?;
                expect.check(peer)
            })
        }
        Belief::Token { root_sha256 } => {
            let root = rest.iter().find(|cert| certificate_sha256(cert) == *root_sha256);
            let claimed = || PeerCert::read(leaf).ok().map(|peer| peer.spiffe);
            let anchors = root
                .ok_or(VerifyError::RootMismatch)
                .and_then(|root| Ok(anchors(std::slice::from_ref(root))?))
                .map_err(|why| Refusal { claimed: claimed(), why })?;
            check(leaf, rest, &anchors, usage, now, |peer| Expect::Controller.check(peer))
        }
    }
}

impl Expect {
    fn check(&self, peer: &PeerCert) -> Result<Waiver, VerifyError> {
        let got = &peer.spiffe.subject;
        let wrong = |want: String| Err(VerifyError::WrongPeer { got: got.clone(), want });
        match (self, got) {
            (Self::Controller, Subject::Controller(_)) => Ok(Waiver::None),
            (Self::Controller, _) => wrong("a controller".to_owned()),
            (Self::Node { name, pin }, Subject::Node(node)) if name == node => match pin {
                Some(pin) if pin.key_hash != peer.key_hash => {
                    Err(VerifyError::WrongKey { who: got.clone() })
                }
                pin => Ok(Waiver::expiry_if(pin.is_some_and(|pin| pin.accept_expired))),
            },
            (Self::Node { name, .. }, _) => wrong(format!("node/{name}")),
        }
    }
}
