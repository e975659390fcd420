//! The connection to the controller: one channel, every call traced, the user's certificate renewed
//! in passing.

use lockstep_model::identity::Subject;
use lockstep_proto::v1;
use lockstep_proto::v1::cluster_service_client::ClusterServiceClient;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_proto::v1::log_service_client::LogServiceClient;
use lockstep_proto::v1::mirror_service_client::MirrorServiceClient;
use lockstep_proto::v1::node_service_client::NodeServiceClient;
use lockstep_proto::v1::schedule_service_client::ScheduleServiceClient;
use lockstep_proto::v1::status_service_client::StatusServiceClient;
use lockstep_proto::v1::store_service_client::StoreServiceClient;
use lockstep_proto::v1::sync_service_client::SyncServiceClient;
use lockstep_proto::v1::task_service_client::TaskServiceClient;
use lockstep_proto::v1::token_service_client::TokenServiceClient;
use lockstep_proto::v1::user_service_client::UserServiceClient;
use lockstep_transport::clock;
use lockstep_transport::dial;
use lockstep_transport::identity::Identity;
use lockstep_transport::telemetry::inject_traceparent;
use lockstep_transport::tls::Caller;
use lockstep_transport::verify::Expect;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::args::{Change, Format, Global};
use crate::context::{Context, Contexts};
use crate::error::Failure;

/// Longest answer, in bytes. Lists come whole; 100 syncs with 500 targets each are some 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub type Traced = InterceptedService<Channel, Trace>;

/// Puts the current span's traceparent into each call.
#[derive(Clone, Copy)]
pub struct Trace;

impl Interceptor for Trace {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        inject_traceparent(request.metadata_mut());
        Ok(request)
    }
}

/// What every command needs.
pub struct Client {
    channel: Channel,
    context: Context,
    pub format: Format,
}

macro_rules! services {
    ($($name:ident: $client:ident,)*) => {
        $(pub fn $name(&self) -> $client<Traced> {
            $client::with_interceptor(self.channel.clone(), Trace)
                .max_decoding_message_size(ANSWER_BYTES_MAX)
        })*
    };
}

impl Client {
    pub async fn connect(global: &Global) -> Result<Self, Failure> {
        let contexts = Contexts::open(global.config_dir.as_deref())?;
        let context = contexts.load(global.context.as_deref())?;
        let caller =
            Caller::Member { identity: context.identity.clone(), expect: Expect::Controller };
        let channel = dial::connect(&context.controllers, &caller)
            .await
            .map_err(|e| Failure::from(e).within(format_args!("context {}", context.name)))?;
        let client = Self { channel, context, format: global.output };
        client.renew_if_due().await;
        Ok(client)
    }

    services! {
        clusters: ClusterServiceClient,
        enrollment: EnrollmentServiceClient,
        log: LogServiceClient,
        mirrors: MirrorServiceClient,
        nodes: NodeServiceClient,
        schedules: ScheduleServiceClient,
        status: StatusServiceClient,
        store: StoreServiceClient,
        syncs: SyncServiceClient,
        tasks: TaskServiceClient,
        tokens: TokenServiceClient,
        users: UserServiceClient,
    }

    /// A renewal that fails is tried again by the next command; the certificate lasts.
    async fn renew_if_due(&self) {
        let identity = self.context.identity.current();
        let is_user = matches!(identity.spiffe.subject, Subject::User(_));
        if !is_user || clock::now() < identity.renew_at() {
            return;
        }
        if let Err(error) = self.renew(&identity).await {
            tracing::warn!(%error, "the certificate was not renewed; the next command tries again");
        }
    }

    async fn renew(&self, identity: &Identity) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::failed(e.to_string());
        let csr = identity.request().map_err(|e| failed(&e))?;
        let answer = self.enrollment().renew(v1::RenewRequest { csr }).await?.into_inner();
        let roots = answer.trust_bundle.unwrap_or_default().roots;
        let fresh = identity.renewed(answer.chain, roots).map_err(|e| failed(&e))?;
        self.context.renewed(fresh)
    }
}

impl Change {
    /// For the wire. Without an id of the user's, one is made: so a repeat inside the transport is
    /// harmless.
    pub fn mutation(&self) -> Result<Option<v1::Mutation>, Failure> {
        let request_id = match &self.request_id {
            Some(id) => id.clone(),
            None => {
                let random = getrandom::u64().map_err(|e| Failure::failed(e.to_string()))?;
                format!("ctl-{random:016x}")
            }
        };
        Ok(Some(v1::Mutation {
            request_id,
            if_revision: self.if_revision.unwrap_or(0),
            dry_run: self.dry_run,
        }))
    }
}
