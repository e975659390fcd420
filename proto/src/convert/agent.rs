//! The first words of an agent's stream, and its sync reports.

use lockstep_model::node::{ADDRESSES_MAX, NodeAddress, NodeReport};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::task::{Outcome, TaskPhase};
use lockstep_model::{Incarnation, Invalid, LifeId, Revision, TaskId};

use super::{parse, parse_each, required};
use crate::v1;

/// Most tasks without an outcome that one agent may hold.
const OPEN_TASKS_MAX: usize = 10_000;

/// No store comes near it: one transaction a microsecond would take 290,000 years. What lies above
/// is a broken or hostile agent, and adopting it would leave no numbers to go on with.
const REVISION_MAX: u64 = u64::MAX / 2;

/// A checked Hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    pub instance: u64,
    pub told: Told,
    pub addresses: Vec<NodeAddress>,
    /// Version and features are in here.
    pub report: NodeReport,
    pub tasks: Vec<(TaskId, TaskPhase)>,
}

impl TryFrom<v1::Hello> for Hello {
    type Error = Invalid;
    fn try_from(hello: v1::Hello) -> Result<Self, Invalid> {
        let v1::Hello {
            version,
            features,
            instance,
            told_incarnation,
            told_revision,
            addresses,
            report,
            tasks,
            told_life,
        } = hello;
        if tasks.len() > OPEN_TASKS_MAX {
            return Err(Invalid::new("tasks", format!("at most {OPEN_TASKS_MAX} fit")));
        }
        if told_revision > REVISION_MAX {
            return Err(Invalid::new("told_revision", format!("must be at most {REVISION_MAX}")));
        }
        // The two top-level fields exist so that a version can be read before anything else is
        // understood; they win over the report's.
        let report = v1::NodeReport { version, features, ..report.unwrap_or_default() };
        Ok(Self {
            instance,
            told: Told {
                incarnation: Incarnation(told_incarnation),
                life: LifeId(told_life),
                revision: Revision(told_revision),
            },
            addresses: parse_each("addresses", ADDRESSES_MAX, &addresses)?,
            report: report.try_into()?,
            tasks: tasks.into_iter().map(task_update).collect::<Result<_, _>>()?,
        })
    }
}

pub fn task_update(update: v1::TaskUpdate) -> Result<(TaskId, TaskPhase), Invalid> {
    let phase = update.state().try_into()?;
    let v1::TaskUpdate { id, state: _ } = update;
    Ok((parse("task.id", &id)?, phase))
}

pub fn task_end(end: v1::TaskEnd) -> Result<(TaskId, Outcome), Invalid> {
    let v1::TaskEnd { id, outcome } = end;
    Ok((parse("task.id", &id)?, required("outcome", outcome)?.try_into()?))
}

pub fn sync_report(report: v1::SyncReport) -> Result<Observation, Invalid> {
    let v1::SyncReport { sync, role } = report;
    Ok(Observation::Sync {
        sync: parse("sync", &sync)?,
        report: role.map(TryInto::try_into).transpose()?,
    })
}
