//! What runs once: a complete pass, a release of what is held, a barrier, and every part anew.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use lockstep_model::TaskId;
use lockstep_proto::v1;
use lockstep_proto::v1::run_sync_request::Run as What;

use super::targets::{has_agent, node};
use super::{get, show, task, tasks, tell};
use crate::args::Wait;
use crate::args::sync::{Barrier, OneChange, Run};
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

pub async fn start(client: &Client, run: &Run, what: What) -> Result<v1::RunSyncResponse, Failure> {
    let request = v1::RunSyncRequest {
        mutation: run.change.mutation()?,
        sync: run.name.to_string(),
        targets: run.target.iter().map(ToString::to_string).collect(),
        run: Some(what),
    };
    let answer = client.syncs().run_sync(request).await?.into_inner();
    tell(answer.result.as_ref(), run.change.dry_run);
    Ok(answer)
}

pub async fn resync(client: &Client, run: Run, wait: Wait) -> Result<(), Failure> {
    let begun = start(client, &run, What::Resync(v1::ResyncRun {})).await?;
    shown_and_ended(client, &run, &wait, begun).await
}

pub async fn shown_and_ended(
    client: &Client,
    run: &Run,
    wait: &Wait,
    mut answer: v1::RunSyncResponse,
) -> Result<(), Failure> {
    let waits = wait.wait && !run.change.dry_run;
    if waits {
        for begun in &mut answer.tasks {
            *begun = task::outcome(client, &begun.id).await?;
        }
    }
    render::show(client.format, &answer, || task::table(&answer.tasks))?;
    if waits { answer.tasks.iter().try_for_each(task::check) } else { Ok(()) }
}

pub async fn release(client: &Client, run: Run, yes: bool, wait: Wait) -> Result<(), Failure> {
    let sync = get(client, run.name.as_str()).await?;
    let is_meant = |target: &&v1::SyncTargetStatus| {
        run.target.is_empty() || run.target.iter().any(|name| name.as_str() == node(target))
    };
    let is_held = |target: &&v1::SyncTargetStatus| {
        let state = target.delivery.as_ref().map(v1::Delivery::state);
        state == Some(v1::DeliveryState::Held)
    };
    let held: Vec<String> = sync
        .targets
        .iter()
        .filter(is_meant)
        .filter(is_held)
        .map(|target| format!("  {}: {}", show::place(target), target.reason))
        .collect();
    let what = match held.as_slice() {
        [] => format!("No target of sync {} says that it is held.", run.name),
        held => format!(
            "Sync {} is held:\n{}\nIt will go through, this once.",
            run.name,
            held.join("\n")
        ),
    };
    wait::confirm(yes || run.change.dry_run, &what)?;
    let begun = start(client, &run, What::Unhold(v1::UnholdRun {})).await?;
    shown_and_ended(client, &run, &wait, begun).await
}

/// Ends when targets have everything that was written before; says meanwhile who lacks something.
/// Given up, it leaves nothing behind that would be in the next one's way.
pub async fn barrier(client: &Client, barrier: Barrier, limit: Duration) -> Result<(), Failure> {
    let gave_up = format!(
        "not everywhere yet, as lockstepctl sync show {} tells: no longer waited for",
        barrier.name
    );
    let mut late = pin!(wait::late(Some(limit), &gave_up));
    let begun = tokio::select! {
        late = &mut late => return Err(late),
        begun = begin_barrier(client, &barrier) => begun?,
    };
    let Some(begun) = begun else { return Ok(()) };
    let followed = async {
        task::lines(client.tasks(), &begun.id, |line| render::note(&line)).await;
        task::ended(client, &begun.id).await
    };
    task::cancelled_with(client, &[&begun.id], late, followed).await
}

/// None for a dry run.
async fn begin_barrier(client: &Client, barrier: &Barrier) -> Result<Option<v1::Task>, Failure> {
    let Barrier { name, all: _, at_least, hook, change } = barrier;
    let answer = wait::telling(|| async {
        let request = v1::BarrierRequest {
            mutation: change.mutation()?,
            sync: name.to_string(),
            at_least: at_least.unwrap_or(0),
            hook: hook.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        match client.syncs().barrier(request).await.map_err(Failure::from) {
            Ok(answer) => Ok(Ok(answer.into_inner())),
            // One at a time; a later "now" is as good.
            Err(failure) if failure.is("under_way") => Ok(Err(failure.to_string())),
            Err(failure) => Err(failure),
        }
    })
    .await?;
    if change.dry_run {
        tell(answer.result.as_ref(), true);
        return Ok(None);
    }
    Ok(answer.task)
}

/// Slavemaster's restart: with `--wait` a line per node tells how it went.
pub async fn reload(client: &Client, of: OneChange) -> Result<(), Failure> {
    let OneChange { name, wait, change } = of;
    let request = v1::ReapplySyncRequest { mutation: change.mutation()?, sync: name.to_string() };
    let answer = client.syncs().reapply_sync(request).await?.into_inner();
    tell(answer.result.as_ref(), change.dry_run);
    let sync = answer.sync.unwrap_or_default();
    if !wait.wait || change.dry_run {
        return render::show(client.format, &sync, || show::details(&sync));
    }
    let since = answer.result.unwrap_or_default().revision;
    let source = sync.source.iter().map(|place| place.node.clone());
    let targets = sync.targets.iter().filter(|t| has_agent(t)).map(|t| node(t).to_owned());
    let nodes: BTreeSet<String> = source.chain(targets).collect();
    let ended = wait::telling(|| async {
        // A task is called after the revision that it was planned on.
        let newer = |task: &v1::Task| {
            task.id.parse::<TaskId>().is_ok_and(|id| id.revision.0 >= since)
                && task.state() == v1::TaskState::Ended
        };
        let mut ended = tasks(client, name.as_str(), false).await?;
        ended.retain(|task| newer(task) && !task::is_superseded(task));
        // Newest first: what a second try brought counts.
        let mut seen = BTreeSet::new();
        ended.retain(|task| seen.insert(task.node.clone()));
        let missing: Vec<&str> =
            nodes.iter().filter(|node| !seen.contains(*node)).map(String::as_str).collect();
        match missing.is_empty() {
            true => Ok(Ok(ended)),
            false => Ok(Err(format!("waiting for {}", missing.join(", ")))),
        }
    })
    .await?;
    let answer = v1::ListTasksResponse { tasks: ended };
    render::show(client.format, &answer, || task::table(&answer.tasks))?;
    let failed: Vec<&str> = answer
        .tasks
        .iter()
        .filter(|task| !task::is_ok(task))
        .map(|task| task.node.as_str())
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("sync {name} was not taken up by {}", failed.join(", "))))
}
