//! `lockstepctl sync …`: who carries out which command, and what several of them need.

mod compare;
mod define;
mod filters;
mod generate;
mod list;
mod run;
mod show;
mod targets;
mod watch;

use lockstep_model::sync::SyncOptions;
use lockstep_proto::v1;

use super::{settings, task, tell};
use crate::args::sync::OneChange;
use crate::args::{Change, Global, SyncCommand, Wait};
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

pub async fn run(global: &Global, command: SyncCommand) -> Result<(), Failure> {
    match command {
        SyncCommand::Settings => settings::show::<SyncOptions>(global.output),
        SyncCommand::Generate { name, print } => generate::run(global, name, print).await,
        SyncCommand::Wait(barrier) => {
            let limit = global.timeout.unwrap_or(Global::TIMEOUT_DEFAULT);
            run::barrier(&Client::connect(global).await?, barrier, limit).await
        }
        SyncCommand::Diff { compare } => {
            compare::diff(&Client::connect(global).await?, compare, global.timeout).await
        }
        other => ask(&Client::connect(global).await?, other).await,
    }
}

async fn ask(client: &Client, command: SyncCommand) -> Result<(), Failure> {
    match command {
        SyncCommand::Create(create) => define::create(client, *create).await,
        SyncCommand::Update(update) => define::update(client, *update).await,
        SyncCommand::Pause(of) => pause(client, of, true).await,
        SyncCommand::Resume(of) => pause(client, of, false).await,
        SyncCommand::Reload(of) => run::reload(client, of).await,
        SyncCommand::List => {
            let answer = client.syncs().list_syncs(v1::ListSyncsRequest {}).await?.into_inner();
            render::show(client.format, &answer, || show::list(&answer.syncs))
        }
        SyncCommand::Show { name } => {
            let sync = get(client, name.as_str()).await?;
            render::show(client.format, &sync, || show::details(&sync))
        }
        SyncCommand::AddTarget { name, target, bwlimit, transport, wait, change } => {
            let sync = get(client, name.as_str()).await?;
            let path = targets::default_path(&sync)?;
            let mut targets = targets::resolve(client, &target, &path, transport).await?;
            targets.iter_mut().for_each(|target| target.bwlimit = bwlimit);
            let request = v1::AddTargetsRequest {
                mutation: change.mutation()?,
                sync: name.to_string(),
                targets: targets.into_iter().map(Into::into).collect(),
            };
            let answer = client.syncs().add_targets(request).await?.into_inner();
            settled(client, &change, &wait, Until::Filled, answer.result, answer.sync).await
        }
        SyncCommand::RemoveTarget { name, node, wait, change } => {
            let sync = get(client, name.as_str()).await?;
            let request = v1::RemoveTargetsRequest {
                mutation: change.mutation()?,
                sync: name.to_string(),
                nodes: targets::names(client, &node, &sync).await?,
            };
            let answer = client.syncs().remove_targets(request).await?.into_inner();
            settled(client, &change, &wait, Until::Filled, answer.result, answer.sync).await
        }
        SyncCommand::Delete { name, yes, wait, change } => {
            let what = format!("Sync {name} will end; files stay everywhere.");
            wait::confirm(yes || change.dry_run, &what)?;
            let request =
                v1::DeleteSyncRequest { mutation: change.mutation()?, name: name.to_string() };
            let answer = client.syncs().delete_sync(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            if wait.wait && !change.dry_run {
                no_live_task(client, name.as_str()).await?;
            }
            Ok(())
        }
        SyncCommand::Resync { run, wait } => run::resync(client, run, wait).await,
        SyncCommand::Verify { compare, wait } => compare::verify(client, compare, wait).await,
        SyncCommand::Release { run, yes, wait } => run::release(client, run, yes, wait).await,
        SyncCommand::Export { name } => list::export(&get(client, name.as_str()).await?),
        SyncCommand::Import { name, file, dest, wait, change } => {
            list::import(client, &name, &file, dest, &wait, &change).await
        }
        SyncCommand::Watch { name } => watch::run(client, name.as_str()).await,
        // Carried out by `run`.
        SyncCommand::Generate { .. }
        | SyncCommand::Settings
        | SyncCommand::Wait(_)
        | SyncCommand::Diff { .. } => Ok(()),
    }
}

async fn pause(client: &Client, of: OneChange, paused: bool) -> Result<(), Failure> {
    let OneChange { name, wait, change } = of;
    let request =
        v1::SetSyncPausedRequest { mutation: change.mutation()?, sync: name.to_string(), paused };
    let answer = client.syncs().set_sync_paused(request).await?.into_inner();
    settled(client, &change, &wait, Until::Applied, answer.result, answer.sync).await
}

async fn get(client: &Client, name: &str) -> Result<v1::Sync, Failure> {
    let request = v1::GetSyncRequest { name: name.to_owned() };
    Ok(client.syncs().get_sync(request).await?.into_inner().sync.unwrap_or_default())
}

/// What `--wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Every node does its part as it is defined now.
    Applied,
    /// And every target has had a complete fill.
    Filled,
}

/// Shows a changed sync, after it took effect if that was asked for.
async fn settled(
    client: &Client,
    change: &Change,
    wait: &Wait,
    until: Until,
    result: Option<v1::Result>,
    sync: Option<v1::Sync>,
) -> Result<(), Failure> {
    tell(result.as_ref(), change.dry_run);
    let mut sync = sync.unwrap_or_default();
    if wait.wait && !change.dry_run {
        no_live_task(client, &sync.name).await?;
        sync = wait::until(|| async {
            let now = get(client, &sync.name).await?;
            let filled = until == Until::Applied || now.paused || now.targets.iter().all(is_filled);
            let applied = now.source_applied && now.targets.iter().all(|target| target.applied);
            Ok((applied && filled).then_some(now))
        })
        .await?;
    }
    render::show(client.format, &sync, || show::details(&sync))
}

async fn no_live_task(client: &Client, sync: &str) -> Result<(), Failure> {
    wait::until(|| async {
        let live = tasks(client, sync, true).await?;
        Ok(live.is_empty().then_some(()))
    })
    .await
}

/// Those of the nodes' parts, not those of runs.
async fn tasks(client: &Client, sync: &str, live_only: bool) -> Result<Vec<v1::Task>, Failure> {
    let slot = format!("sync/{sync}");
    let request = v1::ListTasksRequest { slot: slot.clone(), live_only, ..Default::default() };
    let mut tasks = client.tasks().list_tasks(request).await?.into_inner().tasks;
    // A list is by the start of the slot: "sync/web" also finds "sync/webroot".
    let runs = format!("{slot}/");
    tasks.retain(|task| task.slot == slot || live_only && task.slot.starts_with(&runs));
    Ok(tasks)
}

/// Of a target without an agent its source tells.
fn is_filled(target: &v1::SyncTargetStatus) -> bool {
    use v1::DeliveryState::{Dirty, Idle, Syncing};
    let delivered = || {
        let state = target.delivery.as_ref().map(v1::Delivery::state);
        matches!(state, Some(Dirty | Idle | Syncing))
    };
    match targets::has_agent(target) {
        true => target.report.as_ref().is_some_and(|report| report.filled),
        false => delivered(),
    }
}
