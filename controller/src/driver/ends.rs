//! Ends of tasks, which come by the hundred: those of one node that wait together are stored in one
//! transaction, since a commit costs the same for one as for many. Each is admitted by itself.

use std::collections::BTreeSet;

use lockstep_model::record::{TXN_WRITES_MAX, Txn};
use lockstep_model::request::Request;
use lockstep_model::{Reject, Revision, TaskId};
use lockstep_plan::admit::{Admitted, admit_once};
use lockstep_transport::clock;
use tokio::sync::oneshot;

use super::handle::{Ask, Done, Event};
use super::{Driver, Fatal};

/// Somebody who waits for an answer.
type Waiter = oneshot::Sender<Result<Done, Reject>>;

/// Those that wait to be stored.
#[derive(Default)]
pub(super) struct Ends(Vec<(TaskId, Ask, Waiter)>);

impl Ends {
    /// What is no end is given back.
    pub fn take(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Request { ask, reply } => match ask.request {
                Request::EndTask { id, .. } => {
                    self.0.push((id, ask, reply));
                    None
                }
                _ => Some(Event::Request { ask, reply }),
            },
            event => Some(event),
        }
    }

    /// Whether they may be stored after this as well as before.
    pub fn may_wait_for(event: &Event) -> bool {
        matches!(event, Event::Observed { .. } | Event::Heard { .. })
    }
}

impl Driver {
    /// True when something was written.
    pub(super) async fn store_ends(&mut self, ends: &mut Ends) -> Result<bool, Fatal> {
        let mut changed = false;
        while let Some((_, first, _)) = ends.0.first() {
            let (actor, cause) = (first.actor.clone(), first.cause);
            let now = clock::now();
            let mut group: Vec<(Waiter, Admitted)> = Vec::new();
            let (mut writes, mut ids, mut later) = (Vec::new(), BTreeSet::new(), Vec::new());
            let base = {
                let state = self.shared.read();
                for (id, ask, reply) in ends.0.drain(..) {
                    let fits = ask.actor == actor && writes.len() < TXN_WRITES_MAX;
                    if !fits || !ids.insert(id) {
                        later.push((id, ask, reply));
                        continue;
                    }
                    let conditions = &ask.conditions;
                    match admit_once(&state.world, &actor, cause, conditions, &ask.request, now) {
                        Ok(admitted) => {
                            writes.extend(admitted.writes.iter().cloned());
                            group.push((reply, admitted));
                        }
                        Err(reject) => self.answers.push((reply, Err(reject))),
                    }
                }
                state.world.revision()
            };
            ends.0 = later;
            let mut stored = Ok(());
            if !writes.is_empty() {
                let cause = cause.to_owned();
                let raise_to = Revision::ZERO;
                let txn = Txn { base, raise_to, at: now, actor: actor.clone(), cause, writes };
                stored = self.commit(txn).await?;
                changed |= stored.is_ok();
            }
            let revision = self.shared.read().world.revision();
            for (reply, admitted) in group {
                let answer = stored.clone().map(|()| {
                    tracing::info!(
                        target: "audit", who = %actor, method = cause, detail = admitted.detail,
                        "carried out a request"
                    );
                    Done::of(!admitted.writes.is_empty(), revision, admitted)
                });
                self.answers.push((reply, answer));
            }
        }
        Ok(changed)
    }
}
