//! What is kept of one slot, and its form on disk. Pure.

use lockstep_model::task::{Outcome, Slot, TaskPhase, TaskSpec};
use lockstep_model::{Invalid, Millis, TaskId};
use lockstep_proto::{agent, v1};

/// Longest traceparent that is kept, in bytes.
const TRACEPARENT_MAX: usize = 256;

/// A task as the controller offered it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub id: TaskId,
    pub attempt: u32,
    /// 0: no limit.
    pub run_limit: Millis,
    /// Empty: none.
    pub traceparent: String,
    pub spec: TaskSpec,
}

/// How far a task is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Live(TaskPhase),
    Ended { outcome: Outcome, acked: bool },
}

/// One slot: its newest task, and what holds in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub task: Offer,
    pub state: State,
    /// What was last carried out with success; it holds while a newer task is tried.
    pub in_force: Option<TaskSpec>,
}

impl Entry {
    pub fn slot(&self) -> Slot {
        self.task.spec.slot()
    }

    /// True when nothing but the task's number would be lost with it.
    pub fn is_spent(&self) -> bool {
        self.in_force.is_none() && matches!(self.state, State::Ended { acked: true, .. })
    }
}

impl TryFrom<v1::OfferTask> for Offer {
    type Error = Invalid;
    fn try_from(offer: v1::OfferTask) -> Result<Self, Invalid> {
        // Passwords go another way: what is here is written to disk.
        let v1::OfferTask {
            id,
            attempt,
            run_limit_ms,
            traceparent,
            revision: _,
            spec,
            password: _,
            replication_password: _,
        } = offer;
        let spec = spec.ok_or_else(|| Invalid::new("spec", "is missing"))?;
        // A trace's name is no reason to refuse work.
        let keep = traceparent.len() <= TRACEPARENT_MAX;
        Ok(Self {
            id: id.parse()?,
            attempt,
            run_limit: Millis(run_limit_ms),
            traceparent: if keep { traceparent } else { String::new() },
            spec: spec.try_into()?,
        })
    }
}

impl From<Offer> for v1::OfferTask {
    fn from(offer: Offer) -> Self {
        let Offer { id, attempt, run_limit, traceparent, spec } = offer;
        Self {
            id: id.to_string(),
            attempt,
            run_limit_ms: run_limit.0,
            traceparent,
            revision: 0,
            spec: Some(spec.into()),
            password: String::new(),
            replication_password: String::new(),
        }
    }
}

impl TryFrom<agent::v1::Entry> for Entry {
    type Error = Invalid;
    fn try_from(entry: agent::v1::Entry) -> Result<Self, Invalid> {
        let stored = entry.state();
        let agent::v1::Entry { task, state: _, outcome, acked, in_force } = entry;
        let task: Offer = task.ok_or_else(|| Invalid::new("task", "is missing"))?.try_into()?;
        let state = match (stored, outcome) {
            (v1::TaskState::Ended, Some(outcome)) => {
                State::Ended { outcome: outcome.try_into()?, acked }
            }
            (v1::TaskState::Ended, None) => return Err(Invalid::new("outcome", "is missing")),
            (live, _) => State::Live(live.try_into()?),
        };
        let in_force: Option<TaskSpec> = in_force.map(TryInto::try_into).transpose()?;
        if in_force.as_ref().is_some_and(|spec| spec.slot() != task.spec.slot()) {
            return Err(Invalid::new("in_force", "is of another slot"));
        }
        Ok(Self { task, state, in_force })
    }
}

impl From<Entry> for agent::v1::Entry {
    fn from(entry: Entry) -> Self {
        let Entry { task, state, in_force } = entry;
        let (state, outcome, acked) = match state {
            State::Live(phase) => (phase.into(), None, false),
            State::Ended { outcome, acked } => (v1::TaskState::Ended, Some(outcome.into()), acked),
        };
        Self {
            task: Some(task.into()),
            state: state.into(),
            outcome,
            acked,
            in_force: in_force.map(Into::into),
        }
    }
}
