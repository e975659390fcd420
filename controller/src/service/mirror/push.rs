//! The tokens of pushes, as their mirror's owner manages them.

use lockstep_model::request::Request as Wish;
use lockstep_model::{MirrorName, Reject};
use lockstep_proto::convert::parse;
use lockstep_proto::v1;
use lockstep_transport::token::secret_sha256;
use tonic::Request;

use super::no_mirror;
use crate::identity::draw;
use crate::service::{Api, open, result};

impl Api {
    pub(super) async fn create_push_token(
        &self,
        request: Request<v1::CreatePushTokenRequest>,
    ) -> Result<v1::CreatePushTokenResponse, Reject> {
        let (caller, v1::CreatePushTokenRequest { mutation, mirror }) = open(request)?;
        let mirror: MirrorName = parse("mirror", &mirror)?;
        let (id, text) = draw::push_token()?;
        let secret_sha256 = secret_sha256(text.as_bytes());
        let (of, new) = (mirror.clone(), id.clone());
        let wish = Wish::CreatePushToken { mirror, id, secret_sha256 };
        let cause = "MirrorService/CreatePushToken";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        let token = self.driver().read(|world| {
            let tokens = &world.mirrors().get(&of)?.value.push_tokens;
            tokens.iter().find(|token| token.id == new).map(Into::into)
        });
        let text = if token.is_some() { text.to_string() } else { String::new() };
        Ok(v1::CreatePushTokenResponse { result: Some(result(&done)), token, text })
    }

    pub(super) fn list_push_tokens(
        &self,
        request: Request<v1::ListPushTokensRequest>,
    ) -> Result<v1::ListPushTokensResponse, Reject> {
        let (_, v1::ListPushTokensRequest { mirror }) = open(request)?;
        let name: MirrorName = parse("mirror", &mirror)?;
        let tokens = self.driver().read(|world| {
            let mirror = &world.mirrors().get(&name)?.value;
            Some(mirror.push_tokens.iter().map(Into::into).collect())
        });
        Ok(v1::ListPushTokensResponse { tokens: tokens.ok_or_else(|| no_mirror(&name))? })
    }

    pub(super) async fn delete_push_token(
        &self,
        request: Request<v1::DeletePushTokenRequest>,
    ) -> Result<v1::DeletePushTokenResponse, Reject> {
        let (caller, v1::DeletePushTokenRequest { mutation, mirror, id }) = open(request)?;
        let wish =
            Wish::DeletePushToken { mirror: parse("mirror", &mirror)?, id: parse("id", &id)? };
        let cause = "MirrorService/DeletePushToken";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        Ok(v1::DeletePushTokenResponse { result: Some(result(&done)) })
    }
}
