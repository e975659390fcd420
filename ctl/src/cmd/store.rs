//! `lockstepctl store …`.

use lockstep_proto::v1;

use super::tell;
use crate::args::StoreCommand;
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

pub async fn run(client: &Client, command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Export { with_log } => {
            let request = v1::ExportStoreRequest { log: with_log };
            let mut chunks = client.store().export_store(request).await?.into_inner();
            while let Some(chunk) = chunks.message().await? {
                render::raw(&chunk.ndjson)?;
            }
            Ok(())
        }
        StoreCommand::Adopt { yes, change } => {
            let what = "What was stored after this copy was made will be lost for good.";
            wait::confirm(yes || change.dry_run, what)?;
            let request = v1::AdoptStoreRequest { mutation: change.mutation()? };
            let answer = client.store().adopt_store(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            Ok(())
        }
    }
}
