//! AgentService: the one stream of each agent.

use futures_util::StreamExt;
use lockstep_proto::status::from_reject;
use lockstep_proto::v1;
use lockstep_proto::v1::agent_service_server::AgentService;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};

use super::{Answer, Answers, Api};
use crate::authn::Caller;
use crate::session;

#[tonic::async_trait]
impl AgentService for Api {
    type ConnectStream = Answers<v1::ControllerMessage>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Answer<Self::ConnectStream> {
        let principal = Caller::of(&request).and_then(|caller| caller.principal().cloned());
        let principal = principal.map_err(|reject| from_reject(&reject))?;
        let mut inbound = request.into_inner();
        let who = principal.subject.to_string();
        let opened = session::open(&self.0.sessions, principal, &mut inbound).await;
        let (session, messages) = opened.map_err(|reject| {
            tracing::warn!(target: "audit", who, reason = reject.reason, why = %reject, "refused a stream");
            from_reject(&reject)
        })?;
        self.0.tracker.spawn(session.run(inbound));
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }
}
