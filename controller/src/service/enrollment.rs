//! EnrollmentService: certificates for tokens, and for those who have one.

use lockstep_model::identity::SpiffeId;
use lockstep_model::record::Actor;
use lockstep_model::request::Request as Wish;
use lockstep_model::{Code, Reject, TokenId};
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::v1;
use lockstep_proto::v1::enrollment_service_server::EnrollmentService;
use lockstep_transport::clock;
use lockstep_transport::keys::{public_key_hash, read_request};
use lockstep_transport::token::secret_sha256;
use rustls_pki_types::CertificateDer;
use tonic::Request;

use super::{Answer, Api, answer, open};
use crate::driver::Ask;
use crate::identity::ca::Issued;

#[tonic::async_trait]
impl EnrollmentService for Api {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Answer<v1::EnrollResponse> {
        answer(self.enroll_key(request).await)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Answer<v1::RenewResponse> {
        answer(self.renew_key(request))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<v1::GetTrustBundleRequest>,
    ) -> Answer<v1::GetTrustBundleResponse> {
        answer(Ok(v1::GetTrustBundleResponse { trust_bundle: Some(self.trust_bundle()) }))
    }
}

impl Api {
    fn trust_bundle(&self) -> v1::TrustBundle {
        v1::TrustBundle { roots: self.0.authority.roots() }
    }

    async fn enroll_key(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<v1::EnrollResponse, Reject> {
        let (_, v1::EnrollRequest { token_id, token_secret, csr }) = open(request)?;
        let token: TokenId = token_id.parse()?;
        let key = read_request(&csr).map_err(bad_csr)?;
        let secret_sha256 = secret_sha256(&token_secret);
        // Who is joining is what the token says; until it is checked, nobody in particular.
        let wish =
            Wish::Enroll { token: token.clone(), secret_sha256, key_hash: public_key_hash(&key) };
        let cause = "EnrollmentService/Enroll";
        self.driver().ask(Ask::new(Actor::Anonymous, cause, wish)).await?;
        let subject = self
            .driver()
            .read(|world| world.tokens().get(&token).map(|token| token.value.grants.subject()));
        let subject = subject.ok_or_else(|| {
            let message = "the token was deleted meanwhile: ask an admin for a new one";
            Reject::new(Code::Aborted, "token_unknown", format!("token/{token}"), message)
        })?;
        let Issued { chain, expires_at } = self.0.authority.issue(&subject, &csr, clock::now())?;
        let fleet = self.0.authority.ca().fleet().clone();
        Ok(v1::EnrollResponse {
            spiffe_id: SpiffeId { fleet, subject }.to_string(),
            chain: der(chain),
            trust_bundle: Some(self.trust_bundle()),
            expires_at: Some(to_wire_time(expires_at)),
        })
    }

    fn renew_key(&self, request: Request<v1::RenewRequest>) -> Result<v1::RenewResponse, Reject> {
        let (caller, v1::RenewRequest { csr }) = open(request)?;
        let principal = caller.principal()?;
        let key = public_key_hash(&read_request(&csr).map_err(bad_csr)?);
        if key != principal.key_hash {
            let message = "the request is for another key than the one that asks: renewing keeps \
                           the key; for a new one, join with a new token";
            return Err(Reject::new(
                Code::PermissionDenied,
                "other_key",
                &principal.subject,
                message,
            ));
        }
        let Issued { chain, expires_at } =
            self.0.authority.issue(&principal.subject, &csr, clock::now())?;
        tracing::info!(target: "audit", who = %principal.subject, key = %key, %expires_at, "renewed a certificate");
        Ok(v1::RenewResponse {
            chain: der(chain),
            trust_bundle: Some(self.trust_bundle()),
            expires_at: Some(to_wire_time(expires_at)),
        })
    }
}

fn bad_csr(error: lockstep_transport::keys::KeyError) -> Reject {
    Reject::new(Code::InvalidArgument, "bad_csr", "csr", error.to_string())
}

fn der(chain: Vec<CertificateDer<'static>>) -> Vec<Vec<u8>> {
    chain.into_iter().map(|certificate| certificate.to_vec()).collect()
}
