//! `lockstepctl token …`.

use lockstep_model::label::parse_label;
use lockstep_proto::v1;

use super::tell;
use crate::args::TokenCommand;
use crate::client::Client;
use crate::error::Failure;
use crate::render;

pub async fn run(client: &Client, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { node, user, label, ttl, change } => {
            let labels = label
                .iter()
                .map(|text| parse_label(text).map(|(key, value)| (key.to_string(), value)))
                .collect::<Result<_, _>>()?;
            let r#for = match (node, user) {
                (Some(node), _) => v1::create_token_request::For::Node(node.to_string()),
                (None, Some(user)) => v1::create_token_request::For::User(user.to_string()),
                (None, None) => return Err(Failure::usage("give --node or --user")),
            };
            let request = v1::CreateTokenRequest {
                mutation: change.mutation()?,
                labels,
                ttl_ms: u64::try_from(ttl.as_millis()).ok(),
                r#for: Some(r#for),
            };
            let answer = client.tokens().create_token(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            let token = answer.token.clone().unwrap_or_default();
            let node_token = token.subject.starts_with("node/");
            if !answer.text.is_empty() {
                let next = if node_token { "lockstep-agent join" } else { "lockstepctl login" };
                render::note(&format!(
                    "for {}, once, {}: {next} --controller HOST:PORT --token …",
                    token.subject,
                    render::ahead(token.expires_at.as_ref()),
                ));
            }
            // The token alone on stdout, so that it can be piped.
            render::show(client.format, &answer, || answer.text.clone())
        }
        TokenCommand::List => {
            let answer = client.tokens().list_tokens(v1::ListTokensRequest {}).await?.into_inner();
            render::show(client.format, &answer, || {
                render::table(
                    &["id", "for", "labels", "expires", "used"],
                    answer.tokens.iter().map(|t| {
                        [
                            t.id.clone(),
                            t.subject.clone(),
                            render::labels(&t.labels),
                            render::ahead(t.expires_at.as_ref()),
                            if t.used { "yes" } else { "no" }.to_owned(),
                        ]
                    }),
                )
            })
        }
        TokenCommand::Delete { id, change } => {
            let request =
                v1::DeleteTokenRequest { mutation: change.mutation()?, id: id.to_string() };
            let answer = client.tokens().delete_token(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            Ok(())
        }
    }
}
