//! TaskService: what nodes were given to do, and what came of it.

use std::cmp::Reverse;

use futures_util::{StreamExt, stream};
use lockstep_model::record::Versioned;
use lockstep_model::request::Request as Wish;
use lockstep_model::task::Task;
use lockstep_model::{NodeName, Reject, TaskId};
use lockstep_plan::World;
use lockstep_proto::status::from_reject;
use lockstep_proto::v1;
use lockstep_proto::v1::task_service_server::TaskService;
use tonic::Request;

use super::{Answer, Answers, Api, answer, open, result};

#[tonic::async_trait]
impl TaskService for Api {
    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Answer<v1::ListTasksResponse> {
        answer(self.list_tasks(request))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Answer<v1::GetTaskResponse> {
        answer(self.get_task(request))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Answer<v1::CancelTaskResponse> {
        answer(self.cancel_task(request).await)
    }

    type TailTaskStream = Answers<v1::TailTaskResponse>;

    async fn tail_task(
        &self,
        request: Request<v1::TailTaskRequest>,
    ) -> Answer<Self::TailTaskStream> {
        answer(self.tail_task(request))
    }
}

impl Api {
    fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<v1::ListTasksResponse, Reject> {
        let (_, v1::ListTasksRequest { node, slot, live_only }) = open(request)?;
        let node: Option<NodeName> = (!node.is_empty()).then(|| node.parse()).transpose()?;
        let in_scope = |task: &Task| {
            let text = task.slot().to_string();
            let rest = text.strip_prefix(slot.as_str());
            rest.is_some_and(|rest| slot.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        Ok(self.driver().read(|world| {
            let mut tasks: Vec<&Versioned<Task>> = match &node {
                Some(node) => world.tasks_of(node).collect(),
                None => world.tasks().collect(),
            };
            tasks.retain(|task| (!live_only || task.value.is_live()) && in_scope(&task.value));
            tasks.sort_unstable_by_key(|task| Reverse(task.value.id));
            v1::ListTasksResponse {
                tasks: tasks.into_iter().map(|task| show(world, task)).collect(),
            }
        }))
    }

    fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<v1::GetTaskResponse, Reject> {
        let (_, v1::GetTaskRequest { id }) = open(request)?;
        let id: TaskId = id.parse()?;
        let task = self.task(id).ok_or_else(|| not_found(id))?;
        Ok(v1::GetTaskResponse { task: Some(task) })
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<v1::CancelTaskResponse, Reject> {
        let (caller, v1::CancelTaskRequest { mutation, id }) = open(request)?;
        let id: TaskId = id.parse()?;
        let wish = Wish::CancelTask { id };
        let done = self.change(caller.actor, "TaskService/CancelTask", mutation, wish).await?;
        Ok(v1::CancelTaskResponse { result: Some(result(&done)), task: self.task(id) })
    }

    fn tail_task(
        &self,
        request: Request<v1::TailTaskRequest>,
    ) -> Result<Answers<v1::TailTaskResponse>, Reject> {
        let (_, v1::TailTaskRequest { id, follow }) = open(request)?;
        let id: TaskId = id.parse()?;
        let node = self.driver().read(|world| world.task(id).map(|task| task.value.node.clone()));
        let node = node.ok_or_else(|| not_found(id))?;
        let tail = self.driver().sessions().tail(&node, id, follow)?;
        let lines = stream::unfold(tail, |mut tail| async move {
            let part = tail.next().await?;
            let answer = part.map(|lines| v1::TailTaskResponse { lines });
            Some((answer.map_err(|reject| from_reject(&reject)), tail))
        });
        Ok(lines.take_until(self.0.shutdown.clone().cancelled_owned()).boxed())
    }

    pub(super) fn tasks(&self, ids: &[TaskId]) -> Vec<v1::Task> {
        self.driver().read(|world| {
            let there = ids.iter().filter_map(|id| world.task(*id));
            there.map(|task| show(world, task)).collect()
        })
    }

    fn task(&self, id: TaskId) -> Option<v1::Task> {
        self.driver().read(|world| world.task(id).map(|task| show(world, task)))
    }
}

/// The record, and how far its agent says it is.
pub(super) fn show(world: &World, task: &Versioned<Task>) -> v1::Task {
    let phase = world.seen(&task.value.node).and_then(|seen| seen.phase(task.value.id));
    v1::Task::of(&task.value, task.revision, phase)
}

fn not_found(id: TaskId) -> Reject {
    let message = format!("task {id} does not exist: see lockstepctl task list");
    Reject::not_found(format!("task/{id}"), message)
}
