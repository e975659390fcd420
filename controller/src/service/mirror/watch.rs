//! A run while it goes on: how its parts stand, and what one of them prints. Looks a few times a
//! second, since what agents say of their progress is in no log.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use lockstep_model::mirror::{HopKind, RunId};
use lockstep_model::{NodeName, Reject, TaskId};
use lockstep_plan::members::copies;
use lockstep_plan::mirrors::standing;
use lockstep_proto::convert::optional;
use lockstep_proto::status::from_reject;
use lockstep_proto::v1;
use lockstep_transport::clock;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Request;

use super::{no_run, show};
use crate::driver::DriverHandle;
use crate::service::{Answers, Api, open};
use crate::session::Tail;

/// How often what is watched is looked at: nobody reads faster than that.
const LOOK: Duration = Duration::from_millis(250);

impl Api {
    pub(super) fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Answers<v1::WatchRunResponse>, Reject> {
        let (_, v1::WatchRunRequest { run, follow }) = open(request)?;
        let id: RunId = run.parse()?;
        let first = look(self.driver(), &id)?;
        let watch =
            Watch { driver: self.driver().clone(), id, ticks: ticks(), last: first.clone() };
        let more = stream::unfold((follow && !first.done).then_some(watch), |watch| async move {
            let mut watch = watch?;
            let now = watch.next().await;
            let goes_on = now.as_ref().is_ok_and(|now| !now.done);
            Some((now.map_err(|reject| from_reject(&reject)), goes_on.then_some(watch)))
        });
        Ok(self.until_the_end(stream::iter([Ok(first)]).chain(more)))
    }

    pub(super) fn tail_run(
        &self,
        request: Request<v1::TailRunRequest>,
    ) -> Result<Answers<v1::TailRunResponse>, Reject> {
        let (_, v1::TailRunRequest { run, node, follow }) = open(request)?;
        let id: RunId = run.parse()?;
        let node: Option<NodeName> = optional("node", &node)?;
        look(self.driver(), &id)?;
        if let Some(node) = &node {
            check_part(self.driver(), &id, node)?;
        }
        let mut reader = Reader {
            driver: self.driver().clone(),
            id,
            node,
            ticks: ticks(),
            last: None,
            is_through: false,
        };
        let tail = match follow {
            true => None,
            false => Some(reader.begin()?.ok_or_else(|| reader.not_begun())?),
        };
        let lines = stream::unfold(Some((reader, tail)), move |state| async move {
            let (mut reader, mut tail) = state?;
            match reader.read(&mut tail, follow).await {
                Ok(lines) => {
                    Some((Ok(v1::TailRunResponse { lines: lines? }), Some((reader, tail))))
                }
                Err(reject) => Some((Err(from_reject(&reject)), None)),
            }
        });
        Ok(self.until_the_end(lines))
    }

    /// Ended by the controller's own end, too.
    fn until_the_end<T>(
        &self,
        answers: impl Stream<Item = Result<T, tonic::Status>> + Send + 'static,
    ) -> Answers<T> {
        answers.take_until(self.0.shutdown.clone().cancelled_owned()).boxed()
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn look(driver: &DriverHandle, id: &RunId) -> Result<v1::WatchRunResponse, Reject> {
    let now = clock::now();
    driver.read(|world| {
        let standing = standing(world, id, now).ok_or_else(|| no_run(id))?;
        Ok(v1::WatchRunResponse {
            parts: standing.parts.into_iter().map(|part| show::run(world, part)).collect(),
            waiting: standing.behind.into_iter().map(ToString::to_string).collect(),
            done: standing.done,
            ok: standing.ok,
        })
    })
}

/// A node has a part in the run, or may get one.
fn check_part(driver: &DriverHandle, id: &RunId, node: &NodeName) -> Result<(), Reject> {
    let is_there = driver.read(|world| {
        let mirror = world.mirrors().get(&id.mirror).map(|mirror| &mirror.value);
        let may = mirror.is_some_and(|mirror| {
            mirror.master == *node || copies(world, mirror).0.iter().any(|c| c.node.name == *node)
        });
        may || world.run_on(id, node).is_some()
    });
    if is_there {
        return Ok(());
    }
    let message =
        format!("node {node} has no part in run {id}: see lockstepctl mirror show {}", id.mirror);
    Err(Reject::not_found(format!("run/{id}/{node}"), message))
}

struct Watch {
    driver: DriverHandle,
    id: RunId,
    ticks: Interval,
    last: v1::WatchRunResponse,
}

impl Watch {
    async fn next(&mut self) -> Result<v1::WatchRunResponse, Reject> {
        loop {
            self.ticks.tick().await;
            let now = look(&self.driver, &self.id)?;
            if now != self.last {
                self.last = now.clone();
                return Ok(now);
            }
        }
    }
}

/// Reads one try after the other.
struct Reader {
    driver: DriverHandle,
    id: RunId,
    /// None: the head, whichever that will be.
    node: Option<NodeName>,
    ticks: Interval,
    /// The try that was read last.
    last: Option<TaskId>,
    /// All is read that there will ever be.
    is_through: bool,
}

/// What there is to read.
enum Next {
    Try(NodeName, TaskId),
    /// It ended before anything was read: what its node keeps of all tries.
    Log(NodeName),
    /// It has not begun, or its node is away.
    Later,
    /// It is over.
    Never,
}

impl Reader {
    /// The next lines, of the next try when one is through; None after the last.
    async fn read(
        &mut self,
        tail: &mut Option<Tail>,
        follow: bool,
    ) -> Result<Option<Vec<String>>, Reject> {
        loop {
            if let Some(open) = tail {
                match open.next().await.transpose()? {
                    None if !follow => return Ok(None),
                    None => {}
                    lines => return Ok(lines),
                }
            }
            *tail = self.wait().await?;
            if tail.is_none() {
                return Ok(None);
            }
        }
    }

    /// The next try's output; None when there will be none.
    async fn wait(&mut self) -> Result<Option<Tail>, Reject> {
        loop {
            self.ticks.tick().await;
            match self.look()? {
                Next::Try(node, id) => {
                    let tail = self.driver.sessions().tail(&node, id, true)?;
                    self.last = Some(id);
                    return Ok(Some(tail));
                }
                Next::Log(node) => {
                    self.is_through = true;
                    return self.driver.sessions().log(&node, self.id.clone()).map(Some);
                }
                Next::Later => {}
                Next::Never => return Ok(None),
            }
        }
    }

    /// What there is by now; None before it begins.
    fn begin(&mut self) -> Result<Option<Tail>, Reject> {
        let Some(Part { node, ended, newest }) = self.part() else { return Ok(None) };
        let sessions = self.driver.sessions();
        match newest.filter(|_| !ended) {
            Some(id) => sessions.tail(&node, id, false).map(Some),
            None if ended => sessions.log(&node, self.id.clone()).map(Some),
            None => Ok(None),
        }
    }

    fn not_begun(&self) -> Reject {
        let message = format!(
            "nothing that run {0} printed is there: it has not begun there; lockstepctl mirror logs \
             {0} -f waits for it",
            self.id
        );
        Reject::not_found(format!("run/{}", self.id), message)
    }

    fn look(&self) -> Result<Next, Reject> {
        if self.is_through {
            return Ok(Next::Never);
        }
        let now = clock::now();
        let part = self.part();
        let done = self.driver.read(|world| {
            standing(world, &self.id, now).map(|s| s.done).ok_or_else(|| no_run(&self.id))
        })?;
        let is_told = |node: &NodeName, id| {
            self.driver.read(|world| {
                let ended = world.task(id).is_some_and(|task| !task.value.is_live());
                ended || world.seen(node).is_some_and(|seen| seen.phase(id).is_some())
            }) && self.driver.sessions().get(node).is_some()
        };
        let is_here = |node: &NodeName| self.driver.sessions().get(node).is_some();
        Ok(match part {
            Some(Part { node, ended: true, .. }) if self.last.is_none() && is_here(&node) => {
                Next::Log(node)
            }
            Some(Part { node, newest: Some(id), .. })
                if self.last != Some(id) && is_told(&node, id) =>
            {
                Next::Try(node, id)
            }
            Some(Part { ended: true, .. }) => Next::Never,
            _ if done => Next::Never,
            _ => Next::Later,
        })
    }

    /// The part that is read, once there may be one.
    fn part(&self) -> Option<Part> {
        self.driver.read(|world| {
            let node = match &self.node {
                Some(node) => Some(node.clone()),
                None => {
                    let parts = || world.run(&self.id).map(|row| &row.value);
                    let head = parts().find(|part| part.hop == HopKind::Upstream);
                    head.or_else(|| parts().next()).map(|head| head.node.clone())
                }
            }?;
            let row = world.run_on(&self.id, &node);
            let ended = row.is_some_and(|row| row.value.end.is_some());
            let newest = show::newest_try(world, &self.id, &node);
            Some(Part { node, ended, newest })
        })
    }
}

/// One node's part of the run that is read.
struct Part {
    node: NodeName,
    ended: bool,
    /// None: it has not begun, or another run's came after it.
    newest: Option<TaskId>,
}
