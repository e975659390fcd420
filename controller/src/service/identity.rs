//! TokenService and UserService: who may join, and who may ask for what.

use lockstep_model::identity::{Role, TokenFor};
use lockstep_model::record::Actor;
use lockstep_model::request::Request as Wish;
use lockstep_model::{Invalid, Millis, Reject, TokenId, UserName};
use lockstep_plan::admit::TOKEN_TTL_DEFAULT;
use lockstep_proto::convert::node::labels;
use lockstep_proto::v1;
use lockstep_proto::v1::create_token_request::For;
use lockstep_proto::v1::token_service_server::TokenService;
use lockstep_proto::v1::user_service_server::UserService;
use lockstep_transport::token::JoinToken;
use tonic::Request;

use super::{Answer, Api, answer, open, result};
use crate::driver::Done;
use crate::identity::draw;

#[tonic::async_trait]
impl TokenService for Api {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        answer(self.create_token(request).await)
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Answer<v1::ListTokensResponse> {
        let tokens = self.driver().read(|world| {
            world.tokens().values().map(|token| v1::Token::from(&token.value)).collect()
        });
        answer(Ok(v1::ListTokensResponse { tokens }))
    }

    async fn delete_token(
        &self,
        request: Request<v1::DeleteTokenRequest>,
    ) -> Answer<v1::DeleteTokenResponse> {
        answer(self.delete_token(request).await)
    }
}

#[tonic::async_trait]
impl UserService for Api {
    async fn add_user(&self, request: Request<v1::AddUserRequest>) -> Answer<v1::AddUserResponse> {
        answer(self.add_user(request).await)
    }

    async fn list_users(&self, _: Request<v1::ListUsersRequest>) -> Answer<v1::ListUsersResponse> {
        let users = self.driver().read(|world| {
            world.users().values().map(|user| v1::User::of(&user.value, user.revision)).collect()
        });
        answer(Ok(v1::ListUsersResponse { users }))
    }

    async fn set_user_role(
        &self,
        request: Request<v1::SetUserRoleRequest>,
    ) -> Answer<v1::SetUserRoleResponse> {
        answer(self.set_user_role(request).await)
    }

    async fn disable_user(
        &self,
        request: Request<v1::DisableUserRequest>,
    ) -> Answer<v1::DisableUserResponse> {
        let request = request.map(|v1::DisableUserRequest { mutation, name }| (mutation, name));
        let changed = self.set_disabled(request, "UserService/DisableUser", true).await;
        answer(changed.map(|(result, user)| v1::DisableUserResponse { result, user }))
    }

    async fn enable_user(
        &self,
        request: Request<v1::EnableUserRequest>,
    ) -> Answer<v1::EnableUserResponse> {
        let request = request.map(|v1::EnableUserRequest { mutation, name }| (mutation, name));
        let changed = self.set_disabled(request, "UserService/EnableUser", false).await;
        answer(changed.map(|(result, user)| v1::EnableUserResponse { result, user }))
    }
}

impl Api {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<v1::CreateTokenResponse, Reject> {
        let (caller, v1::CreateTokenRequest { mutation, labels: first, ttl_ms, r#for }) =
            open(request)?;
        let first = labels(first)?;
        let grants = match r#for {
            Some(For::Node(name)) => TokenFor::Node { name: name.parse()?, labels: first },
            Some(For::User(_)) if !first.is_empty() => {
                return Err(Invalid::new("labels", "only nodes have labels: leave them out").into());
            }
            Some(For::User(name)) => TokenFor::User { name: name.parse()? },
            None => return Err(Invalid::new("for", "must name a node or a user").into()),
        };
        let (done, token) = self.mint(caller.actor, mutation, grants, ttl_ms).await?;
        let shown = token.as_ref().and_then(|token| {
            self.driver().read(|world| world.tokens().get(token.id()).map(|t| (&t.value).into()))
        });
        Ok(v1::CreateTokenResponse {
            result: Some(result(&done)),
            token: shown,
            text: token.map(|token| token.reveal().to_string()).unwrap_or_default(),
        })
    }

    /// A new token; None when there is none to tell, for the request was a repeated or a dry one.
    async fn mint(
        &self,
        actor: Actor,
        mutation: Option<v1::Mutation>,
        grants: TokenFor,
        ttl_ms: Option<u64>,
    ) -> Result<(Done, Option<JoinToken>), Reject> {
        let dry_run = mutation.as_ref().is_some_and(|mutation| mutation.dry_run);
        let root = self.0.authority.ca().root_sha256();
        let token = draw::token(&grants, root)?;
        let wish = Wish::CreateToken {
            id: token.id().clone(),
            secret_sha256: token.secret_sha256(),
            grants,
            ttl: ttl_ms.map_or(TOKEN_TTL_DEFAULT, Millis),
        };
        let done = self.change(actor, "TokenService/CreateToken", mutation, wish).await?;
        let made = done.changed && !dry_run;
        Ok((done, made.then_some(token)))
    }

    async fn delete_token(
        &self,
        request: Request<v1::DeleteTokenRequest>,
    ) -> Result<v1::DeleteTokenResponse, Reject> {
        let (caller, v1::DeleteTokenRequest { mutation, id }) = open(request)?;
        let id: TokenId = id.parse()?;
        let wish = Wish::DeleteToken { id };
        let done = self.change(caller.actor, "TokenService/DeleteToken", mutation, wish).await?;
        Ok(v1::DeleteTokenResponse { result: Some(result(&done)) })
    }

    /// The user, and then its token: a failure in between leaves a user for whom a token can be
    /// made.
    async fn add_user(
        &self,
        request: Request<v1::AddUserRequest>,
    ) -> Result<v1::AddUserResponse, Reject> {
        let (caller, v1::AddUserRequest { mutation, name, role, ttl_ms }) = open(request)?;
        let name: UserName = name.parse()?;
        let dry_run = mutation.as_ref().is_some_and(|mutation| mutation.dry_run);
        let wish = Wish::AddUser { name: name.clone(), role: read_role(role)? };
        let cause = "UserService/AddUser";
        let done = self.change(caller.actor.clone(), cause, mutation, wish).await?;
        let mut token_text = String::new();
        if done.changed && !dry_run {
            let grants = TokenFor::User { name: name.clone() };
            let (_, token) = self.mint(caller.actor, None, grants, ttl_ms).await?;
            token_text = token.map(|token| token.reveal().to_string()).unwrap_or_default();
        }
        Ok(v1::AddUserResponse { result: Some(result(&done)), user: self.user(&name), token_text })
    }

    async fn set_user_role(
        &self,
        request: Request<v1::SetUserRoleRequest>,
    ) -> Result<v1::SetUserRoleResponse, Reject> {
        let (caller, v1::SetUserRoleRequest { mutation, name, role }) = open(request)?;
        let name: UserName = name.parse()?;
        let wish = Wish::SetUserRole { name: name.clone(), role: read_role(role)? };
        let done = self.change(caller.actor, "UserService/SetUserRole", mutation, wish).await?;
        Ok(v1::SetUserRoleResponse { result: Some(result(&done)), user: self.user(&name) })
    }

    async fn set_disabled(
        &self,
        request: Request<(Option<v1::Mutation>, String)>,
        cause: &'static str,
        disabled: bool,
    ) -> Result<(Option<v1::Result>, Option<v1::User>), Reject> {
        let (caller, (mutation, name)) = open(request)?;
        let name: UserName = name.parse()?;
        let wish = Wish::SetUserDisabled { name: name.clone(), disabled };
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        Ok((Some(result(&done)), self.user(&name)))
    }

    fn user(&self, name: &UserName) -> Option<v1::User> {
        self.driver().read(|world| {
            world.users().get(name).map(|user| v1::User::of(&user.value, user.revision))
        })
    }
}

/// A number that this version does not know is refused, not taken for another role.
fn read_role(role: i32) -> Result<Role, Reject> {
    let role = v1::Role::try_from(role).unwrap_or(v1::Role::Unspecified);
    Ok(role.try_into()?)
}
