//! rustls configurations: TLS 1.3 only, one for each connection, so that every connection begins
//! with the identity that is current. Whom to believe is `verify`'s.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::identity::{Identity, IdentityHandle};
use crate::verify::{
    Belief, ClientPolicy, ClientVerifier, Expect, Outcome, ServerVerifier, provider,
};

/// What is spoken inside TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alpn {
    /// gRPC over HTTP/2.
    Grpc,
    /// The agents' data port.
    Data,
}

impl Alpn {
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"h2",
            Self::Data => b"lockstep-data/1",
        }
    }
}

/// As whom a client calls, and whom it expects.
#[derive(Clone)]
pub enum Caller {
    /// With our certificate.
    Member { identity: IdentityHandle, expect: Expect },
    /// With nothing yet but a token: only a controller whose chain holds this root is believed.
    Guest { root_sha256: [u8; 32] },
}

pub(crate) fn server_config(
    identity: Arc<Identity>,
    policy: ClientPolicy,
    alpn: Alpn,
) -> Result<(Arc<ServerConfig>, Outcome), rustls::Error> {
    let outcome = Outcome::default();
    let presented = identity.presented.clone();
    let verifier = ClientVerifier::new(identity, policy, outcome.clone());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(presented);
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    // No resumption: a resumed session skips the verifier, so an expelled peer would come back.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), outcome))
}

pub(crate) fn client_config(
    caller: &Caller,
    alpn: Alpn,
) -> Result<(Arc<ClientConfig>, Outcome), rustls::Error> {
    let outcome = Outcome::default();
    let (belief, presented) = match caller {
        Caller::Member { identity, expect } => {
            let identity = identity.current();
            let presented = identity.presented.clone();
            (Belief::Member { identity, expect: expect.clone() }, Some(presented))
        }
        Caller::Guest { root_sha256 } => (Belief::Token { root_sha256: *root_sha256 }, None),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // rustls' word for any verifier but its own, which knows DNS names only
        .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(belief, outcome.clone())));
    let mut config = match presented {
        Some(presented) => builder.with_client_cert_resolver(presented),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok((Arc::new(config), outcome))
}
