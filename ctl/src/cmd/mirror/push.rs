//! `lockstepctl mirror push-token …`.

use lockstep_proto::v1;

use crate::args::mirror::PushTokenCommand;
use crate::client::Client;
use crate::cmd::tell;
use crate::error::Failure;
use crate::render;

pub async fn run(client: &Client, command: PushTokenCommand) -> Result<(), Failure> {
    match command {
        PushTokenCommand::Create { mirror, change } => {
            let request = v1::CreatePushTokenRequest {
                mutation: change.mutation()?,
                mirror: mirror.to_string(),
            };
            let answer = client.mirrors().create_push_token(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            if !answer.text.is_empty() {
                render::note(&format!(
                    "told only here; POST /push/{mirror} with Authorization: Bearer asks for a run"
                ));
            }
            // The token alone on stdout, so that it can be piped.
            render::show(client.format, &answer, || answer.text.clone())
        }
        PushTokenCommand::List { mirror } => {
            let request = v1::ListPushTokensRequest { mirror: mirror.to_string() };
            let answer = client.mirrors().list_push_tokens(request).await?.into_inner();
            render::show(client.format, &answer, || {
                render::table(
                    &["id", "made"],
                    answer
                        .tokens
                        .iter()
                        .map(|token| [token.id.clone(), render::ago(token.created_at.as_ref())]),
                )
            })
        }
        PushTokenCommand::Delete { mirror, id, change } => {
            let request = v1::DeletePushTokenRequest {
                mutation: change.mutation()?,
                mirror: mirror.to_string(),
                id: id.to_string(),
            };
            let answer = client.mirrors().delete_push_token(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            match client.format {
                crate::args::Format::Table => Ok(()),
                format => render::show(format, &answer, String::new),
            }
        }
    }
}
