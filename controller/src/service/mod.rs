//! The RPCs: decode, hand to the driver or look at the world, encode. Nothing is decided here, and
//! the gate has let the caller in before.

mod agent;
mod cluster;
mod enrollment;
mod identity;
mod log;
mod mirror;
mod node;
mod schedule;
mod status;
mod store;
mod sync;
mod task;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use lockstep_model::record::Actor;
use lockstep_model::request::Request as Wish;
use lockstep_model::{Reject, Revision, Timestamp};
use lockstep_plan::admit::Conditions;
use lockstep_proto::status::from_reject;
use lockstep_proto::v1;
use lockstep_transport::telemetry::current_traceparent;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::authn::Caller;
use crate::driver::{Ask, Done, DriverHandle};
use crate::identity::authority::Authority;
use crate::session::SessionConfig;

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// All services; clones share everything.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

struct Parts {
    driver: DriverHandle,
    authority: Arc<Authority>,
    sessions: Arc<SessionConfig>,
    started_at: Timestamp,
    /// Sessions run on, each to its own end.
    tracker: TaskTracker,
    /// Ends streams that would not end by themselves.
    shutdown: CancellationToken,
}

impl Api {
    pub fn new(
        sessions: Arc<SessionConfig>,
        started_at: Timestamp,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (driver, authority) = (sessions.driver.clone(), sessions.authority.clone());
        Self(Arc::new(Parts { driver, authority, sessions, started_at, tracker, shutdown }))
    }

    fn driver(&self) -> &DriverHandle {
        &self.0.driver
    }

    /// A caller's change, under the caller's conditions.
    async fn change(
        &self,
        actor: Actor,
        cause: &'static str,
        mutation: Option<v1::Mutation>,
        request: Wish,
    ) -> Result<Done, Reject> {
        let v1::Mutation { request_id, if_revision, dry_run } = mutation.unwrap_or_default();
        let request_id = (!request_id.is_empty()).then(|| request_id.parse()).transpose()?;
        let if_revision = (if_revision != 0).then_some(Revision(if_revision));
        let conditions = Conditions { request_id, if_revision };
        let traceparent = current_traceparent();
        let ask = Ask { actor, cause, conditions, request, dry_run, traceparent };
        self.driver().ask(ask).await
    }
}

/// The caller and the arguments.
fn open<T>(request: Request<T>) -> Result<(Caller, T), Reject> {
    Ok((Caller::of(&request)?, request.into_inner()))
}

fn answer<T>(result: Result<T, Reject>) -> Answer<T> {
    result.map(Response::new).map_err(|reject| from_reject(&reject))
}

fn result(done: &Done) -> v1::Result {
    let Done { changed, revision, detail, tasks: _, runs: _, repeated: _ } = done;
    v1::Result { changed: *changed, revision: revision.0, detail: detail.clone() }
}
