//! `lockstepctl user …`.

use lockstep_model::UserName;
use lockstep_proto::v1;

use super::tell;
use crate::args::{Change, UserCommand};
use crate::client::Client;
use crate::error::Failure;
use crate::render;

pub async fn run(client: &Client, command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add { name, role, ttl, change } => {
            let request = v1::AddUserRequest {
                mutation: change.mutation()?,
                name: name.to_string(),
                role: v1::Role::from(role).into(),
                ttl_ms: u64::try_from(ttl.as_millis()).ok(),
            };
            let answer = client.users().add_user(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            if !answer.token_text.is_empty() {
                render::note("for once: lockstepctl login --controller HOST:PORT --token …");
            }
            render::show(client.format, &answer, || answer.token_text.clone())
        }
        UserCommand::List => {
            let answer = client.users().list_users(v1::ListUsersRequest {}).await?.into_inner();
            render::show(client.format, &answer, || table(&answer.users))
        }
        UserCommand::Role { name, role, change } => {
            let request = v1::SetUserRoleRequest {
                mutation: change.mutation()?,
                name: name.to_string(),
                role: v1::Role::from(role).into(),
            };
            let answer = client.users().set_user_role(request).await?.into_inner();
            shown(client, &change, answer.result, answer.user)
        }
        UserCommand::Disable { name, change } => {
            let request =
                v1::DisableUserRequest { mutation: change.mutation()?, name: text(&name) };
            let answer = client.users().disable_user(request).await?.into_inner();
            shown(client, &change, answer.result, answer.user)
        }
        UserCommand::Enable { name, change } => {
            let request = v1::EnableUserRequest { mutation: change.mutation()?, name: text(&name) };
            let answer = client.users().enable_user(request).await?.into_inner();
            shown(client, &change, answer.result, answer.user)
        }
    }
}

fn text(name: &UserName) -> String {
    name.to_string()
}

fn shown(
    client: &Client,
    change: &Change,
    result: Option<v1::Result>,
    user: Option<v1::User>,
) -> Result<(), Failure> {
    tell(result.as_ref(), change.dry_run);
    let user = user.unwrap_or_default();
    render::show(client.format, &user, || table(std::slice::from_ref(&user)))
}

fn table(users: &[v1::User]) -> String {
    render::table(
        &["name", "role", "state", "created"],
        users.iter().map(|u| {
            let state = match (u.disabled, u.enrolled) {
                (true, _) => "disabled",
                (false, true) => "active",
                (false, false) => "invited",
            };
            [
                u.name.clone(),
                render::word(u.role().as_str_name(), "ROLE_"),
                state.to_owned(),
                render::ago(u.created_at.as_ref()),
            ]
        }),
    )
}
