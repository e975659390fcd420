//! The board as `grpc.health.v1.Health`. Check of an unknown name is NOT_FOUND, Watch of one says
//! SERVICE_UNKNOWN and goes on, as the protocol has it; the empty name is the readiness of the
//! whole process.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Answer, HealthBoard, READY, Verdict};
use crate::plain_http::InProgress;

/// The most Watch streams at once on one service; more are refused with RESOURCE_EXHAUSTED.
pub const WATCHES_MAX: usize = 256;
/// The longest request, in bytes; a name and a few bytes around it.
const REQUEST_BYTES_MAX: usize = 1024;

/// Serves a board. On the mTLS port: `.add_service(board.grpc_service(shutdown))`.
#[derive(Clone, Debug)]
pub struct HealthService {
    board: HealthBoard,
    watches: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl HealthBoard {
    /// The gRPC service of this board; its Watch streams end when `shutdown` is cancelled.
    pub fn grpc_service(&self, shutdown: CancellationToken) -> HealthServer<HealthService> {
        let watches = Arc::new(Semaphore::new(WATCHES_MAX));
        HealthServer::new(HealthService { board: self.clone(), watches, shutdown })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

type Answers = BTreeMap<String, Answer>;

fn status(answers: &Answers, service: &str) -> ServingStatus {
    let name = if service.is_empty() { READY } else { service };
    match answers.get(name).map(|answer| answer.verdict) {
        Some(Verdict::Serving) => ServingStatus::Serving,
        Some(Verdict::NotServing) => ServingStatus::NotServing,
        None => ServingStatus::ServiceUnknown,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// One Watch: says the status at once and after each change of it.
struct Watch {
    service: String,
    answers: watch::Receiver<Answers>,
    last: Option<ServingStatus>,
    _permit: OwnedSemaphorePermit,
    _in_progress: Option<InProgress>,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        let changed = |answers: &Answers| Some(status(answers, &self.service)) != self.last;
        let now = status(&*self.answers.wait_for(changed).await.ok()?, &self.service);
        self.last = Some(now);
        Some((Ok(response(now)), self))
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match status(&self.board.answers.borrow(), service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found("service is unknown here; ask for a name such as \"ready\""))
            }
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let permit = self.watches.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{WATCHES_MAX} watches are open here; use Check"))
        })?;
        let watch = Watch {
            _permit: permit,
            _in_progress: request.extensions().get().cloned(),
            service: request.into_inner().service,
            answers: self.board.answers.subscribe(),
            last: None,
        };
        let changes = stream::unfold(watch, Watch::next);
        Ok(Response::new(Box::pin(changes.take_until(self.shutdown.clone().cancelled_owned()))))
    }
}
