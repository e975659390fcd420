//! `lockstepctl mirror …`: who carries out which command, and what several of them need.

mod define;
mod follow;
mod matrix;
mod progress;
mod push;
mod runs;
mod show;
mod sizes;

use lockstep_model::mirror::{Allow, MirrorOptions};
use lockstep_proto::v1;

use super::{settings, tell};
use crate::args::mirror::{Allowed, Switch, Sync};
use crate::args::{Change, Global, MirrorCommand, Wait};
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

/// Most runs that a controller tells of at once.
const RUNS_MAX: u32 = 1000;

pub async fn run(global: &Global, command: MirrorCommand) -> Result<(), Failure> {
    match command {
        MirrorCommand::Settings => settings::show::<MirrorOptions>(global.output),
        other => ask(&Client::connect(global).await?, other).await,
    }
}

async fn ask(client: &Client, command: MirrorCommand) -> Result<(), Failure> {
    match command {
        MirrorCommand::Create(create) => define::create(client, *create).await,
        MirrorCommand::Update(update) => define::update(client, *update).await,
        MirrorCommand::List => {
            let answer = list(client).await?;
            render::show(client.format, &answer, || show::list(&answer.mirrors))
        }
        MirrorCommand::Show { name } => {
            let mirror = get(client, name.as_str()).await?;
            render::show(client.format, &mirror, || show::details(&mirror))
        }
        MirrorCommand::Rename { name, to, move_files, change } => {
            let request = v1::RenameMirrorRequest {
                mutation: change.mutation()?,
                name: name.to_string(),
                to: to.to_string(),
                move_files,
            };
            let answer = client.mirrors().rename_mirror(request).await?.into_inner();
            changed(client, &change, answer.result, answer.mirror)
        }
        MirrorCommand::Reschedule { name, schedule, no_schedule, change } => {
            if schedule.text().is_none() && !no_schedule {
                return Err(Failure::usage("give --schedule RULE, or --no-schedule"));
            }
            define::preview(client, &schedule, &change).await?;
            let request = v1::RescheduleMirrorRequest {
                mutation: change.mutation()?,
                name: name.to_string(),
                schedule: schedule.text().map(Into::into),
            };
            let answer = client.mirrors().reschedule_mirror(request).await?.into_inner();
            changed(client, &change, answer.result, answer.mirror)
        }
        MirrorCommand::Enable(which) => switch(client, which, true).await,
        MirrorCommand::Disable(which) => switch(client, which, false).await,
        MirrorCommand::Delete { name, delete_files, yes, change } => {
            let files = match delete_files {
                true => "and its trees will be removed from master and replicas",
                false => "and files stay everywhere",
            };
            wait::confirm(yes || change.dry_run, &format!("Mirror {name} will end, {files}."))?;
            let request = v1::DeleteMirrorRequest {
                mutation: change.mutation()?,
                name: name.to_string(),
                delete_files,
            };
            let answer = client.mirrors().delete_mirror(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            match client.format {
                crate::args::Format::Table => Ok(()),
                format => render::show(format, &answer, String::new),
            }
        }
        MirrorCommand::Sync(sync) => start(client, sync).await,
        MirrorCommand::Ready { name, wait, change } => {
            let request =
                v1::ReadyMirrorRequest { mutation: change.mutation()?, name: name.to_string() };
            let answer = client.mirrors().ready_mirror(request).await?.into_inner();
            begun(client, &change, &wait, answer.result.as_ref(), &answer, &answer.run).await
        }
        MirrorCommand::Runs { name, node, limit } => {
            let request = v1::ListRunsRequest {
                mirror: name.map(|name| name.to_string()).unwrap_or_default(),
                node: node.map(|node| node.to_string()).unwrap_or_default(),
                limit,
            };
            let mut answer = client.mirrors().list_runs(request).await?.into_inner();
            render::show(client.format, &answer.clone(), || {
                // Newest last, as a reader of logs expects; the wire has them newest first.
                runs::newest_last(&mut answer.runs);
                runs::table(&answer.runs)
            })
        }
        MirrorCommand::Sizes { name, node } => {
            let request = v1::ListRunsRequest {
                mirror: name.to_string(),
                node: node.as_ref().map(ToString::to_string).unwrap_or_default(),
                limit: RUNS_MAX,
            };
            let answer = client.mirrors().list_runs(request).await?.into_inner();
            let node = node.map(|node| node.to_string()).unwrap_or_default();
            let sizes = sizes::sizes(&answer.runs, &node);
            render::show(client.format, &sizes, || sizes::table(&sizes))
        }
        MirrorCommand::PushToken(command) => push::run(client, command).await,
        MirrorCommand::Logs { run, node, follow } => {
            let node = node.map(|node| node.to_string()).unwrap_or_default();
            follow::logs(client, &run.to_string(), &node, follow).await
        }
        MirrorCommand::Matrix => {
            let cells = matrix::cells(&list(client).await?.mirrors);
            render::show(client.format, &cells, || matrix::table(&cells))
        }
        // Carried out by `run`.
        MirrorCommand::Settings => Ok(()),
    }
}

async fn get(client: &Client, name: &str) -> Result<v1::Mirror, Failure> {
    let request = v1::GetMirrorRequest { name: name.to_owned() };
    Ok(client.mirrors().get_mirror(request).await?.into_inner().mirror.unwrap_or_default())
}

async fn list(client: &Client) -> Result<v1::ListMirrorsResponse, Failure> {
    Ok(client.mirrors().list_mirrors(v1::ListMirrorsRequest {}).await?.into_inner())
}

/// Shows a mirror as a change left it.
fn changed(
    client: &Client,
    change: &Change,
    result: Option<v1::Result>,
    mirror: Option<v1::Mirror>,
) -> Result<(), Failure> {
    tell(result.as_ref(), change.dry_run);
    let mirror = mirror.unwrap_or_default();
    render::show(client.format, &mirror, || show::details(&mirror))
}

async fn switch(client: &Client, which: Switch, enabled: bool) -> Result<(), Failure> {
    let Switch { name, all, change } = which;
    let name = name.map(|name| name.to_string()).unwrap_or_default();
    let request = v1::SetMirrorEnabledRequest { mutation: change.mutation()?, name, enabled, all };
    let answer = client.mirrors().set_mirror_enabled(request).await?.into_inner();
    if !all {
        return changed(client, &change, answer.result, answer.mirror);
    }
    tell(answer.result.as_ref(), change.dry_run);
    let all = list(client).await?;
    render::show(client.format, &all, || show::list(&all.mirrors))
}

async fn start(client: &Client, sync: Sync) -> Result<(), Failure> {
    let Sync { name, only, from, allow, wait, change } = sync;
    let Allowed(Allow { empty, delete, space }) = allow;
    let request = v1::SyncMirrorRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        only: only.iter().map(ToString::to_string).collect(),
        from: from.map(|node| node.to_string()).unwrap_or_default(),
        allow: Some(v1::Allow { empty, delete, space }),
    };
    let answer = client.mirrors().sync_mirror(request).await?.into_inner();
    begun(client, &change, &wait, answer.result.as_ref(), &answer, &answer.run).await
}

/// A run's id alone on stdout, so that it can be piped; or with `--wait` how the run went.
async fn begun<M: serde::Serialize>(
    client: &Client,
    change: &Change,
    wait: &Wait,
    result: Option<&v1::Result>,
    answer: &M,
    run: &str,
) -> Result<(), Failure> {
    tell(result, change.dry_run);
    if wait.wait && !change.dry_run {
        return follow::to_the_end(client, run).await;
    }
    render::show(client.format, answer, || run.to_owned())
}
