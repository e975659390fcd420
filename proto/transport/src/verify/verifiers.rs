//! The two verifiers as rustls wants them: each serves one connection, and keeps what it found for
//! whoever runs the handshake. They decide nothing themselves.

use std::fmt;
use std::sync::Arc;

use lockstep_model::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Belief, ClientPolicy, Outcome, PROVIDER, Refusal, check_client, check_server};
use crate::certificate::PeerCert;
use crate::identity::Identity;

/// Checks clients, for one connection.
pub(crate) struct ClientVerifier {
    identity: Arc<Identity>,
    policy: ClientPolicy,
    outcome: Outcome,
}

impl ClientVerifier {
    pub(crate) fn new(identity: Arc<Identity>, policy: ClientPolicy, outcome: Outcome) -> Self {
        Self { identity, policy, outcome }
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.policy.anonymous
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let found = check_client(&self.identity, &self.policy, leaf, rest, timestamp(now));
        report(&self.outcome, found).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

fn only_tls13() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken here".to_owned())
}

/// Checks servers, for one connection. The name that was dialed means nothing: addresses move,
/// SPIFFE ids do not.
pub(crate) struct ServerVerifier {
    belief: Belief,
    outcome: Outcome,
}

impl ServerVerifier {
    pub(crate) fn new(belief: Belief, outcome: Outcome) -> Self {
        Self { belief, outcome }
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerVerifier")
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = check_server(&self.belief, leaf, rest, timestamp(now));
        report(&self.outcome, found).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp(time.as_secs().saturating_mul(1000))
}

/// Keeps what was found and says it in rustls' words.
fn report(outcome: &Outcome, found: Result<PeerCert, Refusal>) -> Result<(), rustls::Error> {
    let said = found.as_ref().map(|_| ()).map_err(|refusal| refusal.why.clone().into());
    // A handshake asks once; were it to ask twice, the first answer stands.
    let _ = outcome.set(found);
    said
}
