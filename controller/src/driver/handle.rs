//! What the rest of the process has of the driver: requests with their answers, agents' words, and
//! the world to read. Nothing here writes.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lockstep_model::cluster::Renewal;
use lockstep_model::identity::Principal;
use lockstep_model::mirror::RunId;
use lockstep_model::observation::{Observation, Told};
use lockstep_model::reason::Reason;
use lockstep_model::record::{Actor, Change};
use lockstep_model::request::Request;
use lockstep_model::{Code, Millis, NodeName, Reject, Revision, TaskId};
use lockstep_plan::World;
use lockstep_plan::admit::{Admitted, Conditions};
use lockstep_plan::leases::NoLease;
use lockstep_proto::convert::agent::Hello;
use lockstep_transport::telemetry::current_traceparent;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::session::{SessionHandle, SessionId, Sessions};
use crate::store::Store;

/// A request with all that the loop needs to decide it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub actor: Actor,
    /// The RPC, `SyncService/CreateSync`.
    pub cause: &'static str,
    pub conditions: Conditions,
    pub request: Request,
    /// Check everything, write nothing.
    pub dry_run: bool,
    pub traceparent: Option<String>,
}

impl Ask {
    /// Without conditions; as a child of the current span.
    pub fn new(actor: Actor, cause: &'static str, request: Request) -> Self {
        Self {
            actor,
            cause,
            conditions: Conditions::default(),
            request,
            dry_run: false,
            traceparent: current_traceparent(),
        }
    }
}

/// A request that was carried out, or would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    pub changed: bool,
    /// Of the store, after it.
    pub revision: Revision,
    pub detail: String,
    pub tasks: Vec<TaskId>,
    pub runs: Vec<RunId>,
    /// The same request id was carried out before.
    pub repeated: bool,
}

impl Done {
    pub(super) fn of(changed: bool, revision: Revision, admitted: Admitted) -> Self {
        let Admitted { writes: _, detail, tasks, runs, raise_to: _, repeated } = admitted;
        Self { changed, revision, detail, tasks, runs, repeated }
    }
}

/// A session that wants to be the node's.
pub struct Attach {
    pub principal: Principal,
    pub node: NodeName,
    pub hello: Hello,
    pub handle: SessionHandle,
    /// The session that it may take the place of.
    pub replaces: Option<SessionId>,
}

/// What a session is to tell its agent first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    pub told: Told,
    /// The store is an old copy: that is not to be kept.
    pub in_doubt: bool,
}

#[allow(clippy::large_enum_variant)] // made once per request; a box would only add an allocation
pub(super) enum Event {
    Request {
        ask: Ask,
        reply: oneshot::Sender<Result<Done, Reject>>,
    },
    Attach {
        attach: Attach,
        reply: oneshot::Sender<Result<Attached, Reject>>,
    },
    Detach {
        node: NodeName,
        session: SessionId,
        why: String,
    },
    Observed {
        node: NodeName,
        session: SessionId,
        observation: Observation,
    },
    /// A sign of life that says nothing else.
    Heard {
        node: NodeName,
    },
    /// Answered when its turn comes.
    Turn(oneshot::Sender<()>),
    Wake,
    Stop,
}

pub(super) struct State {
    pub world: World,
    /// Of the last plan.
    pub reasons: Vec<Reason>,
}

/// What the loop shares with its handles.
pub(super) struct Shared {
    state: RwLock<State>,
    pub sessions: Sessions,
    pub changes: broadcast::Sender<Arc<Change>>,
}

impl Shared {
    pub fn new(state: State, changes: broadcast::Sender<Arc<Change>>) -> Self {
        Self { state: RwLock::new(state), sessions: Sessions::default(), changes }
    }

    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the loop, and for what no record holds.
    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the loop; clones are the same way.
#[derive(Clone)]
pub struct DriverHandle {
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
}

impl DriverHandle {
    pub(super) fn new(
        events: mpsc::Sender<Event>,
        shared: Arc<Shared>,
        store: Arc<dyn Store>,
    ) -> Self {
        Self { events, shared, store }
    }

    /// A person's request. Refused at once when too many wait.
    pub async fn ask(&self, ask: Ask) -> Result<Done, Reject> {
        let (reply, answer) = oneshot::channel();
        self.events.try_send(Event::Request { ask, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                let message = "too many requests wait: try again in a moment";
                Reject::new(Code::ResourceExhausted, "busy", "controller", message)
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answer.await.map_err(|_| stopping())?
    }

    /// An agent's request: it waits for its turn, and so does the agent.
    pub async fn tell(&self, ask: Ask) -> Result<Done, Reject> {
        self.tell_ahead(ask).await?.await
    }

    /// As `tell`, in its place among what is sent, without waiting for the answer.
    pub async fn tell_ahead(
        &self,
        ask: Ask,
    ) -> Result<impl Future<Output = Result<Done, Reject>> + Send + use<>, Reject> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Request { ask, reply }).await?;
        Ok(async { answer.await.map_err(|_| stopping())? })
    }

    pub async fn attach(&self, attach: Attach) -> Result<Attached, Reject> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Attach { attach, reply }).await?;
        answer.await.map_err(|_| stopping())?
    }

    pub async fn detach(&self, node: NodeName, session: SessionId, why: String) {
        // When the loop has ended there is nothing left to be told.
        let _ = self.send(Event::Detach { node, session, why }).await;
    }

    pub async fn observe(
        &self,
        node: &NodeName,
        session: SessionId,
        observation: Observation,
    ) -> Result<(), Reject> {
        self.send(Event::Observed { node: node.clone(), session, observation }).await
    }

    /// A holder asks for its lease anew: answered at once from what is recorded, whatever the loop waits
    /// for. With it, whether it brings something to be planned for. None: the stream is not the node's any
    /// more.
    pub fn renew_lease(
        &self,
        node: &NodeName,
        session: SessionId,
        renewal: &Renewal,
    ) -> Option<(Result<Option<Millis>, NoLease>, bool)> {
        let Renewal { cluster, term, sent_ms: _, away } = renewal;
        let mut state = self.shared.write();
        // Under the lock, so that no tick before it was later.
        let now = super::uptime();
        let is_current = self.shared.sessions.is_current(node, session);
        is_current.then(|| {
            let is_news = state.world.note_away(node, cluster, *away);
            (state.world.renew_lease(node, cluster, *term, now), is_news)
        })
    }

    pub async fn heard(&self, node: &NodeName) -> Result<(), Reject> {
        self.send(Event::Heard { node: node.clone() }).await
    }

    /// Returns when the loop has taken all that was sent before.
    pub async fn turn(&self) -> Result<(), Reject> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Turn(reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Ends the loop after what was sent before.
    pub async fn stop(&self) {
        let _ = self.send(Event::Stop).await;
    }

    async fn send(&self, event: Event) -> Result<(), Reject> {
        self.events.send(event).await.map_err(|_| stopping())
    }

    /// Looks at the world, which is what the store holds. Not to be held for long.
    pub fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.shared.read().world)
    }

    /// The world and the reasons of the last plan.
    pub fn read_reasons<T>(&self, look: impl FnOnce(&World, &[Reason]) -> T) -> T {
        let state = self.shared.read();
        look(&state.world, &state.reasons)
    }

    /// Every change from now on; who is too slow is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.shared.changes.subscribe()
    }

    pub fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// For reading the log and for export. Only the loop commits.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

pub(crate) fn stopping() -> Reject {
    let message = "the controller is stopping: try again, or another controller";
    Reject::new(Code::Unavailable, "stopping", "controller", message)
}
