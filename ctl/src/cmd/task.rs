//! `lockstepctl task …`.

use lockstep_proto::v1;
use lockstep_proto::v1::task_service_client::TaskServiceClient;

use super::tell;
use crate::args::{Change, TaskCommand};
use crate::client::{Client, Traced};
use crate::error::Failure;
use crate::{render, wait};

impl TaskCommand {
    /// Goes on until the task ends, however long that takes.
    pub fn follows(&self) -> bool {
        matches!(self, Self::Logs { follow: true, .. })
    }
}

pub async fn run(client: &Client, command: TaskCommand) -> Result<(), Failure> {
    let mut tasks = client.tasks();
    match command {
        TaskCommand::List { node, slot, live } => {
            let request = v1::ListTasksRequest {
                node: node.map(|n| n.to_string()).unwrap_or_default(),
                slot: slot.unwrap_or_default(),
                live_only: live,
            };
            let answer = tasks.list_tasks(request).await?.into_inner();
            render::show(client.format, &answer, || table(&answer.tasks))
        }
        TaskCommand::Show { id } => {
            let task = get(client, &id.to_string()).await?;
            render::show(client.format, &task, || details(&task))
        }
        TaskCommand::Logs { id, follow } => {
            let request = v1::TailTaskRequest { id: id.to_string(), follow };
            let mut lines = tasks.tail_task(request).await?.into_inner();
            while let Some(message) = lines.message().await? {
                render::show_next(client.format, &message, || message.lines.join("\n"))?;
            }
            if follow { ended(client, &id.to_string()).await } else { Ok(()) }
        }
        TaskCommand::Cancel { id, wait, change } => {
            let request =
                v1::CancelTaskRequest { mutation: change.mutation()?, id: id.to_string() };
            let answer = tasks.cancel_task(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            let mut task = answer.task.unwrap_or_default();
            if wait.wait && !change.dry_run {
                task = outcome(client, &task.id).await?;
            }
            render::show(client.format, &task, || table(std::slice::from_ref(&task)))
        }
    }
}

async fn get(client: &Client, id: &str) -> Result<v1::Task, Failure> {
    let request = v1::GetTaskRequest { id: id.to_owned() };
    Ok(client.tasks().get_task(request).await?.into_inner().task.unwrap_or_default())
}

pub async fn outcome(client: &Client, id: &str) -> Result<v1::Task, Failure> {
    wait::until(|| async {
        let task = get(client, id).await?;
        Ok((task.state() == v1::TaskState::Ended).then_some(task))
    })
    .await
}

/// Follows tasks that are of use to nobody but who asked: Ctrl-C cancels them, as `late` does with
/// the failure that it says, and a second one leaves at once.
pub async fn cancelled_with<T>(
    client: &Client,
    ids: &[&str],
    late: impl Future<Output = Failure>,
    followed: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let ended = tokio::select! {
        done = followed => return done,
        late = late => late,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            render::note("cancelling; Ctrl-C again leaves at once");
            Failure::interrupted("interrupted")
        }
    };
    tokio::select! {
        cancelled = cancel(client, ids) => cancelled?,
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    Err(ended)
}

/// Those that have ended stay as they are.
pub async fn cancel(client: &Client, ids: &[&str]) -> Result<(), Failure> {
    for id in ids {
        let mutation = Change::default().mutation()?;
        let request = v1::CancelTaskRequest { mutation, id: (*id).to_owned() };
        match client.tasks().cancel_task(request).await.map_err(Failure::from) {
            Err(failure) if !failure.is_refused() => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

/// What a task prints, until it ends. When that cannot be read, or not to its end, its outcome still
/// tells.
pub async fn lines(mut tasks: TaskServiceClient<Traced>, id: &str, mut each: impl FnMut(String)) {
    let request = v1::TailTaskRequest { id: id.to_owned(), follow: true };
    let mut lines = match tasks.tail_task(request).await {
        Ok(answer) => answer.into_inner(),
        Err(error) => return tracing::info!(%error, "the output of task {id} cannot be read"),
    };
    loop {
        match lines.message().await {
            Ok(Some(message)) => message.lines.into_iter().for_each(&mut each),
            Ok(None) => return,
            Err(error) => return tracing::info!(%error, "the output of task {id} broke off"),
        }
    }
}

pub fn is_ok(task: &v1::Task) -> bool {
    task.outcome.as_ref().is_some_and(|outcome| outcome.kind() == v1::OutcomeKind::Ok)
}

pub fn is_superseded(task: &v1::Task) -> bool {
    task.outcome.as_ref().is_some_and(|outcome| outcome.kind() == v1::OutcomeKind::Superseded)
}

/// Waits for a task to end; only a good end is no failure.
pub async fn ended(client: &Client, id: &str) -> Result<(), Failure> {
    check(&outcome(client, id).await?)
}

/// Of a task that has ended: only a good end is no failure.
pub fn check(task: &v1::Task) -> Result<(), Failure> {
    if is_ok(task) {
        return Ok(());
    }
    let v1::TaskOutcome { message, .. } = task.outcome.clone().unwrap_or_default();
    Err(Failure::failed(format!("task {} ended {}: {message}", task.id, state(task))))
}

pub fn state(task: &v1::Task) -> String {
    match &task.outcome {
        Some(outcome) => render::word(outcome.kind().as_str_name(), "OUTCOME_KIND_"),
        None if task.cancel_requested => "cancelling".to_owned(),
        None => render::word(task.state().as_str_name(), "TASK_STATE_"),
    }
}

pub fn table(tasks: &[v1::Task]) -> String {
    render::table(
        &["id", "node", "kind", "slot", "try", "state", "created", "message"],
        tasks.iter().map(|task| {
            [
                task.id.clone(),
                task.node.clone(),
                task.kind.clone(),
                task.slot.clone(),
                task.attempt.to_string(),
                state(task),
                render::ago(task.created_at.as_ref()),
                render::or_dash(task.outcome.as_ref().map_or("", |o| o.message.as_str())),
            ]
        }),
    )
}

fn details(task: &v1::Task) -> String {
    render::fields([
        ("id", task.id.clone()),
        ("node", task.node.clone()),
        ("kind", task.kind.clone()),
        ("slot", task.slot.clone()),
        ("try", task.attempt.to_string()),
        ("state", state(task)),
        ("message", task.outcome.clone().unwrap_or_default().message),
        ("created", render::time(task.created_at.as_ref())),
        ("ended", task.ended_at.as_ref().map(|t| render::time(Some(t))).unwrap_or_default()),
        ("run limit", lockstep_model::Millis(task.run_limit_ms).to_string()),
        ("traceparent", task.traceparent.clone()),
    ])
}
