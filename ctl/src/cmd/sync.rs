//! `lockstepctl sync …`.

use lockstep_model::Millis;
use lockstep_model::sync::{Filter, Place, SyncOptions, Target};
use lockstep_proto::v1;

use super::{task, tell};
use crate::args::{Change, SyncCommand, Wait};
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

pub async fn run(client: &Client, command: SyncCommand) -> Result<(), Failure> {
    let mut syncs = client.syncs();
    match command {
        SyncCommand::Create { name, source, target, exclude, delete, delay, wait, change } => {
            let options = SyncOptions {
                delete,
                filters: exclude.into_iter().map(Filter::exclude).collect(),
                delay: Millis::of(delay),
                ..SyncOptions::default()
            };
            let request = v1::CreateSyncRequest {
                mutation: change.mutation()?,
                name: name.to_string(),
                source: Some(source.into()),
                targets: targets(target),
                options: Some(options.into()),
                selected: None,
                paused: false,
            };
            let answer = syncs.create_sync(request).await?.into_inner();
            settled(client, &change, &wait, answer.result, answer.sync).await
        }
        SyncCommand::List => {
            let answer = syncs.list_syncs(v1::ListSyncsRequest {}).await?.into_inner();
            render::show(client.format, &answer, || list(&answer.syncs))
        }
        SyncCommand::Show { name } => {
            let sync = get(client, name.as_str()).await?;
            render::show(client.format, &sync, || details(&sync))
        }
        SyncCommand::AddTarget { name, target, wait, change } => {
            let request = v1::AddTargetsRequest {
                mutation: change.mutation()?,
                sync: name.to_string(),
                targets: targets(target),
            };
            let answer = syncs.add_targets(request).await?.into_inner();
            settled(client, &change, &wait, answer.result, answer.sync).await
        }
        SyncCommand::RemoveTarget { name, node, wait, change } => {
            let request = v1::RemoveTargetsRequest {
                mutation: change.mutation()?,
                sync: name.to_string(),
                nodes: node.iter().map(ToString::to_string).collect(),
            };
            let answer = syncs.remove_targets(request).await?.into_inner();
            settled(client, &change, &wait, answer.result, answer.sync).await
        }
        SyncCommand::Delete { name, yes, wait, change } => {
            let what = format!("Sync {name} will end; files stay everywhere.");
            wait::confirm(yes || change.dry_run, &what)?;
            let request =
                v1::DeleteSyncRequest { mutation: change.mutation()?, name: name.to_string() };
            let answer = syncs.delete_sync(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            if wait.wait && !change.dry_run {
                no_live_task(client, name.as_str()).await?;
            }
            Ok(())
        }
        SyncCommand::Resync { name, target, wait, change } => {
            let request = v1::RunSyncRequest {
                mutation: change.mutation()?,
                sync: name.to_string(),
                targets: target.iter().map(ToString::to_string).collect(),
                run: Some(v1::run_sync_request::Run::Resync(v1::ResyncRun {})),
            };
            let answer = syncs.run_sync(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            render::show(client.format, &answer, || task::table(&answer.tasks))?;
            if wait.wait && !change.dry_run {
                for begun in &answer.tasks {
                    task::ended(client, &begun.id).await?;
                }
            }
            Ok(())
        }
        SyncCommand::Wait { name } => {
            let head = get(client, name.as_str()).await?.source_report.unwrap_or_default().head;
            wait::until(|| async {
                let sync = get(client, name.as_str()).await?;
                Ok(sync.targets.iter().all(|t| has(t, head)).then_some(()))
            })
            .await
        }
    }
}

fn targets(places: Vec<Place>) -> Vec<v1::Target> {
    places.into_iter().map(|place| Target::from(place).into()).collect()
}

async fn get(client: &Client, name: &str) -> Result<v1::Sync, Failure> {
    let request = v1::GetSyncRequest { name: name.to_owned() };
    Ok(client.syncs().get_sync(request).await?.into_inner().sync.unwrap_or_default())
}

/// Shows a changed sync, after it took effect if that was asked for.
async fn settled(
    client: &Client,
    change: &Change,
    wait: &Wait,
    result: Option<v1::Result>,
    sync: Option<v1::Sync>,
) -> Result<(), Failure> {
    tell(result.as_ref(), change.dry_run);
    let mut sync = sync.unwrap_or_default();
    if wait.wait && !change.dry_run {
        no_live_task(client, &sync.name).await?;
        sync = wait::until(|| async {
            let now = get(client, &sync.name).await?;
            Ok((now.source_applied && now.targets.iter().all(is_filled)).then_some(now))
        })
        .await?;
    }
    render::show(client.format, &sync, || details(&sync))
}

async fn no_live_task(client: &Client, sync: &str) -> Result<(), Failure> {
    let slot = format!("sync/{sync}");
    wait::until(|| async {
        let request =
            v1::ListTasksRequest { slot: slot.clone(), live_only: true, ..Default::default() };
        let live = client.tasks().list_tasks(request).await?.into_inner().tasks;
        // A list is by the start of the slot: "sync/web" also finds "sync/webroot".
        let ours = |t: &&v1::Task| t.slot == slot || t.slot.starts_with(&format!("{slot}/"));
        Ok(live.iter().find(ours).is_none().then_some(()))
    })
    .await
}

fn is_filled(target: &v1::SyncTargetStatus) -> bool {
    target.applied && target.report.as_ref().is_some_and(|r| r.filled)
}

fn has(target: &v1::SyncTargetStatus, head: u64) -> bool {
    is_filled(target) && target.delivery.as_ref().is_some_and(|d| d.acked >= head)
}

fn source(sync: &v1::Sync) -> String {
    let place = sync.source.clone().unwrap_or_default();
    format!("{}:{}", place.node, place.path)
}

fn engine(sync: &v1::Sync) -> String {
    match &sync.source_report {
        Some(report) => render::word(report.engine().as_str_name(), "ENGINE_STATE_"),
        None => "unknown".to_owned(),
    }
}

fn list(syncs: &[v1::Sync]) -> String {
    render::table(
        &["name", "source", "engine", "targets", "idle", "worst lag"],
        syncs.iter().map(|sync| {
            let deliveries = || sync.targets.iter().filter_map(|t| t.delivery.as_ref());
            let idle = deliveries().filter(|d| d.state() == v1::DeliveryState::Idle).count();
            let lag = deliveries().map(|d| d.lag_ms).max().unwrap_or(0);
            [
                sync.name.clone(),
                source(sync),
                engine(sync),
                sync.targets.len().to_string(),
                idle.to_string(),
                lockstep_model::Millis(lag).to_string(),
            ]
        }),
    )
}

fn details(sync: &v1::Sync) -> String {
    let report = sync.source_report.clone().unwrap_or_default();
    let options = sync.options.clone().unwrap_or_default();
    let settings: Vec<String> =
        options.settings.iter().map(|s| format!("{}={}", s.name, s.value)).collect();
    let head = render::fields([
        ("name", sync.name.clone()),
        ("source", source(sync)),
        ("engine", engine(sync)),
        ("problem", report.problem.clone()),
        ("journal head", report.head.to_string()),
        ("settings", settings.join(" ")),
        ("applied", if sync.source_applied { "yes" } else { "not yet" }.to_owned()),
        ("revision", sync.revision.to_string()),
    ]);
    let rows = render::table(
        &["target", "state", "applied", "filled", "queue", "lag", "sent", "last success", "reason"],
        sync.targets.iter().map(|target| row(target, report.head)),
    );
    format!("{head}\n\n{rows}")
}

fn row(target: &v1::SyncTargetStatus, head: u64) -> [String; 9] {
    let place = target.target.clone().unwrap_or_default();
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let delivery = target.delivery.clone();
    let of =
        |f: &dyn Fn(&v1::Delivery) -> String| delivery.as_ref().map_or_else(|| "-".to_owned(), f);
    [
        format!("{}:{}", place.node, place.at),
        of(&|d| render::word(d.state().as_str_name(), "DELIVERY_STATE_")),
        yes(target.applied),
        yes(target.report.as_ref().is_some_and(|r| r.filled)),
        of(&|d| head.saturating_sub(d.acked).to_string()),
        of(&|d| lockstep_model::Millis(d.lag_ms).to_string()),
        of(&|d| render::bytes(d.sent_bytes)),
        of(&|d| render::ago(d.last_success_at.as_ref())),
        render::or_dash(&target.reason),
    ]
}
